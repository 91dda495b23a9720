# SPDX-License-Identifier: Apache-2.0
"""Images and captions in, sharded TFRecords and a vocabulary out.

The records, their order, the cut into shards and the vocabulary are those of
the 2016 program. The work is done by processes; what they write depends on the
input and the options only, never on how many they are.

See `shards` for the record format.
"""

import collections
import hashlib
import json
import os
import random
import re
import shutil
import sys
import tempfile
from typing import NamedTuple

import numpy as np

from im2txt.data import build_options
from im2txt.data import caption_files
from im2txt.data import image_store
from im2txt.data import journal as journal_lib
from im2txt.data import jpeg_check
from im2txt.data import shards
from im2txt.runtime import files
from im2txt.runtime import locks
from im2txt.runtime import workers as workers_lib
from im2txt.runtime.progress import log
from im2txt.runtime.progress import Progress
from im2txt.text import tokenizer
from im2txt.text import vocabulary_stamp

# Bump when the same input gives other files, so that none is taken as done.
_FORMAT = 1
_SHARD = r'(train|val|test)-\d{5}-of-\d{5}'
_SHUFFLE_SEED = 12345
_CAPTIONS_PER_TASK = 1000
# Share of words above which the vocabulary is too small. MSCOCO has below 1 %.
_MANY_UNKNOWN = 0.1


class Image(NamedTuple):
  """A picture and captions of it (str, or lists of tokens)."""

  image_id: int
  path: str
  captions: list


class Dataset(NamedTuple):
  """The pictures of one of the three data sets, and its number of shards."""

  name: str
  images: list
  num_shards: int


def build_datasets(datasets, stats, options):
  """Builds data sets and the vocabulary of the first; see `build`.

  Args:
    datasets: list of Dataset, that to train on first.
    stats: `stat_images` of all their pictures.
    options: BuildOptions, checked by `check_options`.

  Raises:
    ValueError: see `build`; or another program builds there.
    OSError: reading or writing failed on the way.
  """
  _check_vocabulary_options(datasets[0], options)
  _check_writable('output_dir', options.output_dir)
  _check_writable(
    'word_counts_output_file',
    os.path.dirname(options.word_counts_output_file) or '.',
  )
  with locks.hold(options.output_dir, 'build', '--output_dir'):
    _build_datasets(datasets, stats, options)


def _build_datasets(datasets, stats, options):
  """Does what `build_datasets` says, with the lock held."""
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
      _log_finished(dataset, journal.undecodable)
    return
  _remove_outdated(
    missing
    + [
      os.path.join(options.output_dir, name)
      for name in os.listdir(options.output_dir)
      if re.fullmatch(rf'\.{_SHARD}\.tmp', name)
    ]
  )
  with workers_lib.Workers(options.num_workers) as workers:
    if journal.undecodable is None:
      journal.add_undecodable(
        jpeg_check.find_undecodable(
          workers, [image.path for d in datasets for image in d.images]
        )
      )
    _check_something_is_left(datasets, journal.undecodable)
    datasets = _tokenized(workers, datasets, options)
    vocab = create_vocabulary(datasets[0], options)
    journal.add_file(options.word_counts_output_file)
    _save_stamp(vocab, journal, options)
    for dataset in datasets:
      _write_dataset(workers, dataset, vocab, journal, options)


def _save_stamp(vocab, journal, options):
  """Writes beside the shards of which vocabulary they are, once."""
  path = os.path.join(options.output_dir, vocabulary_stamp.FILE_NAME)
  if not journal.is_done(path):
    vocabulary_stamp.save(
      options.output_dir,
      vocabulary_stamp.Stamp(
        vocab.fingerprint,
        len(vocab),
        os.path.abspath(options.word_counts_output_file),
        options.tokenizer,
      ),
    )
    journal.add_file(path)


def captioned(entries, image_dir, source):
  """Returns the images that have captions, as a list of Image.

  A caption without a word would teach nothing: it is left out, as is an image
  that has no other. Both are counted.

  Args:
    entries: list of `caption_files.Entry`.
    image_dir: directory of the pictures, or a .zip file of it.
    source: str, what the entries are of, for messages.

  Raises:
    ValueError: an entry names a file outside of the directory.
  """
  outside = [
    entry.file_name for entry in entries if _is_outside(entry.file_name)
  ]
  if outside:
    raise ValueError(
      f'{len(outside)} file names of {source} are not of files in '
      f'{image_dir}: {caption_files.first(map(ascii, outside))}. Give names '
      'below the image directory, without "..".'
    )
  images, blank = [], 0
  for entry in entries:
    captions = [caption for caption in entry.captions if caption.strip()]
    blank += len(entry.captions) - len(captions)
    if captions:
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


