# SPDX-License-Identifier: Apache-2.0
"""Pictures and COCO captions in, sharded TFRecords and a vocabulary out.

The records, their order, the cut into shards and the vocabulary are those of
the 2016 program. The work is done by processes; what they write depends on the
input and the options only, never on how many they are.

What is in a record says `shards`.
"""

import collections
import concurrent.futures
import dataclasses
import functools
import gc
import hashlib
import json
import multiprocessing
import multiprocessing.connection
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import threading
from typing import NamedTuple

import numpy as np

from im2txt import files
from im2txt import locks
from im2txt import quiet_tensorflow
from im2txt import vocabulary_stamp
from im2txt.data import caption_files
from im2txt.data import image_formats
from im2txt.data import pictures
from im2txt.data import shards
from im2txt.data import tokenizer
from im2txt.inference_utils import vocabulary
from im2txt.progress import log
from im2txt.progress import Progress

JOURNAL = 'build_mscoco_data.journal'

# Bump when the same input gives other files, so that none is taken as done.
_FORMAT = 1

_SHARD = r'(train|val|test)-\d{5}-of-\d{5}'
_SHUFFLE_SEED = 12345
_CAPTIONS_PER_TASK = 1000
# Share of words above which the vocabulary is too small. MSCOCO has below 1 %.
_MANY_UNKNOWN = 0.1
_IMAGES_PER_TASK = 50
# About those of MSCOCO's training set, where the number is not given.
_RECORDS_PER_SHARD = 2000


def _flag(default, text, values=None):
  """Returns a field that is a flag with a help text, perhaps of few values."""
  return dataclasses.field(
      default=default, metadata={'help': text, 'values': values})


@dataclasses.dataclass(frozen=True)
class BuildOptions:
  """What to build of any Datasets; the fields are flags."""
  output_dir: str = _flag('/tmp/', 'Directory for the shards.')
  train_shards: int = _flag(256, 'Number of shards of the training set.')
  val_shards: int = _flag(4, 'Number of shards of the validation set.')
  test_shards: int = _flag(8, 'Number of shards of the test set.')
  start_word: str = _flag('<S>', 'Word that begins every caption.')
  end_word: str = _flag('</S>', 'Word that ends every caption.')
  unknown_word: str = _flag(
      '<UNK>', 'Word that stands for words outside the vocabulary.')
  min_word_count: int = _flag(
      4, 'Least number of times that a word is in the training captions to be '
      'in the vocabulary.')
  tokenizer: str = _flag(
      'nltk', 'What splits captions into words. nltk: English, as in 2016. '
      'unicode: any language with spaces between words. characters: one '
      'without, such as Chinese, Japanese and Thai. whitespace: captions that '
      'are split already.', tokenizer.NAMES)
  extend_vocab_file: str = _flag(
      '', 'Vocabulary file whose words keep their ids, all of them; new words '
      'follow. For extend_checkpoint.')
  word_counts_output_file: str = _flag(
      '/tmp/word_counts.txt', 'Vocabulary file to write.')
  num_threads: int = _flag(
      8, 'Equal parts that a data set is cut into before the shards; decides '
      'which pair is in which shard, so numbers of shards must be divisible '
      'by it. It does not set the speed: see num_workers.')
  num_workers: int = _flag(0, 'Number of processes, 0 for one a core.')
  layout: str = _flag(
      'pairs', 'What a record of the shards holds. pairs: a picture and one '
      'caption, as in 2016, so that a picture is there once for each caption. '
      'compact: a picture and all its captions; a fifth of the disk for '
      'MSCOCO.', ['pairs', 'compact'])


@dataclasses.dataclass(frozen=True)
class Options(BuildOptions):
  """What to build of MSCOCO; the fields are the flags of build_mscoco_data."""
  train_image_dir: str = _flag(
      '/tmp/train2014/',
      'Directory of the training pictures, or a .zip file of it.')
  val_image_dir: str = _flag(
      '/tmp/val2014',
      'Directory of the validation pictures, or a .zip file of it.')
  train_captions_file: str = _flag(
      '/tmp/captions_train2014.json', 'JSON file of the training captions.')
  val_captions_file: str = _flag(
      '/tmp/captions_val2014.json', 'JSON file of the validation captions.')


