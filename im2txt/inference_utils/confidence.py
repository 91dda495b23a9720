# SPDX-License-Identifier: Apache-2.0
"""The confidence in a caption: how probable it is that it would score well.

The probability of a caption says little of that. It falls with every word, and
some captions are probable for any image. So the confidence is a logistic
function of two numbers per word, both free of the caption's length:

  log probability  of the caption, given the image
  gain             the log probability, less that given the mean image: what
                   this image adds

`fit_confidence` fits it for a checkpoint; see `checkpoints.confidence_stamp`.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from im2txt.checkpoints import confidence_stamp
from im2txt.inference_utils import ensemble


class Scorer:
  """Computes what the confidence is a function of.

  Args:
    model: wrote the captions.
    mean_features: float32 [feature_size of the model].

  Raises:
    ValueError: the features have another size.
  """

  def __init__(
    self, model: ensemble.Model, mean_features: Sequence[float] | np.ndarray
  ) -> None:
    if len(mean_features) != model.feature_size:
      raise ValueError(
        f'{confidence_stamp.FILE_NAME} has mean_features of '
        f'{len(mean_features)} numbers, and the model {model.feature_size}: run '
        'fit_confidence again'
      )
    self._model = model
    self._mean = np.asarray(mean_features, np.float32)
    self._numbers = tf.function(
      self.in_graph,
      autograph=False,
      input_signature=[
        tf.TensorSpec([None, None], tf.int32),
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([None], tf.float64),
      ],
    )

  def __call__(
    self,
    captions: Sequence[Sequence[int]],
    log_probabilities: Sequence[float] | np.ndarray,
  ) -> np.ndarray:
    """Returns (log probability, gain) per word, float64 [captions, 2].

    Args:
      captions: word ids, <S> first.
      log_probabilities: of the captions, given their images.
    """
    lengths = [len(caption) for caption in captions]
    sentences = np.zeros([len(captions), max(lengths, default=1)], np.int32)
    for row, caption in zip(sentences, captions):
      row[: len(caption)] = caption
    return self._numbers(sentences, lengths, log_probabilities).numpy()

  def in_graph(
    self, sentences: tf.Tensor, lengths: tf.Tensor, log_probabilities: tf.Tensor
  ) -> tf.Tensor:
    """Like the call, to be traced.

    Args:
      sentences: int32 [captions, time], padded at the end.
      lengths: int32 [captions], words with <S>.
      log_probabilities: float64 [captions].
    """
    words = tf.maximum(lengths - 1, 0)
    count = tf.shape(sentences)[0]
    mask = tf.sequence_mask(words, tf.shape(sentences)[1] - 1, tf.int32)
    entropies = self._model.cross_entropies(
      tf.tile(self._mean[np.newaxis], [count, 1]),
      sentences[:, :-1],
      sentences[:, 1:],
      mask,
    )
    prior = -tf.math.unsorted_segment_sum(
      tf.cast(entropies, tf.float64), tf.where(mask > 0)[:, 0], count
    )
    numbers = tf.stack([log_probabilities, log_probabilities - prior], axis=1)
    return numbers / tf.cast(tf.maximum(words, 1), tf.float64)[:, tf.newaxis]
