# SPDX-License-Identifier: Apache-2.0
"""Locks on directories, released when the process that holds them ends.

A lock is a hidden file that stays open. The operating system releases it when
the process ends, however it ends. The file that a killed process leaves behind
locks nothing.
"""

from collections.abc import Iterator
import contextlib
import fcntl
import os
import socket
from typing import TextIO

from absl import logging

from im2txt.runtime import storage
from im2txt.runtime.files import StrPath


@contextlib.contextmanager
def hold(
  directory: StrPath, work: str, name: str = 'directory', wait: bool = False
) -> Iterator[None]:
  """Holds the lock for some work in a directory while the context lasts.

  Args:
    directory: an existing directory. A remote one is not locked.
    work: the work, such as 'train'. Locks for different work do not exclude
      each other.
    name: the user's name for the directory, such as '--train_dir'.
    wait: whether to wait for a process that holds the lock.

  Raises:
    ValueError: another process holds the lock, and `wait` is False.
    OSError: the directory cannot be written.
  """
  if storage.is_remote(directory):
    _warn(directory, 'a remote store has no locks', work)
    yield
    return
  path = os.path.join(directory, f'.{work}.lock')
  while True:
    lock = open(path, 'a+', encoding='utf-8', errors='replace')
    with lock:
      _take(lock, directory, work, name, wait)
      # The previous holder may have removed the file since it was opened. A
      # third process can then hold the lock of the file that has its name now.
      if not _is_at(lock, path):
        continue
      _sign(lock)
      try:
        yield
      finally:
        with contextlib.suppress(OSError):
          os.remove(path)
      return


def _take(
  lock: TextIO, directory: StrPath, work: str, name: str, wait: bool
) -> None:
  """Takes the lock of an open file; see `hold`."""
  try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError as error:
    lock.seek(0)
    holder = lock.read(200).strip() or 'another process'
    if not wait:
      raise ValueError(
        f'{name}={directory} is in use: {work} runs there already ({holder}): '
        f'wait for it to end, stop it, or give another {name}'
      ) from error
    logging.info('%s: waiting for %s there (%s)', directory, work, holder)
    fcntl.flock(lock, fcntl.LOCK_EX)
  except OSError as error:  # Some network file systems have no locks.
    _warn(directory, error.strerror, work)


def _warn(directory: StrPath, reason: str | None, work: str) -> None:
  logging.warning(
    '%s cannot be locked (%s): make sure that no second %s runs there',
    directory,
    reason,
    work,
  )


def _sign(lock: TextIO) -> None:
  """Writes into the open file of a lock which process holds it."""
  try:
    lock.truncate(0)
    # Unbuffered: if the disk is full, closing the file must not try again.
    os.write(
      lock.fileno(),
      f'process {os.getpid()} on {socket.gethostname()}\n'.encode(),
    )
  except OSError as error:
    raise OSError(error.errno, error.strerror, lock.name) from error


def _is_at(file: TextIO, path: StrPath) -> bool:
  """Returns whether a path still names this open file."""
  try:
    return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
  except FileNotFoundError:
    return False
