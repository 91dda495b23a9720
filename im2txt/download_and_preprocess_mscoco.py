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

from absl import app
from absl import flags

from im2txt import build_mscoco_data
from im2txt.data import build_options
from im2txt.data import download
from im2txt.data import mscoco
from im2txt.data import mscoco_archives
from im2txt.runtime import locks
from im2txt.runtime import program
from im2txt.text import vocabulary


def define_flags() -> None:
  build_mscoco_data.define_flags()
  flags.DEFINE_string(
    'base_url',
    os.environ.get('MSCOCO_BASE_URL') or mscoco_archives.PUBLIC_URL,
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


def _download_and_build(directory: str) -> None:
  """Downloads into `directory`/raw-data and builds `directory`."""
  raw_dir = os.path.join(directory, 'raw-data')
  annotations = os.path.join(raw_dir, 'annotations')
  for name, path in {
    'train_captions_file': os.path.join(annotations, 'captions_train2014.json'),
    'val_captions_file': os.path.join(annotations, 'captions_val2014.json'),
    'output_dir': directory,
    'word_counts_output_file': os.path.join(directory, vocabulary.FILE_NAME),
  }.items():
    flags.FLAGS.set_default(name, path)  # Flags that were given stay.
  build_options.check_options(build_mscoco_data.options_from_flags())
  os.makedirs(raw_dir, exist_ok=True)
  with locks.hold(raw_dir, 'download'):
    archives = mscoco_archives.find(
      flags.FLAGS.base_url, raw_dir, flags.FLAGS.unpack_images
    )
    mscoco_archives.check_space(
      archives, raw_dir, flags.FLAGS.output_dir, flags.FLAGS.layout
    )
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
