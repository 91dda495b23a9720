# SPDX-License-Identifier: Apache-2.0
"""Tests of ranking."""

import sys

import numpy as np
import pytest

from im2txt.metrics import ranking


def test_worked_by_hand():
  # Captions 0, 1 are of image 0; 2 of image 1; 3, 4, 5 of image 2.
  scores = [[5, 1, 4, 6, 0, 2], [7, 2, 1, 0, 3, 4], [1, 9, 0, 8, 2, 9]]
  # Images: 5 behind 6: rank 2; 1 behind 7, 2, 3, 4: rank 5; 9 as good as
  # another's: rank 2. Captions: 2, 3, 2, 1, 2, 1.
  assert ranking.ranking(scores, [0, 0, 1, 2, 2, 2]) == {
    'image_to_caption_recall_1': 0.0,
    'image_to_caption_recall_5': 1.0,
    'image_to_caption_recall_10': 1.0,
    'image_to_caption_median_rank': 2.0,
    'caption_to_image_recall_1': pytest.approx(2 / 6),
    'caption_to_image_recall_5': 1.0,
    'caption_to_image_recall_10': 1.0,
    'caption_to_image_median_rank': 2.0,
  }


def test_recall_5_and_10():
  # Image i's own caption is behind i others.
  count = 12
  scores = np.zeros([count, count])
  for i in range(count):
    scores[i, :i] = 2
    scores[i, i] = 1
  result = ranking.ranking(scores, range(count))
  assert result['image_to_caption_recall_1'] == pytest.approx(1 / 12)
  assert result['image_to_caption_recall_5'] == pytest.approx(5 / 12)
  assert result['image_to_caption_recall_10'] == pytest.approx(10 / 12)
  assert result['image_to_caption_median_rank'] == 6.5


def test_perfect_and_blind_scores():
  owner = np.arange(20) // 2
  perfect = (owner == np.arange(10)[:, np.newaxis]).astype(float)
  result = ranking.ranking(perfect, owner)
  assert result['image_to_caption_recall_1'] == 1
  assert result['caption_to_image_recall_1'] == 1
  blind = ranking.ranking(np.full([10, 20], -np.inf), owner)
  assert blind['image_to_caption_recall_10'] == 0
  assert blind['image_to_caption_median_rank'] == 19
  assert blind['caption_to_image_median_rank'] == 10


@pytest.mark.parametrize(
  'scores, owner, part',
  [
    (np.zeros([2, 3]), [0, 1], 'do not fit image_of_caption'),
    (np.zeros([2]), [0, 1], 'do not fit image_of_caption'),
    (np.zeros([2, 2]), [0, 2], 'every image must have a caption'),
    (np.zeros([2, 2]), [1, 1], 'every image must have a caption'),
    ([[0, np.nan], [0, 0]], [0, 1], 'not a number'),
  ],
)
def test_refusals(scores, owner, part):
  with pytest.raises(ValueError, match=part):
    ranking.ranking(scores, owner)


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
