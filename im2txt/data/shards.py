# SPDX-License-Identifier: Apache-2.0
"""The records of TFRecord shards: written, and read back.

A record is a tf.train.SequenceExample of one picture:

  context:
    image/image_id: int64, id of the picture
    image/data: bytes, the JPEG file as it is

In the layout of 2016 it holds one caption, each word a feature of its own:

  feature_lists:
    image/caption: bytes, the tokens with start and end word
    image/caption_ids: int64, their ids

In the compact layout it holds all captions of the picture, and each caption is
one feature with a value for each word. So a record is compact if a feature of
image/caption_ids has several values.

Records are made without the classes of tf.train, which take eight times as
long, and files without tf.io.TFRecordWriter, which copies every picture.
"""

import collections
import functools
import os
import re
import struct
from typing import NamedTuple

from absl import logging
import google_crc32c

from im2txt.runtime import files
from im2txt.runtime import quiet_tensorflow
from im2txt.runtime.progress import Progress

# Larger pieces cost the operating system less by the byte; much larger ones
# would not stay in a processor's cache.
_BYTES_A_WRITE = 1 << 19

# Data set, number and number of all, in the name of a shard.
NAME = re.compile(r'(.+)-(\d{5})-of-(\d{5})')

IMAGE_ID = 'image/image_id'
IMAGE_DATA = 'image/data'
CAPTION_IDS = 'image/caption_ids'

# What stands before and behind a record in a file, see `Writer`.
HEADER_BYTES = 12
FOOTER_BYTES = 4


class Writer:
  """Writes a TFRecord file; a context manager.

  A record is its length (uint64, little-endian), the masked CRC-32C of these
  eight bytes, the record, and the masked CRC-32C of the record.
  """

  def __init__(self, path):
    """Makes the file `path`, a str, or makes it empty.

    Raises:
      OSError: it cannot be made.
    """
    self._path = path
    self._file = open(path, 'wb', buffering=_BYTES_A_WRITE)

  def __enter__(self):
    return self

  def __exit__(self, *_):
    with files.naming(self._path):
      self._file.close()

  def write(self, record):
    """Adds a record.

    Args:
      record: list of bytes, the parts that it consists of.

    Raises:
      OSError: the file cannot be written; the end of the context may raise it
        too, as what is little is kept until then.
    """
    size = struct.pack('<Q', sum(map(len, record)))
    checksum = functools.reduce(google_crc32c.extend, record, 0)
    with files.naming(self._path):
      self._file.writelines(
        (
          size,
          files.masked(google_crc32c.value(size)),
          *record,
          files.masked(checksum),
        )
      )


def list_files(file_pattern, flag='input_file_pattern'):
  """Returns the sorted files that comma-separated patterns match.

  Sorted, so that a run does not depend on the file system's order.

  Args:
    file_pattern: see `files.split_names` and `files.matches`.
    flag: the flag that gave it, for messages.

  Raises:
    ValueError: a pattern matches nothing.
  """
  paths = []
  for pattern in files.split_names(file_pattern) or ['']:
    found = files.matches(pattern)
    if not found:
      raise ValueError(f'--{flag}={file_pattern}: no file matches {pattern}')
    paths.extend(found)
  missing = missing_of_sets(paths)
  if missing:
    logging.warning(
      '--%s=%s: %d shards are missing, such as %s',
      flag,
      file_pattern,
      len(missing),
      missing[0],
    )
  return sorted(set(paths))


def missing_of_sets(paths):
  """Returns the shards that the names of others promise and that are not there.

  Args:
    paths: list of str, such as 'train-00003-of-00256'; other names count not.

  Returns:
    List of str.
  """
  present = collections.defaultdict(set)
  for path in paths:
    match = NAME.fullmatch(os.path.basename(path))
    if match:
      stem = os.path.join(os.path.dirname(path), match[1])
      present[stem, int(match[3])].add(int(match[2]))
  return [
    f'{stem}-{number:05d}-of-{total:05d}'
    for (stem, total), numbers in present.items()
    for number in sorted(set(range(total)) - numbers)
  ]


def read_record(path, offset):
  """Reads one record of a TFRecord file.

  Args:
    path: str.
    offset: int, where the record's length stands in the file.

  Returns:
    bytes, a serialized tf.train.SequenceExample.

  Raises:
    ValueError: the file is damaged there, or has changed since the offset was
      known.
    OSError: it cannot be read.
  """
  with open(path, 'rb', buffering=0) as f:
    f.seek(offset)
    header = f.read(HEADER_BYTES)
    if files.masked(google_crc32c.value(header[:8])) == header[8:]:
      (length,) = struct.unpack('<Q', header[:8])
      # A header may claim what no file holds.
      length = min(length, os.fstat(f.fileno()).st_size)
      data = f.read(length + FOOTER_BYTES)
      record = data[:length]
      if files.masked(google_crc32c.value(record)) == data[length:]:
        return record
  raise ValueError(
    f'damaged record at byte {offset} of {path}; make the shards again'
  )


