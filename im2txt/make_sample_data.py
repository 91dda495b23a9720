# SPDX-License-Identifier: Apache-2.0
"""Makes a small data set to try everything on, without any download.

  make_sample_data [flags] DIR

The images show coloured shapes, and each has five captions that are true of it.
They are put into DIR as archives like those of MSCOCO, so that this command
works as with the real data:

  download_and_preprocess_mscoco --base_url=file://DIR ...

Files that exist already stay as they are.
"""

from collections.abc import Sequence

from absl import app
from absl import flags

from im2txt.runtime import program
from im2txt.runtime.progress import log
from im2txt.sample import dataset

FLAGS = flags.FLAGS


def define_flags() -> None:
  flags.DEFINE_integer(
    'num_train_images', 1200, 'Images in train2014.', lower_bound=20
  )
  flags.DEFINE_integer(
    'num_val_images',
    1000,
    'Images in val2014. Of these, prepare takes 85 % for training, 5 % for '
    'validation and 10 % for testing.',
    lower_bound=20,
  )
  flags.DEFINE_integer(
    'num_workers', 0, 'Number of processes; 0 for one per core.', lower_bound=0
  )
  flags.DEFINE_integer('seed', 1, 'Seed of images and captions.')


def main(argv: Sequence[str]) -> None:
  if len(argv) != 2:
    raise app.UsageError('give one directory: make_sample_data [flags] DIR')

  dataset.write(
    argv[1],
    {'train': FLAGS.num_train_images, 'val': FLAGS.num_val_images},
    FLAGS.seed,
    FLAGS.num_workers,
    '--num_workers',
  )
  log(f'The sample data is in {argv[1]}')


if __name__ == '__main__':
  program.run(main, define_flags, takes_argument=True)
