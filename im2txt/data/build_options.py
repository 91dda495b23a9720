# SPDX-License-Identifier: Apache-2.0
"""What to build of a data set: options, and what must hold before any work."""

import dataclasses
import os

from im2txt.runtime.flag_dataclasses import field
from im2txt.text import tokenizer
from im2txt.text import vocabulary
from im2txt.text import vocabulary_stamp

# About those of MSCOCO's training set, where the number is not given.
_RECORDS_PER_SHARD = 2000


@dataclasses.dataclass(frozen=True)
class BuildOptions:
  """What to build of any Datasets; the fields are flags."""

  output_dir: str = field('/tmp/', 'Directory for the shards.')
  train_shards: int = field(256, 'Number of shards of the training set.')
  val_shards: int = field(4, 'Number of shards of the validation set.')
  test_shards: int = field(8, 'Number of shards of the test set.')
  start_word: str = field('<S>', 'Word that begins every caption.')
  end_word: str = field('</S>', 'Word that ends every caption.')
  unknown_word: str = field(
    '<UNK>', 'Word that stands for words outside the vocabulary.'
  )
  min_word_count: int = field(
    4,
    'Least number of times that a word is in the training captions to be '
    'in the vocabulary.',
  )
  tokenizer: str = field(
    'nltk',
    'What splits captions into words. nltk: English, as in 2016. '
    'unicode: any language with spaces between words. characters: one '
    'without, such as Chinese, Japanese and Thai. whitespace: captions that '
    'are split already.',
    tokenizer.NAMES,
  )
  extend_vocab_file: str = field(
    '',
    'Vocabulary file whose words keep their ids, all of them; new words '
    'follow. For extend_checkpoint.',
  )
  word_counts_output_file: str = field(
    '/tmp/word_counts.txt', 'Vocabulary file to write.'
  )
  num_threads: int = field(
    8,
    'Equal parts that a data set is cut into before the shards; decides '
    'which pair is in which shard, so numbers of shards must be divisible '
    'by it. It does not set the speed: see num_workers.',
  )
  num_workers: int = field(0, 'Number of processes, 0 for one per core.')
  layout: str = field(
    'pairs',
    'What a record of the shards holds. pairs: a picture and one '
    'caption, as in 2016, so that a picture is there once for each caption. '
    'compact: a picture and all its captions; a fifth of the disk for '
    'MSCOCO.',
    ['pairs', 'compact'],
  )


def read_vocabulary(path, options):
  return vocabulary.Vocabulary(
    path, options.start_word, options.end_word, options.unknown_word
  )


def suitable_shards(num_records, most, options):
  """Returns how many shards suit a data set, an int.

  >>> [suitable_shards(n, 256, BuildOptions()) for n in (60, 30000, 600000)]
  [1, 8, 256]

  Args:
    num_records: int.
    most: int, what is never exceeded.
    options: BuildOptions.
  """
  number = min(num_records // _RECORDS_PER_SHARD, most)
  if number > options.num_threads:
    return number - number % options.num_threads
  return max(2 ** (number.bit_length() - 1), 1) if number else 1


def check_options(options):
  """Checks what can be, without input, before any work.

  Args:
    options: Options.

  Raises:
    ValueError: a value cannot be used, or the tokenizer's data is missing.
  """
  for name in (
    'train_shards',
    'val_shards',
    'test_shards',
    'num_threads',
    'min_word_count',
  ):
    if getattr(options, name) < 1:
      raise ValueError(f'--{name}={getattr(options, name)} must be at least 1.')
  if options.num_workers < 0:
    raise ValueError(
      f'--num_workers={options.num_workers} must be a number of '
      'processes, or 0 for one per core.'
    )
  for name in ('train_shards', 'val_shards', 'test_shards'):
    shards = getattr(options, name)
    if shards > options.num_threads and shards % options.num_threads:
      raise ValueError(
        f'--{name}={shards} is not divisible by '
        f'--num_threads={options.num_threads}: the shards are cut from '
        'num_threads equal parts, so make it a multiple (or change '
        '--num_threads, which changes which pair is in which shard).'
      )
  words = [options.start_word, options.end_word, options.unknown_word]
  for name, word in zip(('start_word', 'end_word', 'unknown_word'), words):
    if len(word.split()) != 1 or word != word.strip():
      raise ValueError(
        f'--{name}={word!r} must be one word: a vocabulary line is '
        '"word count".'
      )
    if words.count(word) > 1:
      raise ValueError(
        f'--{name}={word!r} is another special word too: give three words.'
      )
  if options.extend_vocab_file:
    read_vocabulary(options.extend_vocab_file, options)
    if os.path.realpath(options.extend_vocab_file) == os.path.realpath(
      options.word_counts_output_file
    ):
      raise ValueError(
        f'--extend_vocab_file={options.extend_vocab_file} would be written '
        'over: give another --word_counts_output_file or --output_dir.'
      )
    stamp = vocabulary_stamp.load(os.path.dirname(options.extend_vocab_file))
    if stamp and stamp.tokenizer != options.tokenizer:
      raise ValueError(
        f'--tokenizer={options.tokenizer} is not that of '
        f'--extend_vocab_file={options.extend_vocab_file}: give '
        f'--tokenizer={stamp.tokenizer}'
      )
  tokenizer.load(options.tokenizer)
