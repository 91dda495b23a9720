# SPDX-License-Identifier: Apache-2.0
r"""Checks shards and their vocabulary.

  validate_data --vocab_file=word_counts.txt \
      --input_file_pattern='train-?????-of-00256,val-?????-of-00004'

It prints the contents of each split, and a line per kind of error: word ids
that are out of range or not those of their words; captions without start or end
word; images that cannot be decoded, are in more than one split or share an id;
and shards that are damaged or missing. The exit status is 0 if nothing is
wrong, and 1 otherwise.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses

from absl import flags

from im2txt.data import shards
from im2txt.data import validation
from im2txt.runtime import program
from im2txt.runtime import workers as workers_lib

FLAGS = flags.FLAGS


def define_flags() -> None:
  flags.DEFINE_string(
    'input_file_pattern',
    '',
    'File patterns of sharded TFRecord files, separated by commas. Give those '
    'of all splits to find images that are in more than one.',
  )
  flags.DEFINE_string('vocab_file', '', 'Vocabulary made with the shards.')
  flags.DEFINE_string('start_word', '<S>', 'Word that begins every caption.')
  flags.DEFINE_string('end_word', '</S>', 'Word that ends every caption.')
  flags.DEFINE_string(
    'unknown_word',
    '<UNK>',
    'Word that stands for words outside the vocabulary.',
  )
  flags.DEFINE_integer(
    'num_workers', 0, 'Number of processes; 0 for one per core.', lower_bound=0
  )


def report(
  splits: Mapping[str, validation.SplitCounts], problems: validation.Problems
) -> list[str]:
  """Returns the lines to print.

  Args:
    splits: by name.
    problems: what is wrong.
  """
  lines = [
    f'{name}: '
    + ', '.join(
      f'{value} {field.replace("_", " ")}'
      for field, value in dataclasses.asdict(split).items()
    )
    for name, split in sorted(splits.items())
  ]
  return (
    lines
    + [f'WRONG: {line}' for line in problems.lines()]
    + ([] if problems.found else ['Nothing is wrong.'])
  )


def main(_: Sequence[str]) -> int:
  program.require(FLAGS, 'input_file_pattern', 'vocab_file')

  files = shards.list_files(FLAGS.input_file_pattern)
  with workers_lib.Workers(FLAGS.num_workers, '--num_workers') as workers:
    splits, problems = validation.validate(
      files,
      FLAGS.vocab_file,
      (FLAGS.start_word, FLAGS.end_word, FLAGS.unknown_word),
      workers,
    )
  print('\n'.join(report(splits, problems)))
  return 1 if problems.found else 0


if __name__ == '__main__':
  program.run(main, define_flags)
