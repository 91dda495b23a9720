# SPDX-License-Identifier: Apache-2.0
"""The bytes of images, in directories or in zip archives.

The path of an image in an archive is the archive's path followed by the image's
name, as if the archive were a directory: coco/train2014.zip/1.jpg. If all
images of the archive are in one folder, as in COCO's archives, names are
relative to this folder.
"""

from collections.abc import Callable
import functools
import os
from typing import NamedTuple
import zipfile
import zlib

from im2txt.data import image_formats
from im2txt.runtime import storage

_IMAGE_SUFFIXES = (
  '.jpg',
  '.jpeg',
  '.png',
  '.gif',
  '.bmp',
  '.webp',
  '.tif',
  '.tiff',
)
# macOS and other systems add files and folders with names like these.
_NOT_OF_THE_DATA = ('__MACOSX', '.')

# RuntimeError: encrypted, or compressed in a way that zipfile does not know.
BAD_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)


class _Location(NamedTuple):
  """Path of an archive, and the name of an image in it."""

  archive: str
  name: str


class _Archive(NamedTuple):
  """An open archive, and the members that belong to the data, by name."""

  file: zipfile.ZipFile
  members: dict[str, zipfile.ZipInfo]


def stats(directory: str, flag: str) -> Callable[[str], tuple[int, int]]:
  """Returns a function from the path of an image to (bytes, mark).

  The mark changes with the content: it is the time of the last change in ns, or
  the checksum in an archive. The function raises OSError if there is no such
  image.

  Args:
    directory: directory of the images, or a .zip file of them.
    flag: the flag that gave it, for messages.

  Raises:
    ValueError: there is no such directory or archive.
  """
  if storage.isdir(directory):
    return storage.stat
  if not storage.isfile(directory):
    raise ValueError(
      f'{flag}={directory}: there is no such directory; give the directory '
      'of the images, or a .zip file of them'
    )
  if not directory.endswith('.zip'):
    raise ValueError(
      f'{flag}={directory} is a file: give the directory of the images, or a '
      '.zip file of them'
    )
  try:
    _archive(directory)
  except BAD_ZIP as error:
    raise ValueError(
      f'{flag}={directory} is not a sound zip archive ({error}): get it again'
    ) from error
  return _stat_member


def read(path: str) -> bytes:
  """Returns the bytes of an image.

  Raises:
    OSError: the image cannot be read.
  """
  location = _location(path)
  if not location:
    with storage.open_read(path) as f:
      data = f.read(image_formats.MOST_FILE_BYTES + 1)
    if len(data) > image_formats.MOST_FILE_BYTES:
      raise _too_large(path)
    return data
  archive, members = _archive(location.archive)
  if location.name not in members:
    raise FileNotFoundError(path)
  member = members[location.name]
  # zipfile unpacks no more than this size.
  if member.file_size > image_formats.MOST_FILE_BYTES:
    raise _too_large(path)
  try:
    return archive.read(member)
  except BAD_ZIP as error:
    raise OSError(f'cannot read {path}: {error}') from error


def _too_large(path: str) -> OSError:
  return OSError(
    f'{path} is larger than {image_formats.MOST_FILE_BYTES // 10**6} MB, the '
    'most that is read'
  )


def _stat_member(path: str) -> tuple[int, int]:
  location = _location(path)
  member = location and _archive(location.archive).members.get(location.name)
  if not member:
    raise FileNotFoundError(path)
  return member.file_size, member.CRC


def _location(path: str) -> _Location | None:
  """Returns where in an archive an image is; None if it is in none."""
  archive, separator, name = path.partition('.zip' + os.sep)
  archive += '.zip'
  return _Location(archive, name) if separator and _is_file(archive) else None


_is_file = functools.lru_cache(maxsize=None)(storage.isfile)


@functools.lru_cache(maxsize=None)
def _archive(path: str) -> _Archive:
  """Opens an archive, once per process."""
  archive = zipfile.ZipFile(storage.open_read(path))
  # Files that systems add may have the same names as the images.
  members = [
    info
    for info in archive.infolist()
    if not info.is_dir()
    and not any(
      part.startswith(_NOT_OF_THE_DATA) for part in info.filename.split('/')
    )
  ]
  folders = {
    info.filename.rpartition('/')[0]
    for info in members
    if info.filename.lower().endswith(_IMAGE_SUFFIXES)
  }
  folder = f'{folders.pop()}/' if len(folders) == 1 else ''
  return _Archive(
    archive, {info.filename.removeprefix(folder): info for info in members}
  )
