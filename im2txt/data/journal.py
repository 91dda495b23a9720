# SPDX-License-Identifier: Apache-2.0
"""Which files of a build are finished, and what they were made from."""

import json
import os

from im2txt.runtime import files

JOURNAL = 'build_mscoco_data.journal'


class Journal:
  """The files that are finished, and the input that they were made from.

  A text file of one JSON value a line, in the output directory. A line is
  added after a file got its final name, which it has once it is on the disk, so
  what it says is always true; a journal of other input is replaced.

  Attributes:
    undecodable: dict, path of a picture -> why it cannot be decoded; None if
      the pictures have not been looked at.
  """

  def __init__(self, directory, fingerprint):
    """Reads the journal in `directory` if it is of this input.

    Args:
      directory: str, the output directory.
      fingerprint: str, tells this input from any other.
    """
    self._path = os.path.join(directory, JOURNAL)
    self._fingerprint = fingerprint
    self._files = {}
    self.undecodable = None
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

  def _entries(self):
    """Yields the entries, less what an interruption cut short."""
    try:
      with open(self._path, encoding='utf-8') as f:
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

  def is_done(self, path):
    """Returns whether `path` was finished and has not been changed since."""
    return self._files.get(os.path.abspath(path)) == self._entry(path)

  def _entry(self, path):
    try:
      status = os.stat(path)
    except OSError:
      return {}
    return {
      'file': os.path.abspath(path),
      'size': status.st_size,
      'mtime_ns': status.st_mtime_ns,
    }

  def add_file(self, path):
    """Notes that the file `path` is finished."""
    entry = self._entry(path)
    self._add(entry)
    self._files[entry['file']] = entry

  def add_undecodable(self, undecodable):
    """Notes which pictures cannot be decoded: dict, path -> reason."""
    self._add({'undecodable': undecodable})
    self.undecodable = undecodable

  def _add(self, entry):
    if not self._is_of_this_input:
      with files.replacing(self._path) as temporary:
        with open(temporary, 'w', encoding='utf-8') as f:
          f.write(json.dumps({'fingerprint': self._fingerprint}))
      self._is_of_this_input = True
    with files.naming(self._path), open(self._path, 'a', encoding='utf-8') as f:
      # The end of the line comes first, to part it from one cut short.
      f.write('\n' + json.dumps(entry))
    files.sync(self._path)
