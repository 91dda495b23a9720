# SPDX-License-Identifier: Apache-2.0
"""Reads the files of a checkpoint, and trusts nothing that stands in them.

TensorFlow's own reader ends the process at a file whose checksums are right and
whose content is not, and takes the memory that a file claims to need. Here each
is an error, and no file takes more memory than a few times its size. There are
two formats:

  V2  PREFIX.index is a table. Its first entry has an empty key and tells the
      number of data files. Each other one has the name of a variable as key,
      and tells type and shape, and where in which PREFIX.data-?????-of-?????
      the value stands.
  V1  One file, a table. Its first entry has an empty key and tells the name,
      type and shape of all variables. The other entries are the values.

A table is that of LevelDB: blocks of sorted entries, each with a checksum, and
at the end an index of the blocks.
"""

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import io
import math
import os
from typing import cast
from typing import Protocol
from typing import TypeVar
import weakref

from google.protobuf import message
import google_crc32c
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.framework import tensor_shape_pb2
from tensorflow.core.framework import versions_pb2
from tensorflow.core.protobuf import tensor_bundle_pb2
from tensorflow.core.util import saved_tensor_slice_pb2

from im2txt.runtime import files
from im2txt.runtime import storage

# Where a block is in its file: (offset, size).
Block = tuple[int, int]

_T = TypeVar('_T')
_M = TypeVar('_M', bound=message.Message)

# The end of a table: where two of its blocks are, zeros, and the mark.
_FOOTER_BYTES = 48
_MARK = 0xDB4775248B80FB57.to_bytes(8, 'little')
# Behind a block: how it is compressed, and the checksum.
_TRAILER_BYTES = 5
_PLAIN, _SNAPPY = 0, 1
# Larger ones are never compressed.
_MOST_DECOMPRESSED_BYTES = 1 << 24
# Far more than any model has: keys share their beginnings, so a small file
# could hold any number of long ones.
MOST_ENTRIES, _MOST_KEY_BYTES = 100_000, 1000
# The version of either format, the same since there are these.
_VERSION = 1

_TYPES = {
  dtype.as_datatype_enum: np.dtype(dtype.as_numpy_dtype)
  for dtype in (
    tf.float16,
    tf.bfloat16,
    tf.float32,
    tf.float64,
    tf.bool,
    tf.complex64,
    tf.int8,
    tf.int16,
    tf.int32,
    tf.int64,
    tf.uint8,
    tf.uint16,
    tf.uint32,
    tf.uint64,
  )
}
# Text is no variable of a model: TensorFlow 2 describes its objects with it.
_TEXT = tf.string.as_datatype_enum
# What the key of a part of a value begins with: in a V1 file of the whole, too.
_PART = b'\0'
_IN_PARTS = 'stored in parts, which is not supported'
# Where the values of a type stand in a TensorProto, of a V1 file.
_FIELDS = {
  dtype.as_datatype_enum: field
  for dtype, field in (
    (tf.float32, 'float_val'),
    (tf.float64, 'double_val'),
    (tf.int8, 'int_val'),
    (tf.int16, 'int_val'),
    (tf.int32, 'int_val'),
    (tf.uint8, 'int_val'),
    (tf.int64, 'int64_val'),
    (tf.bool, 'bool_val'),
  )
}


class Reader(Protocol):
  """An open checkpoint.

  Attributes:
    shapes: shape of each variable by its name in the file.
  """

  shapes: dict[str, list[int]]

  def get(self, name: str) -> npt.NDArray:
    """Returns the value of a variable by its name in the file."""


def open_reader(prefix: str) -> Reader:
  """Returns a reader of the checkpoint `prefix`.

  Raises:
    OSError: a file cannot be read.
    ValueError: one is damaged, or no checkpoint; one line that does not name
      it. `get` raises both, too.
  """
  # As TensorFlow chooses, a V2 one if there are both.
  if storage.exists(prefix + '.index'):
    return _V2Reader(prefix)
  return _V1Reader(prefix)


