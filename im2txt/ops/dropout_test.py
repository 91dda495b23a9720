# SPDX-License-Identifier: Apache-2.0
"""Tests of dropout."""

import functools
import sys

import numpy as np
import pytest
import tensorflow as tf

from im2txt.ops import dropout

_ONES = tf.ones([400, 300])


def test_drops_its_share_and_scales_the_rest():
  for seed in None, tf.constant([1, 2], tf.int64):
    found = dropout.dropout(_ONES, 0.3, seed, dropout.LSTM_INPUT).numpy()
    np.testing.assert_allclose(np.unique(found), [0, 1 / 0.7], rtol=1e-6)
    assert abs((found == 0).mean() - 0.3) < 0.01


def test_is_a_function_of_seed_and_place():
  @functools.partial(tf.function, autograph=False)
  def drop(seed, place):
    return dropout.dropout(_ONES, 0.5, seed, place)

  seeds = [tf.constant(seed, tf.int64) for seed in ([1, 2], [1, 3], [2, 2])]
  found = [
    drop(seed, place).numpy()
    for seed in seeds
    for place in (dropout.LSTM_INPUT, dropout.LSTM_OUTPUT)
  ]
  for i, one in enumerate(found):
    for other in found[:i]:
      assert 0.4 < (one != other).mean() < 0.6
  np.testing.assert_array_equal(
    dropout.dropout(_ONES, 0.5, seeds[0], dropout.LSTM_INPUT), found[0]
  )


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
