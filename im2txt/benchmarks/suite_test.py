# SPDX-License-Identifier: Apache-2.0
"""Tests of suite."""

import sys

import pytest

from im2txt.benchmarks import suite


def test_measures_preparing(tmp_path, monkeypatch):
  # Of so few images the difference of times may be negative.
  monkeypatch.setattr(
    suite.statistics, 'median', lambda values: next(iter(values))
  )
  benchmark = suite.Benchmark(str(tmp_path), 1, 32, num_prepared=80)
  benchmark.preparing()
  for name in (
    'reading and decoding JPEGs',
    'preparing pairs, 5 captions per image',
    'preparing compact, 5 captions per image',
  ):
    assert benchmark.results[name]['unit'] == 'images/s', benchmark.results


def test_measures_saving(tmp_path):
  benchmark = suite.Benchmark(str(tmp_path), 1, 32)
  benchmark.saving()
  assert benchmark.results['saving a checkpoint']['share'] > 0


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
