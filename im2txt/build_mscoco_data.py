# SPDX-License-Identifier: Apache-2.0
"""Makes the sharded TFRecords and the vocabulary of MSCOCO (or data like it).

The pictures are in train_image_dir and val_image_dir; the captions in JSON
files as COCO publishes them. Written into output_dir:

  train-00000-of-00256 ... train-00255-of-00256
  val-00000-of-00004 ... val-00003-of-00004
  test-00000-of-00008 ... test-00007-of-00008

and the vocabulary, a line `word count` each, into word_counts_output_file.
An interrupted run goes on where it stopped when it is started again.
"""

import dataclasses
import sys

from absl import app
from absl import flags

from im2txt import program
from im2txt.data import mscoco

_HELP = {
    'train_image_dir': 'Directory of the training pictures.',
    'val_image_dir': 'Directory of the validation pictures.',
    'train_captions_file': 'JSON file of the training captions.',
    'val_captions_file': 'JSON file of the validation captions.',
    'output_dir': 'Directory for the shards.',
    'train_shards': 'Number of shards of the training set.',
    'val_shards': 'Number of shards of the validation set.',
    'test_shards': 'Number of shards of the test set.',
    'start_word': 'Word that begins every caption.',
    'end_word': 'Word that ends every caption.',
    'unknown_word': 'Word that stands for words outside the vocabulary.',
    'min_word_count':
        'Least number of times that a word is in the training captions to be '
        'in the vocabulary.',
    'word_counts_output_file': 'Vocabulary file to write.',
    'num_threads':
        'Equal parts that a data set is cut into before the shards; decides '
        'which pair is in which shard, so numbers of shards must be divisible '
        'by it. It does not set the speed: see num_workers.',
    'num_workers': 'Number of processes, 0 for one a core.',
}


def _define_flags():
  """Defines a flag for every field of mscoco.Options."""
  for field in dataclasses.fields(mscoco.Options):
    define = flags.DEFINE_integer if field.type is int else flags.DEFINE_string
    define(field.name, field.default, _HELP[field.name])


_define_flags()


def options_from_flags():
  """Returns the mscoco.Options that the flags say."""
  return mscoco.Options(**{
      field.name: flags.FLAGS[field.name].value
      for field in dataclasses.fields(mscoco.Options)})


def run_resumable(job):
  """Runs `job`; an interrupt from the keyboard ends the program in one line.

  Args:
    job: function without arguments that goes on where it stopped when it is
      run again.
  """
  try:
    job()
  except KeyboardInterrupt:
    print('Interrupted; the same command goes on from here.', file=sys.stderr)
    sys.exit(130)  # As shells report an interrupted command.


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'Too many arguments: {" ".join(argv[1:])}')
  run_resumable(lambda: mscoco.build(options_from_flags()))


if __name__ == '__main__':
  program.run(main)
