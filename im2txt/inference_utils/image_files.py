# SPDX-License-Identifier: Apache-2.0
"""Finds image files, reads and decodes them ahead of the model."""

import collections
from concurrent import futures
import os
import stat
from typing import NamedTuple

from im2txt.data import image_formats
from im2txt.runtime import files as files_lib

_MOST_BYTES = image_formats.MOST_FILE_BYTES


class Found(NamedTuple):
  """Which files some names stand for.

  Attributes:
    files: list of str.
    missing: dict, name that stands for no file -> why.
    passed_over: dict, directory -> names in it that are no images by their
      suffix.
  """

  files: list
  missing: dict
  passed_over: dict


def find(names):
  """Finds the image files that names stand for.

  Args:
    names: list of str, each a file, a directory (the files in it with a suffix
      of `image_formats.SUFFIXES`, sorted) or a pattern. One that exists is
      taken literally, brackets and all.

  Returns:
    `Found`, the files in the order of the names.
  """
  found = Found([], {}, {})
  for name in names:
    matches = files_lib.matches(name)
    for match in matches:
      if os.path.isdir(match):
        _find_inside(match, found)
      else:
        found.files.append(match)
    if not matches:
      found.missing[name] = (
        'download it first'
        if name.startswith(('http://', 'https://'))
        else 'no such file'
      )
  return found


def _find_inside(directory, found):
  """Adds the images of a directory to a `Found`."""
  try:
    names = [
      name for name in sorted(os.listdir(directory)) if not name.startswith('.')
    ]
  except OSError as e:
    found.missing[directory] = e.strerror
    return
  images = [
    name for name in names if name.lower().endswith(image_formats.SUFFIXES)
  ]
  found.files.extend(os.path.join(directory, name) for name in images)
  others = sorted(set(names) - set(images))
  if others:
    found.passed_over[directory] = others
  if not images:
    found.missing[directory] = 'a directory without images'


def _read(name):
  """Returns the bytes of a file; raises ValueError if it is too large."""
  with open(name, 'rb') as f:
    status = os.fstat(f.fileno())
    if stat.S_ISREG(status.st_mode) and status.st_size <= _MOST_BYTES:
      return f.read()
    data = f.read(_MOST_BYTES + 1)  # Of a pipe the size is not known.
  if len(data) > _MOST_BYTES:
    raise ValueError(
      f'the file is larger than the {_MOST_BYTES // 10**6} MB that are read'
    )
  return data


def read_images(files, decode, ahead):
  """Reads and decodes files in other threads, while the caller captions.

  Args:
    files: list of names.
    decode: callable from a file's bytes to an image; raises ValueError.
    ahead: images that may wait for the caller.

  Yields:
    (name, image) in the order of `files`; an OSError or ValueError in the
    place of what cannot be read or decoded.
  """

  def read(name):
    try:
      return decode(_read(name))
    except MemoryError:
      return ValueError('too little memory to read it')
    except (OSError, ValueError) as e:
      return e

  waiting = collections.deque()
  # No more threads than processors: large photos take much memory on the way.
  with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    for name in files:
      waiting.append((name, pool.submit(read, name)))
      if len(waiting) > ahead:
        name, image = waiting.popleft()
        yield name, image.result()
    for name, image in waiting:
      yield name, image.result()
