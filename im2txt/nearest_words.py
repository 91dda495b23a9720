# SPDX-License-Identifier: Apache-2.0
"""Prints the nearest neighbours of words in the embedding of a model.

  nearest_words --checkpoint_path=DIR_OR_PREFIX [FLAG...] WORD...

The measure is the cosine of the angle between two embeddings, as in the paper's
section on word embeddings. With --frequent_words the most frequent words of the
vocabulary come after those given.
"""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import json

from absl import flags

from im2txt import checkpoints
from im2txt.inference_utils import model_flags
from im2txt.inference_utils import word_neighbours
from im2txt.runtime import files
from im2txt.runtime import program

FLAGS = flags.FLAGS


def define_flags() -> None:
  model_flags.define_flags()
  flags.DEFINE_integer(
    'num_neighbours', 5, 'Neighbours of each word.', lower_bound=1
  )
  flags.DEFINE_integer(
    'frequent_words',
    0,
    'Take so many of the most frequent words of the vocabulary too, without '
    'punctuation.',
    lower_bound=0,
  )
  flags.DEFINE_enum(
    'output_format',
    'text',
    ['text', 'json'],
    'text; or json, an object per line: {"word", "neighbours": [{"word", '
    '"cosine"}]}.',
  )
  flags.DEFINE_string(
    'output_file', '', 'File to write. The default is standard output.'
  )


def lines(
  found: Iterable[word_neighbours.Neighbours], output_format: str
) -> Iterator[str]:
  """Yields a line of text or JSON per word."""
  for word in found:
    if output_format == 'json':
      yield json.dumps(word.as_dict(), ensure_ascii=False)
    else:
      yield f'{word.word}: ' + ', '.join(
        f'{near.word} ({near.cosine:.3f})' for near in word.neighbours
      )


def main(argv: Sequence[str]) -> None:
  program.require(FLAGS, 'checkpoint_path')
  given = argv[1:]
  if not given and not FLAGS.frequent_words:
    raise ValueError(
      'name the words: nearest_words [flags] WORD..., or give '
      '--frequent_words=1000'
    )
  program.require_output_directories(FLAGS, 'output_file')
  embedding = word_neighbours.load(
    FLAGS.checkpoint_path,
    checkpoints.vocabulary_of(FLAGS.checkpoint_path, FLAGS.vocab_file),
  )
  embedding.check_known(given)
  # A given word may be a frequent one too.
  words = list(
    dict.fromkeys([*given, *embedding.most_frequent(FLAGS.frequent_words)])
  )
  result = lines(
    embedding.neighbours(words, FLAGS.num_neighbours), FLAGS.output_format
  )
  if not FLAGS.output_file:
    for line in result:
      print(line)
    return
  with files.replacing(FLAGS.output_file) as temporary:
    with open(temporary, 'w', encoding='utf-8') as f:
      f.writelines(f'{line}\n' for line in result)
  print(f'Wrote {FLAGS.output_file}')


if __name__ == '__main__':
  program.run(main, define_flags, takes_argument=True)
