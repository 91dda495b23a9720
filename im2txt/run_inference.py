# SPDX-License-Identifier: Apache-2.0
"""Writes captions for image files, with a trained model.

  run_inference --checkpoint_path=DIR_OR_PREFIX[,...] [FLAG...] FILE...

Several checkpoints form an ensemble, which averages their probabilities. FILE
is an image, a directory (of images, by their suffixes), or - to read names from
standard input, one per line. The formats are JPEG, PNG, GIF, BMP, WebP, TIFF
and AVIF. The first frame of an animation is captioned.
"""

from collections.abc import Sequence
import contextlib
import functools
import io
import os
import sys
from typing import cast
import warnings

from absl import flags
from absl import logging

from im2txt.inference_utils import caption_lines
from im2txt.inference_utils import captioner as captioner_lib
from im2txt.inference_utils import image_files
from im2txt.inference_utils import model_flags
from im2txt.inference_utils import search_config
from im2txt.runtime import files as files_lib
from im2txt.runtime import program
from im2txt.runtime import progress

FLAGS = flags.FLAGS


def define_flags() -> None:
  model_flags.define_flags(takes_several=True)
  flags.DEFINE_string(
    'input_files',
    '',
    'Image files, directories or file patterns, separated by commas. Further '
    'ones can be given as arguments, which may contain commas.',
  )
  flags.DEFINE_bool(
    'exif_orientation',
    True,
    'Turn images upright by their EXIF data. The program of 2016 did not, '
    'neither in training nor for captions.',
  )
  search_config.define_flags()
  flags.DEFINE_enum(
    'output_format',
    'text',
    ['text', 'json'],
    'text as in 2016; or json, an object per line: {"image": file, "captions": '
    '[{"caption", "probability", "log_probability", and "confidence" if '
    'fit_confidence was run}]}.',
  )
  model_flags.define_min_confidence()
  flags.DEFINE_integer(
    'inference_batch_size', 16, 'Images per batch.', lower_bound=1
  )
  model_flags.define_precision()


def input_names(arguments: Sequence[str]) -> list[str]:
  """Returns the names given by --input_files and by arguments."""
  names: list[str] = []
  for name in [*files_lib.split_names(FLAGS.input_files), *arguments]:
    if name == '-':
      names.extend(
        filter(
          None, (os.fsdecode(line.rstrip(b'\r\n')) for line in sys.stdin.buffer)
        )
      )
    else:
      names.append(name)
  return names


def main(argv: Sequence[str]) -> int:
  program.require(FLAGS, 'checkpoint_path')
  if not FLAGS.input_files and not argv[1:]:
    raise ValueError(
      'name the images: run_inference [flags] FILE... (see --help)'
    )
  # Names of files need not be UTF-8. The output must be, if it is JSON.
  cast(io.TextIOWrapper, sys.stdout).reconfigure(
    errors='backslashreplace'
    if FLAGS.output_format == 'json'
    else 'surrogateescape'
  )
  # Pillow warns, for example, of damaged EXIF data.
  warnings.filterwarnings('ignore', module=r'PIL\.')
  search = search_config.from_flags(FLAGS)
  vocabulary = captioner_lib.vocabulary_of(
    FLAGS.checkpoint_path, FLAGS.vocab_file
  )
  files, skipped = image_files.find_or_tell(input_names(argv[1:]))
  captioner = captioner_lib.Captioner(
    FLAGS.checkpoint_path, vocabulary, search, FLAGS.precision
  )
  captioner.check_min_confidence(FLAGS.min_confidence)
  if len(captioner.prefixes) > 1:
    logging.info(
      'captioning %d file(s) with an ensemble of %d checkpoints',
      len(files),
      len(captioner.prefixes),
    )
  else:
    logging.info(
      'captioning %d file(s) with the checkpoint of step %d',
      len(files),
      captioner.global_step,
    )
  size = FLAGS.inference_batch_size
  with contextlib.ExitStack() as stack:
    bar = None
    # On a terminal the captions themselves show the progress.
    if len(files) > size and not sys.stdout.isatty():
      bar = stack.enter_context(
        progress.Progress('Captioning', len(files), 'images')
      )
    images = image_files.read_images(
      files,
      functools.partial(
        captioner.decode, exif_orientation=FLAGS.exif_orientation
      ),
      ahead=2 * size,
    )
    for name, captions in captioner_lib.caption_in_batches(
      captioner, images, size
    ):
      if isinstance(captions, Exception):
        reason = getattr(captions, 'strerror', None) or captions
        print(f'skipped {name}: {reason}', file=sys.stderr)
        skipped += 1
      else:
        print(
          caption_lines.lines(
            name, captions, FLAGS.output_format, FLAGS.min_confidence
          ),
          flush=True,
        )
      if bar:
        bar.update(1)
  if skipped:
    print(f'{skipped} file(s) skipped', file=sys.stderr)
    return 1
  return 0


if __name__ == '__main__':
  program.run(main, define_flags, takes_argument=True)