def define_flags(flags, options_class):
  """Defines a flag for every field of an Options class.

  Args:
    flags: the `absl.flags` module.
    options_class: BuildOptions or a subclass.
  """
  flags.disclaim_key_flags()  # They are the program's, for its --help.
  for field in dataclasses.fields(options_class):
    text, values = field.metadata['help'], field.metadata['values']
    if values:
      flags.DEFINE_enum(field.name, field.default, values, text)
    elif field.type is int:
      flags.DEFINE_integer(field.name, field.default, text)
    else:
      flags.DEFINE_string(field.name, field.default, text)


def options_from_flags(flag_values, options_class):
  """Returns the `options_class` that the flags of `define_flags` say."""
  return options_class(**{
      field.name: getattr(flag_values, field.name)
      for field in dataclasses.fields(options_class)})


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


def build(options):
  """Builds the three data sets and the vocabulary.

  A build that was interrupted goes on where it stopped. Pictures that cannot
  be decoded are left out, named and counted.

  Args:
    options: Options.

  Raises:
    ValueError: the options or the input cannot be used; nothing was done.
    OSError: reading or writing failed on the way.
  """
  check_options(options)
  train = load_images('train', options.train_captions_file,
                      options.train_image_dir)
  val = load_images('val', options.val_captions_file, options.val_image_dir)
  ids = collections.Counter(image.image_id for image in train + val)
  twice = [image_id for image_id, count in ids.items() if count > 1]
  if twice:
    raise ValueError(
        f'--val_captions_file={options.val_captions_file} has {len(twice)} '
        f'image id(s) of --train_captions_file={options.train_captions_file}, '
        f'such as {twice[0]}: give each image an id of its own, as images of '
        'one id are taken for the same')
  stats = (stat_images('train', train, options.train_image_dir)
           + stat_images('val', val, options.val_image_dir))
  build_datasets(split(train, val, options), stats, options)


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
  _check_writable('word_counts_output_file',
                  os.path.dirname(options.word_counts_output_file) or '.')
  with locks.hold(options.output_dir, 'build', '--output_dir'):
    _build_datasets(datasets, stats, options)


def _build_datasets(datasets, stats, options):
  """Does what `build_datasets` says, with the lock held."""
  _check_no_other_shards(datasets, options)
  journal = Journal(options.output_dir, _fingerprint(datasets, stats, options))
  missing = [path for path in _shard_paths(datasets, options)
             if not journal.is_done(path)]
  _check_space(stats, datasets, options)

  if not missing and journal.is_done(options.word_counts_output_file):
    _save_stamp(_read_vocabulary(options.word_counts_output_file, options),
                journal, options)
    log('Everything is built from the same input already.')
    for dataset in datasets:
      _log_finished(dataset, journal.undecodable)
    return
  _remove_outdated(missing + [
      os.path.join(options.output_dir, name)
      for name in os.listdir(options.output_dir)
      if re.fullmatch(rf'\.{_SHARD}\.tmp', name)])
  with Workers(options.num_workers) as workers:
    if journal.undecodable is None:
      journal.add_undecodable(find_undecodable(
          workers, [image.path for d in datasets for image in d.images]))
    _check_something_is_left(datasets, journal.undecodable)
    datasets = _tokenized(workers, datasets, options)
    vocab = create_vocabulary(datasets[0], options)
    journal.add_file(options.word_counts_output_file)
    _save_stamp(vocab, journal, options)
    for dataset in datasets:
      _write_dataset(workers, dataset, vocab, journal, options)


def _read_vocabulary(path, options):
  return vocabulary.Vocabulary(
      path, options.start_word, options.end_word, options.unknown_word)


def _save_stamp(vocab, journal, options):
  """Writes beside the shards of which vocabulary they are, once."""
  path = os.path.join(options.output_dir, vocabulary_stamp.FILE_NAME)
  if not journal.is_done(path):
    vocabulary_stamp.save(options.output_dir, vocabulary_stamp.Stamp(
        vocab.fingerprint, len(vocab),
        os.path.abspath(options.word_counts_output_file), options.tokenizer))
    journal.add_file(path)


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


