# SPDX-License-Identifier: Apache-2.0
"""A disk whose power can be cut: an ext4 file system in a file.

Needs Linux, root and a loop device.
"""

import fcntl
import os
import struct
import subprocess

# EXT4_IOC_SHUTDOWN, _IOR('X', 125, __u32), and the flag that says to drop what
# the journal has not written yet.
_SHUTDOWN = 0x8004587d
_NO_LOG_FLUSH = 2


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
      _run('mkfs.ext4', '-q', '-F', '-E',
           'lazy_itable_init=0,lazy_journal_init=0', self._image)
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
    _run('umount', self.path)
    self._mount()

  def _mount(self):
    _run('mount', '-o', 'loop', self._image, self.path)

  def _remove(self):
    os.rmdir(self.path)
    os.remove(self._image)


def _run(*command):
  """Runs a command; raises UnavailableError with what it says."""
  try:
    result = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, check=False)
  except FileNotFoundError as error:
    raise UnavailableError(f'there is no program {command[0]}') from error
  if result.returncode:
    raise UnavailableError(
        f'{" ".join(command)}: {" ".join(result.stdout.split())}')
