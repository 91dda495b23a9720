# SPDX-License-Identifier: Apache-2.0
"""Dropout determined by a seed, so that training can resume exactly."""

import tensorflow as tf

from im2txt.ops import random_rows

# Where the network uses dropout. Each place has its own random numbers.
LSTM_INPUT, LSTM_OUTPUT, FEATURES = range(3)


def dropout(
  x: tf.Tensor,
  rate: float,
  seed: tf.Tensor | None,
  place: int,
  rows: tf.Tensor | None = None,
) -> tf.Tensor:
  """Sets a share of the values to zero, and scales the others up.

  Args:
    x: float [n, size].
    rate: the share, in [0, 1).
    seed: int [2], of the step; None for a new seed on each call.
    place: one of the places above.
    rows: int64 [n], see `random_rows.uniform`; None: from 0 on.

  Returns:
    A tensor like `x`.
  """
  if seed is None:
    return tf.nn.dropout(x, rate)
  if rows is None:
    rows = tf.range(tf.shape(x, tf.int64)[0])
  kept = random_rows.uniform(seed, place, rows, x.shape[1]) >= rate
  return tf.where(kept, x / (1 - rate), tf.zeros_like(x))
