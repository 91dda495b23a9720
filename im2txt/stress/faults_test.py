# SPDX-License-Identifier: Apache-2.0
"""Tests of faults: a round of each section, and what a round tells apart."""

import contextlib
import dataclasses
import os
import re
import sys
import types

import pytest

from im2txt import testing
from im2txt.stress import disk as disks
from im2txt.stress import faults

needs_punkt = testing.needs_punkt()


@pytest.fixture(scope='module', name='told')
def fixture_told():
  """What the suite says went wrong, a list that grows."""
  return []


@pytest.fixture(scope='module', name='suite')
def fixture_suite(told):
  with faults.Suite(seed=1, log=told.append) as suite:
    yield suite


_DOWNLOAD = faults.STAGES['download_and_preprocess_mscoco']
_PAINT = faults.STAGES['make_sample_data']


@pytest.fixture(name='disk')
def fixture_disk(tmp_path):
  try:
    with disks.Disk(str(tmp_path), 256) as disk:
      yield disk
  except disks.UnavailableError as error:
    pytest.skip(f'there can be no such disk here: {error}')


@needs_punkt
def test_a_killed_program_loses_nothing(suite, told):
  row = suite.rounds('kills', _DOWNLOAD, faults.Kill(suite.root), 1)
  assert row[:5] == ('kills', _DOWNLOAD.name, 1, 0, 0), told


@needs_punkt
def test_nor_does_one_whose_disk_has_lost_its_power(suite, told, disk):
  row = suite.rounds('power', _DOWNLOAD, faults.PowerCut(disk), 1)
  assert row[:5] == ('power', _DOWNLOAD.name, 1, 0, 0), told


@pytest.mark.parametrize('at_once', [True, False])
def test_a_full_disk_is_told_in_a_line(suite, told, disk, at_once):
  row = suite.rounds('disk', _PAINT, faults.FullDisk(disk), 1, at_once)
  assert row[2:5] == (1, 0, 0), told
  assert row.reads.startswith('error: [Errno 28] No space left on device: ')


def test_a_dead_worker_is_told_in_a_line(suite, told):
  row = suite.rounds(
    'workers', _PAINT, faults.DeadWorker(suite.root, suite.rng), 1
  )
  assert row[2:5] == (1, 0, 0), told
  assert row.reads.startswith('error: a worker process was killed')


@needs_punkt
def test_a_damaged_shard_is_told_in_a_line(suite, told):
  row = suite.damaged_shard('validate_data', 'CRC-wrong')
  assert row[2:5] == (1, 0, 0), told
  assert 'a record has a wrong checksum near byte' in row.reads


class _Breaks(faults.Kill):
  """A fault after which `change` is done to what the program left."""

  def __init__(self, path, change):
    super().__init__(path)
    self._change = change

  def recover(self):
    self._change(os.path.join(self.path, 'out'))


def test_tells_what_was_lost(suite, told):
  def run(change, stage=_PAINT):
    told.clear()
    row = suite.rounds('kills', stage, _Breaks(suite.root, change), 1)
    assert row[2:5] == (1, 1, 0)
    return told[-1]

  def leave(directory):
    with open(f'{directory}/left', 'w', encoding='utf-8') as f:
      f.write('over')

  assert run(leave) == 'kills: make_sample_data: too many: left'

  def block(directory):
    # Whatever is there by now.
    faults.shutil.rmtree(directory)
    os.makedirs(f'{directory}/annotations/annotations_trainval2014.zip/folder')

  assert 'make_sample_data: does not go on: error: ' in run(block)
  # What was promised to stay was not there, or was made again.
  stage = dataclasses.replace(
    _PAINT, kept=lambda directory, said: [f'{directory}/zips/none.zip']
  )
  assert re.search('gone: .*none.zip', run(lambda _: None, stage))


@pytest.mark.parametrize(
  'text, line, problem',
  [
    ('error: a\n', 'error: a', ''),
    ('b\nerror: a\n', 'error: a', ''),
    ('error: a\nerror: b\n', 'error: b', 'no single line'),
    ('error: a\nb\n', 'error: a', 'no single line'),
    ('Traceback (most recent call last):\n', '', 'a stack trace'),
    ('killed\n', '', 'no single line'),
    ('', '', 'no single line'),
  ],
)
def test_an_error_is_one_line_at_the_end(text, line, problem):
  found, wrong = faults.error_line(text)
  assert found == line
  assert bool(wrong) == bool(problem) and wrong.startswith(problem)


def test_the_table_has_earlier_sections_and_fails_if_anything_was_lost(
  tmp_path, monkeypatch, capsys
):
  rows = {
    'kills': [faults.Row('kills', 'train', 3, 0, 0, 'resuming from x')],
    'disk': [faults.Row('disk', 'a | b', 2, 1, 0, '')],
  }
  ran = []

  def run(section, suite, quick):
    ran.append((section, quick))
    return rows[section]

  monkeypatch.setattr(faults, 'run', run)
  monkeypatch.setattr(faults, 'Suite', contextlib.nullcontext)
  args = [f'--results={tmp_path}/r.json', f'--output={tmp_path}/table.md']
  assert faults.main(['--only=disk', *args]) == 1
  assert faults.main(['--only=kills', '--quick', *args]) == 1
  assert ran == [('disk', False), ('kills', True)]
  assert (tmp_path / 'table.md').read_text() == (
    '| section | fault | rounds | lost | hung | what the user reads |\n'
    '| --- | --- | --- | --- | --- | --- |\n'
    '| kills | train | 3 | 0 | 0 | resuming from x |\n'
    '| disk | a \\| b | 2 | 1 | 0 |  |\n'
  )
  assert capsys.readouterr().out.endswith((tmp_path / 'table.md').read_text())
  assert faults.main(['--only=kills']) == 0
  with pytest.raises(SystemExit):
    faults.main(['--only=kill'])
  assert "'kill' must be one of kills, power" in capsys.readouterr().err


def test_what_cannot_be_tried_is_skipped_with_the_reason(monkeypatch):
  monkeypatch.setattr(disks.os, 'geteuid', lambda: 1)
  suite = types.SimpleNamespace(root='/nonexistent')
  (row,) = faults.run('disk', suite)
  assert row.rounds == 0
  assert row.reads == 'skipped: only root can mount a file system'


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
