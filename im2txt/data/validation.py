# SPDX-License-Identifier: Apache-2.0
"""Validates shards: counts their content and lists their problems."""

import collections
from collections.abc import Iterable
from collections.abc import Sequence
import dataclasses
import hashlib
import os
from typing import NamedTuple

from im2txt.data import caption_files
from im2txt.data import jpeg_check
from im2txt.data import shards
from im2txt.runtime import workers as workers_lib
from im2txt.runtime.progress import Progress
from im2txt.text import vocabulary
from im2txt.text import vocabulary_stamp

# Share of unknown words above which a vocabulary must be wrong.
_MANY_UNKNOWN = 0.5


@dataclasses.dataclass
class SplitCounts:
  """Counts of the content of one split's shards.

  Attributes:
    shards: number of shards.
    captions: number of captions.
    images: number of distinct JPEG files.
    words: number of words, without start and end words.
    unknown_words: number of words with the unknown word's id.
    empty_captions: number of captions without a word.
  """

  shards: int = 0
  captions: int = 0
  images: int = 0
  words: int = 0
  unknown_words: int = 0
  empty_captions: int = 0


class Problems:
  """Problems by kind.

  Attributes:
    found: for each kind of problem, the places where it was found.
  """

  def __init__(self) -> None:
    self.found: dict[str, list[str]] = collections.defaultdict(list)

  def add(self, kind: str, where: str) -> None:
    """Adds a problem."""
    self.found[kind].append(where)

  def update(self, other: 'Problems') -> None:
    """Adds the problems of another."""
    for kind, places in other.found.items():
      self.found[kind].extend(places)

  def lines(self) -> list[str]:
    """Returns a line per kind: how many there are, and where the first are."""
    return [
      f'{len(places)} {kind}: {caption_files.first(places)}'
      for kind, places in self.found.items()
    ]


# The start, the end and the unknown word.
SpecialWords = tuple[str, str, str]


class _ImageRecord(NamedTuple):
  """A record with an image: path of the shard, number in it, and image id."""

  path: str
  number: int
  image_id: int


def split_name(path: str) -> str:
  """Returns the split in the name of a shard, 'train' for train-0..."""
  name = os.path.basename(path)
  match = shards.NAME.fullmatch(name)
  return match[1] if match else name


def validate(
  files: Sequence[str],
  vocab_file: str,
  special_words: SpecialWords,
  workers: workers_lib.Workers,
) -> tuple[dict[str, SplitCounts], Problems]:
  """Reads every record of some shards, and decodes every image once.

  Args:
    files: shards of one split or more.
    vocab_file: path of the vocabulary.
    special_words: the start, the end and the unknown word.
    workers: processes for the work.

  Returns:
    (counts by name of the split, problems).

  Raises:
    ValueError: the vocabulary cannot be used.
  """
  vocab = vocabulary.Vocabulary(vocab_file, *special_words)
  splits: dict[str, SplitCounts] = collections.defaultdict(SplitCounts)
  captions_of: dict[str, int] = {}
  problems = Problems()
  _check_stamps(files, vocab, problems)
  for path in shards.missing_of_sets(files):
    problems.add('shards missing', path)
  # The (split, image id) pairs of each JPEG, by digest, and its first record.
  owners: dict[bytes, list[tuple[str, int]]] = collections.defaultdict(list)
  first_records: dict[bytes, _ImageRecord] = {}
  digests_of_id: dict[int, set[bytes]] = collections.defaultdict(set)
  results = workers.map(
    _read_shard, ((path, vocab_file, special_words) for path in files)
  )
  with Progress('Reading', len(files), 'shards') as progress:
    for path, (counts, images, found) in zip(files, results):
      name = split_name(path)
      split = splits[name]
      for field, value in counts.items():
        setattr(split, field, getattr(split, field) + value)
      problems.update(found)
      if not found.found:
        captions_of[path] = counts['captions']
      for image_id, digest, index in images:
        if digest not in owners:
          first_records[digest] = _ImageRecord(path, index, image_id)
        if all(owner != name for owner, _ in owners[digest]):
          split.images += 1
        if (name, image_id) not in owners[digest]:
          owners[digest].append((name, image_id))
        digests_of_id[image_id].add(digest)
      progress.update(1)
  for same in owners.values():
    if len({name for name, _ in same}) > 1:
      problems.add(
        'images in more than one split',
        ' = '.join(f'{name} {image_id}' for name, image_id in same),
      )
  for image_id, digests in digests_of_id.items():
    if len(digests) > 1:
      problems.add('ids that more than one image has', str(image_id))
  _check_images(first_records.values(), problems, workers)
  for path, captions in captions_of.items():
    # With few captions some shards are empty, as in 2016.
    split = splits[split_name(path)]
    if not captions and (not split.captions or split.captions >= split.shards):
      problems.add('shards empty', path)
  for name, split in splits.items():
    if split.unknown_words > _MANY_UNKNOWN * split.words:
      problems.add(
        'splits with too many unknown words',
        f'{name} ({split.unknown_words / split.words:.0%}; make the shards '
        'with a lower --min_word_count)',
      )
  return dict(splits), problems


