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
import contextlib
import io
import os
import sys
import tempfile
from typing import cast
import warnings

from absl import flags
from absl import logging

from im2txt import checkpoints
from im2txt.folders import caption_file
from im2txt.folders import captioning
from im2txt.folders import sidecar
from im2txt.inference_utils import caption_lines
from im2txt.inference_utils import captioner as captioner_lib
from im2txt.inference_utils import collection
from im2txt.inference_utils import image_files
from im2txt.inference_utils import model_flags
from im2txt.inference_utils import search_config
from im2txt.runtime import beam_workers
from im2txt.runtime import files as files_lib
from im2txt.runtime import flag_dataclasses
from im2txt.runtime import program
from im2txt.runtime import progress
from im2txt.runtime import storage

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
  flag_dataclasses.define_flags(beam_workers.RunnerOptions)
  flags.DEFINE_enum(
    'output_format',
    'text',
    ['text', 'json'],
    'text as in 2016; or json, an object per line: {"image": file, "captions": '
    '[{"caption", "probability", "log_probability", and "confidence" if '
    'fit_confidence was run}]}.',
  )
  model_flags.define_min_confidence()
  flags.DEFINE_bool(
    'word_probabilities',
    False,
    'Write the probability of each word too, as "words" in JSON.',
  )
  flags.DEFINE_bool(
    'recursive', False, 'Take the images in directories of directories too.'
  )
  flags.DEFINE_string(
    'output_file',
    '',
    'File to write instead of standard output: NAME.jsonl, JSON as of '
    '--output_format with the size and time of the image and a fingerprint of '
    'the model; or NAME.csv, a row with the best caption. Lines are added to '
    'it. Images that it has already, unchanged and from the same model and '
    'flags, are left out.',
  )
  flags.DEFINE_bool(
    'sidecars',
    False,
    'Write the best caption beside each photo, as description and alt text '
    'into photo.jpg.xmp. What other programs wrote there stays.',
  )
  flags.DEFINE_bool(
    'replace_alt_text',
    False,
    'With --sidecars: replace alt text that is there already.',
  )
  flags.DEFINE_float(
    'seconds_between_frames',
    5.0,
    'Caption at most one frame of a video per so many seconds.',
    lower_bound=0,
  )
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


def caption_by_beam(
  runner: beam_workers.RunnerOptions,
  vocabulary: str,
  search: search_config.SearchConfig,
  files: Sequence[str],
  skipped: int,
) -> int:
  """Captions files by Apache Beam; returns the exit status.

  Args:
    runner: where the work is done.
    vocabulary: path of the vocabulary.
    search: settings of the search.
    files: names of the files.
    skipped: names without a file.
  """
  job = collection.Job(
    tuple(
      map(storage.absolute, checkpoints.split_paths(FLAGS.checkpoint_path))
    ),
    storage.absolute(vocabulary),
    search,
    FLAGS.precision,
    FLAGS.exif_orientation,
    FLAGS.output_format,
    FLAGS.min_confidence,
    FLAGS.inference_batch_size,
  )
  with contextlib.ExitStack() as stack:
    place = stack.enter_context(tempfile.TemporaryDirectory())
    pool = stack.enter_context(runner.workers(place))
    bar = stack.enter_context(
      progress.Progress('Captioning', len(files), 'images')
    )
    for image in collection.caption(job, files, pool):
      if image.error:
        print(f'skipped {image.name}: {image.error}', file=sys.stderr)
        skipped += 1
      else:
        print(image.lines, flush=True)
      bar.update(1)
  return exit_status(skipped)


def exit_status(skipped: int) -> int:
  """Tells how many files were skipped; returns the exit status."""
  if skipped:
    print(f'{skipped} file(s) skipped', file=sys.stderr)
  return 1 if skipped else 0


