# SPDX-License-Identifier: Apache-2.0
"""Which vocabulary word ids are of: `vocabulary.json` beside them.

Ids are line numbers of a vocabulary file, and nothing in a record or a
checkpoint tells of which. The builders write the file beside the shards,
`train` beside the checkpoints, and who brings ids together compares first.
What was made before there were such files has none, and is taken with a
warning.
"""

import dataclasses
import os
from typing import NamedTuple

from absl import logging

from im2txt.runtime import stamps

FILE_NAME = 'vocabulary.json'


@dataclasses.dataclass(frozen=True)
class Stamp:
  """A vocabulary, told from others.

  Attributes:
    fingerprint: `Vocabulary.fingerprint`.
    words: how many it has, the unknown word included.
    file: path of the vocabulary file.
    tokenizer: name of what split the captions into its words.
  """

  fingerprint: str
  words: int
  file: str
  tokenizer: str = 'nltk'

  @property
  def separator(self):
    """What stands between the words of a printed caption, a str."""
    return '' if self.tokenizer == 'characters' else ' '


class Holder(NamedTuple):
  """What has word ids.

  Attributes:
    name: str, for messages.
    stamp: the `Stamp` of its vocabulary, None if not known.
  """

  name: str
  stamp: Stamp


_FILE = stamps.StampFile(FILE_NAME, Stamp, 'without a check of the vocabulary')
save = _FILE.save
load = _FILE.load
copy = _FILE.copy


def first_known(holders):
  """Returns the first Stamp of a list of Holders, None if there is none."""
  return next((holder.stamp for holder in holders if holder.stamp), None)


def of_vocabulary(vocab):
  """Returns the Holder of a `Vocabulary`."""
  return Holder(
    f'the vocabulary file {vocab.file}',
    Stamp(vocab.fingerprint, len(vocab), vocab.file),
  )


def of_shards(paths):
  """Returns a Holder for each directory of a list of shards."""
  directories = sorted({os.path.dirname(path) or '.' for path in paths})
  return [
    Holder(f'the shards in {directory}', load(directory))
    for directory in directories
  ]


def of_checkpoint(prefix):
  """Returns the Holder of a checkpoint."""
  return Holder(f'the checkpoint {prefix}', load(os.path.dirname(prefix)))


def check(holders, remedy):
  """Checks that all have the same vocabulary; warns where it is not known.

  Args:
    holders: list of Holder.
    remedy: str, what to do if they differ.

  Raises:
    ValueError: two differ; both are named.
  """
  known = [holder for holder in holders if holder.stamp]
  for holder in known[1:]:
    if holder.stamp.fingerprint != known[0].stamp.fingerprint:
      raise ValueError(
        f'not of one vocabulary: {_described(known[0])} and '
        f'{_described(holder)}: {remedy}'
      )
  if len(known) < len(holders) and len(holders) > 1:
    logging.warning(
      'not checked that %s have the same vocabulary: there is no %s beside %s',
      ' and '.join(holder.name for holder in holders),
      FILE_NAME,
      ' and '.join(h.name for h in holders if not h.stamp),
    )


def _described(holder):
  stamp = holder.stamp
  origin = '' if stamp.file in holder.name else f' of {stamp.file}'
  return (
    f'{holder.name} (fingerprint {stamp.fingerprint}, {stamp.words} '
    f'words{origin})'
  )
