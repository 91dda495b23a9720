# SPDX-License-Identifier: Apache-2.0
"""The bytes of pictures, in directories or in zip archives.

The path of a picture in an archive is that of the archive and then its name,
as if the archive were a directory: coco/train2014.zip/1.jpg. If all pictures of
the archive are in one folder, as in those of COCO, names are relative to that.
"""

import functools
import os
import zipfile
import zlib

from im2txt.data import image_formats

_PICTURES = ('.jpg', '.jpeg', '.png', '.gif', '.bmp', '.webp', '.tif', '.tiff')
# Names of files and folders begin so that macOS and others add to archives.
_NOT_OF_THE_DATA = ('__MACOSX', '.')

# RuntimeError: encrypted, or packed in a way that zipfile does not know.
BAD_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)


def stats(directory, flag):
  """Returns a function from a path to (bytes, mark of the content).

  The function raises OSError if there is no such picture. The mark changes
  with the content: the time of change in ns, in an archive the checksum.

  Args:
    directory: of the pictures, or a .zip file of it.
    flag: str, the flag that gave it, for messages.

  Raises:
    ValueError: it is neither.
  """
  if os.path.isdir(directory):
    return _stat_file
  if not os.path.isfile(directory):
    raise ValueError(
      f'There is no image directory {directory}: give {flag} '
      'the directory of the pictures, or a .zip file of it.'
    )
  if not directory.endswith('.zip'):
    raise ValueError(
      f'{flag}={directory} is a file: give it the directory of '
      'the pictures, or a .zip file of it.'
    )
  try:
    _archive(directory)
  except BAD_ZIP as error:
    raise ValueError(
      f'{flag}={directory} is no sound zip archive ({error}): get it again.'
    ) from error
  return _stat_member


def read(path):
  """Returns the bytes of a picture.

  Raises:
    OSError: it cannot be read.
  """
  location = _location(path)
  if not location:
    with open(path, 'rb') as f:
      data = f.read(image_formats.MOST_FILE_BYTES + 1)
    if len(data) > image_formats.MOST_FILE_BYTES:
      raise _too_large(path)
    return data
  archive, members = _archive(location[0])
  if location[1] not in members:
    raise FileNotFoundError(path)
  # No more than it says is unpacked.
  if members[location[1]].file_size > image_formats.MOST_FILE_BYTES:
    raise _too_large(path)
  try:
    return archive.read(members[location[1]])
  except BAD_ZIP as error:
    raise OSError(f'Cannot read {path}: {error}') from error


def _too_large(path):
  return OSError(
    f'{path} is larger than the {image_formats.MOST_FILE_BYTES // 10**6} MB '
    'that are read'
  )


def _stat_file(path):
  status = os.stat(path)
  return status.st_size, status.st_mtime_ns


def _stat_member(path):
  archive, name = _location(path)
  member = _archive(archive)[1].get(name)
  if member is None:
    raise FileNotFoundError(path)
  return member.file_size, member.CRC


def _location(path):
  """Returns (archive, name) of a picture in an archive, None of another."""
  archive, separator, name = path.partition('.zip' + os.sep)
  archive += '.zip'
  return (archive, name) if separator and _is_file(archive) else None


_is_file = functools.lru_cache(maxsize=None)(os.path.isfile)


@functools.lru_cache(maxsize=None)
def _archive(path):
  """Returns (ZipFile, name -> ZipInfo) of an archive; one a process."""
  archive = zipfile.ZipFile(path)
  # What systems add to archives has the names of the pictures, perhaps.
  files = [
    info
    for info in archive.infolist()
    if not info.is_dir()
    and not any(
      part.startswith(_NOT_OF_THE_DATA) for part in info.filename.split('/')
    )
  ]
  folders = {
    info.filename.rpartition('/')[0]
    for info in files
    if info.filename.lower().endswith(_PICTURES)
  }
  folder = f'{folders.pop()}/' if len(folders) == 1 else ''
  return archive, {info.filename.removeprefix(folder): info for info in files}
