# SPDX-License-Identifier: Apache-2.0
"""Tests of power_cut, and by it of what saves checkpoints."""

import os
import sys

import numpy as np
import pytest

from im2txt import checkpoints
from im2txt import testing
from im2txt.runtime import files
from im2txt.stress import disk as disks
from im2txt.stress import power_cut


def _cut_savers(path, rounds, **kwargs):
  try:
    power_cut.cut_savers(str(path), rounds, **kwargs)
  except disks.UnavailableError as error:
    pytest.skip(f'the power cannot be cut here: {error}')


def test_no_save_that_was_reported_is_lost(tmp_path):
  lines = []
  _cut_savers(tmp_path, 3, log=lines.append)
  assert len(lines) == 3
  assert not list(tmp_path.iterdir())


def test_without_syncing_it_is(tmp_path):
  """What the test above holds is not so of itself."""

  def command(directory):
    return testing.program(
      'stress.power_cut',
      f'--saver={directory}',
      code='from im2txt.runtime import files; files.sync = lambda path: None',
    )

  with pytest.raises(power_cut.LostError, match='round 1: .*; (found 0|lost )'):
    _cut_savers(tmp_path, 1, command=command)
  assert not list(tmp_path.iterdir())


def test_a_disk_keeps_what_was_synced(tmp_path):
  try:
    with disks.Disk(str(tmp_path), 16) as disk:
      with open(f'{disk.path}/synced', 'w', encoding='utf-8') as f:
        f.write('synced')
      files.sync(f.name)
      files.sync(disk.path)
      with open(f'{disk.path}/other', 'w', encoding='utf-8') as f:
        f.write('other')
      disk.cut_power()
      with pytest.raises(OSError):
        open(f'{disk.path}/later', 'w', encoding='utf-8')
      disk.restart()
      with open(f'{disk.path}/synced', encoding='utf-8') as f:
        assert f.read() == 'synced'
      with pytest.raises(FileNotFoundError):
        open(f'{disk.path}/other', encoding='utf-8')
  except disks.UnavailableError as error:
    pytest.skip(f'the power cannot be cut here: {error}')
  assert not list(tmp_path.iterdir())


def test_a_full_disk_takes_nothing_until_it_is_free(tmp_path):
  try:
    with disks.Disk(str(tmp_path), 16) as disk:
      for _ in range(2):
        disk.fill()
        with pytest.raises(OSError, match='No space left'):
          with open(f'{disk.path}/more', 'wb') as f:
            f.write(bytes(4096))
        disk.free()
        with open(f'{disk.path}/more', 'wb') as f:
          f.write(bytes(10 << 20))
        os.remove(f.name)
  except disks.UnavailableError as error:
    pytest.skip(f'there can be no such disk here: {error}')


def test_says_why_there_can_be_no_disk(tmp_path, monkeypatch, capsys):
  monkeypatch.setenv('PATH', str(tmp_path))
  assert power_cut.main(['--rounds=1']) == 0
  assert capsys.readouterr().out.startswith(
    'skipped: the power cannot be cut here: '
  )


def test_what_counts_as_lost(tmp_path):
  directory = str(tmp_path)
  assert power_cut.check(directory) == 0

  class Full(OSError):
    pass

  def report(step):
    if step == 2:
      raise Full()

  power_cut.save_on(directory, report)
  assert power_cut.check(directory) == 2
  manager = checkpoints.CheckpointManager(directory)
  state = power_cut._values(3)
  # Of two steps, and a training state of another.
  for mixed in ({**state, 'variable_1': np.float32([2, 3])}, state):
    manager.save(
      {**mixed, 'global_step': np.int64(3)}, {'variable_1': np.float32([2])}
    )
    with pytest.raises(power_cut.LostError, match='variable_1 of another step'):
      power_cut.check(directory)
  (tmp_path / 'model.ckpt-3.index').write_bytes(b'')
  with pytest.raises(power_cut.LostError, match='damaged: .*model.ckpt-3'):
    power_cut.check(directory)
  # A whole one that is older than what was reported.
  for path in tmp_path.glob('model.ckpt-[23].*'):
    path.unlink()
  (tmp_path / 'checkpoint').write_text('model_checkpoint_path: "model.ckpt-1"')
  with pytest.raises(power_cut.LostError, match='of step 1, .* of 2'):
    power_cut.check(directory)


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
