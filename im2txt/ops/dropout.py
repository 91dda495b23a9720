# SPDX-License-Identifier: Apache-2.0
"""Dropout determined by a seed, so that training can resume exactly."""

import tensorflow as tf

# Where the network uses dropout. Each place has its own random numbers.
LSTM_INPUT, LSTM_OUTPUT, FEATURES = range(3)


def dropout(
  x: tf.Tensor, rate: float, seed: tf.Tensor | None, place: int
) -> tf.Tensor:
  """Sets a share of the values to zero, and scales the others up.

  Args:
    x: float tensor.
    rate: the share, in [0, 1).
    seed: int [2], of the step; None for a new seed on each call.
    place: one of the places above.

  Returns:
    A tensor like `x`.
  """
  if seed is None:
    return tf.nn.dropout(x, rate)
  # Philox gives the same numbers on every device.
  return tf.nn.experimental.stateless_dropout(
    x,
    rate,
    tf.random.experimental.stateless_fold_in(seed, place, alg='philox'),
    rng_alg='philox',
  )
