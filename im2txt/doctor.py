# SPDX-License-Identifier: Apache-2.0
"""Says what is wrong with a training run, and what to do about it.

  doctor --train_dir=DIR [--input_file_pattern=SHARDS] [--vocab_file=FILE]

Each line is a finding with its evidence and the remedy, something that is
healthy, or a check that was left out and why. Give the shards of the training
too: without them the captions cannot be checked. Nothing is changed, and
training may go on meanwhile. The exit status is 0 without a finding, else 1.
"""

import collections
from collections.abc import Sequence

from absl import flags

from im2txt.diagnosis import case as case_lib
from im2txt.diagnosis import doctor
from im2txt.runtime import program

FLAGS = flags.FLAGS


def define_flags() -> None:
  flags.DEFINE_string(
    'train_dir', '', 'Directory of checkpoints and TensorBoard events.'
  )
  flags.DEFINE_string(
    'input_file_pattern',
    '',
    'File pattern of the sharded TFRecord files of the training.',
  )
  flags.DEFINE_string(
    'vocab_file',
    '',
    'Vocabulary of the shards. The default is word_counts.txt beside the '
    'checkpoints or the shards.',
  )
  flags.DEFINE_integer(
    'max_images', 64, 'Images of the shards to look at.', lower_bound=2
  )


def main(_: Sequence[str]) -> int:
  program.require(FLAGS, 'train_dir')
  case = case_lib.Case(
    FLAGS.train_dir,
    FLAGS.input_file_pattern,
    FLAGS.vocab_file,
    FLAGS.max_images,
  )
  kinds: collections.Counter[str] = collections.Counter()
  for outcome in doctor.examine(case):
    print(outcome, flush=True)
    kinds[outcome.kind] += 1
  print(
    f'{kinds[doctor.FINDING]} finding(s), {kinds[doctor.LEFT_OUT]} of '
    f'{len(doctor.CHECKS)} checks left out'
    + (
      ' (more can be checked with --input_file_pattern)'
      if kinds[doctor.LEFT_OUT] and not FLAGS.input_file_pattern
      else ''
    )
  )
  return 1 if kinds[doctor.FINDING] else 0


if __name__ == '__main__':
  program.run(main, define_flags)
