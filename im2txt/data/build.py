# SPDX-License-Identifier: Apache-2.0
"""Builds sharded TFRecords and a vocabulary from images and captions.

The records, their order, the cut into shards and the vocabulary are those of
the 2016 program. Worker processes do the work. Their output depends on the
input and the options only, never on the number of processes.

See `shards` for the record format.
"""

import collections
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import concurrent.futures
import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import sys
import tempfile
from typing import Generic
from typing import NamedTuple
from typing import TypeVar

import numpy as np

from im2txt.data import build_options
from im2txt.data import caption_files
from im2txt.data import image_store
from im2txt.data import journal as journal_lib
from im2txt.data import jpeg_check
from im2txt.data import shards
from im2txt.runtime import files
from im2txt.runtime import locks
from im2txt.runtime import storage
from im2txt.runtime import workers as workers_lib
from im2txt.runtime.progress import log
from im2txt.runtime.progress import Progress
from im2txt.text import tokenizer
from im2txt.text import vocabulary
from im2txt.text import vocabulary_stamp

# Increase this number when the same input gives other files, so that files of
# an earlier version do not count as done.
_FORMAT = 1
_SHARD = r'(train|val|test)-\d{5}-of-\d{5}'
_SHUFFLE_SEED = 12345
_CAPTIONS_PER_TASK = 1000
_REQUESTS_AT_A_TIME = 32
# Share of unknown words above which the vocabulary is too small. MSCOCO has
# less than 1 %.
_MANY_UNKNOWN = 0.1


# A caption: str, or list of str after tokenization.
_Caption = TypeVar('_Caption')


class Image(NamedTuple, Generic[_Caption]):
  """An image and its captions: texts, or lists of tokens."""

  image_id: int
  path: str
  captions: list[_Caption]


class Dataset(NamedTuple, Generic[_Caption]):
  """The images of one of the three data sets, and its number of shards."""

  name: str
  images: list[Image[_Caption]]
  num_shards: int


class ImageStat(NamedTuple):
  """The state of an image's file.

  Attributes:
    image_id: id of the image.
    path: path of the file; see `image_store`.
    size: bytes of the file.
    mark: a number that changes with the content; see `image_store.stats`.
  """

  image_id: int
  path: str
  size: int
  mark: int


def build_datasets(
  datasets: Sequence[Dataset[str]],
  stats: Sequence[ImageStat],
  options: build_options.BuildOptions,
) -> None:
  """Builds data sets and the vocabulary of the first.

  Args:
    datasets: the data sets; the training set comes first.
    stats: `stat_images` of all their images.
    options: options that `check_options` has checked.

  Raises:
    ValueError: the input cannot be used, or another program builds there.
    OSError: reading or writing failed.
  """
  _check_vocabulary_options(datasets[0], options)
  _check_writable('output_dir', options.output_dir)
  _check_writable(
    'word_counts_output_file',
    os.path.dirname(options.word_counts_output_file) or '.',
  )
  with locks.hold(options.output_dir, 'build', '--output_dir'):
    _build_datasets(datasets, stats, options)


def _build_datasets(
  datasets: Sequence[Dataset[str]],
  stats: Sequence[ImageStat],
  options: build_options.BuildOptions,
) -> None:
  """Implements `build_datasets`, with the lock held."""
  _check_no_other_shards(datasets, options)
  journal = journal_lib.Journal(
    options.output_dir, _fingerprint(datasets, stats, options)
  )
  missing = [
    path
    for path in _shard_paths(datasets, options)
    if not journal.is_done(path)
  ]
  _check_space(stats, datasets, options)

  if not missing and journal.is_done(options.word_counts_output_file):
    vocab = build_options.read_vocabulary(
      options.word_counts_output_file, options
    )
    _save_stamp(vocab, journal, options)
    log('Everything is built from the same input already.')
    for dataset in datasets:
      _log_finished(dataset, journal.undecodable or {})
    return
  _remove_outdated(
    missing
    + [
      os.path.join(options.output_dir, name)
      for name in storage.listdir(options.output_dir)
      if re.fullmatch(rf'\.{_SHARD}\.tmp', name)
    ]
  )
  with options.workers(
    options.output_dir, options.num_workers, '--num_workers'
  ) as workers:
    undecodable = journal.undecodable
    if undecodable is None:
      undecodable = jpeg_check.find_undecodable(
        workers, [image.path for d in datasets for image in d.images]
      )
      journal.add_undecodable(undecodable)
    _check_something_is_left(datasets, undecodable)
    tokenized = _tokenized(workers, datasets, options)
    vocab = create_vocabulary(tokenized[0], options)
    journal.add_file(options.word_counts_output_file)
    _save_stamp(vocab, journal, options)
    _write_datasets(workers, tokenized, vocab, journal, undecodable, options)


