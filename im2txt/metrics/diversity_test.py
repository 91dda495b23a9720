# SPDX-License-Identifier: Apache-2.0
"""Tests of diversity."""

import sys

import pytest

from im2txt.metrics import diversity


def test_diversity():
  assert diversity.diversity(['a man', 'a dog runs', 'a man', '']) == {
      'distinct_captions': 3, 'vocabulary_used': 4, 'mean_length': 7 / 4}
  assert diversity.diversity([]) == {
      'distinct_captions': 0, 'vocabulary_used': 0, 'mean_length': 0}


def test_share_in_training():
  training = {'a man', 'a dog runs'}
  assert diversity.share_in_training(
      ['a man', 'a man', 'a dog', 'a man runs'], training) == 0.5
  assert diversity.share_in_training([], training) == 0


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
