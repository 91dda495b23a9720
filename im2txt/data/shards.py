# SPDX-License-Identifier: Apache-2.0
"""The format of TFRecord shards: writing and reading records.

A record is a tf.train.SequenceExample of one image:

  context:
    image/image_id: int64, id of the image
    image/data: bytes, the JPEG file unchanged

In the layout of 2016 a record has one caption, and each word is a feature:

  feature_lists:
    image/caption: bytes, the tokens with start and end word
    image/caption_ids: int64, their ids

In the compact layout a record has all captions of the image, and each caption
is one feature with one value per word. So a record is compact if a feature of
image/caption_ids has several values.

Records are made without the classes of tf.train, which take eight times as
long, and files without tf.io.TFRecordWriter, which copies every image.
"""

import collections
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import functools
import os
import re
import struct
from typing import NamedTuple
from typing import Self
from typing import TYPE_CHECKING

from absl import logging
import google_crc32c

from im2txt.runtime import files
from im2txt.runtime import quiet_tensorflow
from im2txt.runtime import storage
from im2txt.runtime.progress import Progress
from im2txt.text import vocabulary

if TYPE_CHECKING:
  import tensorflow as tf

# Large writes cost less per byte; much larger ones would not stay in the
# processor's cache.
_BYTES_PER_WRITE = 1 << 19

# Data set, number, and number of shards, in the name of a shard.
NAME = re.compile(r'(.+)-(\d{5})-of-(\d{5})')

IMAGE_ID = 'image/image_id'
IMAGE_DATA = 'image/data'
CAPTION_IDS = 'image/caption_ids'

# Bytes before and after a record in a file, see `Writer`.
HEADER_BYTES = 12
FOOTER_BYTES = 4

# TensorFlow's messages for damaged files.
_DAMAGED_AT = re.compile(r'(corrupted|truncated) record at (\d+)')


class Writer:
  """Writes a TFRecord file; a context manager.

  For each record it writes the length (uint64, little-endian), the masked
  CRC-32C of these eight bytes, the record, and the masked CRC-32C of the
  record.
  """

  def __init__(self, path: str) -> None:
    """Opens the file `path`, which becomes empty.

    Raises:
      OSError: the file cannot be made.
    """
    self._path = path
    self._file = open(path, 'wb', buffering=_BYTES_PER_WRITE)

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    with files.naming(self._path):
      self._file.close()

  def write(self, record: Sequence[bytes]) -> None:
    """Adds a record.

    Args:
      record: the parts of the record, in order.

    Raises:
      OSError: the file cannot be written. The end of the context may raise it
        too, because small writes are buffered until close.
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


def list_files(
  file_pattern: str, flag: str = 'input_file_pattern'
) -> list[str]:
  """Returns the sorted files that comma-separated patterns match.

  They are sorted so that a run does not depend on the file system's order.

  Args:
    file_pattern: see `files.split_names` and `storage.matches`.
    flag: name of the flag that gave it, for messages.

  Raises:
    ValueError: a pattern matches nothing.
  """
  paths: list[str] = []
  for pattern in files.split_names(file_pattern) or ['']:
    found = storage.matches(pattern)
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


def missing_of_sets(paths: Iterable[str]) -> list[str]:
  """Returns the shards that are missing according to the names of the others.

  Args:
    paths: shards, such as 'train-00003-of-00256'; other names are ignored.
  """
  present: dict[tuple[str, int], set[int]] = collections.defaultdict(set)
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


def read_record(path: str, offset: int) -> bytes:
  """Reads one record of a TFRecord file.

  Args:
    path: path of the file.
    offset: position of the record's length in the file.

  Returns:
    A serialized tf.train.SequenceExample.

  Raises:
    ValueError: the file is damaged there, or has changed since the offset was
      known.
    OSError: the file cannot be read.
  """
  with storage.open_read(path, buffering=0) as f:
    f.seek(offset)
    header = f.read(HEADER_BYTES)
    if files.masked(google_crc32c.value(header[:8])) == header[8:]:
      (length,) = struct.unpack('<Q', header[:8])
      # A damaged header may claim more bytes than the file has.
      length = min(length, storage.getsize(path))
      data = f.read(length + FOOTER_BYTES)
      record = data[:length]
      if files.masked(google_crc32c.value(record)) == data[length:]:
        return record
  raise ValueError(
    f'damaged record at byte {offset} of {path}; make the shards again'
  )


def length_fault(path: str) -> str | None:
  """Returns which record claims to be longer than its file, None if none does.

  TensorFlow allocates as much memory as a header claims, and may die of it.
  Other damage is left to the reader.

  Args:
    path: path of a file. Remote files, such as gs://, are not checked.
  """
  if not os.path.isfile(path):
    return None
  size, offset = os.path.getsize(path), 0
  with open(path, 'rb', buffering=0) as f:
    while (
      len(header := os.pread(f.fileno(), HEADER_BYTES, offset)) == HEADER_BYTES
    ):
      if files.masked(google_crc32c.value(header[:8])) != header[8:]:
        break
      (length,) = struct.unpack('<Q', header[:8])
      if length > size:
        return (
          f'the record at byte {offset} claims {length} bytes, more than the '
          'file has'
        )
      offset += HEADER_BYTES + length + FOOTER_BYTES
  return None


def reason(error: Exception) -> str:
  """Returns in a few words why TensorFlow could not read a shard.

  >>> reason(ValueError("truncated record at 12' failed with Read less bytes"))
  'a record is cut short near byte 12'
  """
  text = quiet_tensorflow.reason(error)
  match = _DAMAGED_AT.search(text)
  if not match:
    return text
  fault = {'truncated': 'is cut short', 'corrupted': 'has a wrong checksum'}
  return f'a record {fault[match[1]]} near byte {match[2]}'


def is_whole(path: str) -> bool:
  """Returns whether a TFRecord file ends with the end of a record."""
  size, offset = os.path.getsize(path), 0
  with open(path, 'rb', buffering=0) as f:
    while offset < size:
      header = os.pread(f.fileno(), HEADER_BYTES, offset)
      if len(header) < HEADER_BYTES:
        return False
      offset += HEADER_BYTES + struct.unpack('<Q', header[:8])[0] + FOOTER_BYTES
  return offset == size


def serialize(
  image_id: int, data: bytes, tokens: Sequence[str], ids: Sequence[int]
) -> list[bytes]:
  """Returns the parts of a record of one image and one caption.

  Joined, they are SequenceExample.SerializeToString(deterministic=True), where
  protobuf puts a longer name before its own prefix. The image is one of the
  parts, so it is not copied.

  Args:
    image_id: id of the image.
    data: content of a JPEG file.
    tokens: tokens of the caption.
    ids: word ids of the caption.
  """
  return _example(
    image_id, data, map(_bytes_feature, tokens), map(_int64_feature, ids)
  )


def serialize_compact(
  image_id: int,
  data: bytes,
  captions: Sequence[tuple[Sequence[str], Sequence[int]]],
) -> list[bytes]:
  """Returns the parts of a record of one image and all its captions.

  Args:
    image_id: id of the image.
    data: content of a JPEG file.
    captions: the tokens and ids of each caption. There are at least two of
      each, because every caption has a start and an end word.
  """
  return _example(
    image_id,
    data,
    [_bytes_feature(*tokens) for tokens, _ in captions],
    [_int64_feature(*ids) for _, ids in captions],
  )


def _varint(value: int) -> bytes:
  """Returns a protocol buffer's base 128 varint of an int64."""
  value &= (1 << 64) - 1
  encoded = bytearray()
  while value >= 0x80:
    encoded.append(value & 0x7F | 0x80)
    value >>= 7
  encoded.append(value)
  return bytes(encoded)


