# SPDX-License-Identifier: Apache-2.0
"""Records which files of a build are finished, and from which input."""

from collections.abc import Iterator
import json
import os
from typing import Any

from im2txt.runtime import files
from im2txt.runtime import storage

JOURNAL = 'build_mscoco_data.journal'


class Journal:
  """The finished files of a build, and the input that they were made from.

  The journal is a text file with one JSON value per line, in the output
  directory. A line is added only when a file is on the disk under its final
  name, so every line is true. A journal of other input is replaced.

  Attributes:
    undecodable: the images that cannot be decoded, by path, and why; None if
      the images have not been checked.
  """

  def __init__(self, directory: str, fingerprint: str) -> None:
    """Reads the journal in `directory` if it is of this input.

    Args:
      directory: the output directory.
      fingerprint: identifies the input.
    """
    self._path = os.path.join(directory, JOURNAL)
    self._fingerprint = fingerprint
    self._files: dict[str, dict[str, Any]] = {}
    self.undecodable: dict[str, str] | None = None
    self._is_of_this_input = False
    for entry in self._entries():
      if 'fingerprint' in entry:
        if entry['fingerprint'] != fingerprint:
          return
        self._is_of_this_input = True
      elif 'undecodable' in entry:
        self.undecodable = entry['undecodable']
      elif 'file' in entry:
        self._files[entry['file']] = entry

  def _entries(self) -> Iterator[dict[str, Any]]:
    """Yields the entries, without lines that an interruption cut short."""
    try:
      with storage.open_text(self._path) as f:
        lines = f.read().split('\n')
    except (OSError, UnicodeDecodeError):
      return
    for line in lines:
      try:
        entry = json.loads(line)
      except (ValueError, RecursionError):
        continue
      if isinstance(entry, dict):
        yield entry

  def is_done(self, path: str) -> bool:
    """Returns whether `path` was finished and has not been changed since."""
    return self._files.get(storage.absolute(path)) == self._entry(path)

  def _entry(self, path: str) -> dict[str, Any]:
    try:
      status = storage.stat(path)
    except OSError:
      return {}
    return {
      'file': storage.absolute(path),
      'size': status.size,
      'mtime_ns': status.mtime_ns,
    }

  def add_file(self, path: str) -> None:
    """Records that the file `path` is finished."""
    entry = self._entry(path)
    self._add(entry)
    self._files[entry['file']] = entry

  def add_undecodable(self, undecodable: dict[str, str]) -> None:
    """Records which images cannot be decoded, by path, and why."""
    self._add({'undecodable': undecodable})
    self.undecodable = undecodable

  def _add(self, entry: dict[str, Any]) -> None:
    if not self._is_of_this_input:
      with files.replacing(self._path) as temporary:
        with open(temporary, 'w', encoding='utf-8') as f:
          f.write(json.dumps({'fingerprint': self._fingerprint}))
      self._is_of_this_input = True
    # The line end comes first, to separate the entry from one cut short.
    line = '\n' + json.dumps(entry)
    if storage.is_remote(self._path):
      # No store can add to a file.
      with storage.open_text(self._path) as f:
        before = f.read()
      with files.replacing(self._path) as temporary:
        with open(temporary, 'w', encoding='utf-8') as f:
          f.write(before + line)
      return
    with files.naming(self._path), open(self._path, 'a', encoding='utf-8') as f:
      f.write(line)
    files.sync(self._path)
