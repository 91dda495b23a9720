# SPDX-License-Identifier: Apache-2.0
"""Several models that write one caption together."""

import math

import tensorflow as tf

from im2txt.ops import folded_inception


class Ensemble:
  """Models whose probabilities are averaged word by word.

  It takes the place of a `ShowAndTellModel` where captions are searched or
  scored. Its features are those of its encoders side by side, and its state
  those of its members.

  Args:
    models: list of `ShowAndTellModel`s of one vocabulary.
    encoders: list of int, the number of the encoder, from 0, whose features
      each model takes. Models whose encoders are equal share one.

  Attributes:
    config: the `configuration.ModelConfig` of the first model, which says how
      captions are searched unless one is told.
    feature_size: columns of the features, an int.
    state_size: columns of the state, an int.
    members: list of (`ShowAndTellModel`, slice of its columns of features).

  Raises:
    ValueError: the models have vocabularies of different sizes.
  """

  def __init__(self, models, encoders):
    self.config = models[0].config
    if len({model.config.vocab_size for model in models}) > 1:
      raise ValueError('the models of an ensemble should have one vocabulary')
    size = folded_inception.FEATURE_SIZE
    self.feature_size = size * (max(encoders) + 1)
    self.members = [
      (model, slice(encoder * size, (encoder + 1) * size))
      for model, encoder in zip(models, encoders)
    ]
    self._state_sizes = [model.state_size for model in models]
    self.state_size = sum(self._state_sizes)

  def initial_state(self, features):
    """Feeds the image to all models.

    Args:
      features: float32 [batch, feature_size].

    Returns:
      float32 [batch, state_size].
    """
    return tf.concat(
      [
        model.initial_state(features[:, columns])
        for model, columns in self.members
      ],
      axis=1,
    )

  def inference_step(self, words, state):
    """Feeds one word of each caption to all models.

    Args:
      words: int64 [batch], ids below vocab_size.
      state: float32 [batch, state_size].

    Returns:
      (float32 [batch, vocab_size], the mean of the models' probabilities; new
      state as `state`).
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

  def cross_entropies(self, features, input_seqs, target_seqs, input_mask):
    """Scores captions word by word; see `ShowAndTellModel.cross_entropies`.

    Args:
      features: float32 [batch, feature_size].
      input_seqs: int [batch, time].
      target_seqs: int [batch, time].
      input_mask: int [batch, time].

    Returns:
      float32 [words], minus the logarithm of the mean of the probabilities.
    """
    return -mean_of_logarithms(
      [
        -model.cross_entropies(
          features[:, columns], input_seqs, target_seqs, input_mask
        )
        for model, columns in self.members
      ]
    )


def mean_of_logarithms(log_probabilities):
  """Returns the logarithm of the mean of probabilities.

  Args:
    log_probabilities: list of float32 tensors of one shape, the logarithms of
      the probabilities.
  """
  if len(log_probabilities) == 1:
    return log_probabilities[0]
  return tf.reduce_logsumexp(tf.stack(log_probabilities), axis=0) - math.log(
    len(log_probabilities)
  )
