# SPDX-License-Identifier: Apache-2.0
"""Locks on directories, which end with the process that holds them.

A lock is a hidden file that stays open; the operating system lets go of it
when the process ends, however it does. What a process that was killed leaves of
it means nothing.
"""

import contextlib
import fcntl
import os
import socket

from absl import logging


@contextlib.contextmanager
def hold(directory, work, name='directory', wait=False):
  """Holds the lock for some work in a directory while the context lasts.

  Args:
    directory: str, exists.
    work: str, what is done there, e.g. 'train'. Locks for different work do
      not exclude each other.
    name: str, what the user knows the directory as, e.g. '--train_dir'.
    wait: whether to wait for a process that holds it.

  Raises:
    ValueError: another process holds it, and `wait` is False.
    OSError: the directory cannot be written.
  """
  path = os.path.join(directory, f'.{work}.lock')
  while True:
    lock = open(path, 'a+', encoding='utf-8', errors='replace')
    with lock:
      _take(lock, directory, work, name, wait)
      # The holder before may have removed the file since it was opened: then a
      # third process can have the lock of that which has its name now.
      if not _is_at(lock, path):
        continue
      _sign(lock)
      try:
        yield
      finally:
        with contextlib.suppress(OSError):
          os.remove(path)
      return


def _take(lock, directory, work, name, wait):
  """Takes the lock of an open file; see `hold`."""
  try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError as error:
    lock.seek(0)
    holder = lock.read(200).strip() or 'another process'
    if not wait:
      raise ValueError(
        f'{name}={directory} is in use: {work} runs there already '
        f'({holder}); wait for it to end, stop it, or give another '
        f'{name}'
      ) from error
    logging.info('%s: waiting for %s there (%s)', directory, work, holder)
    fcntl.flock(lock, fcntl.LOCK_EX)
  except OSError as error:  # Not every network file system has locks.
    logging.warning(
      '%s cannot be locked (%s): make sure that there is no second %s there',
      directory,
      error.strerror,
      work,
    )


def _sign(lock):
  """Writes into the open file of a lock whose it is."""
  try:
    lock.truncate(0)
    # Unbuffered: what a full disk refuses would be written at the end again.
    os.write(
      lock.fileno(),
      f'process {os.getpid()} on {socket.gethostname()}\n'.encode(),
    )
  except OSError as error:
    raise OSError(error.errno, error.strerror, lock.name) from error


def _is_at(file, path):
  """Returns whether an open file still is the one of a name."""
  try:
    return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
  except FileNotFoundError:
    return False