# What must hold before any work ----------------------------------------------


def check_options(options):
  """Checks what can be, without input, before any work.

  Args:
    options: Options.

  Raises:
    ValueError: a value cannot be used, or the tokenizer's data is missing.
  """
  for name in ('train_shards', 'val_shards', 'test_shards', 'num_threads',
               'min_word_count'):
    if getattr(options, name) < 1:
      raise ValueError(
          f'--{name}={getattr(options, name)} must be at least 1.')
  if options.num_workers < 0:
    raise ValueError(f'--num_workers={options.num_workers} must be a number of '
                     'processes, or 0 for one a core.')
  for name in ('train_shards', 'val_shards', 'test_shards'):
    shards = getattr(options, name)
    if shards > options.num_threads and shards % options.num_threads:
      raise ValueError(
          f'--{name}={shards} is not divisible by '
          f'--num_threads={options.num_threads}: the shards are cut from '
          'num_threads equal parts, so make it a multiple (or change '
          '--num_threads, which changes which pair is in which shard).')
  words = [options.start_word, options.end_word, options.unknown_word]
  for name, word in zip(('start_word', 'end_word', 'unknown_word'), words):
    if len(word.split()) != 1 or word != word.strip():
      raise ValueError(
          f'--{name}={word!r} must be one word: a vocabulary line is '
          '"word count".')
    if words.count(word) > 1:
      raise ValueError(
          f'--{name}={word!r} is another special word too: give three words.')
  if options.extend_vocab_file:
    _read_vocabulary(options.extend_vocab_file, options)
    if (os.path.realpath(options.extend_vocab_file)
        == os.path.realpath(options.word_counts_output_file)):
      raise ValueError(
          f'--extend_vocab_file={options.extend_vocab_file} would be written '
          'over: give another --word_counts_output_file or --output_dir.')
    stamp = vocabulary_stamp.load(os.path.dirname(options.extend_vocab_file))
    if stamp and stamp.tokenizer != options.tokenizer:
      raise ValueError(
          f'--tokenizer={options.tokenizer} is not that of '
          f'--extend_vocab_file={options.extend_vocab_file}: give '
          f'--tokenizer={stamp.tokenizer}')
  tokenizer.load(options.tokenizer)


def load_images(split_name, captions_file, image_dir):
  """Returns the pictures that a COCO captions file describes, in its order.

  Args:
    split_name: 'train' or 'val', to name the flags in messages.
    captions_file: path of a JSON file with `images` (`id`, `file_name`) and
      `annotations` (`image_id`, `caption`).
    image_dir: directory of the pictures, or a .zip file of it.

  Returns:
    List of Image. Pictures without a caption are not in it.

  Raises:
    ValueError: the file is no such file, or describes a picture it has not.
  """
  entries = caption_files.read_coco(
      captions_file, f'--{split_name}_captions_file')
  images = captioned(entries, image_dir, captions_file)
  log(f'Loaded captions of {len(images)} images from {captions_file}')
  return images


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
  outside = [entry.file_name for entry in entries if _is_outside(
      entry.file_name)]
  if outside:
    raise ValueError(
        f'{len(outside)} file names of {source} are not of files in '
        f'{image_dir}: {caption_files.first(map(ascii, outside))}. Give names '
        'below the image directory, without "..".')
  images, blank = [], 0
  for entry in entries:
    captions = [caption for caption in entry.captions if caption.strip()]
    blank += len(entry.captions) - len(captions)
    if captions:
      images.append(Image(
          entry.image_id, os.path.join(image_dir, entry.file_name), captions))
  if blank:
    log(f'{blank} captions of {source} are blank: left out.')
  if len(images) < len(entries):
    log(f'{len(entries) - len(images)} images of {source} have no caption: '
        'left out.')
  return images


def _is_outside(file_name):
  """Returns whether a name is of no file below the image directory."""
  return (os.path.isabs(file_name) or '..' in file_name.split('/')
          or '\0' in file_name)


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
  stat = pictures.stats(image_dir, flag)
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
        f'the directory that belongs to the {split_name} captions file, whole.')
  return stats


