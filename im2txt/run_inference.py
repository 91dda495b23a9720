# SPDX-License-Identifier: Apache-2.0
"""Writes captions for image files, with a trained model.

  run_inference --checkpoint_path=DIR_OR_PREFIX[,...] [FLAG...] FILE...

Several checkpoints form an ensemble, which averages their probabilities. FILE
is an image, a directory (of images, by their suffixes), or - to read names from
standard input, one per line. The formats are JPEG, PNG, GIF, BMP, WebP, TIFF
and AVIF. The first frame of an animation is captioned. With PyAV FILE can be a
video. With --output_file or --sidecars the same command goes on where it was
interrupted, and captions only what is new.
"""

from collections.abc import Sequence
import functools
import sys
import warnings

from absl import flags
from absl import logging

from im2txt import checkpoints
from im2txt.folders import beam_captioning
from im2txt.folders import captioning
from im2txt.folders import options as options_lib
from im2txt.folders import outputs
from im2txt.inference_utils import captioner as captioner_lib
from im2txt.inference_utils import image_files
from im2txt.inference_utils import search_config
from im2txt.runtime import files as files_lib
from im2txt.runtime import flag_dataclasses
from im2txt.runtime import program

FLAGS = flags.FLAGS


def define_flags() -> None:
  flag_dataclasses.define_flags(options_lib.CaptionOptions)
  search_config.define_flags()


def main(argv: Sequence[str]) -> int:
  program.require(FLAGS, 'checkpoint_path')
  options = flag_dataclasses.from_flags(FLAGS, options_lib.CaptionOptions)
  options.check(argv[1:])
  program.write_any_name(as_json=options.output_format == 'json')
  # Pillow warns, for example, of damaged EXIF data.
  warnings.filterwarnings('ignore', module=r'PIL\.')
  search = search_config.from_flags(FLAGS)
  vocabulary = checkpoints.vocabulary_of(
    options.checkpoint_path, options.vocab_file
  )
  files, skipped = image_files.find_or_tell(
    image_files.with_standard_input(
      [*files_lib.split_names(options.input_files), *argv[1:]]
    ),
    options.recursive,
    captioning.suffixes(options.takes_videos),
  )
  if options.is_local:
    captioner = load(options, vocabulary, search, len(files))
    job = functools.partial(outputs.write_captions, captioner, files, options)
    skipped += program.run_resumable(job) if options.goes_on else job()
  else:
    skipped += beam_captioning.write_captions(
      options, vocabulary, search, files
    )
  if skipped:
    print(f'{skipped} file(s) skipped', file=sys.stderr)
  return 1 if skipped else 0


def load(
  options: options_lib.CaptionOptions,
  vocabulary: str,
  search: search_config.SearchConfig,
  num_files: int,
) -> captioner_lib.Captioner:
  """Returns the model, and logs which it is."""
  captioner = captioner_lib.Captioner(
    options.checkpoint_path, vocabulary, search, options.precision
  )
  captioner.check_min_confidence(options.min_confidence)
  if len(captioner.prefixes) > 1:
    logging.info(
      'captioning %d file(s) with an ensemble of %d checkpoints',
      num_files,
      len(captioner.prefixes),
    )
  else:
    logging.info(
      'captioning %d file(s) with the checkpoint of step %d',
      num_files,
      captioner.global_step,
    )
  return captioner


if __name__ == '__main__':
  program.run(main, define_flags, takes_argument=True)