def _header(number: int, length: int) -> bytes:
  """Returns the header of a protocol buffer's field of `length` bytes."""
  return bytes([number << 3 | 2]) + _varint(length)


def _field(number: int, content: bytes) -> bytes:
  """Returns a protocol buffer's field of bytes or of another message."""
  return _header(number, len(content)) + content


def _entry(name: bytes, value: bytes) -> bytes:
  """Returns the entry of a map from string to message, which is field 1."""
  return _field(1, _field(1, name) + _field(2, value))


# Many captions have few distinct words.
@functools.lru_cache(maxsize=1 << 14)
def _bytes_feature(*tokens: str) -> bytes:
  """Returns a feature of bytes in a list of features, which is field 1."""
  return _field(
    1, _field(1, b''.join(_field(1, token.encode()) for token in tokens))
  )


@functools.lru_cache(maxsize=1 << 14)
def _int64_feature(*values: int) -> bytes:
  """Returns a feature of int64 in a list of features, which is field 1."""
  return _field(1, _int64(*values))


def _int64(*values: int) -> bytes:
  return _field(3, _field(1, b''.join(map(_varint, values))))


def _example(
  image_id: int,
  data: bytes,
  caption: Iterable[bytes],
  caption_ids: Iterable[bytes],
) -> list[bytes]:
  """Returns the parts of a SequenceExample.

  Args:
    image_id: id of the image.
    data: content of a JPEG file.
    caption: each feature of image/caption, serialized.
    caption_ids: each feature of image/caption_ids, serialized.
  """
  lists = b''.join(
    _entry(name, b''.join(features))
    for name, features in (
      (b'image/caption_ids', caption_ids),
      (b'image/caption', caption),
    )
  )
  id_entry = _entry(b'image/image_id', _int64(image_id))
  # From the inside out: each header states the length of the following bytes.
  before = b''
  for number, name in (
    (1, b''),
    (1, b''),
    (2, _field(1, b'image/data')),
    (1, b''),
  ):
    before = name + _header(number, len(before) + len(data)) + before
  before = _header(1, len(before) + len(data) + len(id_entry)) + before
  return [before, data, id_entry + _field(2, lists)]