class _V2Reader:
  """See `open_reader`."""

  def __init__(self, prefix: str):
    entries = {key: value for key, value, _ in Table(prefix + '.index')}
    header = _parse(tensor_bundle_pb2.BundleHeaderProto, entries.pop(b'', None))
    _check_version(header.version)
    self._is_swapped = header.endianness == header.BIG
    self.shapes: dict[str, list[int]] = {}
    self._entries: dict[str, tensor_bundle_pb2.BundleEntryProto] = {}
    self._data: dict[int, _File] = {}
    for key, value in entries.items():
      if key.startswith(_PART):
        continue
      name = _name(key)
      with _naming(name):
        entry = _parse(tensor_bundle_pb2.BundleEntryProto, value)
        if entry.dtype == _TEXT:
          continue
        if entry.slices:
          raise ValueError(_IN_PARTS)
        shape, dtype = _shape(entry.shape), _known(_TYPES, entry.dtype)
        if entry.size != math.prod(shape) * dtype.itemsize:
          raise ValueError(
            f'{entry.size} bytes, which is not the size of {dtype} {shape}'
          )
        if not 0 <= entry.shard_id < header.num_shards:
          raise ValueError(
            f'in the data file {entry.shard_id} of {header.num_shards}'
          )
        if entry.shard_id not in self._data:
          self._data[entry.shard_id] = _File(
            f'{prefix}.data-{entry.shard_id:05d}-of-{header.num_shards:05d}'
          )
        self._data[entry.shard_id].check_holds(entry.offset, entry.size)
        self.shapes[name], self._entries[name] = shape, entry

  def get(self, name: str) -> npt.NDArray:
    """Returns a value."""
    entry = self._entries[name]
    with _naming(name):
      data = self._data[entry.shard_id].read(entry.offset, entry.size)
      _check(data, entry.crc32c.to_bytes(4, 'little'))
      # NumPy has limits of its own for a shape, and a ValueError for them.
      value = data.view(_TYPES[entry.dtype]).reshape(self.shapes[name])
      return value.byteswap() if self._is_swapped else value


class _V1Reader:
  """See `open_reader`."""

  def __init__(self, path: str):
    self._table = Table(path)
    self._blocks = {key: block for key, _, block in self._table}
    meta = self._read(b'').meta
    _check_version(meta.versions)
    self.shapes: dict[str, list[int]] = {}
    # Name -> key, type and the field of a TensorProto that has the value.
    self._places: dict[str, tuple[bytes, np.dtype, str]] = {}
    for tensor in meta.tensor:
      if tensor.type == _TEXT:
        continue
      name = _name(tensor.name.encode())
      with _naming(name):
        if name in self.shapes:
          raise ValueError('there twice')
        self.shapes[name] = _shape(tensor.shape)
        if len(tensor.slice) != 1 or any(
          extent.start or extent.HasField('length')
          for extent in tensor.slice[0].extent
        ):
          raise ValueError(_IN_PARTS)
        rank = len(self.shapes[name])
        # How TensorFlow encodes a name, and a slice that is all of a value.
        key = (
          _PART
          + name.encode()
          + b'\0\1'
          + (bytes([1, rank]) if rank else b'\0')
          + b'\x80\x7f' * rank
        )
        if key not in self._blocks:
          raise ValueError('no value')
        field = _known(_FIELDS, tensor.type)
        self._places[name] = (key, _TYPES[tensor.type], field)

  def get(self, name: str) -> npt.NDArray:
    """Returns a value."""
    key, dtype, field = self._places[name]
    with _naming(name):
      tensor = self._read(key).data.data
      values = getattr(tensor, field)
      shape = self.shapes[name]
      if len(values) != math.prod(shape):
        raise ValueError(f'{len(values)} value(s), not those of {shape}')
      if dtype.kind == 'f':  # Most are, and one by one they take long.
        only = type(tensor)()
        getattr(only, field).MergeFrom(values)
        # A packed field of these ends with the values as they are in memory.
        data = bytearray(only.SerializeToString())
        return np.frombuffer(
          data[-dtype.itemsize * len(values) :], dtype, len(values)
        ).reshape(shape)
      try:
        return np.fromiter(values, dtype, len(values)).reshape(shape)
      except OverflowError as error:
        raise ValueError(f'values that are none of {dtype}') from error

  def _read(self, key: bytes) -> saved_tensor_slice_pb2.SavedTensorSlices:
    """Returns the SavedTensorSlices of a key."""
    value = None
    if key in self._blocks:
      value = dict(self._table.entries(self._blocks[key]))[key]
    return _parse(saved_tensor_slice_pb2.SavedTensorSlices, value)