def check_flags(arguments: Sequence[str]) -> None:
  """Checks the flags, before anything is loaded.

  Raises:
    ValueError: a flag is missing, or two do not go together.
  """
  program.require(FLAGS, 'checkpoint_path')
  if not FLAGS.input_files and not arguments:
    raise ValueError(
      'name the images: run_inference [flags] FILE... (see --help)'
    )
  if FLAGS.output_file:
    caption_file.check_name(FLAGS.output_file)
    program.require_output_directories(FLAGS, 'output_file')
  runner = flag_dataclasses.from_flags(FLAGS, beam_workers.RunnerOptions)
  runner.check_runner('')
  if runner.runner != beam_workers.LOCAL and (
    FLAGS.output_file or FLAGS.sidecars or FLAGS.word_probabilities
  ):
    raise ValueError(
      f'--runner={runner.runner} writes captions to standard output: leave out '
      '--output_file, --sidecars and --word_probabilities'
    )
  if FLAGS.replace_alt_text and not FLAGS.sidecars:
    raise ValueError('--replace_alt_text needs --sidecars')
  if FLAGS.word_probabilities and not (
    FLAGS.output_file.lower().endswith('.jsonl')
    or (FLAGS.output_format == 'json' and not FLAGS.output_file)
  ):
    raise ValueError(
      '--word_probabilities needs --output_format=json or an --output_file '
      'that ends with .jsonl'
    )


def caption_files(
  captioner: captioner_lib.Captioner, files: Sequence[str], skipped: int
) -> int:
  """Captions files and writes the captions; returns the exit status.

  Args:
    captioner: the model.
    files: names of the files.
    skipped: names without a file.
  """
  settings = captioning.Settings(
    FLAGS.inference_batch_size,
    FLAGS.exif_orientation,
    FLAGS.min_confidence,
    FLAGS.word_probabilities,
    FLAGS.seconds_between_frames,
  )
  with contextlib.ExitStack() as stack:
    recorded = sidecars = None
    if FLAGS.output_file or FLAGS.sidecars:
      fingerprint = settings.fingerprint(captioner)
      if FLAGS.output_file:
        recorded = stack.enter_context(
          caption_file.CaptionFile(FLAGS.output_file, fingerprint)
        )
      if FLAGS.sidecars:
        sidecars = sidecar.Sidecars(fingerprint, FLAGS.replace_alt_text)
    outputs = captioning.Outputs(recorded, sidecars, FLAGS.min_confidence)
    pending = outputs.pending(files)
    if outputs.num_done or outputs.failures:
      logging.info(
        '%d file(s) were done before, and %d could not be',
        outputs.num_done,
        len(outputs.failures),
      )
    bar = None
    # On a terminal the captions themselves show the progress.
    if len(pending) > settings.batch_size and (
      FLAGS.output_file or not sys.stdout.isatty()
    ):
      done = len(files) - len(pending)
      bar = stack.enter_context(
        progress.Progress('Captioning', len(files), 'files', done)
      )
    for file in captioning.caption(
      captioner, pending, settings, recorded.num_captioned if recorded else 0
    ):
      if file.error:
        reason = image_files.reason(file.error)
        print(f'skipped {file.name}: {reason}', file=sys.stderr)
      elif not FLAGS.output_file:
        for frame in file.frames:
          print(
            caption_lines.lines(
              file.name,
              frame.captions,
              FLAGS.output_format,
              FLAGS.min_confidence,
              frame.time,
            ),
            flush=True,
          )
      outputs.add(file)
      if bar:
        bar.update(1)
  return exit_status(skipped + len(outputs.failures))


def main(argv: Sequence[str]) -> int:
  check_flags(argv[1:])
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
  runner = flag_dataclasses.from_flags(FLAGS, beam_workers.RunnerOptions)
  by_beam = runner.runner != beam_workers.LOCAL
  only_sidecars = FLAGS.sidecars and not FLAGS.output_file
  files, skipped = image_files.find_or_tell(
    input_names(argv[1:]),
    FLAGS.recursive,
    captioning.suffixes(with_videos=not (only_sidecars or by_beam)),
  )
  if by_beam:
    return caption_by_beam(runner, vocabulary, search, files, skipped)
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
  if FLAGS.output_file or FLAGS.sidecars:
    return program.run_resumable(
      lambda: caption_files(captioner, files, skipped)
    )
  return caption_files(captioner, files, skipped)


if __name__ == '__main__':
  program.run(main, define_flags, takes_argument=True)
