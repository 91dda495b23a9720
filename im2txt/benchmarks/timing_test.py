# SPDX-License-Identifier: Apache-2.0
"""Tests of timing."""

import functools
import sys

import pytest
import tensorflow as tf

from im2txt.benchmarks import timing


def test_reports_the_time_memory_and_output_of_a_process():
  seconds, memory, written = timing.run_process(
    [sys.executable, '-c', 'x = bytearray(10**8); print("end")']
  )
  assert seconds > 0 and 1e8 < memory < 3e8
  assert written == 'end\n'


def test_functions_take_turns():
  calls = []
  found = timing.alternating_medians(
    {name: functools.partial(calls.append, name) for name in 'ab'}, 3
  )
  assert calls == [*'aabb', *'ab' * 3]
  assert list(found) == ['a', 'b'] and min(found.values()) > 0


def test_the_rate_counts_all_products(monkeypatch):
  sums = []

  def two_seconds(fn, repeats):
    sums.append(float(fn()))
    return 2.0

  monkeypatch.setattr(timing, 'median_seconds', two_seconds)
  monkeypatch.setattr(
    tf.random, 'normal', lambda shape, stddev: tf.fill(shape, stddev)
  )
  # All elements are 1/4; those of the products are 1, 4 and 16.
  rates = [timing.matmul_rate(tf.float32, 1, 16, n) for n in (1, 3)]
  assert rates == [16**3, 3 * 16**3]
  assert sums == [256 * 1, 256 * 16]


def test_tells_why_a_process_failed():
  with pytest.raises(ValueError, match='boom'):
    timing.run_process([sys.executable, '-c', 'raise SystemExit("boom")'])


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
