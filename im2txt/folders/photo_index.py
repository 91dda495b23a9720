# SPDX-License-Identifier: Apache-2.0
"""An index of photos: the features of each, in an SQLite file.

Features depend on the encoder only, so an index is good for every decoder that
was trained on this encoder. A photo is encoded again if its size or time has
changed. Each batch is a transaction: what was indexed stays, whenever the
process is killed.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import functools
import os
import sqlite3
from typing import Any
from typing import NamedTuple
from typing import Self

import numpy as np

from im2txt.inference_utils import batches
from im2txt.inference_utils import captioner as captioner_lib
from im2txt.inference_utils import image_files
from im2txt.runtime import files as files_lib
from im2txt.runtime import progress

# In the header of the file, to know it by: "im2t".
_APPLICATION = 0x696D3274
_VERSION = 1
_SCHEMA = """
CREATE TABLE model (encoder TEXT NOT NULL);
CREATE TABLE photos (
  path BLOB PRIMARY KEY,
  size INTEGER NOT NULL,
  mtime_ns INTEGER NOT NULL,
  features BLOB,
  error TEXT
) WITHOUT ROWID;
"""


class Update(NamedTuple):
  """What an update of an index did.

  Attributes:
    added: photos encoded, for the first time or again.
    removed: photos that are no more.
    unchanged: photos that were up to date.
    failures: for each photo that is not in the index, the reason.
  """

  added: int
  removed: int
  unchanged: int
  failures: dict[str, str]


def check_exists(path: str) -> None:
  """Raises ValueError if there is no index."""
  if not os.path.exists(path):
    raise ValueError(
      f'--index_file={path}: there is no index yet: name the photos or '
      'directories to index'
    )


class PhotoIndex:
  """An index of photos; a context manager.

  Args:
    path: of its file.
    encoder: `Captioner.encoder_fingerprint`, and how images are turned.
    create: whether to make it if there is none.

  Raises:
    ValueError: there is none, it is of another encoder, or the file is damaged
      or something else. The message names it.
  """

  def __init__(self, path: str, encoder: str, create: bool = False) -> None:
    self._path = path
    if not create:
      check_exists(path)
    with self._explaining():
      self._database = sqlite3.connect(path)
    try:
      with self._explaining():
        self._check(encoder, create)
    except BaseException:
      self._database.close()
      raise

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    self._database.close()

  def __len__(self) -> int:
    """Returns the number of photos that can be found."""
    with self._explaining():
      return self._value(
        'SELECT COUNT(*) FROM photos WHERE features IS NOT NULL'
      )

  def update(
    self,
    names: Sequence[str],
    captioner: captioner_lib.Captioner,
    batch_size: int = 16,
    exif_orientation: bool = True,
  ) -> Update:
    """Brings the photos that names stand for up to date.

    Photos of a directory that are no more are removed, but not if there is no
    photo at all in it: a disk may not be mounted.

    Args:
      names: files, and directories with all below them.
      captioner: encodes the photos.
      batch_size: photos encoded at once.
      exif_orientation: whether photos are turned as their EXIF data say.

    Raises:
      ValueError: the index cannot be written; or no photo was found.
    """
    found = image_files.find(names, recursive=True)
    failures = dict(found.missing)
    names_of = {os.path.abspath(name): name for name in found.files}
    if not names_of:
      raise ValueError(
        'no photo to index: '
        + '; '.join(f'{name}: {why}' for name, why in failures.items())
        + ' (a text to search for is given by --text)'
      )
    known = self._states()
    directories = [name for name in names if os.path.isdir(name)]
    removed = [
      path
      for path in _below(directories, set(known) - set(names_of))
      if not any(_below([missing], [path]) for missing in found.missing)
    ]
    pending: dict[str, files_lib.State] = {}
    for path in names_of:
      try:
        state = files_lib.state(path)
      except OSError as error:
        failures[names_of[path]] = image_files.reason(error)
        continue
      if path in known and known[path][0] == state:
        if known[path][1]:
          failures[names_of[path]] = known[path][1]
      else:
        pending[path] = state
    with self._transaction():
      self._database.executemany(
        'DELETE FROM photos WHERE path = ?',
        [(os.fsencode(path),) for path in removed],
      )
    before = len(failures)
    done = len(names_of) - len(pending)
    with progress.Progress('Indexing', len(names_of), 'photos', done) as bar:
      images = image_files.read_images(
        list(pending),
        functools.partial(captioner.decode, exif_orientation=exif_orientation),
        ahead=2 * batch_size,
      )
      for batch in batches.encode_in_batches(captioner, images, batch_size):
        with self._transaction():
          for path, features in batch:
            if isinstance(features, Exception):
              failures[names_of[path]] = image_files.reason(features)
            # What cannot be read may be readable next time.
            if not isinstance(features, OSError):
              self._put(path, pending[path], features)
        bar.update(len(batch))
    return Update(
      len(pending) - (len(failures) - before),
      len(removed),
      len(names_of) - len(pending),
      failures,
    )

  def batches(
    self, batch_size: int = 1024
  ) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yields all photos in the order of their paths.

    Args:
      batch_size: photos in memory at once.

    Yields:
      (paths; float32 [photos, feature_size], their features).
    """
    with self._explaining():
      rows = self._database.execute(
        'SELECT path, features FROM photos WHERE features IS NOT NULL '
        'ORDER BY path'
      )
      while batch := rows.fetchmany(batch_size):
        yield (
          [os.fsdecode(path) for path, _ in batch],
          np.frombuffer(b''.join(data for _, data in batch), '<f4').reshape(
            len(batch), -1
          ),
        )

  def _put(
    self,
    path: str,
    state: files_lib.State,
    features: np.ndarray | ValueError,
  ) -> None:
    is_error = isinstance(features, ValueError)
    self._database.execute(
      'INSERT OR REPLACE INTO photos VALUES (?, ?, ?, ?, ?)',
      (
        os.fsencode(path),
        *state,
        None if is_error else np.asarray(features, '<f4').tobytes(),
        str(features) if is_error else None,
      ),
    )

  def _states(self) -> dict[str, tuple[files_lib.State, str]]:
    """Returns the state of each photo when it was read, and why it failed."""
    with self._explaining():
      return {
        os.fsdecode(path): (files_lib.State(size, mtime_ns), error or '')
        for path, size, mtime_ns, error in self._database.execute(
          'SELECT path, size, mtime_ns, error FROM photos'
        )
      }

  def _check(self, encoder: str, create: bool) -> None:
    """Checks that the file is an index of this encoder; makes it if empty."""
    if create and not self._value('PRAGMA schema_version'):
      self._database.executescript(
        f'BEGIN IMMEDIATE; PRAGMA application_id = {_APPLICATION}; '
        f'PRAGMA user_version = {_VERSION}; {_SCHEMA} '
        f"INSERT INTO model VALUES ('{encoder}'); COMMIT;"
      )
    if (
      self._value('PRAGMA application_id'),
      self._value('PRAGMA user_version'),
    ) != (_APPLICATION, _VERSION):
      raise ValueError(
        f'--index_file={self._path} is no index of photos: give another name'
      )
    stored = self._value('SELECT encoder FROM model')
    if stored != encoder:
      raise ValueError(
        f'--index_file={self._path} was made with another encoder or '
        f'--exif_orientation ({stored}, and this is {encoder}): give '
        '--checkpoint_path the model of the index, or another --index_file'
      )

  def _value(self, query: str) -> Any:
    (value,) = self._database.execute(query).fetchone()
    return value

  @contextlib.contextmanager
  def _transaction(self) -> Iterator[None]:
    with self._explaining(), self._database:
      yield

  @contextlib.contextmanager
  def _explaining(self) -> Iterator[None]:
    """Turns errors of SQLite into ValueError with one line."""
    try:
      yield
    except sqlite3.Error as error:
      raise ValueError(
        f'--index_file={self._path} cannot be used ({error}): wait for another '
        'search to end, or give another name'
      ) from error


def _below(names: Sequence[str], paths: Sequence[str] | set[str]) -> list[str]:
  """Returns the paths that are, or are below, one of some names; sorted."""
  above = [os.path.abspath(name) for name in names]
  return sorted(
    path
    for path in paths
    if any(
      path == name or path.startswith(os.path.join(name, '')) for name in above
    )
  )
