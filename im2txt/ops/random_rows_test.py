# SPDX-License-Identifier: Apache-2.0
"""Tests of random_rows."""

import sys

import numpy as np
import pytest
import tensorflow as tf

from im2txt.ops import random_rows

_SEED = tf.constant([5, 9], tf.int64)


def _uniform(rows, size=30, place=1, seed=_SEED):
  return random_rows.uniform(
    seed, place, tf.constant(rows, tf.int64), size
  ).numpy()


def test_a_row_has_its_numbers_in_whatever_rows_it_is_drawn():
  everything = _uniform(range(400))
  for rows in [3, 7, 5], [399, 0], [17], range(100, 300):
    np.testing.assert_array_equal(_uniform(rows), everything[rows])
  # They are those of a common generator, where that has all the numbers too.
  np.testing.assert_array_equal(
    _uniform(range(50), size=8),
    tf.random.stateless_uniform(
      [50, 8],
      tf.random.experimental.stateless_fold_in(_SEED, 1, alg='philox'),
      alg='philox',
    ),
  )


def test_rows_places_and_seeds_have_different_numbers():
  found = [
    _uniform(range(1000), size=1),
    _uniform(range(1000, 2000), size=1),
    _uniform(range(1000), size=1, place=2),
    _uniform(range(1000), size=1, seed=tf.constant([5, 10], tf.int64)),
  ]
  assert len(np.unique(found)) > 3990
  for numbers in found:
    assert numbers.min() >= 0 and numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 0.05


def test_classes_are_drawn_by_their_probabilities():
  weights = np.array([[1, 0, 3, 4], [0, 5, 0, 0]], np.float32)
  numbers = np.array([0.0, 0.124, 0.126, 0.499, 0.501, 0.9999999], np.float32)
  for row, expected in zip(weights, ([0, 0, 2, 2, 3, 3], [1] * 6)):
    found = random_rows.categorical(np.tile(row, [6, 1]), tf.constant(numbers))
    assert found.dtype == tf.int64
    assert found.numpy().tolist() == expected


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