def _is_outside(file_name):
  """Returns whether a name is of no file below the image directory."""
  return (
    os.path.isabs(file_name)
    or '..' in file_name.split('/')
    or '\0' in file_name
  )


def stat_images(split_name, images, image_dir):
  """Returns [id, path, bytes, mark of the content] of every picture.

  Args:
    split_name: 'train' or 'val', to name the flags in messages.
    images: list of Image.
    image_dir: directory of the pictures, or a .zip file of it.

  Raises:
    ValueError: the directory or the file of a picture is missing.
  """
  flag = f'--{split_name}_image_dir'
  stat = image_store.stats(image_dir, flag)
  stats, missing = [], []
  for image in images:
    try:
      stats.append([image.image_id, image.path, *stat(image.path)])
    except OSError:
      missing.append(image.path)
  if missing:
    raise ValueError(
      f'{len(missing)} of {len(images)} images are missing in {image_dir}: '
      f'{caption_files.first(map(os.path.basename, missing))}. Give {flag} '
      f'the directory that belongs to the {split_name} captions file, whole.'
    )
  return stats


def _check_vocabulary_options(train, options):
  """Raises ValueError if the special words would be too rare to be kept."""
  captions = sum(len(image.captions) for image in train.images)
  if captions < options.min_word_count and not options.extend_vocab_file:
    raise ValueError(
      f'--min_word_count={options.min_word_count} is more than the '
      f'{captions} captions to train on: no word would be left. Give a '
      'smaller one.'
    )


def _check_writable(flag, directory):
  """Makes a directory if need be; raises ValueError if it takes no file."""
  try:
    os.makedirs(directory, exist_ok=True)
    with tempfile.TemporaryFile(dir=directory):
      pass
  except OSError as error:
    raise ValueError(
      f'Cannot write into {directory} ({error.strerror}): give --{flag} a '
      'place where files can be made.'
    ) from error


def _check_no_other_shards(datasets, options):
  """Raises ValueError if there are shards that this build does not write.

  One vocabulary.json tells of all shards in a directory: with others in it,
  it would tell of them too.

  Args:
    datasets: list of Dataset.
    options: BuildOptions.
  """
  own = {os.path.basename(path) for path in _shard_paths(datasets, options)}
  others = sorted(
    name
    for name in os.listdir(options.output_dir)
    if name not in own and re.fullmatch(_SHARD, name)
  )
  if others:
    raise ValueError(
      f'--output_dir={options.output_dir} holds {len(others)} shard(s) of '
      f'another build ({caption_files.first(others)}), whose vocabulary may '
      'be another: remove them, or give another --output_dir'
    )


def _check_something_is_left(datasets, undecodable):
  """Raises ValueError if no picture of a data set can be decoded."""
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


def _check_space(stats, datasets, options):
  """Raises ValueError if the disk is too small for the shards."""
  sizes = {path: size for _, path, size, _ in stats}
  needed = sum(
    sizes[example.path]
    for dataset in datasets
    for example in _examples(dataset.images, options.layout)
  )
  free = shutil.disk_usage(options.output_dir).free
  for path in _shard_paths(datasets, options):
    if os.path.exists(path):  # Kept, or replaced.
      free += os.path.getsize(path)
  if needed > free:
    raise ValueError(
      f'The shards need {needed / 1e9:.1f} GB in {options.output_dir}, where '
      f'{free / 1e9:.1f} GB are free: make room or give another '
      '--output_dir.'
    )


def _examples(images, layout):
  """Returns what becomes a record: list of Image, by layout of one caption."""
  if layout == 'compact':
    return list(images)
  return [
    image._replace(captions=[caption])
    for image in images
    for caption in image.captions
  ]


def shuffled_examples(images, layout):
  """Returns an Image for every record, in the order of the 2016 program."""
  examples = _examples(images, layout)
  random.Random(_SHUFFLE_SEED).shuffle(examples)
  return examples


