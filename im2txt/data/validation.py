# SPDX-License-Identifier: Apache-2.0
"""Reads shards back and tells what is in them and what is wrong with them."""

import collections
import dataclasses
import hashlib
import os

from im2txt.data import caption_files
from im2txt.data import jpeg_check
from im2txt.data import shards
from im2txt.runtime import workers as workers_lib
from im2txt.runtime.progress import Progress
from im2txt.text import vocabulary
from im2txt.text import vocabulary_stamp

# Above this share of unknown words something is wrong with a vocabulary.
_MANY_UNKNOWN = 0.5


@dataclasses.dataclass
class Split:
  """What is in the shards of one split.

  Attributes:
    shards: int.
    captions: int.
    images: int, different JPEG files.
    words: int, start and end words left out.
    unknown_words: int, those that have the unknown word's id.
    empty_captions: int, those without a word.
  """

  shards: int = 0
  captions: int = 0
  images: int = 0
  words: int = 0
  unknown_words: int = 0
  empty_captions: int = 0


class Problems:
  """What is wrong, by kind: how often, and where first.

  Attributes:
    found: dict, kind -> list of str, where each one is.
  """

  def __init__(self):
    self.found = collections.defaultdict(list)

  def add(self, kind, where):
    self.found[kind].append(where)

  def update(self, other):
    for kind, places in other.found.items():
      self.found[kind].extend(places)

  def lines(self):
    """Returns a line for each kind."""
    return [
      f'{len(places)} {kind}: {caption_files.first(places)}'
      for kind, places in self.found.items()
    ]


def split_name(path):
  """Returns the split that the name of a shard tells, 'train' for train-0..."""
  name = os.path.basename(path)
  match = shards.NAME.fullmatch(name)
  return match[1] if match else name


def validate(files, vocab_file, special_words, workers):
  """Reads every record of some shards, and every picture once.

  Args:
    files: list of str, shards of one split or more.
    vocab_file: path of the vocabulary.
    special_words: (start, end, unknown) words.
    workers: workers_lib.Workers.

  Returns:
    (dict, name of the split -> Split, Problems).

  Raises:
    ValueError: the vocabulary cannot be used.
  """
  vocab = vocabulary.Vocabulary(vocab_file, *special_words)
  splits, captions_of = collections.defaultdict(Split), {}
  problems = Problems()
  _check_stamps(files, vocab, problems)
  for path in shards.missing_of_sets(files):
    problems.add('shards missing', path)
  # Of each JPEG, by its digest: [(split, image id)], and where it is first.
  owners, place = collections.defaultdict(list), {}
  digests_of_id = collections.defaultdict(set)
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
          place[digest] = (path, index, image_id)
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
  _check_images(place.values(), problems, workers)
  for path, captions in captions_of.items():
    # Few captions leave shards empty, which is how 2016 cut them.
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


def _check_stamps(files, vocab, problems):
  """Adds the directories whose shards say that their vocabulary is another."""
  given = vocabulary_stamp.of_vocabulary(vocab)
  for holder in vocabulary_stamp.of_shards(files):
    if holder.stamp:
      try:
        vocabulary_stamp.check(
          [holder, given],
          'give the vocabulary file that was made with the shards',
        )
      except ValueError as error:
        problems.add(
          'directories with shards of another vocabulary', str(error)
        )


def _read_shard(path, vocab_file, special_words):
  """Reads one shard, in a worker.

  Returns:
    (dict, field of Split -> int; list of (image id, digest, index of the
    record), one for each JPEG of the shard; Problems).
  """
  workers_lib.worker_tensorflow()
  vocab = vocabulary.Vocabulary(vocab_file, *special_words)
  problems, images = Problems(), {}
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


def _check_caption(record, vocab, counts, problems, where):
  """Adds a caption to the counts, and what is wrong with it to the problems."""
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


def _check_images(places, problems, workers):
  """Adds the images that cannot be decoded.

  Args:
    places: iterable of (path of the shard, index of the record, image id).
    problems: Problems.
    workers: workers_lib.Workers.
  """
  wanted = collections.defaultdict(dict)
  for path, index, image_id in places:
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


def _decode(path, indices):
  """Returns {index: reason} of the records whose image is no sound JPEG."""
  workers_lib.worker_tensorflow()
  wanted, reasons = set(indices), {}
  for index, records in enumerate(shards.read_grouped(path)):
    if index in wanted:
      wanted.remove(index)
      reason = jpeg_check.why_undecodable(records[0].data)
      if reason:
        reasons[index] = reason
    if not wanted:
      break
  return reasons