def check_lengths(path):
  """Checks that no record of a file claims to be longer than the file.

  TensorFlow takes memory for what a header claims, and may die of it.

  Args:
    path: str; of a file elsewhere, such as gs://, nothing is checked.

  Raises:
    ValueError: one does. Other damage is left to the reader.
  """
  if not os.path.isfile(path):
    return
  size, offset = os.path.getsize(path), 0
  with open(path, 'rb', buffering=0) as f:
    while (
      len(header := os.pread(f.fileno(), HEADER_BYTES, offset)) == HEADER_BYTES
    ):
      if files.masked(google_crc32c.value(header[:8])) != header[8:]:
        return
      (length,) = struct.unpack('<Q', header[:8])
      if length > size:
        raise ValueError(
          f'the record at byte {offset} of {path} claims {length} bytes, '
          f'more than the file has; make the shards again'
        )
      offset += HEADER_BYTES + length + FOOTER_BYTES


def is_whole(path):
  """Returns whether a TFRecord file ends where a record does."""
  size, offset = os.path.getsize(path), 0
  with open(path, 'rb', buffering=0) as f:
    while offset < size:
      header = os.pread(f.fileno(), HEADER_BYTES, offset)
      if len(header) < HEADER_BYTES:
        return False
      offset += HEADER_BYTES + struct.unpack('<Q', header[:8])[0] + FOOTER_BYTES
  return offset == size


def serialize(image_id, data, tokens, ids):
  """Returns a record of one picture and one caption, a list of bytes.

  Joined, they are SequenceExample.SerializeToString(deterministic=True), where
  protobuf puts a longer name before one that it begins with. The picture is
  one of them, so it is not copied.

  Args:
    image_id: int.
    data: bytes of a JPEG file.
    tokens: list of str.
    ids: list of int.
  """
  return _example(
    image_id, data, map(_bytes_feature, tokens), map(_int64_feature, ids)
  )


def serialize_compact(image_id, data, captions):
  """Returns a record of one picture and all its captions, a list of bytes.

  Args:
    image_id: int.
    data: bytes of a JPEG file.
    captions: list of (list of str, list of int), the tokens and ids of each;
      at least two, as every caption has a start and an end word.
  """
  return _example(
    image_id,
    data,
    [_bytes_feature(*tokens) for tokens, _ in captions],
    [_int64_feature(*ids) for _, ids in captions],
  )


def _varint(value):
  """Returns a protocol buffer's base 128 varint of an int64."""
  value &= (1 << 64) - 1
  encoded = bytearray()
  while value >= 0x80:
    encoded.append(value & 0x7F | 0x80)
    value >>= 7
  encoded.append(value)
  return bytes(encoded)


def _header(number, length):
  """Returns what precedes a protocol buffer's field of `length` bytes."""
  return bytes([number << 3 | 2]) + _varint(length)


def _field(number, content):
  """Returns a protocol buffer's field of bytes or of another message."""
  return _header(number, len(content)) + content


def _entry(name, value):
  """Returns the entry of a map from string to message, which is field 1."""
  return _field(1, _field(1, name) + _field(2, value))


# A hundred thousand captions have few words.
@functools.lru_cache(maxsize=1 << 14)
def _bytes_feature(*tokens):
  """Returns a feature of bytes in a list of features, which is field 1."""
  return _field(
    1, _field(1, b''.join(_field(1, token.encode()) for token in tokens))
  )


@functools.lru_cache(maxsize=1 << 14)
def _int64_feature(*values):
  """Returns a feature of int64 in a list of features, which is field 1."""
  return _field(1, _int64(*values))


def _int64(*values):
  return _field(3, _field(1, b''.join(map(_varint, values))))


def _example(image_id, data, caption, caption_ids):
  """Returns a SequenceExample as a list of bytes.

  Args:
    image_id: int.
    data: bytes of a JPEG file.
    caption: iterable of the bytes of each feature of image/caption.
    caption_ids: iterable of the bytes of each feature of image/caption_ids.
  """
  lists = b''.join(
    _entry(name, b''.join(features))
    for name, features in (
      (b'image/caption_ids', caption_ids),
      (b'image/caption', caption),
    )
  )
  image_id = _entry(b'image/image_id', _int64(image_id))
  # From the inside out: each header has the length of what it precedes.
  before = b''
  for number, name in (
    (1, b''),
    (1, b''),
    (2, _field(1, b'image/data')),
    (1, b''),
  ):
    before = name + _header(number, len(before) + len(data)) + before
  before = _header(1, len(before) + len(data) + len(image_id)) + before
  return [before, data, image_id + _field(2, lists)]


