# SPDX-License-Identifier: Apache-2.0
"""Records which vocabulary a set of word ids belongs to: `vocabulary.json`.

Ids are line numbers of a vocabulary file, and nothing in a record or a
checkpoint says of which file. The builders write `vocabulary.json` beside the
shards, and `train` beside the checkpoints; any program that combines ids
compares fingerprints first. Older shards and checkpoints have no such file and
are accepted with a warning.
"""

from collections.abc import Iterable
from collections.abc import Sequence
import dataclasses
import os
from typing import NamedTuple

from absl import logging

from im2txt.runtime import stamps
from im2txt.text import vocabulary

FILE_NAME = 'vocabulary.json'


@dataclasses.dataclass(frozen=True)
class Stamp:
  """Identifies a vocabulary.

  Attributes:
    fingerprint: `Vocabulary.fingerprint`.
    words: number of words, the unknown word included.
    file: path of the vocabulary file.
    tokenizer: name of the tokenizer that split the captions.
  """

  fingerprint: str
  words: int
  file: str
  tokenizer: str = 'nltk'

  @property
  def separator(self) -> str:
    """The text between the words of a printed caption."""
    return '' if self.tokenizer == 'characters' else ' '


class Source(NamedTuple):
  """A source of word ids: a vocabulary file, shards or a checkpoint.

  Attributes:
    name: name for messages.
    stamp: the stamp of its vocabulary, None if not known.
  """

  name: str
  stamp: Stamp | None


_FILE = stamps.StampFile(FILE_NAME, Stamp, 'without a check of the vocabulary')
save = _FILE.save
load = _FILE.load
copy = _FILE.copy
remove = _FILE.remove


def first_known(sources: Iterable[Source]) -> Stamp | None:
  """Returns the first stamp that is known, None if there is none."""
  return next((source.stamp for source in sources if source.stamp), None)


def of_vocabulary(vocab: vocabulary.Vocabulary) -> Source:
  """Returns a vocabulary file as a `Source`."""
  return Source(
    f'the vocabulary file {vocab.file}',
    Stamp(vocab.fingerprint, len(vocab), vocab.file),
  )


def of_shards(paths: Iterable[str]) -> list[Source]:
  """Returns a `Source` for each directory of some shards."""
  directories = sorted({os.path.dirname(path) or '.' for path in paths})
  return [
    Source(f'the shards in {directory}', load(directory))
    for directory in directories
  ]


def of_checkpoint(prefix: str) -> Source:
  """Returns a checkpoint as a `Source`."""
  return Source(f'the checkpoint {prefix}', load(os.path.dirname(prefix)))


def check(sources: Sequence[Source], remedy: str) -> None:
  """Checks that all sources have the same vocabulary.

  Warns if the vocabulary of a source is not known.

  Args:
    sources: the sources to compare.
    remedy: what the user must do if they differ, for the message.

  Raises:
    ValueError: two sources differ; both are named.
  """
  known = [(s.name, s.stamp) for s in sources if s.stamp]
  for name, stamp in known[1:]:
    first_name, first = known[0]
    if stamp.fingerprint != first.fingerprint:
      raise ValueError(
        f'not of one vocabulary: {_description(first_name, first)} and '
        f'{_description(name, stamp)}: {remedy}'
      )
  if len(known) < len(sources) and len(sources) > 1:
    logging.warning(
      'not checked that %s have the same vocabulary: there is no %s beside %s',
      ' and '.join(source.name for source in sources),
      FILE_NAME,
      ' and '.join(source.name for source in sources if not source.stamp),
    )


def _description(name: str, stamp: Stamp) -> str:
  origin = '' if stamp.file in name else f' of {stamp.file}'
  return (
    f'{name} (fingerprint {stamp.fingerprint}, {stamp.words} words{origin})'
  )
