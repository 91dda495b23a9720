# SPDX-License-Identifier: Apache-2.0
"""Finds image files, and reads and decodes them ahead of the model."""

import collections
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from concurrent import futures
import os
import stat
import sys
from typing import NamedTuple
from typing import TypeVar

from im2txt.data import image_formats
from im2txt.runtime import storage

MOST_BYTES = image_formats.MOST_FILE_BYTES
# What belongs to images, and is none.
_NOT_TOLD = ('.xmp',)

_Image = TypeVar('_Image')
_Item = TypeVar('_Item')
_Result = TypeVar('_Result')


class Found(NamedTuple):
  """The files that some names stand for.

  Attributes:
    files: the files.
    missing: for each name that stands for no file, the reason.
    passed_over: for each directory, the names in it without the suffix of an
      image.
  """

  files: list[str]
  missing: dict[str, str]
  passed_over: dict[str, list[str]]


def find(
  names: Sequence[str],
  recursive: bool = False,
  suffixes: tuple[str, ...] = image_formats.SUFFIXES,
) -> Found:
  """Finds the image files that names stand for.

  Args:
    names: files, directories or patterns. A directory stands for the files in
      it with one of the suffixes, sorted. A name that exists is not a pattern,
      even if it has brackets.
    recursive: whether a directory also stands for the files in the directories
      below it, which follow its own. Hidden ones and links are left out.
    suffixes: in lower case.

  Returns:
    The files, in the order of the names.
  """
  found = Found([], {}, {})
  for name in names:
    matches = storage.matches(name)
    for match in matches:
      if storage.isdir(match):
        _find_inside(match, found, recursive, suffixes)
      else:
        found.files.append(match)
    if not matches:
      found.missing[name] = (
        'download it first'
        if name.startswith(('http://', 'https://'))
        else 'no such file'
      )
  return found


def _find_inside(
  directory: str, found: Found, recursive: bool, suffixes: tuple[str, ...]
) -> None:
  """Adds the images of a directory to a `Found`."""
  images: list[str] = []
  others: list[str] = []
  unreadable: list[OSError] = []
  for folder, folders, names in storage.walk(directory, unreadable.append):
    folders[:] = sorted(name for name in folders if not name.startswith('.'))
    if not recursive:
      names += folders
      folders.clear()
    names += [name for name in folders if os.path.islink(f'{folder}/{name}')]
    for name in sorted(names):
      path = os.path.join(folder, name)
      if name.startswith('.'):
        continue
      if name.lower().endswith(suffixes):
        images.append(path)
      elif not name.lower().endswith(_NOT_TOLD):
        others.append(os.path.relpath(path, directory))
  for error in unreadable:
    found.missing[str(error.filename)] = error.strerror or str(error)
  found.files.extend(images)
  if others:
    found.passed_over[directory] = sorted(others)
  if not images and directory not in found.missing:
    found.missing[directory] = 'a directory without images'


def read(name: str) -> bytes:
  """Returns the bytes of a file.

  Raises:
    OSError: it cannot be read.
    ValueError: it is too large.
  """
  if storage.is_remote(name):
    with storage.open_read(name) as f:
      return _limited(f.read(MOST_BYTES + 1))
  with open(name, 'rb') as f:
    status = os.fstat(f.fileno())
    if stat.S_ISREG(status.st_mode) and status.st_size <= MOST_BYTES:
      return f.read()
    return _limited(f.read(MOST_BYTES + 1))  # A pipe does not tell its size.


def _limited(data: bytes) -> bytes:
  """Returns the data; raises ValueError if they are too large."""
  if len(data) > MOST_BYTES:
    raise ValueError(
      f'the file is larger than {MOST_BYTES // 10**6} MB, the most that is read'
    )
  return data


def reason(error: Exception) -> str:
  """Returns why a file cannot be used, without its name."""
  return getattr(error, 'strerror', None) or str(error)


def tell_skipped(name: str, why: str | Exception) -> None:
  """Says on standard error that a file is left out.

  Args:
    name: of the file.
    why: the reason, or the error that it is in.
  """
  told = reason(why) if isinstance(why, Exception) else why
  print(f'skipped {name}: {told}', file=sys.stderr)


def with_standard_input(names: Iterable[str]) -> list[str]:
  """Returns names, with the lines of standard input in the place of '-'.

  Args:
    names: of files, which need not be UTF-8.
  """
  result: list[str] = []
  for name in names:
    if name == '-':
      lines = (line.rstrip(b'\r\n') for line in sys.stdin.buffer)
      result.extend(os.fsdecode(line) for line in lines if line)
    else:
      result.append(name)
  return result


def find_or_tell(
  names: Sequence[str],
  recursive: bool = False,
  suffixes: tuple[str, ...] = image_formats.SUFFIXES,
) -> tuple[list[str], int]:
  """Finds the files to caption; prints on standard error what is left out.

  Args:
    names: see `find`.
    recursive: see `find`.
    suffixes: see `find`.

  Returns:
    (the files; number of names without a file).

  Raises:
    ValueError: there is no file.
  """
  found = find(names, recursive, suffixes)
  for directory, others in found.passed_over.items():
    print(
      f'{directory}: {len(others)} passed over, without the suffix of an '
      'image: ' + ', '.join(others[:5]) + (', ...' if len(others) > 5 else ''),
      file=sys.stderr,
    )
  for name, why in found.missing.items():
    if ',' in name and any(map(os.path.exists, name.split(','))):
      why += '; a comma separates files in --input_files only'
    tell_skipped(name, why)
  if not found.files:
    raise ValueError(
      'no image file to caption: '
      + (', '.join(names[:5]) or 'no names were given')
    )
  return found.files, len(found.missing)


def read_images(
  files: Sequence[str], decode: Callable[[bytes], _Image], ahead: int
) -> Iterator[tuple[str, _Image | OSError | ValueError]]:
  """Reads and decodes files in other threads, while the caller captions.

  Args:
    files: names of the files.
    decode: decodes the bytes of a file, or raises ValueError.
    ahead: largest number of images that wait for the caller.

  Yields:
    (name, image) in the order of `files`. If a file cannot be read or decoded,
    the error takes the place of the image.
  """
  return ahead_of_caller(files, lambda name: decode(read(name)), ahead)


def ahead_of_caller(
  items: Iterable[_Item], work: Callable[[_Item], _Result], ahead: int
) -> Iterator[tuple[_Item, _Result | OSError | ValueError]]:
  """Works on items in other threads, before the caller needs the results.

  Args:
    items: taken no further ahead than the work is.
    work: returns the result of an item, or raises OSError or ValueError.
    ahead: largest number of results that wait for the caller.

  Yields:
    (item, result) in the order of `items`. An error takes the place of the
    result.
  """

  def guarded(item: _Item) -> _Result | OSError | ValueError:
    try:
      return work(item)
    except MemoryError:
      return ValueError('too little memory to read it')
    except (OSError, ValueError) as e:
      return e

  waiting: collections.deque[tuple[_Item, futures.Future]] = collections.deque()
  # No more threads than processors, as decoding large photos takes much memory.
  pool = futures.ThreadPoolExecutor(os.cpu_count())
  try:
    for item in items:
      waiting.append((item, pool.submit(guarded, item)))
      if len(waiting) > ahead:
        item, result = waiting.popleft()
        yield item, result.result()
    while waiting:
      item, result = waiting.popleft()
      yield item, result.result()
  finally:
    # The caller may want no more of them.
    pool.shutdown(cancel_futures=True)