def parse_sequence_example(serialized):
  """Parses one record: an image and its caption, or several captions.

  A record of one caption has a feature for each word, one of several (of the
  compact layout) a feature for each caption with all of its words.

  Args:
    serialized: string scalar, a `tf.train.SequenceExample`.

  Returns:
    (image_id int64 scalar, encoded image string scalar, words int64 [n], the
    ids of all captions, with <S> and </S>, lengths int64 [num_captions]).
  """
  import tensorflow as tf

  context, sequence = tf.io.parse_single_sequence_example(
    serialized,
    context_features={
      IMAGE_ID: tf.io.FixedLenFeature([], tf.int64, default_value=-1),
      IMAGE_DATA: tf.io.FixedLenFeature([], tf.string),
    },
    sequence_features={
      CAPTION_IDS: tf.io.RaggedFeature(tf.int64, row_splits_dtype=tf.int64),
    },
  )
  words = sequence[CAPTION_IDS].flat_values
  lengths = sequence[CAPTION_IDS].row_lengths()
  lengths = tf.cond(
    tf.reduce_any(lengths > 1),
    lambda: lengths,
    lambda: tf.size(words, tf.int64)[tf.newaxis],
  )
  return context[IMAGE_ID], context[IMAGE_DATA], words, lengths


class Record(NamedTuple):
  """One picture and one caption of it, whatever the layout.

  Attributes:
    image_id: int.
    data: bytes, the JPEG file.
    tokens: list of str, start and end word included.
    ids: list of int, the ids of the tokens.
  """

  image_id: int
  data: bytes
  tokens: list
  ids: list


def read(path):
  """Yields the Records of one shard, in order; see `read_grouped`."""
  for group in read_grouped(path):
    yield from group


def read_grouped(path):
  """Yields what `parse` makes of each record of one shard, in order.

  Args:
    path: str.

  Raises:
    ValueError: the file is damaged or of another kind, or cannot be read.
  """
  import tensorflow as tf

  count = 0
  try:
    check_lengths(path)
    for serialized in tf.data.TFRecordDataset(path).as_numpy_iterator():
      yield parse(serialized)
      count += 1
  except (tf.errors.OpError, OSError, ValueError) as error:
    raise ValueError(
      f'{path} is damaged or no shard, after {count} good records '
      f'({quiet_tensorflow.reason(error)}): make the shards again'
    ) from error


def parse(serialized):
  """Returns a list of the Records, one a caption, in a SequenceExample.

  Args:
    serialized: bytes.

  Raises:
    ValueError: the bytes are no such example, or lack a feature.
  """
  from tensorflow import train

  try:
    example = train.SequenceExample.FromString(serialized)
  except Exception as error:  # protobuf's class depends on its build.
    raise ValueError('a record is no SequenceExample') from error
  context = example.context.feature
  lists = example.feature_lists.feature_list
  image_id = context['image/image_id'].int64_list.value
  data = context['image/data'].bytes_list.value
  if len(image_id) != 1 or len(data) != 1:
    raise ValueError('a record lacks image/image_id or image/data')
  ids = [list(f.int64_list.value) for f in lists['image/caption_ids'].feature]
  try:
    tokens = [
      [token.decode('utf-8') for token in f.bytes_list.value]
      for f in lists['image/caption'].feature
    ]
    if all(len(values) <= 1 for values in ids):  # One caption.
      tokens = [[token for (token,) in tokens]]
      ids = [[word_id for (word_id,) in ids]]
    return [
      Record(image_id[0], data[0], *caption)
      for caption in zip(tokens, ids, strict=True)
    ]
  except ValueError as error:  # UnicodeDecodeError is one.
    raise ValueError('a caption has a word without text or id') from error


def captions_by_image(files, max_images=0, vocab=None):
  """Returns {image id: (captions, their ids)} of shards, in order.

  Args:
    files: shard file names.
    max_images: leave out the images after so many, if not 0.
    vocab: the `Vocabulary` whose ids they should be, None for any.

  Raises:
    ValueError: a shard is damaged, or its ids are of another vocabulary.
  """
  examples = {}
  for path, record in _read_all(files):
    if record.image_id not in examples:
      if max_images and len(examples) >= max_images:
        continue
      examples[record.image_id] = ([], [])
    if vocab and record.ids != [vocab.word_to_id(w) for w in record.tokens]:
      raise ValueError(
        f'{path}: the word ids are not those of the vocabulary file '
        f'{vocab.file}: give --vocab_file the one that was made with the '
        'shards, and a model that was trained with it'
      )
    captions, ids = examples[record.image_id]
    captions.append(' '.join(record.tokens[1:-1]))
    if len(record.ids) > 1:
      ids.append(record.ids)
  return examples


def distinct_captions(files):
  """Returns the captions of shards, each text once, a list of str."""
  return list({' '.join(record.tokens[1:-1]) for _, record in _read_all(files)})


def _read_all(files):
  """Yields (path, Record) of all shards, in order; tells how far it is."""
  with Progress('Reading captions', len(files), 'files') as progress:
    for path in files:
      for record in read(path):
        yield path, record
      progress.update(1)


def image_batches(files, wanted, batch_size):
  """Yields lists of (image id, JPEG bytes) of each wanted image, once."""
  left, batch = set(wanted), []
  for path in files:
    for record in read(path):
      if record.image_id in left:
        left.remove(record.image_id)
        batch.append((record.image_id, record.data))
        if len(batch) == batch_size or not left:
          yield batch
          batch = []
    if not left:
      return
