# SPDX-License-Identifier: Apache-2.0
"""Tests of locks."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading

import pytest

from im2txt import testing
from im2txt.runtime import locks


def _start_holder(directory):
  """Starts a process that holds the lock until it is killed."""
  root = os.path.dirname(
    os.path.dirname(os.path.dirname(os.path.abspath(locks.__file__)))
  )
  process = subprocess.Popen(
    [
      sys.executable,
      '-c',
      'import sys, time\nfrom im2txt.runtime import locks\n'
      'with locks.hold(sys.argv[1], "train"):\n'
      '  print("held", file=sys.stderr, flush=True)\n  time.sleep(600)',
      str(directory),
    ],
    cwd=root,
    env={**os.environ, 'PYTHONPATH': os.pathsep.join([root, *sys.path])},
    stderr=subprocess.PIPE,
    text=True,
  )
  testing.read_until(process, 'held')
  return process


def test_ends_with_its_process_however_that_ends(tmp_path):
  process = _start_holder(tmp_path)
  try:
    with pytest.raises(
      ValueError,
      match=(
        rf'^--train_dir={tmp_path} is in use: train runs there already '
        rf'\(process {process.pid} on \S+\): wait .* another --train_dir$'
      ),
    ):
      with locks.hold(str(tmp_path), 'train', '--train_dir'):
        pass
    # Other work is no hindrance.
    with locks.hold(str(tmp_path), 'features'):
      pass
  finally:
    process.send_signal(signal.SIGKILL)
    process.wait()
  with locks.hold(str(tmp_path), 'train'):
    pass
  assert not list(tmp_path.iterdir())


def test_in_one_process_too_and_after_an_error(tmp_path):
  with pytest.raises(KeyError):
    with locks.hold(str(tmp_path), 'build'):
      with pytest.raises(ValueError, match=f'process {os.getpid()} on'):
        with locks.hold(str(tmp_path), 'build'):
          pass
      # It is still held.
      with pytest.raises(ValueError, match='in use'):
        with locks.hold(str(tmp_path), 'build'):
          pass
      raise KeyError
  with locks.hold(str(tmp_path), 'build'):
    pass


def test_waits_and_then_is_the_only_one(tmp_path):
  holders, most, waiting = [], [], threading.Barrier(6)

  def work():
    waiting.wait()
    for _ in range(20):
      with locks.hold(str(tmp_path), 'features', wait=True):
        holders.append(None)
        most.append(len(holders))
        holders.pop()

  threads = [threading.Thread(target=work) for _ in range(6)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert most == [1] * 120
  assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_longer_there_is_no_lock(tmp_path, monkeypatch):
  """The holder before may remove it between its opening and its locking."""
  flock, removed = fcntl.flock, []

  def remove_first(file, operation):
    if not removed:
      removed.append(os.remove(tmp_path / '.train.lock'))
    flock(file, operation)

  monkeypatch.setattr(fcntl, 'flock', remove_first)
  with locks.hold(str(tmp_path), 'train'):
    with pytest.raises(ValueError, match='in use'):
      with locks.hold(str(tmp_path), 'train'):
        pass


def test_a_full_disk_is_told_with_the_name_of_the_lock(tmp_path, monkeypatch):
  def fail(*_):
    raise OSError(errno.ENOSPC, 'No space left on device')

  with monkeypatch.context() as full:
    full.setattr(locks.os, 'write', fail)
    with pytest.raises(OSError, match=f"on device: '{tmp_path}/.train.lock'"):
      with locks.hold(str(tmp_path), 'train'):
        pass
  with locks.hold(str(tmp_path), 'train'):
    pass


def test_where_there_are_no_locks_it_is_said(tmp_path, monkeypatch, caplog):
  def fail(*_):
    raise OSError(errno.ENOLCK, 'No locks available')

  monkeypatch.setattr(fcntl, 'flock', fail)
  with locks.hold(str(tmp_path), 'train'):
    pass
  assert [r.getMessage() for r in caplog.records] == [
    f'{tmp_path} cannot be locked (No locks available): make sure that no '
    'second train runs there'
  ]


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
