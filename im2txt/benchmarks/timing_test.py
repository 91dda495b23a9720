# SPDX-License-Identifier: Apache-2.0
"""Tests of timing."""

import functools
import sys

import pytest

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


def test_tells_why_a_process_failed():
  with pytest.raises(ValueError, match='boom'):
    timing.run_process([sys.executable, '-c', 'raise SystemExit("boom")'])


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
