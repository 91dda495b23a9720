# SPDX-License-Identifier: Apache-2.0
"""Measures what training and captioning reach of what the machine can do.

  benchmark --output_dir=DIR

First the machine's own limits: the rate of matrix products, of Inception v3
alone and of decoding JPEGs. Beside them, in the same run: the training step
from cached features and from images, the LSTM beside other ways to compute it,
captioning, preparing shards, and the programs as whole processes with their
peak memory. Each figure is a median after a warm-up.

A table is printed; DIR gets benchmark.json, time.png (where the time goes) and
growth.png (how cost grows with batch, beam, caption length and vocabulary).

Without --checkpoint_path the model has random weights of the default size. Its
captions never end by themselves, so the search takes all of its steps: the
slowest case.
"""

import os
import tempfile

from absl import flags

# Before TensorFlow, which im2txt keeps quiet while it is imported.
from im2txt.runtime import program
import tensorflow as tf
from im2txt.benchmarks import figures
from im2txt.benchmarks import suite
from im2txt.runtime.files import write_json

FLAGS = flags.FLAGS


def define_flags():
  flags.DEFINE_string('output_dir', '', 'Directory for the JSON and the plots.')
  flags.DEFINE_string(
    'checkpoint_path', '', 'Model to caption with; empty: random weights.'
  )
  flags.DEFINE_string('vocab_file', '', 'Vocabulary of --checkpoint_path.')
  flags.DEFINE_integer(
    'repeats', 7, 'Measurements, of which the median counts.', lower_bound=1
  )
  flags.DEFINE_integer(
    'num_images', 64, 'JPEG files to caption.', lower_bound=32
  )
  flags.DEFINE_integer(
    'num_prepared',
    2000,
    'Images of which shards are made, 1 MB of disk each. 0 measures none.',
  )
  flags.DEFINE_bool('growth', True, 'Whether to measure what growth.png shows.')


def main(_):
  program.require(FLAGS, 'output_dir')
  if bool(FLAGS.checkpoint_path) != bool(FLAGS.vocab_file):
    raise ValueError('--checkpoint_path and --vocab_file go together')
  # Of fewer, the time is lost in that of starting.
  if 0 < FLAGS.num_prepared < 1000:
    raise ValueError(
      f'--num_prepared={FLAGS.num_prepared} should be 0, or 1000 or more'
    )
  os.makedirs(FLAGS.output_dir, exist_ok=True)
  tf.random.set_seed(1)  # Other weights end captions elsewhere.
  with tempfile.TemporaryDirectory() as directory:
    benchmark = suite.Benchmark(
      directory,
      FLAGS.repeats,
      FLAGS.num_images,
      FLAGS.num_prepared,
      FLAGS.checkpoint_path,
      FLAGS.vocab_file,
    )
    benchmark.machine()
    benchmark.training()
    benchmark.lstm()
    benchmark.captioning()
    benchmark.programs()
    benchmark.saving()
    if FLAGS.num_prepared:
      benchmark.preparing()
    if FLAGS.growth:
      benchmark.growth()
  write_json(
    os.path.join(FLAGS.output_dir, 'benchmark.json'),
    {
      'processors': os.cpu_count(),
      'tensorflow': tf.__version__,
      **benchmark.results,
    },
  )
  figures.draw(benchmark.results, FLAGS.output_dir)
  print(
    f'{FLAGS.output_dir}: benchmark.json, time.png'
    + (', growth.png' if FLAGS.growth else '')
  )


if __name__ == '__main__':
  program.run(main, define_flags)
