# SPDX-License-Identifier: Apache-2.0
"""Makes a small data set to try everything on, with nothing to download.

  make_sample_data [flags] DIR

Paints pictures of coloured shapes, each with five captions that are true of
it, and puts them into DIR in the archives that MSCOCO comes in. So

  download_and_preprocess_mscoco --base_url=file://DIR ...

works as with the real ones. What is there already is left alone.
"""

from absl import app
from absl import flags

from im2txt.runtime import program
from im2txt.runtime.progress import log
from im2txt.sample import dataset

FLAGS = flags.FLAGS


def define_flags():
  flags.DEFINE_integer('num_train_images', 1200, 'Images in train2014.')
  flags.DEFINE_integer(
    'num_val_images',
    1000,
    'Images in val2014. Of these, prepare takes 85 % to train on, 5 % to '
    'validate and 10 % to test.',
  )
  flags.DEFINE_integer(
    'num_workers', 0, 'Number of processes, 0 for one per core.', lower_bound=0
  )
  flags.DEFINE_integer('seed', 1, 'Seed of images and captions.')


def main(argv):
  if len(argv) != 2:
    raise app.UsageError('Give one directory: make_sample_data [flags] DIR')
  for name in ('num_train_images', 'num_val_images'):
    if FLAGS[name].value < 20:
      raise ValueError(f'--{name}={FLAGS[name].value} should be 20 or more')
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