def _check_vocabulary_options(train, options):
  """Raises ValueError if the special words would be too rare to be kept."""
  captions = sum(len(image.captions) for image in train.images)
  if captions < options.min_word_count and not options.extend_vocab_file:
    raise ValueError(
        f'--min_word_count={options.min_word_count} is more than the '
        f'{captions} captions to train on: no word would be left. Give a '
        'smaller one.')


def _check_writable(flag, directory):
  """Makes a directory if need be; raises ValueError if it takes no file."""
  try:
    os.makedirs(directory, exist_ok=True)
    with tempfile.TemporaryFile(dir=directory):
      pass
  except OSError as error:
    raise ValueError(
        f'Cannot write into {directory} ({error.strerror}): give --{flag} a '
        'place where files can be made.') from error


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
      name for name in os.listdir(options.output_dir) if name not in own
      and re.fullmatch(_SHARD, name))
  if others:
    raise ValueError(
        f'--output_dir={options.output_dir} holds {len(others)} shard(s) of '
        f'another build ({caption_files.first(others)}), whose vocabulary may '
        'be another: remove them, or give another --output_dir')


def _check_something_is_left(datasets, undecodable):
  """Raises ValueError if no picture of a data set can be decoded."""
  for dataset in datasets:
    if dataset.images and all(
        image.path in undecodable for image in dataset.images):
      path = dataset.images[0].path
      raise ValueError(
          f'none of the {len(dataset.images)} images of data set '
          f'\'{dataset.name}\' can be used ({path}: {undecodable[path]}): '
          'give sound JPEG files')


def _check_space(stats, datasets, options):
  """Raises ValueError if the disk is too small for the shards."""
  sizes = {path: size for _, path, size, _ in stats}
  needed = sum(
      sizes[example.path] for dataset in datasets
      for example in _examples(dataset.images, options.layout))
  free = shutil.disk_usage(options.output_dir).free
  for path in _shard_paths(datasets, options):
    if os.path.exists(path):  # Kept, or replaced.
      free += os.path.getsize(path)
  if needed > free:
    raise ValueError(
        f'The shards need {needed / 1e9:.1f} GB in {options.output_dir}, where '
        f'{free / 1e9:.1f} GB are free: make room or give another '
        '--output_dir.')


# Which pair goes where -------------------------------------------------------


def split(train, val, options):
  """Returns the Datasets train, val and test.

  Train is COCO's train and the first 85 % of its val pictures, val the next
  5 %, test the last 10 %.

  Args:
    train: list of Image.
    val: list of Image.
    options: Options.
  """
  train_end = int(0.85 * len(val))
  val_end = int(0.90 * len(val))
  return [Dataset('train', train + val[:train_end], options.train_shards),
          Dataset('val', val[train_end:val_end], options.val_shards),
          Dataset('test', val[val_end:], options.test_shards)]


