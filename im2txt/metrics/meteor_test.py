# SPDX-License-Identifier: Apache-2.0
"""Tests of meteor."""

import sys

import numpy as np
import pytest

from im2txt.metrics import caption_scores
from im2txt.metrics import meteor


def _row(lengths, modules, chunks, matched):
  return [
    *lengths,
    *(m for module in modules for m in module),
    chunks,
    *matched,
  ]


def test_worked_by_hand():
  none = (0, 0, 0, 0)
  # 3 of 4 content words, all by the word, in one piece of two.
  row = _row((4, 4, 0, 0), [(3, 3, 0, 0), none, none, none], 2, (3, 3))
  assert meteor.scores([row]) == pytest.approx(
    [3 / 4 * (1 - 0.6 * (2 / 3) ** 0.2)]
  )
  # Nothing said.
  assert meteor.scores([_row((0, 4, 0, 0), [none] * 4, 0, (0, 0))]) == [0]
  with pytest.raises(ValueError, match='23'):
    meteor.scores([[1, 2]])


@pytest.mark.skipif(
  'meteor' in caption_scores.unavailable(), reason='METEOR cannot be computed'
)
def test_scores_are_those_of_the_program():
  references = {
    1: ['a man is riding a horse on the beach', 'the man rides'],
    2: ['two dogs are running fast'],
    3: ['a cat sits'],
    4: ['a b'],
    5: ['a large house beside the quick river'],
  }
  candidates = {
    1: ['a man rides a horse'],
    2: ['two dogs run'],
    3: ['a cat sits'],
    4: [''],
    5: ['the big home next to the fast river is large'],
  }
  score, values, rows = meteor.measure(references, candidates)
  assert meteor.scores(rows) == pytest.approx(values, rel=1e-12)
  assert meteor.scores([rows.sum(axis=0)]) == pytest.approx([score], rel=1e-12)
  assert np.ptp(values) > 0.5


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
