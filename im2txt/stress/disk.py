# SPDX-License-Identifier: Apache-2.0
"""A disk that can lose its power or be full: ext4 in a file.

It needs Linux, root and a loop device.
"""

import errno
import fcntl
import os
import struct
import subprocess
import time
from typing import Self

# EXT4_IOC_SHUTDOWN, _IOR('X', 125, __u32), and the flag to drop everything that
# the journal has not written yet.
_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = 2

# The files of a process may be closed some time after its end.
_SECONDS_TO_CLOSE = 30

_BALLAST = 'ballast'
_BLOCK = 1024


class UnavailableError(OSError):
  """This machine cannot have such a disk; the message says why."""


class Disk:
  """A file system that loses all unsynced data when its power is cut.

  It is a context manager, which removes the file system at its end.

  Args:
    directory: directory for the file and for the mount point.
    megabytes: size; unused space takes no room.

  Attributes:
    path: the mount point.

  Raises:
    UnavailableError: raised by the context.
  """

  def __init__(self, directory: str, megabytes: int) -> None:
    self.path = os.path.join(directory, 'disk')
    self._image = os.path.join(directory, 'disk.ext4')
    self._megabytes = megabytes

  def __enter__(self) -> Self:
    if os.geteuid():
      raise UnavailableError('only root can mount a file system')
    os.mkdir(self.path)
    with open(self._image, 'wb') as f:
      f.truncate(self._megabytes << 20)
    try:
      # Everything is initialized now, not in the background during use. Nothing
      # is reserved for root, because root fills the disk.
      _run(
        'mkfs.ext4',
        '-q',
        '-F',
        '-m',
        '0',
        '-E',
        'lazy_itable_init=0,lazy_journal_init=0',
        self._image,
      )
      self._mount()
    except UnavailableError:
      self._remove()
      raise
    return self

  def __exit__(self, *_: object) -> None:
    # Processes with open files must not keep the disk mounted.
    _run('umount', '--lazy', self.path)
    self._remove()

  def cut_power(self) -> None:
    """Makes every read and write fail from now on."""
    descriptor = os.open(self.path, os.O_RDONLY)
    try:
      fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack('I', _NO_LOG_FLUSH))
    finally:
      os.close(descriptor)

  def restart(self) -> None:
    """Mounts the disk again, as it was when the power was cut."""
    end = time.monotonic() + _SECONDS_TO_CLOSE
    while True:
      try:
        _run('umount', self.path)
        break
      except UnavailableError:
        if time.monotonic() > end:
          raise
        time.sleep(0.1)
    self._mount()

  def fill(self) -> None:
    """Fills the disk completely, until `free`."""
    with open(os.path.join(self.path, _BALLAST), 'wb') as f:
      size, step = 0, 1 << 40
      while step >= _BLOCK:
        try:
          os.posix_fallocate(f.fileno(), size, step)
          size += step
        except OSError as error:
          if error.errno not in (errno.ENOSPC, errno.EFBIG):
            raise
          step //= 2

  def free(self) -> None:
    """Undoes `fill`."""
    os.remove(os.path.join(self.path, _BALLAST))

  def _mount(self) -> None:
    _run('mount', '-o', 'loop', self._image, self.path)

  def _remove(self) -> None:
    os.rmdir(self.path)
    os.remove(self._image)


def _run(*command: str) -> None:
  """Runs a command; raises UnavailableError with its output if it fails."""
  try:
    result = subprocess.run(
      command,
      stdin=subprocess.DEVNULL,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      check=False,
    )
  except FileNotFoundError as error:
    raise UnavailableError(f'there is no program {command[0]}') from error
  if result.returncode:
    raise UnavailableError(
      f'{" ".join(command)}: {" ".join(result.stdout.split())}'
    )
