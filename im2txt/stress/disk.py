# SPDX-License-Identifier: Apache-2.0
"""A disk whose power can be cut and which can be full: ext4 in a file.

Needs Linux, root and a loop device.
"""

import errno
import fcntl
import os
import struct
import subprocess
import time

# EXT4_IOC_SHUTDOWN, _IOR('X', 125, __u32), and the flag that says to drop what
# the journal has not written yet.
_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = 2

# What a process had open may be closed some time after its end.
_SECONDS_TO_CLOSE = 30

_BALLAST = 'ballast'
_BLOCK = 1024


class UnavailableError(OSError):
  """There can be no such disk here; the message says why."""


class Disk:
  """A file system that forgets, when its power is cut, what was not synced.

  A context manager; afterwards it is gone.

  Args:
    directory: str, for its file and the directory where it is mounted.
    megabytes: size; what is not used takes no room.

  Attributes:
    path: str, where it is mounted.

  Raises:
    UnavailableError: by the context.
  """

  def __init__(self, directory, megabytes):
    self.path = os.path.join(directory, 'disk')
    self._image = os.path.join(directory, 'disk.ext4')
    self._megabytes = megabytes

  def __enter__(self):
    if os.geteuid():
      raise UnavailableError('only root can mount a file system')
    os.mkdir(self.path)
    with open(self._image, 'wb') as f:
      f.truncate(self._megabytes << 20)
    try:
      # All of it now, and not in the background while it is used.
      # Nothing is kept for root, who is who fills it.
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

  def __exit__(self, *_):
    # What still has files open there does not keep the disk.
    _run('umount', '--lazy', self.path)
    self._remove()

  def cut_power(self):
    """Lets everything fail that is read or written from now on."""
    descriptor = os.open(self.path, os.O_RDONLY)
    try:
      fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack('I', _NO_LOG_FLUSH))
    finally:
      os.close(descriptor)

  def restart(self):
    """Mounts it again, with what was on the disk when the power was cut."""
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

  def fill(self):
    """Leaves no room for anything, until `free`."""
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

  def free(self):
    """Takes away what `fill` filled it with."""
    os.remove(os.path.join(self.path, _BALLAST))

  def _mount(self):
    _run('mount', '-o', 'loop', self._image, self.path)

  def _remove(self):
    os.rmdir(self.path)
    os.remove(self._image)


def _run(*command):
  """Runs a command; raises UnavailableError with what it says."""
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
