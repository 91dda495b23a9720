# SPDX-License-Identifier: Apache-2.0
"""Tests of new_words."""

import sys

import numpy as np
import pytest

from im2txt.ops import new_words

_UNKNOWN = 4


def _softmax(h, weights, biases):
  exp = np.exp(h @ weights + biases)
  return exp / exp.sum(axis=1, keepdims=True)


@pytest.fixture(name='rows')
def fixture_rows():
  """A word embedding and softmax of 6 ids, of which 5 are words."""
  rng = np.random.default_rng(1)
  return [
    rng.normal(size=shape).astype(np.float32) for shape in ([6, 3], [4, 6], [6])
  ]


@pytest.mark.parametrize('words', [range(6, 9), range(6, 7)])
def test_new_words_share_what_the_unknown_one_had(rows, words):
  h = np.random.default_rng(2).normal(size=(50, 4))
  before = _softmax(h, *rows[1:])
  embedding_map, *softmax = new_words.add(*rows, _UNKNOWN, words)
  after = _softmax(h, *softmax)
  assert embedding_map.shape == (words.stop, 3)
  assert after.shape == (50, words.stop)
  others = [0, 1, 2, 3, 5]
  np.testing.assert_allclose(after[:, others], before[:, others], rtol=1e-5)
  np.testing.assert_allclose(
    after[:, _UNKNOWN], before[:, _UNKNOWN] / 2, rtol=1e-5
  )
  for word in words:
    np.testing.assert_allclose(
      after[:, word], before[:, _UNKNOWN] / 2 / len(words), rtol=1e-5
    )
    np.testing.assert_array_equal(embedding_map[word], rows[0][_UNKNOWN])
  np.testing.assert_array_equal(embedding_map[:6], rows[0])
  assert {array.dtype for array in (embedding_map, *softmax)} == {
    np.dtype('float32')
  }


def test_rows_of_no_word_are_taken_first(rows):
  given = [array.copy() for array in rows]
  embedding_map, weights, biases = new_words.add(*rows, _UNKNOWN, range(5, 6))
  assert (embedding_map.shape, weights.shape, biases.shape) == (
    (6, 3),
    (4, 6),
    (6,),
  )
  np.testing.assert_array_equal(embedding_map[5], rows[0][_UNKNOWN])
  np.testing.assert_array_equal(weights[:, 5], rows[1][:, _UNKNOWN])
  # Half for either.
  assert (
    biases[5]
    == biases[_UNKNOWN]
    == pytest.approx(rows[2][_UNKNOWN] + np.log(0.5))
  )
  for array, before in zip(rows, given):  # The arguments are left alone.
    np.testing.assert_array_equal(array, before)


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
