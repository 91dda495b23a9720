# SPDX-License-Identifier: Apache-2.0
"""Tests of cider."""

import math
import sys

import pytest

from im2txt.metrics import cider
from im2txt.metrics import ngrams


def _scores(candidates, references):
  return cider.scores(*ngrams.pair(candidates, references)).tolist()


def test_worked_by_hand():
  # All unigrams weigh the same; one of two is right.
  assert _scores(['a b', 'x'], [['a c'], ['p q']]) == pytest.approx(
    [10 / 4 * 1 / 2, 0]
  )
  # A word that all images have weighs nothing.
  assert _scores(['a', 'a'], [['a'], ['a']]) == [0, 0]
  # Two bigrams more cost exp(-4 / 72).
  assert _scores(['a b', 'x'], [['a b c d'], ['p q']])[0] == pytest.approx(
    10 / 4 * math.exp(-4 / 72) * (2 / math.sqrt(2 * 4) + 1 / math.sqrt(1 * 3))
  )


def test_mean_of_references():
  (whole,) = _scores(['a b', 'x'], [['a b'], ['p']])[:1]
  assert _scores(['a b', 'x'], [['a b', 'c d'], ['p']])[0] == pytest.approx(
    whole / 2
  )


def test_one_image_and_no_words():
  assert _scores(['a b'], [['a b']]) == [0]
  assert _scores(['', 'a'], [['a'], ['']]) == [0, 0]


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