def _save_stamp(
  vocab: vocabulary.Vocabulary,
  journal: journal_lib.Journal,
  options: build_options.BuildOptions,
) -> None:
  """Writes beside the shards which vocabulary they use, unless it is there."""
  path = os.path.join(options.output_dir, vocabulary_stamp.FILE_NAME)
  if not journal.is_done(path):
    vocabulary_stamp.save(
      options.output_dir,
      vocabulary_stamp.Stamp(
        vocab.fingerprint,
        len(vocab),
        storage.absolute(options.word_counts_output_file),
        options.tokenizer,
      ),
    )
    journal.add_file(path)


def captioned(
  entries: Sequence[caption_files.Entry], image_dir: str, source: str
) -> list[Image[str]]:
  """Returns the images that have captions.

  Blank captions are left out, and so are images without another caption. Both
  are counted.

  Args:
    entries: entries of captions files, with image ids.
    image_dir: directory of the images, or a .zip file of them.
    source: name of the entries' source, for messages.

  Raises:
    ValueError: an entry names a file outside of the directory.
  """
  outside = [
    entry.file_name for entry in entries if _is_outside(entry.file_name)
  ]
  if outside:
    raise ValueError(
      f'{len(outside)} file names of {source} are not of files in '
      f'{image_dir}: {caption_files.first(map(ascii, outside))}; give names '
      'below the image directory, without ".."'
    )
  images: list[Image[str]] = []
  blank = 0
  for entry in entries:
    captions = [caption for caption in entry.captions if caption.strip()]
    blank += len(entry.captions) - len(captions)
    if captions:
      assert entry.image_id is not None  # See `caption_files.numbered`.
      images.append(
        Image(
          entry.image_id, os.path.join(image_dir, entry.file_name), captions
        )
      )
  if blank:
    log(f'{blank} captions of {source} are blank: left out.')
  if len(images) < len(entries):
    log(
      f'{len(entries) - len(images)} images of {source} have no caption: '
      'left out.'
    )
  return images


def _is_outside(file_name: str) -> bool:
  """Returns whether a name leads out of the image directory."""
  return (
    os.path.isabs(file_name)
    or '..' in file_name.split('/')
    or '\0' in file_name
  )


def stat_images(
  split_name: str, images: Sequence[Image[str]], image_dir: str
) -> list[ImageStat]:
  """Returns the state of the file of every image.

  Args:
    split_name: 'train' or 'val', to name the flags in messages.
    images: the images.
    image_dir: directory of the images, or a .zip file of them.

  Raises:
    ValueError: the directory or the file of an image is missing.
  """
  flag = f'--{split_name}_image_dir'
  stat = image_store.stats(image_dir, flag)

  def state_of(image: Image[str]) -> ImageStat | None:
    try:
      return ImageStat(image.image_id, image.path, *stat(image.path))
    except OSError:
      return None

  with contextlib.ExitStack() as stack:
    states: Iterator[ImageStat | None] = map(state_of, images)
    if storage.is_remote(image_dir):
      # Each is a request that mostly waits.
      pool = concurrent.futures.ThreadPoolExecutor(_REQUESTS_AT_A_TIME)
      states = stack.enter_context(pool).map(state_of, images)
    found = list(states)
  stats = [state for state in found if state]
  missing = [image.path for image, state in zip(images, found) if not state]
  if missing:
    raise ValueError(
      f'{len(missing)} of {len(images)} images are missing in {image_dir}: '
      f'{caption_files.first(map(os.path.basename, missing))}; give {flag} '
      f'the complete directory of the {split_name} captions file'
    )
  return stats


def _check_vocabulary_options(
  train: Dataset[str], options: build_options.BuildOptions
) -> None:
  """Raises ValueError if the special words would be too rare to be kept."""
  captions = sum(len(image.captions) for image in train.images)
  if captions < options.min_word_count and not options.extend_vocab_file:
    raise ValueError(
      f'--min_word_count={options.min_word_count} is more than the '
      f'{captions} captions to train on, so no word would be left: give a '
      'smaller number'
    )