def parse_sequence_example(
  serialized: 'tf.Tensor',
) -> 'tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]':
  """Parses one record: an image and its caption, or several captions.

  Both layouts are read, see above.

  Args:
    serialized: string scalar, a `tf.train.SequenceExample`.

  Returns:
    (image_id int64 scalar; encoded image string scalar; words int64 [n], the
    ids of all captions with <S> and </S>; lengths int64 [num_captions]).
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
  """One image and one of its captions, from a record of either layout.

  Attributes:
    image_id: id of the image.
    data: content of the JPEG file.
    tokens: tokens, start and end word included.
    ids: ids of the tokens.
  """

  image_id: int
  data: bytes
  tokens: list[str]
  ids: list[int]


def read(path: str) -> Iterator[Record]:
  """Yields the captions of one shard, in order; see `read_grouped`."""
  for group in read_grouped(path):
    yield from group


def read_grouped(path: str) -> Iterator[list[Record]]:
  """Yields `parse` of each record of one shard, in order.

  Raises:
    ValueError: the file is damaged, of another kind, or cannot be read.
  """
  import tensorflow as tf

  count = 0
  try:
    if fault := length_fault(path):
      raise ValueError(fault)
    for serialized in tf.data.TFRecordDataset(path).as_numpy_iterator():
      yield parse(serialized)
      count += 1
  except (tf.errors.OpError, OSError, ValueError) as error:
    raise ValueError(
      f'{path} is damaged or not a shard, after {count} good records '
      f'({reason(error)}): make the shards again'
    ) from error


def parse(serialized: bytes) -> list[Record]:
  """Returns the captions of a serialized SequenceExample.

  Raises:
    ValueError: the bytes are not a SequenceExample, or lack a feature.
  """
  from tensorflow import train

  try:
    example = train.SequenceExample.FromString(serialized)
  except Exception as error:  # protobuf's class depends on its build.
    raise ValueError('a record is not a SequenceExample') from error
  context = example.context.feature
  lists = example.feature_lists.feature_list
  image_id = context['image/image_id'].int64_list.value
  data = context['image/data'].bytes_list.value
  if len(image_id) != 1 or len(data) != 1:
    raise ValueError('a record has no image/image_id or image/data')
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


def captions_by_image(
  paths: Sequence[str],
  max_images: int = 0,
  vocab: vocabulary.Vocabulary | None = None,
) -> dict[int, tuple[list[str], list[list[int]]]]:
  """Returns the captions and their word ids by image id, in order.

  Args:
    paths: paths of shards.
    max_images: read this many images at most; 0 for all.
    vocab: the vocabulary that the ids must belong to; None for any.

  Raises:
    ValueError: a shard is damaged, or its ids belong to another vocabulary.
  """
  examples: dict[int, tuple[list[str], list[list[int]]]] = {}
  for path, record in _read_all(paths):
    if record.image_id not in examples:
      if max_images and len(examples) >= max_images:
        continue
      examples[record.image_id] = ([], [])
    if vocab and record.ids != [vocab.word_to_id(w) for w in record.tokens]:
      raise ValueError(
        f'{path}: the word ids are not those of the vocabulary file '
        f'{vocab.file}; give the vocabulary file that was made with the '
        'shards, and a model that was trained with it'
      )
    captions, ids = examples[record.image_id]
    captions.append(' '.join(record.tokens[1:-1]))
    if len(record.ids) > 1:
      ids.append(record.ids)
  return examples


def distinct_captions(paths: Sequence[str]) -> list[str]:
  """Returns the captions of shards, each text once."""
  return list({' '.join(record.tokens[1:-1]) for _, record in _read_all(paths)})


def _read_all(paths: Sequence[str]) -> Iterator[tuple[str, Record]]:
  """Yields (path, Record) of all shards, in order, with a progress bar."""
  with Progress('Reading captions', len(paths), 'files') as progress:
    for path in paths:
      for record in read(path):
        yield path, record
      progress.update(1)


def images(paths: Iterable[str]) -> Iterator[bytes]:
  """Yields the JPEG bytes of each image, reading no further than is asked for."""
  seen = set()
  for path in paths:
    for record in read(path):
      if record.image_id not in seen:
        seen.add(record.image_id)
        yield record.data


def image_batches(
  paths: Iterable[str], wanted: Collection[int], batch_size: int
) -> Iterator[list[tuple[int, bytes]]]:
  """Yields batches of (image id, JPEG bytes) of the wanted images, each once."""
  left = set(wanted)
  batch: list[tuple[int, bytes]] = []
  for path in paths:
    for record in read(path):
      if record.image_id in left:
        left.remove(record.image_id)
        batch.append((record.image_id, record.data))
        if len(batch) == batch_size or not left:
          yield batch
          batch = []
    if not left:
      return
