# SPDX-License-Identifier: Apache-2.0
"""Dropout that a seed determines, so that training can go on exactly."""

import tensorflow as tf

# The places of the network that drop something, each with its own numbers.
LSTM_INPUT, LSTM_OUTPUT, FEATURES = range(3)


def dropout(x, rate, seed, place):
  """Sets a share of the values to zero, and scales the others up.

  Args:
    x: float tensor.
    rate: float in [0, 1), the share.
    seed: int [2], of the step; None: other values each time.
    place: one of the places above.

  Returns:
    A tensor as `x`.
  """
  if seed is None:
    return tf.nn.dropout(x, rate)
  # Philox on every device, so that the numbers are the same on each.
  return tf.nn.experimental.stateless_dropout(
    x,
    rate,
    tf.random.experimental.stateless_fold_in(seed, place, alg='philox'),
    rng_alg='philox',
  )
