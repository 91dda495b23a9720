# SPDX-License-Identifier: Apache-2.0
"""Small JSON files beside checkpoints and shards that say what these are of."""

import contextlib
import dataclasses
import os

from im2txt.runtime import files


class StampFile:
  """A file of one name that holds a dataclass, in any directory.

  Args:
    name: of the file.
    kind: the dataclass.
    without: what one goes on without if the file is removed, for errors.
  """

  def __init__(self, name, kind, without):
    self._name = name
    self._kind = kind
    self._without = without

  def save(self, directory, stamp):
    """Writes the file into a directory.

    Raises:
      OSError: it cannot be written.
    """
    files.write_json(
      os.path.join(directory, self._name), dataclasses.asdict(stamp)
    )

  def load(self, directory):
    """Returns the stamp in a directory, None if there is none.

    Raises:
      ValueError: the file is damaged.
    """
    path = os.path.join(directory, self._name)
    try:
      return files.read_fields(path, self._kind)
    except FileNotFoundError:
      return None
    except (OSError, ValueError) as error:
      raise ValueError(
        f'{path} is damaged ({error}): copy it again from where it was '
        f'written, or remove it to go on {self._without}'
      ) from error

  def copy(self, source, target):
    """Makes the stamp of one directory that of another, or removes that.

    Raises:
      ValueError: the file of the first is damaged.
      OSError: that of the second cannot be written.
    """
    stamp = self.load(source)
    if stamp:
      self.save(target, stamp)
    else:
      self.remove(target)

  def remove(self, directory):
    """Removes the file from a directory, if it is there."""
    with contextlib.suppress(FileNotFoundError):
      os.remove(os.path.join(directory, self._name))