def _check_writable(flag: str, directory: str) -> None:
  """Makes a directory if missing; raises ValueError if it is not writable."""
  try:
    storage.makedirs(directory)
    if storage.is_remote(directory):
      # A store has no nameless files.
      probe = os.path.join(directory, '.writable')
      files.write_json(probe, {})
      storage.remove(probe)
    else:
      with tempfile.TemporaryFile(dir=directory):
        pass
  except OSError as error:
    raise ValueError(
      f'cannot write into {directory} ({error.strerror}): give --{flag} a '
      'path where files can be made'
    ) from error


def _check_no_other_shards(
  datasets: Sequence[Dataset[str]], options: build_options.BuildOptions
) -> None:
  """Raises ValueError if there are shards of another build.

  A directory has one vocabulary.json for all its shards, so it would be wrong
  for shards of another vocabulary.
  """
  own = {os.path.basename(path) for path in _shard_paths(datasets, options)}
  others = sorted(
    name
    for name in storage.listdir(options.output_dir)
    if name not in own and re.fullmatch(_SHARD, name)
  )
  if others:
    raise ValueError(
      f'--output_dir={options.output_dir} holds {len(others)} shard(s) of '
      f'another build ({caption_files.first(others)}), which may have '
      'another vocabulary: remove them, or give another --output_dir'
    )


def _check_something_is_left(
  datasets: Sequence[Dataset[str]], undecodable: Mapping[str, str]
) -> None:
  """Raises ValueError if no image of some data set can be decoded."""
  for dataset in datasets:
    if dataset.images and all(
      image.path in undecodable for image in dataset.images
    ):
      path = dataset.images[0].path
      raise ValueError(
        f'none of the {len(dataset.images)} images of data set '
        f"'{dataset.name}' can be used ({path}: {undecodable[path]}): "
        'give sound JPEG files'
      )


def _check_space(
  stats: Sequence[ImageStat],
  datasets: Sequence[Dataset[str]],
  options: build_options.BuildOptions,
) -> None:
  """Raises ValueError if the disk is too small for the shards."""
  if storage.is_remote(options.output_dir):
    return
  sizes = {stat.path: stat.size for stat in stats}
  needed = sum(
    sizes[example.path]
    for dataset in datasets
    for example in _examples(dataset.images, options.layout)
  )
  free = shutil.disk_usage(options.output_dir).free
  for path in _shard_paths(datasets, options):
    if os.path.exists(path):  # It is kept or replaced.
      free += os.path.getsize(path)
  if needed > free:
    raise ValueError(
      f'the shards need {needed / 1e9:.1f} GB in {options.output_dir}, where '
      f'{free / 1e9:.1f} GB are free: make room, or give another --output_dir'
    )


def _examples(
  images: Sequence[Image[_Caption]], layout: str
) -> list[Image[_Caption]]:
  """Returns an image for every record: with one caption or all, by layout."""
  if layout == 'compact':
    return list(images)
  return [
    image._replace(captions=[caption])
    for image in images
    for caption in image.captions
  ]


def shuffled_examples(
  images: Sequence[Image[_Caption]], layout: str
) -> list[Image[_Caption]]:
  """Returns an image for every record, in the order of the 2016 program."""
  examples = _examples(images, layout)
  random.Random(_SHUFFLE_SEED).shuffle(examples)
  return examples