def shard_ranges(num_examples, num_shards, num_threads):
  """Returns [start, end) of every shard, a list of pairs of int.

  The 2016 program first gave each thread its part, then cut that; rounding
  makes this differ from cutting once.

  Args:
    num_examples: int, records of the data set.
    num_shards: int, a multiple of `num_threads` or less than it.
    num_threads: int, parts that are cut into shards.
  """
  num_threads = min(num_shards, num_threads)
  parts = np.linspace(0, num_examples, num_threads + 1).astype(int)
  ranges = []
  for part in range(num_threads):
    edges = (
      np.linspace(parts[part], parts[part + 1], num_shards // num_threads + 1)
      .astype(int)
      .tolist()
    )
    ranges.extend(zip(edges[:-1], edges[1:]))
  return ranges


def _shard_path(dataset, shard, options):
  return os.path.join(
    options.output_dir,
    f'{dataset.name}-{shard:05d}-of-{dataset.num_shards:05d}',
  )


def _shard_paths(datasets, options):
  return [
    _shard_path(dataset, shard, options)
    for dataset in datasets
    for shard in range(dataset.num_shards)
  ]


def _fingerprint(datasets, stats, options):
  """Returns a digest of everything that the output depends on."""
  content = [_FORMAT, tokenizer.version(options.tokenizer), stats, datasets]
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


def _remove_outdated(paths):
  """Removes possible shards of other input: interrupted, they would mix."""
  outdated = [path for path in paths if os.path.exists(path)]
  for path in outdated:
    os.remove(path)
  if outdated:
    files.sync(os.path.dirname(outdated[0]))
    log(
      f'Removed {len(outdated)} shards that are not of a finished build from '
      'this input.'
    )


def _tokenized(workers, datasets, options):
  """Returns the Datasets with tokens, special words included, as captions."""
  captions = [
    caption
    for dataset in datasets
    for image in dataset.images
    for caption in image.captions
  ]
  starts = range(0, len(captions), _CAPTIONS_PER_TASK)
  tasks = (
    (captions[i : i + _CAPTIONS_PER_TASK], options.tokenizer) for i in starts
  )
  tokens = []
  with Progress('Tokenizing', len(captions), 'captions') as progress:
    for result in workers.map(_tokenize, tasks):
      for words in result:
        # Half a million captions have few words: keep each once.
        tokens.append(
          [options.start_word, *map(sys.intern, words), options.end_word]
        )
      progress.update(len(result))
  log(f'Tokenized {len(captions)} captions.')
  tokens = iter(tokens)
  return [
    dataset._replace(
      images=[
        image._replace(captions=[next(tokens) for _ in image.captions])
        for image in dataset.images
      ]
    )
    for dataset in datasets
  ]


def _tokenize(captions, name):
  return [tokenizer.tokenize(caption, name) for caption in captions]


def create_vocabulary(train, options):
  """Writes the vocabulary file and returns the Vocabulary.

  Words by number of occurrences, equal ones in the order first seen; those
  seen less than `min_word_count` times are left out. With `extend_vocab_file`
  its words come first, the unknown one too, whatever their number.

  Args:
    train: Dataset with tokens.
    options: Options.
  """
  counter = collections.Counter()
  for image in train.images:
    for tokens in image.captions:
      counter.update(tokens)
  old = []
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


def _warn_of_unknown_words(counter, vocab, options):
  """Warns if much of the captions to train on is unknown words.

  Args:
    counter: dict, word -> its number in the captions, special ones included.
    vocab: Vocabulary.
    options: Options.
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
      f'in the vocabulary, so become {options.unknown_word}: give a smaller '
      f'--min_word_count than {options.min_word_count}. 1 or 2 suits a few '
      'hundred captions.'
    )


def _write_dataset(workers, dataset, vocab, journal, options):
  """Writes the shards of a data set that are not there yet."""
  examples = shuffled_examples(dataset.images, options.layout)
  parts = [
    examples[start:end]
    for start, end in shard_ranges(
      len(examples), dataset.num_shards, options.num_threads
    )
  ]
  paths = [_shard_path(dataset, i, options) for i in range(dataset.num_shards)]
  todo = [i for i, path in enumerate(paths) if not journal.is_done(path)]
  pairs = [sum(len(image.captions) for image in part) for part in parts]
  if len(todo) < len(paths):
    log(
      f'{len(paths) - len(todo)} of {len(paths)} shards of data set '
      f"'{dataset.name}' are there already."
    )

  def tasks():
    for i in todo:
      yield (
        paths[i],
        options.layout,
        [
          (
            image.image_id,
            image.path,
            [
              (tokens, [vocab.word_to_id(word) for word in tokens])
              for tokens in image.captions
            ],
          )
          for image in parts[i]
          if image.path not in journal.undecodable
        ],
      )

  with Progress(
    f'Writing {dataset.name}',
    sum(pairs),
    'pairs',
    done=sum(pairs) - sum(pairs[i] for i in todo),
  ) as progress:
    for i, _ in zip(todo, workers.map(_write_shard, tasks())):
      journal.add_file(paths[i])
      progress.update(pairs[i])
  _log_finished(dataset, journal.undecodable)


def _log_finished(dataset, undecodable):
  """Prints what became of a data set; the last line is the 2016 program's."""
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


def _write_shard(path, layout, records):
  """Writes one shard under a temporary name, then gives it its own.

  Args:
    path: path of the shard.
    layout: str, as in BuildOptions.
    records: list of (image id, path of the picture, [(tokens, ids), ...]).

  Raises:
    OSError: a picture cannot be read or the shard not written.
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
