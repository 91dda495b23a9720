# SPDX-License-Identifier: Apache-2.0
"""Downloads the Inception v3 checkpoint that training starts from.

  get_inception [--url=URL] DIR

Leaves DIR/inception_v3.ckpt: one file as published in 2016, or an .index and
its .data files, according to the archive. What is there already is left alone;
an interrupted download goes on when the same command is run again.
"""

import gzip
import os
import re
import shutil
import sys
import tarfile
import tempfile
import zlib

from absl import app
from absl import flags

from im2txt import program
from im2txt import progress
from im2txt.data import download

_PUBLIC_URL = ('http://download.tensorflow.org/models/'
               'inception_v3_2016_08_28.tar.gz')
_CHECKPOINT = 'inception_v3.ckpt'
_DATA_FILE = re.compile(re.escape(_CHECKPOINT) + r'\.data-\d{5}-of-(\d{5})')

flags.DEFINE_string(
    'url', os.environ.get('INCEPTION_URL') or _PUBLIC_URL,
    f'Gzipped tar archive with {_CHECKPOINT} in it (http, https or file); '
    'INCEPTION_URL sets the default.')


def _files_of_checkpoint(names):
  """Returns those of the names that make the checkpoint; none if not whole.

  Args:
    names: list of str.

  Returns:
    List of str; the one that shows that the checkpoint is there comes last.
  """
  if _CHECKPOINT in names:
    return [_CHECKPOINT]
  data = [name for name in sorted(names) if _DATA_FILE.fullmatch(name)]
  index = _CHECKPOINT + '.index'
  if (index not in names or not data
      or len(data) != int(_DATA_FILE.fullmatch(data[0])[1])):
    return []
  return data + [index]


def _fetch(url, directory):
  """Returns the path of the archive, downloaded into `directory`."""
  archive = download.Archive(url, folder='')
  part = os.path.join(directory, f'.{archive.name}.part')
  try:
    download.transfer(download.described(archive), part)
  except ValueError as e:
    # The downloader's advice is about another program's flag.
    raise ValueError(f'{url}: {e.__cause__ or e}. Give --url another '
                     'place.') from e
  progress.log(f'Downloaded {url}')
  return part


def _unpack(path, directory):
  """Puts the checkpoint of the archive at `path` into `directory`.

  Args:
    path: str, a gzipped tar archive.
    directory: str, on the same disk.

  Raises:
    ValueError: the archive is damaged, or holds no whole checkpoint.
  """
  with tempfile.TemporaryDirectory(
      prefix='.unpack-', dir=directory) as staging:
    try:
      with gzip.open(path) as stream:
        with tarfile.open(fileobj=stream, mode='r|') as archive:
          for member in archive:
            name = os.path.basename(member.name)
            if member.isfile() and name.startswith(_CHECKPOINT):
              # By its last name alone, so never outside of the directory.
              with archive.extractfile(member) as source, open(
                  os.path.join(staging, name), 'wb') as copy:
                shutil.copyfileobj(source, copy)
        # The checksum comes after the padding that tarfile leaves unread.
        while stream.read(1 << 20):
          pass
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as e:
      raise ValueError(f'not a sound .tar.gz archive ({e})') from e
    files = _files_of_checkpoint(os.listdir(staging))
    if not files:
      raise ValueError(f'there is no {_CHECKPOINT} in it')
    for name in files:
      os.replace(os.path.join(staging, name), os.path.join(directory, name))


def get_inception(url, directory):
  """Makes `directory`/inception_v3.ckpt unless it is there.

  Args:
    url: str, of a gzipped tar archive.
    directory: str, made if missing.

  Raises:
    ValueError: the server has no such archive, or one without the checkpoint.
    OSError: the download or the disk failed; a later call goes on.
  """
  os.makedirs(directory, exist_ok=True)
  checkpoint = os.path.join(directory, _CHECKPOINT)
  if _files_of_checkpoint(os.listdir(directory)):
    progress.log(f'{checkpoint} is there already.')
    return
  archive = _fetch(url, directory)
  try:
    _unpack(archive, directory)
  except ValueError as e:
    os.remove(archive)
    raise ValueError(f'{url}: {e}. Run the same command again, or give --url '
                     'another place.') from e
  os.remove(archive)
  progress.log(f'The checkpoint is {checkpoint}')


def main(argv):
  if len(argv) != 2:
    raise app.UsageError('Give one directory: get_inception [flags] DIR')
  url = flags.FLAGS.url
  if not url.startswith(('http://', 'https://', 'file://')):
    raise ValueError(f'--url={url} must begin with http://, https:// or '
                     'file://.')
  try:
    get_inception(url, argv[1])
  except KeyboardInterrupt:
    print('Interrupted; the same command goes on from here.', file=sys.stderr)
    sys.exit(130)  # As shells report an interrupted command.


if __name__ == '__main__':
  program.run(main, takes_argument=True)
