# SPDX-License-Identifier: Apache-2.0
"""Options of a build of a data set, and the checks made before any work."""

import dataclasses
import os

from im2txt.runtime import beam_workers
from im2txt.runtime import flag_dataclasses
from im2txt.runtime.flag_dataclasses import field
from im2txt.text import tokenizer
from im2txt.text import vocabulary
from im2txt.text import vocabulary_stamp

# If the number of shards is not given. MSCOCO's training shards have about as
# many.
_RECORDS_PER_SHARD = 2000


@dataclasses.dataclass(frozen=True)
class BuildOptions(beam_workers.RunnerOptions):
  """Options of a build of any data sets; the fields are flags."""

  output_dir: str = field('/tmp/', 'Directory for the shards.')
  train_shards: int = field(
    256, 'Number of shards of the training set.', lower_bound=1
  )
  val_shards: int = field(
    4, 'Number of shards of the validation set.', lower_bound=1
  )
  test_shards: int = field(
    8, 'Number of shards of the test set.', lower_bound=1
  )
  start_word: str = field('<S>', 'Word that begins every caption.')
  end_word: str = field('</S>', 'Word that ends every caption.')
  unknown_word: str = field(
    '<UNK>', 'Word that stands for words outside the vocabulary.'
  )
  min_word_count: int = field(
    4,
    'A word must be in the training captions at least this many times to be '
    'in the vocabulary.',
    lower_bound=1,
  )
  tokenizer: str = field(
    'nltk',
    'Tokenizer that splits captions into words. nltk: English, as in 2016. '
    'unicode: any language with spaces between words. characters: languages '
    'without spaces, such as Chinese, Japanese and Thai. whitespace: captions '
    'that are split already.',
    tokenizer.NAMES,
  )
  extend_vocab_file: str = field(
    '',
    'Vocabulary file whose words all keep their ids; new words follow. For '
    'extend_checkpoint.',
  )
  word_counts_output_file: str = field(
    '/tmp/word_counts.txt', 'Vocabulary file to write.'
  )
  num_threads: int = field(
    8,
    'Number of equal parts that a data set is cut into before it is cut into '
    'shards. It decides which pair is in which shard, so each number of shards '
    'must be divisible by it or smaller. For the speed see num_workers.',
    lower_bound=1,
  )
  num_workers: int = field(
    0, 'Number of worker processes, 0 for one per core.', lower_bound=0
  )
  layout: str = field(
    'pairs',
    'Content of a record. pairs: an image and one caption, as in 2016, so '
    'that an image is stored once per caption. compact: an image and all its '
    'captions, which takes a fifth of the disk for MSCOCO.',
    ['pairs', 'compact'],
  )


def read_vocabulary(path: str, options: BuildOptions) -> vocabulary.Vocabulary:
  """Reads a vocabulary file that has the special words of the options."""
  return vocabulary.Vocabulary(
    path, options.start_word, options.end_word, options.unknown_word
  )


def suitable_shards(num_records: int, most: int, options: BuildOptions) -> int:
  """Returns a suitable number of shards for a data set.

  >>> [suitable_shards(n, 256, BuildOptions()) for n in (60, 30000, 600000)]
  [1, 8, 256]

  Args:
    num_records: records of the data set.
    most: the largest number allowed.
    options: the options; `num_threads` must divide the number.
  """
  number = min(num_records // _RECORDS_PER_SHARD, most)
  if number > options.num_threads:
    return number - number % options.num_threads
  return max(2 ** (number.bit_length() - 1), 1) if number else 1


def check_options(options: BuildOptions) -> None:
  """Checks all that can be checked without input, before any work.

  Raises:
    ValueError: a value cannot be used, or the tokenizer's data are missing.
  """
  flag_dataclasses.check_bounds(options)
  options.check_runner(options.output_dir)
  for name in ('train_shards', 'val_shards', 'test_shards'):
    shards = getattr(options, name)
    if shards > options.num_threads and shards % options.num_threads:
      raise ValueError(
        f'--{name}={shards} is not divisible by '
        f'--num_threads={options.num_threads}: give a multiple, because the '
        'shards are cut from num_threads equal parts (or change '
        '--num_threads, which changes which pair is in which shard)'
      )
  words = [options.start_word, options.end_word, options.unknown_word]
  for name, word in zip(('start_word', 'end_word', 'unknown_word'), words):
    if len(word.split()) != 1 or word != word.strip():
      raise ValueError(
        f'--{name}={word!r} must be one word: a line of a vocabulary is '
        '"word count"'
      )
    if words.count(word) > 1:
      raise ValueError(
        f'--{name}={word!r} is another special word too: give three '
        'different words'
      )
  if options.extend_vocab_file:
    read_vocabulary(options.extend_vocab_file, options)
    if os.path.realpath(options.extend_vocab_file) == os.path.realpath(
      options.word_counts_output_file
    ):
      raise ValueError(
        f'--extend_vocab_file={options.extend_vocab_file} would be written '
        'over: give another --word_counts_output_file or --output_dir'
      )
    stamp = vocabulary_stamp.load(os.path.dirname(options.extend_vocab_file))
    if stamp and stamp.tokenizer != options.tokenizer:
      raise ValueError(
        f'--tokenizer={options.tokenizer} is not that of '
        f'--extend_vocab_file={options.extend_vocab_file}: give '
        f'--tokenizer={stamp.tokenizer}'
      )
  tokenizer.load(options.tokenizer)