class Table:
  """A file of sorted entries, each a key and a value, both bytes.

  Iteration yields (key, value, block) of all entries. A block is an (offset,
  size) in the file.

  Args:
    path: str.

  Attributes:
    index: the block that tells of the others.
    blocks: list of the blocks with the entries.

  Raises:
    See `open_reader`; so does reading entries.
  """

  def __init__(self, path: str):
    self._file = _File(path)
    footer = self._file.read(
      max(0, self._file.size - _FOOTER_BYTES), _FOOTER_BYTES
    ).tobytes()
    if not footer.endswith(_MARK):
      raise ValueError('no table of values')
    # What is before the index is a block that TensorFlow leaves empty.
    _, place = _block(footer, 0)
    self.index, _ = _block(footer, place)
    self.blocks = [_block(value, 0)[0] for _, value in self.entries(self.index)]
    end = 0
    for offset, size in self.blocks:
      # Else a small file could name any number of large blocks.
      if offset < end:
        raise ValueError('blocks that overlap')
      end = offset + size

  def __iter__(self) -> Iterator[tuple[bytes, bytes, Block]]:
    last, count = None, 0
    for block in self.blocks:
      for key, value in self.entries(block):
        count += 1
        if count > MOST_ENTRIES or last is not None and key <= last:
          raise ValueError('too many entries, or in a wrong order')
        last = key
        yield key, value, block

  def entries(self, block: Block) -> Iterator[tuple[bytes, bytes]]:
    """Yields the (key, value) of a block."""
    data = self._read(*block)
    # At the end stand the places of some keys, for a search, and their number.
    end = len(data) - 4 - 4 * int.from_bytes(data[-4:], 'little')
    key, place = b'', 0
    while place < end:
      shared, place = _varint(data, place)
      rest, place = _varint(data, place)
      size, place = _varint(data, place)
      if (
        shared > len(key)
        or shared + rest > _MOST_KEY_BYTES
        or place + rest + size > end
      ):
        raise ValueError('an entry that does not fit')
      key = key[:shared] + data[place : place + rest]
      place += rest + size
      yield key, data[place - size : place]

  def _read(self, offset: int, size: int) -> bytes:
    """Returns the content of a block, bytes."""
    data = self._file.read(offset, size + _TRAILER_BYTES).tobytes()
    _check(data[:-4], data[-4:])
    content, kind = data[:size], data[size]
    if kind == _PLAIN:
      return content
    if kind == _SNAPPY:
      return _decompress(content)
    raise ValueError(f'a block of an unknown kind ({kind})')


class _File:
  """A file that can be read as long as this is there, deleted or not."""

  def __init__(self, path: str):
    self._file = cast(io.BufferedReader, storage.open_read(path))
    weakref.finalize(self, self._file.close)
    self.size = self._file.seek(0, os.SEEK_END)

  def check_holds(self, offset: int, size: int) -> None:
    """Raises ValueError unless there are that many bytes at an offset."""
    if not 0 <= offset <= offset + size <= self.size:
      raise ValueError(f'{size} bytes at {offset}, in a file of {self.size}')

  def read(self, offset: int, size: int) -> npt.NDArray[np.uint8]:
    """Returns bytes at an offset, a uint8 array."""
    self.check_holds(offset, size)
    data = np.empty([size], np.uint8)
    self._file.seek(offset)
    if self._file.readinto(data.data) != size:
      raise ValueError('the file has become shorter')
    return data


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
  """Puts the name of a variable before what is wrong with it."""
  try:
    yield
  except ValueError as error:
    raise ValueError(f'{name}: {error}') from error