def _examples(images, layout):
  """Returns what becomes a record: list of Image, by layout of one caption."""
  if layout == 'compact':
    return list(images)
  return [image._replace(captions=[caption])
          for image in images for caption in image.captions]


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
    edges = np.linspace(parts[part], parts[part + 1],
                        num_shards // num_threads + 1).astype(int).tolist()
    ranges.extend(zip(edges[:-1], edges[1:]))
  return ranges


def _shard_path(dataset, shard, options):
  return os.path.join(
      options.output_dir,
      f'{dataset.name}-{shard:05d}-of-{dataset.num_shards:05d}')


def _shard_paths(datasets, options):
  return [_shard_path(dataset, shard, options)
          for dataset in datasets for shard in range(dataset.num_shards)]


# What was done in an earlier run ---------------------------------------------


def _fingerprint(datasets, stats, options):
  """Returns a digest of everything that the output depends on."""
  content = [_FORMAT, tokenizer.version(options.tokenizer), stats, datasets]
  for name in ('train_shards', 'val_shards', 'test_shards', 'start_word',
               'end_word', 'unknown_word', 'min_word_count', 'num_threads',
               'layout'):
    content.append(getattr(options, name))
  if options.extend_vocab_file:
    content.append(
        _read_vocabulary(options.extend_vocab_file, options).fingerprint)
  return hashlib.sha256(json.dumps(content).encode()).hexdigest()


class Journal:
  """The files that are finished, and the input that they were made from.

  A text file of one JSON value a line, in the output directory. A line is
  added after a file got its final name, which it has once it is on the disk, so
  what it says is always true; a journal of other input is replaced.

  Attributes:
    undecodable: dict, path of a picture -> why it cannot be decoded; None if
      the pictures have not been looked at.
  """

  def __init__(self, directory, fingerprint):
    """Reads the journal in `directory` if it is of this input.

    Args:
      directory: str, the output directory.
      fingerprint: str, tells this input from any other.
    """
    self._path = os.path.join(directory, JOURNAL)
    self._fingerprint = fingerprint
    self._files = {}
    self.undecodable = None
    self._is_of_this_input = False
    for entry in self._entries():
      if 'fingerprint' in entry:
        if entry['fingerprint'] != fingerprint:
          return
        self._is_of_this_input = True
      elif 'undecodable' in entry:
        self.undecodable = entry['undecodable']
      elif 'file' in entry:
        self._files[entry['file']] = entry

  def _entries(self):
    """Yields the entries, less what an interruption cut short."""
    try:
      with open(self._path, encoding='utf-8') as f:
        lines = f.read().split('\n')
    except (OSError, UnicodeDecodeError):
      return
    for line in lines:
      try:
        entry = json.loads(line)
      except (ValueError, RecursionError):
        continue
      if isinstance(entry, dict):
        yield entry

  def is_done(self, path):
    """Returns whether `path` was finished and has not been changed since."""
    return self._files.get(os.path.abspath(path)) == self._entry(path)

  def _entry(self, path):
    try:
      status = os.stat(path)
    except OSError:
      return {}
    return {'file': os.path.abspath(path), 'size': status.st_size,
            'mtime_ns': status.st_mtime_ns}

  def add_file(self, path):
    """Notes that the file `path` is finished."""
    entry = self._entry(path)
    self._add(entry)
    self._files[entry['file']] = entry

  def add_undecodable(self, undecodable):
    """Notes which pictures cannot be decoded: dict, path -> reason."""
    self._add({'undecodable': undecodable})
    self.undecodable = undecodable

  def _add(self, entry):
    if not self._is_of_this_input:
      with files.replacing(self._path) as temporary:
        with open(temporary, 'w', encoding='utf-8') as f:
          f.write(json.dumps({'fingerprint': self._fingerprint}))
      self._is_of_this_input = True
    with open(self._path, 'a', encoding='utf-8') as f:
      # The end of the line comes first, to part it from one cut short.
      f.write('\n' + json.dumps(entry))
    files.sync(self._path)


def _remove_outdated(paths):
  """Removes possible shards of other input: interrupted, they would mix."""
  outdated = [path for path in paths if os.path.exists(path)]
  for path in outdated:
    os.remove(path)
  if outdated:
    files.sync(os.path.dirname(outdated[0]))
    log(f'Removed {len(outdated)} shards that are not of a finished build from '
        'this input.')


# The workers -----------------------------------------------------------------


class Workers:
  """Processes that do tasks; a context manager."""

  def __init__(self, num_workers):
    """Args: num_workers: int, 0 for one per core."""
    self._num = num_workers or len(os.sched_getaffinity(0))
    # A forked process would inherit TensorFlow's threads half alive.
    self._executor = concurrent.futures.ProcessPoolExecutor(
        self._num, mp_context=multiprocessing.get_context('spawn'),
        initializer=_start_worker)

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._executor.shutdown(wait=True, cancel_futures=True)

  def map(self, function, tasks):
    """Yields function(*task) in order; few tasks are in memory at a time.

    Args:
      function: a function of a module.
      tasks: iterable of tuples.

    Raises:
      ChildProcessError: a process was killed.
    """
    waiting = collections.deque()
    try:
      for task in tasks:
        waiting.append(self._executor.submit(function, *task))
        if len(waiting) > 2 * self._num:
          yield waiting.popleft().result()
      while waiting:
        yield waiting.popleft().result()
    except concurrent.futures.BrokenExecutor as error:
      raise ChildProcessError(
          'A worker process was killed, perhaps for want of memory: run the '
          f'same command again with --num_workers below {self._num}.'
      ) from error


def _start_worker():
  """Makes a worker end with its parent, and only then."""
  # An interrupt from the keyboard reaches every process; the parent decides.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  parent = multiprocessing.parent_process()

  def exit_with_parent():
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)  # pylint: disable=protected-access

  threading.Thread(target=exit_with_parent, daemon=True).start()


