# SPDX-License-Identifier: Apache-2.0
r"""Fits the confidence in the captions of a checkpoint.

  fit_confidence --checkpoint_path=train_dir --input_file_pattern='val-*'

It takes images that the model was not trained on, with their references. Half
of them are for the fit, half to measure it. confidence.json beside the
checkpoint is then read by every program that captions.
"""

from collections.abc import Sequence
import os

from absl import flags
from absl import logging

from im2txt import checkpoints
from im2txt.checkpoints import confidence_stamp
from im2txt.data import shards
from im2txt.evaluation import beam_sweep
from im2txt.evaluation import confidence_fit
from im2txt.evaluation import scoring
from im2txt.inference_utils import captioner as captioner_lib
from im2txt.inference_utils import model_flags
from im2txt.inference_utils import search_config
from im2txt.runtime import files
from im2txt.runtime import program
from im2txt.text import vocabulary_stamp

FLAGS = flags.FLAGS


def define_flags() -> None:
  model_flags.define_flags()
  flags.DEFINE_string(
    'input_file_pattern',
    '',
    'File pattern of sharded TFRecord files of validation images.',
  )
  flags.DEFINE_integer(
    'max_images', 0, 'Number of images to take; 0 for all.', lower_bound=0
  )
  flags.DEFINE_float(
    'cider',
    0.5,
    'A caption counts as good if its CIDEr is at least this.',
    lower_bound=0,
    upper_bound=10,
  )
  flags.DEFINE_string(
    'plot_file', '', 'PNG file for the reliability plot. Without it none.'
  )
  search_config.define_flags()


def main(_: Sequence[str]) -> None:
  program.require(FLAGS, 'checkpoint_path', 'input_file_pattern')
  program.require_output_directories(FLAGS, 'plot_file')
  vocab_file = checkpoints.vocabulary_of(
    FLAGS.checkpoint_path, FLAGS.vocab_file
  )
  captioner = captioner_lib.Captioner(
    [FLAGS.checkpoint_path], vocab_file, search_config.from_flags(FLAGS)
  )
  paths = shards.list_files(FLAGS.input_file_pattern)
  stamps = [
    vocabulary_stamp.of_checkpoint(captioner.prefixes[0]),
    *vocabulary_stamp.of_shards(paths),
  ]
  fitted = confidence_fit.fit(
    captioner,
    beam_sweep.Images.of_shards(paths, FLAGS.max_images, captioner.vocab),
    FLAGS.cider,
    scoring.split_of(vocabulary_stamp.first_known(stamps)),
  )
  directory = os.path.dirname(captioner.prefixes[0])
  confidence_stamp.save(directory, fitted.confidence)
  for name, value in fitted.confidence.measured.items():
    print(f'{name} = {value:g}')
  print(confidence_fit.table(fitted.predicted, fitted.good))
  if FLAGS.plot_file:
    files.write_figure(
      FLAGS.plot_file,
      confidence_fit.draw(fitted.predicted, fitted.good, FLAGS.cider),
    )
  logging.info('wrote %s', os.path.join(directory, confidence_stamp.FILE_NAME))


if __name__ == '__main__':
  program.run(main, define_flags)
