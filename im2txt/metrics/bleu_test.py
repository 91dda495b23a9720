# SPDX-License-Identifier: Apache-2.0
"""Tests of bleu."""

import math
import sys

import pytest

from im2txt.metrics import bleu
from im2txt.metrics import ngrams


def test_statistics_worked_by_hand():
  rows = bleu.statistics(
    *ngrams.pair(
      ['a a a dog', 'x', '', 'a b c d e'],
      # Of the lengths 3 and 5 the shorter is taken.
      [
        ['a a cat', 'a b dog runs far'],
        ['x y'],
        ['x'],
        ['a b c d e f g', 'b c d', 'd e'],
      ],
    )
  )
  assert rows.tolist() == [
    [4, 3, 4, 3, 2, 1, 3, 1, 0, 0],
    [1, 2, 1, 0, 0, 0, 1, 0, 0, 0],
    [0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
    [5, 3, 5, 4, 3, 2, 5, 4, 3, 2],
  ]


def test_scores_worked_by_hand():
  scores = bleu.scores(
    [[4, 3, 4, 3, 2, 1, 3, 1, 1, 1], [8, 10, 8, 6, 4, 2, 8, 6, 4, 2]]
  )
  assert scores[0] == pytest.approx(
    [3 / 4, (1 / 4) ** 0.5, (1 / 8) ** (1 / 3), (1 / 8) ** 0.25]
  )
  assert scores[1] == pytest.approx([math.exp(1 - 10 / 8)] * 4)


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
