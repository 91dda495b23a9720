# SPDX-License-Identifier: Apache-2.0
r"""Prepares the Inception v3 of a checkpoint for --precision=int8.

  calibrate_encoder [--checkpoint_path=DIR_OR_PREFIX] FILE...
  calibrate_encoder [--checkpoint_path=DIR_OR_PREFIX] \
      --input_file_pattern='train-?????-of-00256'

It computes some images, as FILE or in shards, in float32, and writes how large
the values in the network become: int8_calibration.json beside the checkpoint.
Take images like those to be captioned, such as those of training; do not
measure on them. Captions of them are not needed. Every program that captions
then knows --precision=int8.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import itertools
import os
import typing

from absl import flags
from absl import logging

from im2txt.checkpoints import int8_stamp
from im2txt.data import shards
from im2txt.inference_utils import image_files
from im2txt.inference_utils import library
from im2txt.inference_utils import model_flags
from im2txt.runtime import program
from im2txt.runtime import progress

if typing.TYPE_CHECKING:
  import tensorflow as tf

FLAGS = flags.FLAGS

_AHEAD = 32  # Images that wait for the network at most.


def define_flags() -> None:
  model_flags.define_flags(has_default=True)
  flags.DEFINE_string(
    'input_file_pattern',
    '',
    'File pattern of sharded TFRecord files of images, in the place of FILE.',
  )
  flags.DEFINE_integer(
    'max_images', 256, 'Number of images to take at most.', lower_bound=1
  )


def main(argv: Sequence[str]) -> int:
  names = argv[1:]
  if bool(FLAGS.input_file_pattern) == bool(names):
    raise ValueError('give either --input_file_pattern or image files')
  captioner = library.Captioner.load(
    [FLAGS.checkpoint_path] if FLAGS.checkpoint_path else None,
    vocab_file=FLAGS.vocab_file or None,
  ).model
  source = FLAGS.input_file_pattern or ', '.join(names)
  if names:
    files, _ = image_files.find_or_tell(names)
    # Names that follow one another are often of similar images.
    step = -(-len(files) // FLAGS.max_images)
    images = _good(
      image_files.read_images(files[::step], captioner.decode, _AHEAD)
    )
  else:
    stored = itertools.islice(
      shards.images(shards.list_files(source)), FLAGS.max_images
    )
    found = image_files.ahead_of_caller(stored, captioner.decode, _AHEAD)
    images = _good(found)
  (encoder,) = captioner.encoders
  calibration = encoder.calibrate(images, source)
  directory = os.path.dirname(captioner.prefixes[0])
  int8_stamp.save(directory, calibration)
  logging.info(
    'wrote %s from %d images',
    os.path.join(directory, int8_stamp.FILE_NAME),
    calibration.images,
  )
  return 0


def _good(
  decoded: 'Iterator[tuple[str | bytes, tf.Tensor | OSError | ValueError]]',
) -> 'Iterator[tf.Tensor]':
  """Yields images; prints on standard error which cannot be decoded."""
  with progress.Progress('Calibrating', FLAGS.max_images, 'images') as bar:
    for name, image in decoded:
      if isinstance(image, Exception):
        where = 'an image of a shard' if isinstance(name, bytes) else name
        image_files.tell_skipped(where, image)
      else:
        yield image
      bar.update(1)


if __name__ == '__main__':
  program.run(main, define_flags, takes_argument=True)