def _check_stamps(
  files: Sequence[str], vocab: vocabulary.Vocabulary, problems: Problems
) -> None:
  """Adds the directories whose `vocabulary.json` names another vocabulary."""
  given = vocabulary_stamp.of_vocabulary(vocab)
  for source in vocabulary_stamp.of_shards(files):
    if source.stamp:
      try:
        vocabulary_stamp.check(
          [source, given],
          'give the vocabulary file that was made with the shards',
        )
      except ValueError as error:
        problems.add(
          'directories with shards of another vocabulary', str(error)
        )


def _read_shard(
  path: str, vocab_file: str, special_words: SpecialWords
) -> tuple[dict[str, int], list[tuple[int, bytes, int]], Problems]:
  """Reads one shard, in a worker.

  Returns:
    (counts by field of `SplitCounts`; (image id, digest, index of the record)
    of each JPEG of the shard; problems).
  """
  workers_lib.worker_tensorflow()
  vocab = vocabulary.Vocabulary(vocab_file, *special_words)
  problems = Problems()
  images: dict[tuple[int, bytes], int] = {}
  counts = dict.fromkeys(
    ('captions', 'words', 'unknown_words', 'empty_captions'), 0
  )
  try:
    for index, records in enumerate(shards.read_grouped(path)):
      where = f'record {index} of {path}'
      digest = hashlib.blake2b(records[0].data, digest_size=16).digest()
      images.setdefault((records[0].image_id, digest), index)
      for record in records:
        _check_caption(record, vocab, counts, problems, where)
  except ValueError as error:
    problems.add('shards damaged', str(error))
  return (
    {'shards': 1, **counts},
    [(*key, index) for key, index in images.items()],
    problems,
  )


def _check_caption(
  record: shards.Record,
  vocab: vocabulary.Vocabulary,
  counts: dict[str, int],
  problems: Problems,
  where: str,
) -> None:
  """Adds a caption to the counts, and its problems to the problems."""
  ids = record.ids
  counts['captions'] += 1
  starts, ends = ids[:1] == [vocab.start_id], ids[-1:] == [vocab.end_id]
  words = ids[starts : len(ids) - ends]
  counts['words'] += len(words)
  counts['unknown_words'] += words.count(vocab.unk_id)
  counts['empty_captions'] += not words
  if not starts:
    problems.add('captions without the start word', where)
  if not ends:
    problems.add('captions without the end word', where)
  if not all(0 <= i < len(vocab) for i in ids):
    problems.add('captions with an id out of range', where)
  elif ids != [vocab.word_to_id(token) for token in record.tokens]:
    problems.add('captions with ids that are not those of their words', where)


def _check_images(
  records: Iterable[_ImageRecord],
  problems: Problems,
  workers: workers_lib.Workers,
) -> None:
  """Adds the images that cannot be decoded to the problems."""
  wanted: dict[str, dict[int, int]] = collections.defaultdict(dict)
  for path, index, image_id in records:
    wanted[path][index] = image_id
  total = sum(map(len, wanted.values()))
  results = workers.map(_decode, ((p, list(i)) for p, i in wanted.items()))
  with Progress('Decoding', total, 'images') as progress:
    for (path, image_ids), reasons in zip(wanted.items(), results):
      for index, reason in reasons.items():
        problems.add(
          'images that cannot be decoded',
          f'image {image_ids[index]} in record {index} of {path} ({reason})',
        )
      progress.update(len(image_ids))


def _decode(path: str, indices: Sequence[int]) -> dict[int, str]:
  """Returns why images are not sound JPEG files, by index of the record."""
  workers_lib.worker_tensorflow()
  wanted = set(indices)
  reasons: dict[int, str] = {}
  for index, records in enumerate(shards.read_grouped(path)):
    if index in wanted:
      wanted.remove(index)
      reason = jpeg_check.why_undecodable(records[0].data)
      if reason:
        reasons[index] = reason
    if not wanted:
      break
  return reasons