@functools.lru_cache(maxsize=None)
def worker_tensorflow():
  """Returns TensorFlow, set up for one of many processes."""
  # To look through all that TensorFlow makes, again and again, for what can be
  # collected takes a fifth of the time of its import. None of it can.
  gc.disable()
  import tensorflow as tf  # pylint: disable=g-import-not-at-top
  gc.freeze()
  gc.enable()
  tf.config.set_visible_devices([], 'GPU')
  tf.config.threading.set_inter_op_parallelism_threads(1)
  tf.config.threading.set_intra_op_parallelism_threads(1)
  return tf


# Captions to tokens and a vocabulary -----------------------------------------


def _tokenized(workers, datasets, options):
  """Returns the Datasets with tokens, special words included, as captions."""
  captions = [caption for dataset in datasets for image in dataset.images
              for caption in image.captions]
  starts = range(0, len(captions), _CAPTIONS_PER_TASK)
  tasks = ((captions[i:i + _CAPTIONS_PER_TASK], options.tokenizer)
           for i in starts)
  tokens = []
  with Progress('Tokenizing', len(captions), 'captions') as progress:
    for result in workers.map(_tokenize, tasks):
      for words in result:
        # Half a million captions have few words: keep each once.
        tokens.append([options.start_word, *map(sys.intern, words),
                       options.end_word])
      progress.update(len(result))
  log(f'Tokenized {len(captions)} captions.')
  tokens = iter(tokens)
  return [
      dataset._replace(images=[
          image._replace(captions=[next(tokens) for _ in image.captions])
          for image in dataset.images])
      for dataset in datasets]


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
    old = _read_vocabulary(options.extend_vocab_file, options).words
  known = set(old)
  counts = [entry for entry in counter.items()
            if entry[1] >= options.min_word_count and entry[0] not in known]
  counts.sort(key=lambda entry: entry[1], reverse=True)
  counts = [(word, counter[word]) for word in old] + counts
  path = options.word_counts_output_file
  with files.replacing(path) as temporary:
    with open(temporary, 'w', encoding='utf-8', newline='\n') as f:
      f.write('\n'.join(f'{word} {count}' for word, count in counts))
  log(f'Wrote vocabulary file {path}: {len(counts)} of '
      f'{len(counter.keys() | known)} words.')
  vocab = _read_vocabulary(path, options)
  _warn_of_unknown_words(counter, vocab, options)
  return vocab


def _warn_of_unknown_words(counter, vocab, options):
  """Warns if much of the captions to train on is unknown words.

  Args:
    counter: dict, word -> its number in the captions, special ones included.
    vocab: Vocabulary.
    options: Options.
  """
  counts = {word: count for word, count in counter.items()
            if word not in (options.start_word, options.end_word)}
  unknown = sum(count for word, count in counts.items()
                if vocab.word_to_id(word) == vocab.unk_id)
  share = unknown / max(sum(counts.values()), 1)
  if share > _MANY_UNKNOWN:
    log(f'Warning: {share:.0%} of the words of the training captions are not '
        f'in the vocabulary, so become {options.unknown_word}: give a smaller '
        f'--min_word_count than {options.min_word_count}. 1 or 2 suits a few '
        'hundred captions.')


# Pictures --------------------------------------------------------------------


