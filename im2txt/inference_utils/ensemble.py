# SPDX-License-Identifier: Apache-2.0
"""An ensemble: several models that write one caption together."""

from collections.abc import Sequence
import math

import tensorflow as tf

from im2txt import show_and_tell_model
from im2txt.ops import folded_inception


class Ensemble:
  """Models whose probabilities are averaged word by word.

  It replaces a `ShowAndTellModel` in searching and scoring captions. Its
  features are the concatenated features of its encoders, and its state is the
  concatenated states of its members.

  Args:
    models: models of one vocabulary.
    encoders: for each model, the number of the encoder, from 0, whose features
      it takes. Models with equal encoders share one.

  Attributes:
    config: of the first model. It has the defaults of the search.
    feature_size: size of the features.
    state_size: size of the state.
    members: each model, and its columns of the features.

  Raises:
    ValueError: the models have vocabularies of different sizes.
  """

  def __init__(
    self,
    models: Sequence[show_and_tell_model.ShowAndTellModel],
    encoders: Sequence[int],
  ) -> None:
    self.config = models[0].config
    if len({model.config.vocab_size for model in models}) > 1:
      raise ValueError('the models of an ensemble must have one vocabulary')
    size = folded_inception.FEATURE_SIZE
    self.feature_size = size * (max(encoders) + 1)
    self.members = [
      (model, slice(encoder * size, (encoder + 1) * size))
      for model, encoder in zip(models, encoders)
    ]
    self._state_sizes = [model.state_size for model in models]
    self.state_size = sum(self._state_sizes)

  def initial_state(
    self, features: tf.Tensor, dtype: tf.DType = tf.float64
  ) -> tf.Tensor:
    """Feeds the image to all models.

    Args:
      features: float32 [batch, feature_size].
      dtype: see `ShowAndTellModel.initial_state`.

    Returns:
      float32 [batch, state_size].
    """
    return tf.concat(
      [
        model.initial_state(features[:, columns], dtype)
        for model, columns in self.members
      ],
      axis=1,
    )

  def inference_step(
    self, words: tf.Tensor, state: tf.Tensor
  ) -> tuple[tf.Tensor, tf.Tensor]:
    """Feeds one word of each caption to all models.

    Args:
      words: int64 [batch], ids below vocab_size.
      state: float32 [batch, state_size].

    Returns:
      (float32 [batch, vocab_size], the mean of the probabilities; the new
      state, like `state`).
    """
    softmax, states = zip(
      *(
        model.inference_step(words, of_model)
        for (model, _), of_model in zip(
          self.members, tf.split(state, self._state_sizes, axis=1)
        )
      )
    )
    return tf.add_n(softmax) / len(softmax), tf.concat(states, axis=1)

  def cross_entropies(
    self,
    features: tf.Tensor,
    input_seqs: tf.Tensor,
    target_seqs: tf.Tensor,
    input_mask: tf.Tensor,
  ) -> tf.Tensor:
    """Scores captions word by word; see `ShowAndTellModel.cross_entropies`.

    Args:
      features: float32 [batch, feature_size].
      input_seqs: int [batch, time].
      target_seqs: int [batch, time].
      input_mask: int [batch, time].

    Returns:
      float32 [words], the negative logarithm of the mean of the probabilities.
    """
    return -mean_of_logarithms(
      [
        -model.cross_entropies(
          features[:, columns], input_seqs, target_seqs, input_mask
        )
        for model, columns in self.members
      ]
    )


def mean_of_logarithms(log_probabilities: Sequence[tf.Tensor]) -> tf.Tensor:
  """Returns the logarithm of the mean of probabilities.

  Args:
    log_probabilities: float32 tensors of one shape.
  """
  if len(log_probabilities) == 1:
    return log_probabilities[0]
  return tf.reduce_logsumexp(tf.stack(log_probabilities), axis=0) - math.log(
    len(log_probabilities)
  )


# What captions are searched and scored with.
Model = show_and_tell_model.ShowAndTellModel | Ensemble
