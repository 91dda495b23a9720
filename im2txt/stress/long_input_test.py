# SPDX-License-Identifier: Apache-2.0
"""Tests of long_input: its data, and what it makes of samples.

The run itself takes a quarter of an hour, see docs/benchmarks.md.
"""

import os
import sys

import pytest
import tensorflow as tf

from im2txt.data import shards
from im2txt.stress import long_input
from im2txt.visualization import memory


class _Program:
  """Stands for `train`, seen from this process: a step per look."""

  def __init__(self, steps):
    self.pid = os.getpid()
    self._steps = steps
    self._step = 0

  def is_running(self):
    self._step += 1
    return self._step <= self._steps

  def text(self):
    return ''.join(
      f'trainer.py] global step {i}: loss\n' for i in range(1, self._step + 1)
    )


def _samples(grown):
  """Returns samples of a run that reads 1 GB and grows by so many bytes."""
  return [
    memory.Sample(i, 5 * 10**8 + grown * i // 100, 10**6, i * 10**7)
    for i in range(1, 101)
  ]


def test_an_image_is_as_large_as_asked_and_decodes(tmp_path):
  for size in (0, 20_000, 150_000):
    data = long_input.padded_jpeg(1, size)
    assert len(data) == pytest.approx(size, abs=10) or size == 0
    assert tf.io.decode_jpeg(data).shape == [40, 60, 3]
  paths = long_input.write_shards(str(tmp_path), 3, 20_000)
  assert [os.path.basename(p) for p in paths] == ['train-00000-of-00001']
  records = list(shards.read(paths[0]))
  assert [record.image_id for record in records] == [1, 2, 3]
  assert len({record.data for record in records}) == 3


def test_memory_is_noted_and_limited(monkeypatch):
  limits = []
  monkeypatch.setattr(
    long_input.resource, 'prlimit', lambda *args: limits.append(args)
  )
  samples = list(long_input.watch(_Program(30), 30, 7, 10**9, 0))
  assert [s.step for s in samples] == list(range(1, 31))
  assert samples[-1].read == 210
  assert samples[-1].private > 10**7
  ((pid, kind, (limit, hard)),) = limits
  assert (pid, kind) == (os.getpid(), long_input.resource.RLIMIT_DATA)
  assert limit == hard > 10**9


@pytest.mark.parametrize(
  'grown, flat', [(0, True), (10**7, True), (10**8, False)]
)
def test_growth_is_told(grown, flat):
  table, is_flat = long_input.report({'shards': _samples(grown)})
  assert is_flat == flat
  row = table.splitlines()[-1]
  assert row.startswith('| shards | 100 | 1.0 GB | ')
  assert row.endswith(f'| {grown / 1e6:.1f} MB |')


def test_too_few_samples_are_told():
  with pytest.raises(ValueError, match='give more --steps'):
    long_input.growth_of(_samples(0)[:1])


def test_memory_is_drawn(tmp_path):
  figure = memory.draw({'a': _samples(0), 'b': _samples(10**8)})
  figure.savefig(tmp_path / 'memory.png')
  left, right = figure.axes
  assert (left.get_title(), right.get_title()) == ('a', 'b')
  lines = {line.get_label(): line for line in right.get_lines()}
  assert lines['stream read'].get_ydata()[-1] == 1000
  assert lines['own memory'].get_ydata()[-1] == 600


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