def find_undecodable(workers, paths):
  """Returns the pictures that training could not decode, dict path -> reason.

  Every file is decoded once, by the decoder that training uses: another one
  (Pillow was tried) accepts damage that this one refuses. Looking at all of
  them first is five times cheaper than decoding for every caption.

  Args:
    workers: Workers.
    paths: list of str.
  """
  tasks = ((paths[i:i + _IMAGES_PER_TASK],)
           for i in range(0, len(paths), _IMAGES_PER_TASK))
  undecodable, turned = {}, []
  checked = 0
  with Progress('Checking images', len(paths), 'images') as progress:
    for result in workers.map(_decode_all, tasks):
      undecodable.update(result[0])
      turned += result[1]
      number = min(_IMAGES_PER_TASK, len(paths) - checked)
      checked += number
      progress.update(number)
  for path, reason in undecodable.items():
    log(f'Skipping {path}: {reason}')
  log(f'Checked {len(paths)} images, {len(undecodable)} cannot be decoded.')
  if turned:
    # As in 2016. To turn them would be to compress them anew.
    log(f'Warning: {len(turned)} images are stored lying or upside down, as '
        f'their EXIF orientation tells ({caption_files.first(turned)}), and '
        'would be trained on like that: turn the files first, such as with '
        'exiftran -ai or mogrify -auto-orient.')
  return undecodable


def _decode_all(paths):
  """Returns what is to be said of some files.

  Args:
    paths: list of str.

  Returns:
    ({path: reason} of those that are no sound JPEG pictures, list of the paths
    of sound ones that are stored turned).
  """
  undecodable, turned = {}, []
  for path in paths:
    try:
      content = pictures.read(path)
      reason = why_undecodable(content)
    except OSError as error:
      reason = str(error)
    if reason:
      undecodable[path] = reason
    elif image_formats.read_header(content).orientation > 1:
      turned.append(path)
  return undecodable, turned


def why_undecodable(content):
  """Returns why bytes are no sound JPEG picture, a line; None if they are."""
  # The decoder would take a PNG too, but image/data is JPEG by contract.
  kind = image_formats.kind_of(content)
  if kind != 'JPEG':
    return f'not a JPEG file{f" but {kind}" if kind else ""}'
  try:
    image_formats.check_for_decode_jpeg(content)
  except ValueError as error:
    return str(error)
  tf = worker_tensorflow()
  try:
    # All of the file is parsed at an eighth of the size too, only the pixels
    # are not computed.
    tf.io.decode_jpeg(content, channels=3, ratio=8)
  except tf.errors.OpError as error:
    return quiet_tensorflow.reason(error)
  return None


# Shards ----------------------------------------------------------------------


def _write_dataset(workers, dataset, vocab, journal, options):
  """Writes the shards of a data set that are not there yet."""
  examples = shuffled_examples(dataset.images, options.layout)
  parts = [examples[start:end] for start, end in shard_ranges(
      len(examples), dataset.num_shards, options.num_threads)]
  paths = [_shard_path(dataset, i, options) for i in range(dataset.num_shards)]
  todo = [i for i, path in enumerate(paths) if not journal.is_done(path)]
  pairs = [sum(len(image.captions) for image in part) for part in parts]
  if len(todo) < len(paths):
    log(f'{len(paths) - len(todo)} of {len(paths)} shards of data set '
        f'\'{dataset.name}\' are there already.')

  def tasks():
    for i in todo:
      yield paths[i], options.layout, [
          (image.image_id, image.path,
           [(tokens, [vocab.word_to_id(word) for word in tokens])
            for tokens in image.captions])
          for image in parts[i] if image.path not in journal.undecodable]

  with Progress(f'Writing {dataset.name}', sum(pairs), 'pairs',
                done=sum(pairs) - sum(pairs[i] for i in todo)) as progress:
    for i, _ in zip(todo, workers.map(_write_shard, tasks())):
      journal.add_file(paths[i])
      progress.update(pairs[i])
  _log_finished(dataset, journal.undecodable)


def _log_finished(dataset, undecodable):
  """Prints what became of a data set; the last line is the 2016 program's."""
  pairs = sum(len(image.captions) for image in dataset.images)
  skipped = [image for image in dataset.images if image.path in undecodable]
  if skipped:
    log(f'Skipped {sum(len(image.captions) for image in skipped)} '
        f'image-caption pairs of {len(skipped)} images that cannot be decoded '
        f'in data set \'{dataset.name}\'.')
  log(f'Finished processing all {pairs} image-caption pairs in data set '
      f'\'{dataset.name}\'.')


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
        data = pictures.read(image_path)
        writer.write(
            shards.serialize_compact(image_id, data, captions)
            if layout == 'compact' else
            shards.serialize(image_id, data, *captions[0]))
