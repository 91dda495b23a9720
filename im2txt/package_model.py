# SPDX-License-Identifier: Apache-2.0
r"""Packages a trained model as small files, to share it. See get_model.

  package_model --checkpoint_path=model/train \
      --vocab_file=data/word_counts.txt --output_dir=package

The package has the decoder, in float16, and the name of the encoder: Inception
v3 as get_inception gets it. If the encoder was trained further, the package
also has the changes.
"""

from collections.abc import Sequence
import os
from typing import Any

from absl import flags
from absl import logging

from im2txt.pretrained import caption_model
from im2txt.runtime import files
from im2txt.runtime import program

FLAGS = flags.FLAGS


def define_flags() -> None:
  flags.DEFINE_string(
    'checkpoint_path',
    '',
    'Model checkpoint: a file prefix, or a directory (its latest is taken).',
  )
  flags.DEFINE_string(
    'vocab_file', '', 'Vocabulary the model was trained with.'
  )
  flags.DEFINE_string(
    'output_dir',
    '',
    'Directory for the package. Files in it with other names stay.',
  )
  flags.DEFINE_string(
    'inception_dir',
    '',
    'Directory made by get_inception, of the encoder that the model was '
    'trained on. It is needed if there is no inception_v3.json beside the '
    'checkpoint, or if Inception v3 was trained too.',
  )
  flags.DEFINE_string(
    'scores_file',
    '',
    'JSON object of scores for the manifest, such as the --output_json of '
    'score.',
  )


def _scores(path: str) -> dict[str, Any]:
  """Returns the JSON object in a file; empty if the path is ''."""
  if not path:
    return {}
  try:
    scores = files.read_json(path)
  except (OSError, ValueError) as error:
    raise ValueError(f'--scores_file={path} cannot be read: {error}') from error
  if not isinstance(scores, dict):
    raise ValueError(f'--scores_file={path} must hold a JSON object of scores')
  return scores


def main(_: Sequence[str]) -> None:
  program.require(FLAGS, 'checkpoint_path', 'vocab_file', 'output_dir')
  manifest = caption_model.write(
    FLAGS.output_dir,
    FLAGS.checkpoint_path,
    FLAGS.vocab_file,
    FLAGS.inception_dir or None,
    _scores(FLAGS.scores_file),
  )
  size = sum(
    os.path.getsize(os.path.join(FLAGS.output_dir, name))
    for name in manifest.parts
  )
  logging.info(
    'the model of step %d is in %s, %.1f MB',
    manifest.global_step,
    FLAGS.output_dir,
    size / 1e6,
  )


if __name__ == '__main__':
  program.run(main, define_flags)