def shard_ranges(
  num_examples: int, num_shards: int, num_threads: int
) -> list[tuple[int, int]]:
  """Returns [start, end) of the examples of every shard.

  The 2016 program first gave each thread a part, then cut the part. Because of
  rounding this differs from cutting once.

  Args:
    num_examples: records of the data set.
    num_shards: a multiple of `num_threads`, or less than it.
    num_threads: number of parts that are cut into shards.
  """
  num_threads = min(num_shards, num_threads)
  parts = np.linspace(0, num_examples, num_threads + 1).astype(int)
  ranges: list[tuple[int, int]] = []
  for part in range(num_threads):
    edges = (
      np.linspace(parts[part], parts[part + 1], num_shards // num_threads + 1)
      .astype(int)
      .tolist()
    )
    ranges.extend(zip(edges[:-1], edges[1:]))
  return ranges


def _shard_path(
  dataset: Dataset[_Caption], shard: int, options: build_options.BuildOptions
) -> str:
  return os.path.join(
    options.output_dir,
    f'{dataset.name}-{shard:05d}-of-{dataset.num_shards:05d}',
  )


def _shard_paths(
  datasets: Sequence[Dataset[_Caption]], options: build_options.BuildOptions
) -> list[str]:
  return [
    _shard_path(dataset, shard, options)
    for dataset in datasets
    for shard in range(dataset.num_shards)
  ]


def _fingerprint(
  datasets: Sequence[Dataset[str]],
  stats: Sequence[ImageStat],
  options: build_options.BuildOptions,
) -> str:
  """Returns a digest of everything that the output depends on."""
  content: list[object] = [
    _FORMAT,
    tokenizer.version(options.tokenizer),
    stats,
    datasets,
  ]
  for name in (
    'train_shards',
    'val_shards',
    'test_shards',
    'start_word',
    'end_word',
    'unknown_word',
    'min_word_count',
    'num_threads',
    'layout',
  ):
    content.append(getattr(options, name))
  if options.extend_vocab_file:
    content.append(
      build_options.read_vocabulary(
        options.extend_vocab_file, options
      ).fingerprint
    )
  return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _remove_outdated(paths: Sequence[str]) -> None:
  """Removes shards of other input, which an interrupted build would mix in."""
  outdated = [path for path in paths if storage.exists(path)]
  for path in outdated:
    storage.remove(path)
  if outdated:
    files.sync(os.path.dirname(outdated[0]))
    log(
      f'Removed {len(outdated)} shards that are not from a finished build of '
      'this input.'
    )


def _tokenized(
  workers: workers_lib.Pool,
  datasets: Sequence[Dataset[str]],
  options: build_options.BuildOptions,
) -> list[Dataset[list[str]]]:
  """Returns the data sets with captions as tokens, special words included."""
  captions = [
    caption
    for dataset in datasets
    for image in dataset.images
    for caption in image.captions
  ]
  size = _CAPTIONS_PER_TASK * workers.grain
  tasks = (
    (captions[i : i + size], options.tokenizer)
    for i in range(0, len(captions), size)
  )
  tokens: list[list[str]] = []
  with Progress('Tokenizing', len(captions), 'captions') as progress:
    for result in workers.map(_tokenize, tasks):
      for words in result:
        # Half a million captions have few distinct words: keep one copy of
        # each.
        tokens.append(
          [options.start_word, *map(sys.intern, words), options.end_word]
        )
      progress.update(len(result))
  log(f'Tokenized {len(captions)} captions.')
  remaining = iter(tokens)
  return [
    Dataset(
      dataset.name,
      [
        Image(
          image.image_id, image.path, [next(remaining) for _ in image.captions]
        )
        for image in dataset.images
      ],
      dataset.num_shards,
    )
    for dataset in datasets
  ]


def _tokenize(captions: Sequence[str], name: str) -> list[list[str]]:
  return [tokenizer.tokenize(caption, name) for caption in captions]


def create_vocabulary(
  train: Dataset[list[str]], options: build_options.BuildOptions
) -> vocabulary.Vocabulary:
  """Writes the vocabulary file and returns the vocabulary.

  Words are sorted by number of occurrences; words with equal numbers are in the
  order first seen. Words seen less than `min_word_count` times are left out.
  The words of `extend_vocab_file`, its unknown word too, come before them,
  however often they occur.

  Args:
    train: the training set, with tokens.
    options: the options.
  """
  counter: collections.Counter[str] = collections.Counter()
  for image in train.images:
    for tokens in image.captions:
      counter.update(tokens)
  old: list[str] = []
  if options.extend_vocab_file:
    old = build_options.read_vocabulary(
      options.extend_vocab_file, options
    ).words
  known = set(old)
  counts = [
    entry
    for entry in counter.items()
    if entry[1] >= options.min_word_count and entry[0] not in known
  ]
  counts.sort(key=lambda entry: entry[1], reverse=True)
  counts = [(word, counter[word]) for word in old] + counts
  path = options.word_counts_output_file
  with files.replacing(path) as temporary:
    with open(temporary, 'w', encoding='utf-8', newline='\n') as f:
      f.write('\n'.join(f'{word} {count}' for word, count in counts))
  log(
    f'Wrote vocabulary file {path}: {len(counts)} of '
    f'{len(counter.keys() | known)} words.'
  )
  vocab = build_options.read_vocabulary(path, options)
  _warn_of_unknown_words(counter, vocab, options)
  return vocab


def _warn_of_unknown_words(
  counter: Mapping[str, int],
  vocab: vocabulary.Vocabulary,
  options: build_options.BuildOptions,
) -> None:
  """Warns if many words of the training captions are unknown.

  Args:
    counter: how often each word occurs, special words included.
    vocab: the vocabulary.
    options: the options.
  """
  counts = {
    word: count
    for word, count in counter.items()
    if word not in (options.start_word, options.end_word)
  }
  unknown = sum(
    count
    for word, count in counts.items()
    if vocab.word_to_id(word) == vocab.unk_id
  )
  share = unknown / max(sum(counts.values()), 1)
  if share > _MANY_UNKNOWN:
    log(
      f'Warning: {share:.0%} of the words of the training captions are not '
      f'in the vocabulary, so they become {options.unknown_word}: give a '
      f'smaller --min_word_count than {options.min_word_count}. For a few '
      'hundred captions 1 or 2 is suitable.'
    )


class _Record(NamedTuple):
  """A record to write: an image, and the tokens and ids of its captions."""

  image_id: int
  path: str
  captions: list[tuple[list[str], list[int]]]


class _Shard(NamedTuple):
  """A shard to write: its path, and the images of its records."""

  path: str
  images: list[Image[list[str]]]

  @property
  def num_pairs(self) -> int:
    return sum(len(image.captions) for image in self.images)


def _shards_of(
  dataset: Dataset[list[str]], options: build_options.BuildOptions
) -> list[_Shard]:
  """Returns all shards of a data set, in order."""
  examples = shuffled_examples(dataset.images, options.layout)
  return [
    _Shard(_shard_path(dataset, i, options), examples[start:end])
    for i, (start, end) in enumerate(
      shard_ranges(len(examples), dataset.num_shards, options.num_threads)
    )
  ]


def _write_datasets(
  workers: workers_lib.Pool,
  datasets: Sequence[Dataset[list[str]]],
  vocab: vocabulary.Vocabulary,
  journal: journal_lib.Journal,
  undecodable: Collection[str],
  options: build_options.BuildOptions,
) -> None:
  """Writes the missing shards of all data sets."""
  plan = [(dataset, _shards_of(dataset, options)) for dataset in datasets]

  def tasks() -> Iterator[tuple[str, str, list[_Record]]]:
    for _, all_shards in plan:
      for shard in all_shards:
        if not journal.is_done(shard.path):
          yield (
            shard.path,
            options.layout,
            [
              _Record(
                image.image_id,
                image.path,
                [
                  (tokens, [vocab.word_to_id(word) for word in tokens])
                  for tokens in image.captions
                ],
              )
              for image in shard.images
              if image.path not in undecodable
            ],
          )

  # All data sets are one job: a pipeline on other machines is slow to start.
  written = workers.map(_write_shard, tasks())
  for dataset, all_shards in plan:
    pairs = {shard.path: shard.num_pairs for shard in all_shards}
    todo = [path for path in pairs if not journal.is_done(path)]
    if len(todo) < len(pairs):
      log(
        f'{len(pairs) - len(todo)} of {len(pairs)} shards of data set '
        f"'{dataset.name}' are there already."
      )
    with Progress(
      f'Writing {dataset.name}',
      sum(pairs.values()),
      'pairs',
      done=sum(pairs.values()) - sum(pairs[path] for path in todo),
    ) as progress:
      for path, _ in zip(todo, written):
        journal.add_file(path)
        progress.update(pairs[path])
    _log_finished(dataset, undecodable)
  # To its end, where it tidies up: no task is left.
  for _ in written:
    pass


def _log_finished(
  dataset: Dataset[_Caption], undecodable: Collection[str]
) -> None:
  """Prints a summary of a data set; the last line is the 2016 program's."""
  pairs = sum(len(image.captions) for image in dataset.images)
  skipped = [image for image in dataset.images if image.path in undecodable]
  if skipped:
    log(
      f'Skipped {sum(len(image.captions) for image in skipped)} '
      f'image-caption pairs of {len(skipped)} images that cannot be decoded '
      f"in data set '{dataset.name}'."
    )
  log(
    f'Finished processing all {pairs} image-caption pairs in data set '
    f"'{dataset.name}'."
  )


def _write_shard(path: str, layout: str, records: Sequence[_Record]) -> None:
  """Writes one shard under a temporary name, then gives it its own.

  Args:
    path: path of the shard.
    layout: see BuildOptions.
    records: the images and captions; each may be a list in the place of a
      tuple.

  Raises:
    OSError: an image cannot be read, or the shard cannot be written.
  """
  with files.replacing(path) as temporary:
    with shards.Writer(temporary) as writer:
      for image_id, image_path, captions in records:
        data = image_store.read(image_path)
        writer.write(
          shards.serialize_compact(image_id, data, captions)
          if layout == 'compact'
          else shards.serialize(image_id, data, *captions[0])
        )
