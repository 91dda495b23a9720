# SPDX-License-Identifier: Apache-2.0
"""Exports a model that TensorFlow runs without im2txt.

  export_model --export_dir=DIR [--checkpoint_path=DIR_OR_PREFIX[,...]] [FLAG...]

Without --checkpoint_path the model that get_model puts together is taken. See
docs/export.md for what is written and how to use it.
"""

from collections.abc import Sequence
import dataclasses
import os

from absl import flags
from absl import logging

from im2txt.encoders import tensorflow_lite
from im2txt.export import frozen_graph
from im2txt.export import saved_model
from im2txt.export import tflite
from im2txt.inference_utils import library
from im2txt.inference_utils import model_flags
from im2txt.inference_utils import search_config
from im2txt.runtime import program
from im2txt.runtime import storage

FLAGS = flags.FLAGS

_FROZEN_GRAPH = 'frozen_graph.pb'


def define_flags() -> None:
  model_flags.define_flags(takes_several=True, has_default=True)
  flags.DEFINE_string('export_dir', '', 'Directory to write to.')
  flags.DEFINE_enum(
    'format',
    'saved_model',
    ['saved_model', 'frozen_graph', 'tflite'],
    'saved_model: from image files to captions, in a directory named by '
    f'--version. frozen_graph: {_FROZEN_GRAPH}, with the names of 2016 and '
    'without a search. tflite: for TensorFlow Lite, without a search.',
  )
  flags.DEFINE_integer(
    'version',
    None,
    'Number of the SavedModel for TensorFlow Serving. Without it the training '
    'step is taken.',
    lower_bound=0,
  )
  flags.DEFINE_integer(
    'batch_size',
    16,
    f'Largest batch of TensorFlow Serving, in {saved_model.BATCHING}.',
    lower_bound=1,
  )
  flags.DEFINE_bool(
    'exif_orientation',
    True,
    'Let the SavedModel turn images as their EXIF data say.',
  )
  search_config.define_flags()
  model_flags.define_precision(
    ['float16'],
    ' tflite has float32, float16 and int8, without openvino; the others '
    'float32 and bfloat16.',
  )


def main(argv: Sequence[str]) -> int:
  del argv
  program.require(FLAGS, 'export_dir')
  storage.require_local('export_dir', FLAGS.export_dir)
  as_tflite = FLAGS.format == 'tflite'
  possible = (
    tensorflow_lite.PRECISIONS if as_tflite else ('float32', 'bfloat16')
  )
  if FLAGS.precision not in possible:
    raise ValueError(
      f'--format={FLAGS.format} has no --precision={FLAGS.precision}: give '
      + ' or '.join(possible)
    )
  captioner = library.Captioner.load(
    FLAGS.checkpoint_path or None,
    vocab_file=FLAGS.vocab_file or None,
    # TensorFlow Lite converts what is float32.
    precision='float32' if as_tflite else FLAGS.precision,
    **dataclasses.asdict(search_config.from_flags(FLAGS)),
  )
  if FLAGS.format == 'frozen_graph':
    os.makedirs(FLAGS.export_dir, exist_ok=True)
    path = os.path.join(FLAGS.export_dir, _FROZEN_GRAPH)
    frozen_graph.save(captioner.model, path)
  elif as_tflite:
    path = FLAGS.export_dir
    tflite.save(captioner.model, path, FLAGS.precision)
  else:
    path = saved_model.save(
      captioner.model,
      FLAGS.export_dir,
      FLAGS.version,
      FLAGS.exif_orientation,
      FLAGS.batch_size,
    )
  logging.info(
    'exported the checkpoint of step %d to %s', captioner.global_step, path
  )
  return 0


if __name__ == '__main__':
  program.run(main, define_flags)
