# SPDX-License-Identifier: Apache-2.0
"""Measures the speed of training and captioning beside the machine's limits.

  benchmark --output_dir=DIR

It names the device, which is the first GPU where there is one. It first measures
the limits of the machine: the rate of matrix products on this device, of
Inception v3 alone and of decoding JPEGs. In the same run it measures the
training step from cached features and from images, the joint step of decoder
and Inception, the LSTM and other ways to compute it, captioning, saving
checkpoints, preparing shards, and whole programs with their peak memory. Each
figure is a median after a warm-up. On a GPU the peak memory of its steps is
measured too.

It prints a table, and writes into DIR benchmark.json, time.png (parts of the
time) and growth.png (how the cost grows with sizes of batch, beam, caption and
vocabulary).

Without --checkpoint_path the model has random weights of the default size. Its
captions never end, so the search takes all of its steps. This is the slowest
case.

With --encoders_file_pattern it does another thing: it compares encoders of the
model, in precisions and by runtimes, on the images of shards. The model needs
calibrate_encoder first. Encoders whose package is not installed are left out;
see requirements-int8.txt and requirements-benchmark.txt. encoders.json gets the
table.
"""

from collections.abc import Sequence
import os
import tempfile

from absl import flags

# Before TensorFlow, which im2txt keeps quiet while it is imported.
from im2txt.runtime import program
import tensorflow as tf
from im2txt.benchmarks import devices
from im2txt.benchmarks import encoders
from im2txt.benchmarks import figures
from im2txt.benchmarks import suite
from im2txt.data import shards
from im2txt.inference_utils import captioner as captioner_lib
from im2txt.metrics import summary
from im2txt.runtime.files import write_json

FLAGS = flags.FLAGS


def define_flags() -> None:
  flags.DEFINE_string(
    'output_dir', '', 'Directory for the JSON file and the plots.'
  )
  flags.DEFINE_string(
    'checkpoint_path',
    '',
    'Model to caption with. The default is random weights.',
  )
  flags.DEFINE_string('vocab_file', '', 'Vocabulary of --checkpoint_path.')
  flags.DEFINE_integer(
    'repeats', 7, 'Measurements per figure; the median counts.', lower_bound=1
  )
  flags.DEFINE_integer(
    'num_images', 64, 'Number of JPEG files to caption.', lower_bound=32
  )
  flags.DEFINE_integer(
    'num_prepared',
    2000,
    'Number of images to make shards of, 1 MB of disk each. 0 skips this.',
    lower_bound=0,
  )
  flags.DEFINE_bool('growth', True, 'Whether to measure and draw growth.png.')
  flags.DEFINE_string(
    'encoders_file_pattern',
    '',
    'File pattern of shards of validation images, to only compare encoders of '
    '--checkpoint_path on.',
  )
  flags.DEFINE_integer(
    'encoder_threads', 1, 'Threads of each compared encoder.', lower_bound=1
  )
  flags.DEFINE_integer(
    'max_images', 0, 'Images to compare encoders on; 0 for all.', lower_bound=0
  )


def main(_: Sequence[str]) -> None:
  program.require(FLAGS, 'output_dir')
  if bool(FLAGS.checkpoint_path) != bool(FLAGS.vocab_file):
    raise ValueError(
      '--checkpoint_path and --vocab_file must be given together'
    )
  if FLAGS.encoders_file_pattern:
    compare_encoders()
    return
  # With fewer images, start-up takes most of the time.
  if 0 < FLAGS.num_prepared < 1000:
    raise ValueError(
      f'--num_prepared={FLAGS.num_prepared} must be 0, or 1000 or more'
    )
  os.makedirs(FLAGS.output_dir, exist_ok=True)
  devices.prepare()
  with tempfile.TemporaryDirectory() as directory:
    results = suite.Benchmark(
      directory,
      FLAGS.repeats,
      FLAGS.num_images,
      FLAGS.num_prepared,
      FLAGS.checkpoint_path,
      FLAGS.vocab_file,
    ).run(FLAGS.growth)
  write_json(
    os.path.join(FLAGS.output_dir, 'benchmark.json'),
    {
      'processors': os.cpu_count(),
      'tensorflow': tf.__version__,
      **results,
    },
  )
  figures.draw(results, FLAGS.output_dir)
  print(
    f'{FLAGS.output_dir}: benchmark.json, time.png'
    + (', growth.png' if FLAGS.growth else '')
  )


def compare_encoders() -> None:
  """Prints and writes how encoders compare."""
  if not FLAGS.checkpoint_path:
    raise ValueError('--encoders_file_pattern needs --checkpoint_path')
  os.makedirs(FLAGS.output_dir, exist_ok=True)
  # They are compared on the processor, where all of them run.
  tf.config.set_visible_devices([], 'GPU')
  tf.config.threading.set_intra_op_parallelism_threads(FLAGS.encoder_threads)
  tf.config.threading.set_inter_op_parallelism_threads(1)
  paths = shards.list_files(
    FLAGS.encoders_file_pattern, 'encoders_file_pattern'
  )
  captioner = captioner_lib.Captioner([FLAGS.checkpoint_path], FLAGS.vocab_file)
  results = encoders.compare(
    captioner,
    encoders.make_encoders(captioner, FLAGS.encoder_threads),
    paths,
    FLAGS.max_images,
  )
  print(summary.table(results))
  write_json(os.path.join(FLAGS.output_dir, 'encoders.json'), results)


if __name__ == '__main__':
  program.run(main, define_flags)