def _name(key: bytes) -> str:
  """Returns the name of a variable, a str."""
  try:
    name = key.decode()
  except UnicodeDecodeError:
    name = ''
  # Names stand in lines of errors and logs.
  if not name or not name.isprintable():
    raise ValueError(f'{key[:50]!r} is no name of a variable')
  return name


def _known(types: Mapping[int, _T], number: int) -> _T:
  """Returns what a dict has for the number of a type."""
  if number not in types:
    raise ValueError(f'values of an unknown type ({number})')
  return types[number]


def _shape(proto: tensor_shape_pb2.TensorShapeProto) -> list[int]:
  """Returns a list of int."""
  shape = [dim.size for dim in proto.dim]
  if proto.unknown_rank or len(shape) > 64 or min(shape, default=0) < 0:
    raise ValueError('a shape that no value has')
  return shape


def _parse(kind: type[_M], data: bytes | None) -> _M:
  """Returns the message of a kind that bytes hold; None: there is no such."""
  try:
    if data is not None:
      return kind.FromString(data)
  except message.DecodeError:
    pass
  raise ValueError(f'a damaged or missing {kind.DESCRIPTOR.name}')


def _check_version(versions: versions_pb2.VersionDef) -> None:
  if versions.min_consumer > _VERSION or _VERSION in versions.bad_consumers:
    raise ValueError('written for a later TensorFlow')


def _check(data: bytes | npt.NDArray[np.uint8], expected: bytes) -> None:
  if files.masked(google_crc32c.value(data)) != expected:
    raise ValueError('a checksum does not fit')


def _varint(data: bytes, place: int) -> tuple[int, int]:
  """Returns (int, the place after it) of a number in 7 bits per byte."""
  value = 0
  for shift in range(0, 64, 7):
    if place >= len(data):
      break
    byte = data[place]
    place += 1
    value |= (byte & 127) << shift
    if byte < 128:
      return value, place
  raise ValueError('a number without an end')


def _block(data: bytes, place: int) -> tuple[Block, int]:
  """Returns ((offset, size), the place after them)."""
  offset, place = _varint(data, place)
  size, place = _varint(data, place)
  return (offset, size), place


def _decompress(data: bytes) -> bytes:
  """Returns what Snappy made these bytes of.

  Savers that merge files compressed what they wrote in TensorFlow 1.1.
  """
  size, place = _varint(data, 0)
  result = bytearray()
  while place < len(data) and len(result) <= size <= _MOST_DECOMPRESSED_BYTES:
    tag = data[place]
    kind, length = tag & 3, (tag >> 2) + 1
    place += 1
    if kind == 0:  # Bytes as they are.
      if length > 60:  # That many bytes less 60 hold the length.
        count = length - 60
        length = int.from_bytes(data[place : place + count], 'little') + 1
        place += count
      result += data[place : place + length]
      place += length
      continue
    # A part of the result again: how far back it begins.
    if kind == 1:
      length = (tag >> 2 & 7) + 4
      back = tag >> 5 << 8 | int.from_bytes(data[place : place + 1])
      place += 1
    else:
      count = 2 if kind == 2 else 4
      back = int.from_bytes(data[place : place + count], 'little')
      place += count
    start = len(result) - back
    if not 0 <= start < len(result):
      raise ValueError('a block that cannot be decompressed')
    # It may reach into what it adds, over and over.
    part = result[start : start + length]
    result += (part * (length // len(part) + 1))[:length]
  if len(result) != size:
    raise ValueError('a block that cannot be decompressed')
  return bytes(result)
