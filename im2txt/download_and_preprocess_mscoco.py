# SPDX-License-Identifier: Apache-2.0
"""Downloads MSCOCO 2014 and makes training data of it.

  download_and_preprocess_mscoco [flags] DIR

The archives of the images (train2014.zip, val2014.zip) go into DIR/raw-data.
They are read without unpacking them. The captions go into
DIR/raw-data/annotations, and the shards and word_counts.txt into DIR. All flags
of build_mscoco_data can be used too. If a run is interrupted, the same command
resumes it.

The whole of MSCOCO takes about 122 GB, or 41 GB with --layout=compact.
--unpack_images adds 25 GB.
"""

from collections.abc import Sequence
import os
import shutil

from absl import app
from absl import flags

from im2txt import build_mscoco_data
from im2txt.data import build_options
from im2txt.data import download
from im2txt.data import mscoco
from im2txt.runtime import locks
from im2txt.runtime import program

_PUBLIC_URL = 'http://images.cocodataset.org'


# Path, folder, bytes, MD5 and growth of the public archives.
_ARCHIVES = [
  (
    'annotations/annotations_trainval2014.zip',
    'annotations',
    252872794,
    '0a379cfc70b0e71301e0f377548639bd',
    3.5,
  ),
  (
    'zips/val2014.zip',
    'val2014',
    6645013297,
    'a3d79f5ed8d289b7a7554ce06a5782b3',
    1.1,
  ),
  (
    'zips/train2014.zip',
    'train2014',
    13510573713,
    '0da8c0bd3d6becc4dcb32757491aca88',
    1.1,
  ),
]

# In the layout `pairs` an image is in the shards once per caption.
_CAPTIONS_PER_IMAGE = 5


def define_flags() -> None:
  build_mscoco_data.define_flags()
  flags.DEFINE_string(
    'base_url',
    os.environ.get('MSCOCO_BASE_URL') or _PUBLIC_URL,
    'URL (http, https or file) of zips/train2014.zip, zips/val2014.zip and '
    'annotations/annotations_trainval2014.zip. MSCOCO_BASE_URL sets the '
    'default. For a URL other than the public one, checksums are read from a '
    'SHA256SUMS or MD5SUMS file beside the archives.',
  )
  flags.DEFINE_bool(
    'unpack_images',
    False,
    'Unpack the images into raw-data/train2014 and raw-data/val2014, as in '
    '2016. Without this flag they are read from the archives. Directories that '
    'exist already are used in either case.',
  )


def _archives(base_url: str, raw_dir: str) -> list[download.Archive]:
  """Returns the archives, and asks the server about those to download."""
  base_url = base_url.rstrip('/')
  if not base_url.startswith(('http://', 'https://', 'file://')):
    raise ValueError(
      f'--base_url={base_url} must begin with http://, https:// or file://'
    )
  archives = []
  for path, folder, size, md5, growth in _ARCHIVES:
    archive = download.Archive(
      f'{base_url}/{path}',
      folder,
      growth=growth,
      unpack=folder == 'annotations' or flags.FLAGS.unpack_images,
      flag='--base_url',
    )
    if base_url == _PUBLIC_URL:
      archive = archive._replace(size=size, checksum=('md5', md5))
    elif not download.is_done(archive, raw_dir):
      here = os.path.join(raw_dir, archive.name)
      # An archive that has its name was checked.
      archive = (
        archive._replace(size=os.path.getsize(here))
        if os.path.exists(here)
        else download.look_up(archive)
      )
    archives.append(archive)
  return archives


def _check_space(archives: Sequence[download.Archive], raw_dir: str) -> None:
  """Raises ValueError if there is too little space on the disk.

  Args:
    archives: to download.
    raw_dir: their directory. Shards count too if they are on the same disk.
  """
  needed = sum(download.space_needed(archive, raw_dir) for archive in archives)
  output_dir = flags.FLAGS.output_dir
  os.makedirs(output_dir, exist_ok=True)
  if os.stat(output_dir).st_dev == os.stat(raw_dir).st_dev:
    copies = 1 if flags.FLAGS.layout == 'compact' else _CAPTIONS_PER_IMAGE
    needed += copies * sum(
      archive.size or 0
      for archive in archives
      if archive.folder != 'annotations'
      and not download.is_done(archive, raw_dir)
    )
  free = shutil.disk_usage(raw_dir).free
  if needed > free:
    raise ValueError(
      f'{raw_dir} needs about {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB '
      'are free: make room or give another directory'
    )


def _download_and_build(directory: str) -> None:
  """Downloads into `directory`/raw-data and builds `directory`."""
  raw_dir = os.path.join(directory, 'raw-data')
  annotations = os.path.join(raw_dir, 'annotations')
  for name, path in {
    'train_captions_file': os.path.join(annotations, 'captions_train2014.json'),
    'val_captions_file': os.path.join(annotations, 'captions_val2014.json'),
    'output_dir': directory,
    'word_counts_output_file': os.path.join(directory, 'word_counts.txt'),
  }.items():
    flags.FLAGS.set_default(name, path)  # Flags that were given stay.
  build_options.check_options(build_mscoco_data.options_from_flags())
  os.makedirs(raw_dir, exist_ok=True)
  with locks.hold(raw_dir, 'download'):
    archives = _archives(flags.FLAGS.base_url, raw_dir)
    _check_space(archives, raw_dir)
    for archive in archives:
      download.obtain(archive, raw_dir)
      if archive.folder != 'annotations':
        flags.FLAGS.set_default(
          archive.folder.replace('2014', '_image_dir'),
          download.location(archive, raw_dir),
        )
  mscoco.build(build_mscoco_data.options_from_flags())


def main(argv: Sequence[str]) -> None:
  if len(argv) != 2:
    raise app.UsageError(
      'give one directory: download_and_preprocess_mscoco [flags] DIR'
    )
  program.run_resumable(lambda: _download_and_build(argv[1]))


if __name__ == '__main__':
  program.run(main, define_flags, takes_argument=True)
