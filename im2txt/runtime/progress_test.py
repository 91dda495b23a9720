# SPDX-License-Identifier: Apache-2.0
"""Tests of progress."""

import io
import sys

import pytest

from im2txt.runtime import progress


def test_a_log_gets_a_line_every_ten_seconds(monkeypatch):
  now = 100.0
  monkeypatch.setattr(progress.time, 'monotonic', lambda: now)
  monkeypatch.setattr(sys, 'stderr', io.StringIO())
  with progress.Progress('Reading', 60, 'files') as bar:
    for _ in range(30):
      now += 1.0
      bar.update(2)
  lines = sys.stderr.getvalue().splitlines()
  assert [line.split('[')[0] for line in lines] == [
    'Reading:  33% 20/60 ',
    'Reading:  67% 40/60 ',
    'Reading: 100% 60/60 ',
  ]
  assert '00:10<00:20' in lines[0] and '2.00 files/s' in lines[0]


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
