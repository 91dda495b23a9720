# SPDX-License-Identifier: Apache-2.0
"""Makes a small data set to try everything on, with nothing to download.

  make_sample_data [flags] DIR

Paints pictures of coloured shapes, each with five captions that are true of
it, and puts them into DIR in the archives that MSCOCO comes in; and writes
DIR/inception_v3_untrained.tar.gz, a checkpoint of Inception v3 with random
filters (no pretrained one is that small to make). So

  download_and_preprocess_mscoco --base_url=file://DIR ...
  get_inception --url=file://DIR/inception_v3_untrained.tar.gz ...

work as with the real ones. What is there already is left alone.
"""

import os
import tarfile
import tempfile
import zipfile

from absl import app
from absl import flags

# Before TensorFlow, which im2txt keeps quiet while it is imported.
from im2txt import program
import tensorflow as tf
from im2txt import checkpoints
from im2txt.data import sample_dataset
from im2txt.files import replacing
from im2txt.progress import log
from im2txt.ops import image_processing
from im2txt.ops import untrained_inception

FLAGS = flags.FLAGS

flags.DEFINE_integer('num_train_images', 1200, 'Pictures in train2014.')
flags.DEFINE_integer(
    'num_val_images', 1000,
    'Pictures in val2014. Of these, prepare takes 85 % to train on, 5 % to '
    'validate and 10 % to test.')
flags.DEFINE_integer('seed', 1, 'Of pictures, captions and filters.')

_INCEPTION_ARCHIVE = 'inception_v3_untrained.tar.gz'
_CHECKPOINT = 'inception_v3.ckpt'
# Images whose statistics the batch norm takes; some more change little.
_NUM_STATISTICS = 64


def write_inception(directory, seed):
  """Writes the untrained checkpoint's archive.

  Args:
    directory: str, where the archives of `sample_dataset.write` are.
    seed: int, of the filters.
  """
  path = os.path.join(directory, _INCEPTION_ARCHIVE)
  log('Making an untrained Inception v3 checkpoint')
  with zipfile.ZipFile(
      os.path.join(directory, 'zips', 'train2014.zip')) as archive:
    names = archive.namelist()[:_NUM_STATISTICS]
    images = tf.stack([
        image_processing.process_image(archive.read(name)) for name in names])
  tf.random.set_seed(seed)
  with tempfile.TemporaryDirectory(dir=directory) as staging:
    checkpoints.write(os.path.join(staging, _CHECKPOINT),
                      untrained_inception.weights(images))
    # Random numbers do not get smaller: no time is spent on trying.
    with replacing(path) as temporary, tarfile.open(
        temporary, 'w:gz', compresslevel=1) as tar:
      for name in sorted(os.listdir(staging)):
        tar.add(os.path.join(staging, name), arcname=name)


def main(argv):
  if len(argv) != 2:
    raise app.UsageError('Give one directory: make_sample_data [flags] DIR')
  for name in ('num_train_images', 'num_val_images'):
    if FLAGS[name].value < 20:
      raise ValueError(f'--{name}={FLAGS[name].value} should be 20 or more')
  directory = argv[1]
  os.makedirs(directory, exist_ok=True)
  is_new = sample_dataset.write(
      directory,
      {'train': FLAGS.num_train_images, 'val': FLAGS.num_val_images},
      FLAGS.seed)
  if is_new or not os.path.exists(os.path.join(directory, _INCEPTION_ARCHIVE)):
    write_inception(directory, FLAGS.seed)
  log(f'The sample data is in {directory}')


if __name__ == '__main__':
  program.run(main, takes_argument=True)
