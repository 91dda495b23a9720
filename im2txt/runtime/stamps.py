# SPDX-License-Identifier: Apache-2.0
"""Small JSON files that record the origin of checkpoints and shards."""

import contextlib
import dataclasses
import os
from typing import Generic
from typing import TYPE_CHECKING
from typing import TypeVar

from im2txt.runtime import files
from im2txt.runtime import storage

if TYPE_CHECKING:
  from _typeshed import DataclassInstance

_Stamp = TypeVar('_Stamp', bound='DataclassInstance')


class StampFile(Generic[_Stamp]):
  """A dataclass saved under one file name, in any directory.

  Args:
    name: name of the file.
    kind: the dataclass.
    without: what is lost if the user removes the file, for errors: 'without a
      check of ...'.
  """

  def __init__(self, name: str, kind: type[_Stamp], without: str) -> None:
    self._name = name
    self._kind = kind
    self._without = without

  def save(self, directory: files.StrPath, stamp: _Stamp) -> None:
    """Writes the file into a directory.

    Raises:
      OSError: the file cannot be written.
    """
    files.write_json(
      os.path.join(directory, self._name), dataclasses.asdict(stamp)
    )

  def load(self, directory: files.StrPath) -> _Stamp | None:
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

  def copy(self, source: files.StrPath, target: files.StrPath) -> None:
    """Copies the stamp of `source` to `target`; removes it there if none.

    Raises:
      ValueError: the file in `source` is damaged.
      OSError: the file in `target` cannot be written.
    """
    stamp = self.load(source)
    if stamp:
      self.save(target, stamp)
    else:
      self.remove(target)

  def remove(self, directory: files.StrPath) -> None:
    """Removes the file from a directory, if there is one."""
    with contextlib.suppress(FileNotFoundError):
      storage.remove(os.path.join(directory, self._name))
