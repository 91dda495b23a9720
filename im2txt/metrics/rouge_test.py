# SPDX-License-Identifier: Apache-2.0
"""Tests of rouge."""

import sys

import pytest

from im2txt.metrics import rouge


@pytest.mark.parametrize(
  'candidate, references, precision, recall',
  [
    ('a b c', ['a b c'], 1, 1),
    ('a c', ['a b c'], 1, 2 / 3),
    ('c b a', ['a b c'], 1 / 3, 1 / 3),
    # Of two references the best of each.
    ('a b x y', ['a', 'a b z z z'], 1 / 2, 1),
    ('a a a', ['b a c a'], 2 / 3, 1 / 2),
    ('', ['a'], 0, 0),
    ('a', [''], 0, 0),
    ('', [''], 1, 1),
  ],
)
def test_worked_by_hand(candidate, references, precision, recall):
  expected = 0
  if precision:
    expected = 2.44 * precision * recall / (recall + 1.44 * precision)
  assert rouge.scores([candidate], [references]) == pytest.approx(expected)


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
