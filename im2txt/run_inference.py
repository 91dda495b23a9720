# SPDX-License-Identifier: Apache-2.0
"""Writes captions for image files, with a trained model."""

import contextlib
import glob
import itertools
import json
import os
import sys

from absl import flags
from absl import logging

from im2txt import program
from im2txt import progress
from im2txt.inference_utils import caption_generator
from im2txt.inference_utils import captioner as captioner_lib
from im2txt.inference_utils import image_files

FLAGS = flags.FLAGS

flags.DEFINE_string(
    'checkpoint_path', '',
    'Model checkpoint: a file prefix, or a directory (its latest is taken).')
flags.DEFINE_string(
    'vocab_file', '', 'Vocabulary the model was trained with.')
flags.DEFINE_string(
    'input_files', '',
    'Image files (JPEG, PNG, GIF) or file patterns, separated by commas.')
caption_generator.define_flags(flags)
flags.DEFINE_enum(
    'output_format', 'text', ['text', 'json'],
    'text as in 2016, or a JSON object a line: {"image": file, "captions": '
    '[{"caption", "probability", "log_probability"}]}.')
flags.DEFINE_integer('inference_batch_size', 16, 'Images captioned at once.')
flags.DEFINE_enum(
    'precision', 'float32', ['float32', 'bfloat16'],
    'Of Inception v3. bfloat16 is faster on processors that have it (AVX512 '
    'BF16, AMX) and changes some captions.')


def input_files(patterns):
  """Returns (files, patterns that match nothing)."""
  files, unmatched = [], []
  for pattern in filter(None, patterns.split(',')):
    # A name that exists is meant literally, brackets and all.
    found = ([pattern] if os.path.exists(pattern)
             else sorted(glob.glob(pattern)))
    files.extend(found)
    if not found:
      unmatched.append(pattern)
  return files, unmatched


def print_captions(filename, captions, output_format):
  """Prints the captions of one image."""
  if output_format == 'json':
    print(json.dumps({
        'image': filename,
        'captions': [{
            'caption': c.text,
            'probability': c.probability,
            'log_probability': c.log_probability,
        } for c in captions],
    }, ensure_ascii=False), flush=True)
    return
  print(f'Captions for image {os.path.basename(filename)}:')
  for i, caption in enumerate(captions):
    print(f'  {i}) {caption.text} (p={caption.probability:f})', flush=True)


def main(_):
  program.require(FLAGS, 'checkpoint_path', 'vocab_file', 'input_files')
  if FLAGS.inference_batch_size < 1:
    raise ValueError('--inference_batch_size should be 1 or more')
  files, unmatched = input_files(FLAGS.input_files)
  for pattern in unmatched:
    print(f'skipped {pattern}: no such file', file=sys.stderr)
  skipped = len(unmatched)
  if not files:
    raise ValueError(f'--input_files={FLAGS.input_files} matches no file')
  captioner = captioner_lib.Captioner(
      FLAGS.checkpoint_path, FLAGS.vocab_file, precision=FLAGS.precision,
      **caption_generator.from_flags(FLAGS))
  logging.info('captioning %d file(s) with the checkpoint of step %d',
               len(files), captioner.global_step)
  size = FLAGS.inference_batch_size
  with contextlib.ExitStack() as stack:
    bar = None
    # Captions that appear on the terminal themselves tell enough.
    if len(files) > size and not sys.stdout.isatty():
      bar = stack.enter_context(
          progress.Progress('Captioning', len(files), 'images'))
    images = image_files.read_images(files, captioner.decode, ahead=2 * size)
    while batch := list(itertools.islice(images, size)):
      for name, image in batch:
        if isinstance(image, Exception):
          print(f'skipped {name}: {image}', file=sys.stderr)
          skipped += 1
      good = [(n, i) for n, i in batch if not isinstance(i, Exception)]
      for (name, _), captions in zip(
          good, captioner.caption([i for _, i in good]) if good else []):
        print_captions(name, captions, FLAGS.output_format)
      if bar:
        bar.update(len(batch))
  if skipped:
    print(f'{skipped} file(s) skipped', file=sys.stderr)
    return 1
  return 0


if __name__ == '__main__':
  program.run(main)
