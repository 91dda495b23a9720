# SPDX-License-Identifier: Apache-2.0
"""Tests of reader."""

import os
import sys

import google_crc32c
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import tensor_bundle_pb2
from tensorflow.core.util import saved_tensor_slice_pb2

from im2txt.checkpoints import reader as checkpoint_reader
from im2txt.runtime import files

_HEADER = tensor_bundle_pb2.BundleHeaderProto
_ENTRY = tensor_bundle_pb2.BundleEntryProto
_SLICES = saved_tensor_slice_pb2.SavedTensorSlices
_VALUE = np.float32([[1, 2, 3], [4, 5, 6]])
_FLOAT = tf.float32.as_datatype_enum


def assert_same(prefix, names=None):
  """Asserts that TensorFlow reads the same, of all names or of some."""
  reader = checkpoint_reader.open_reader(str(prefix))
  by_tensorflow = tf.train.load_checkpoint(str(prefix))
  shapes = by_tensorflow.get_variable_to_shape_map()
  assert reader.shapes == {
    name: shape
    for name, shape in shapes.items()
    if names is None or name in names
  }
  assert reader.shapes
  for name in reader.shapes:
    value, expected = reader.get(name), by_tensorflow.get_tensor(name)
    np.testing.assert_array_equal(value, expected)
    assert value.dtype == expected.dtype
    assert value.flags.writeable


# What TensorFlow writes ------------------------------------------------------

_TYPES_OF_V1 = [
  'float32',
  'float64',
  'int8',
  'int16',
  'int32',
  'int64',
  'uint8',
]
_TYPES_OF_V2 = _TYPES_OF_V1 + [
  'float16',
  'bool',
  'complex64',
  'uint16',
  'uint32',
  'uint64',
  'bfloat16',
]


def _of_types(names):
  values = {}
  for name in names:
    dtype = tf.as_dtype(name).as_numpy_dtype
    values[f'{name}/matrix'] = np.arange(-3, 3).reshape(2, 3).astype(dtype)
    values[f'{name}/scalar'] = np.ones([], dtype)
    values[f'{name}/empty'] = np.zeros([2, 0], dtype)
  values['text'] = np.array(b'no variable', object)
  return values


def _save(prefix, values, version=2):
  names = sorted(values)
  tensors = [values[name] for name in names]
  if version == 1:
    tf.raw_ops.Save(filename=str(prefix), tensor_names=names, data=tensors)
  else:
    tf.raw_ops.SaveV2(
      prefix=str(prefix),
      tensor_names=names,
      shape_and_slices=[''] * len(names),
      tensors=tensors,
    )


@pytest.mark.parametrize(
  'version, types', [(1, _TYPES_OF_V1), (2, _TYPES_OF_V2)]
)
def test_every_type(tmp_path, version, types):
  values = _of_types(types)
  _save(tmp_path / 'a', values, version)
  assert_same(tmp_path / 'a', set(values) - {'text'})


def test_files_that_were_merged(tmp_path):
  for number in range(3):
    _save(tmp_path / f'part{number}', {f'v{number}': _VALUE + number})
  tf.raw_ops.MergeV2Checkpoints(
    checkpoint_prefixes=[str(tmp_path / f'part{n}') for n in range(3)],
    destination_prefix=str(tmp_path / 'a'),
  )
  assert len(list(tmp_path.glob('a.data-*-of-00003'))) == 3
  assert_same(tmp_path / 'a')
  os.remove(tmp_path / 'a.data-00001-of-00003')
  with pytest.raises(FileNotFoundError, match='a.data-00001-of-00003'):
    checkpoint_reader.open_reader(str(tmp_path / 'a'))


@pytest.mark.parametrize('version', [1, 2])
def test_parts_of_a_variable_are_refused(tmp_path, version):
  arguments = {
    'tensor_names': ['a', 'v'],
    'shape_and_slices' if version == 2 else 'shapes_and_slices': [
      '',
      '4 3 0,2:0,3',
    ],
  }
  if version == 2:
    tf.raw_ops.SaveV2(
      prefix=str(tmp_path / 'a'), tensors=[_VALUE, _VALUE], **arguments
    )
  else:
    tf.raw_ops.SaveSlices(
      filename=str(tmp_path / 'a'), data=[_VALUE, _VALUE], **arguments
    )
  with pytest.raises(ValueError, match='^v: stored in parts, which is not'):
    checkpoint_reader.open_reader(str(tmp_path / 'a'))


def test_what_is_open_stays_readable(tmp_path):
  """A trainer deletes old checkpoints while an evaluator reads them."""
  for version in (1, 2):
    _save(tmp_path / 'a', {'v': _VALUE}, version)
    reader = checkpoint_reader.open_reader(str(tmp_path / 'a'))
    for path in tmp_path.iterdir():
      path.unlink()
    np.testing.assert_array_equal(reader.get('v'), _VALUE)


# Tables ----------------------------------------------------------------------


def _varint(number):
  result = b''
  while number > 127:
    result += bytes([number & 127 | 128])
    number >>= 7
  return result + bytes([number])


def _entry(shared, key, value):
  return _varint(shared) + _varint(len(key)) + _varint(len(value)) + key + value


def _block(entries):
  """Returns the content of a block of (key, value), with keys cut short."""
  data, last = b'', b''
  for key, value in entries:
    shared = len(os.path.commonprefix([last, key]))
    data += _entry(shared, key[shared:], value)
    last = key
  # One place to begin a search: the start.
  return data + bytes(4) + (1).to_bytes(4, 'little')


def _table(blocks, pack=lambda data: (data, 0)):
  """Returns the bytes of a table.

  Args:
    blocks: list of lists of (key, value), or of bytes, blocks as they are.
    pack: function from the content of a block to (that compressed, kind).
  """
  result, handles = b'', []

  def add(content):
    nonlocal result
    data, kind = pack(content)
    handles.append(_varint(len(result)) + _varint(len(data)))
    data += bytes([kind])
    result += data + files.masked(google_crc32c.value(data))

  for block in blocks:
    add(block if isinstance(block, bytes) else _block(block))
  keys = [
    b'\x7f' * (number + 1) if isinstance(block, bytes) else block[-1][0]
    for number, block in enumerate(blocks)
  ]
  add(_block([]))
  add(_block(list(zip(keys, handles))))
  return (
    result
    + (handles[-2] + handles[-1]).ljust(40, b'\0')
    + (0xDB4775248B80FB57).to_bytes(8, 'little')
  )


def _write_v2(prefix, blocks, value=_VALUE, **options):
  prefix.with_name(prefix.name + '.data-00000-of-00001').write_bytes(
    value.tobytes()
  )
  prefix.with_name(prefix.name + '.index').write_bytes(
    _table(blocks, **options)
  )


def _good_entry(**changes):
  entry = _ENTRY(
    dtype=_FLOAT,
    size=24,
    crc32c=int.from_bytes(
      files.masked(google_crc32c.value(_VALUE.tobytes())), 'little'
    ),
  )
  for size in changes.pop('shape', [2, 3]):
    entry.shape.dim.add(size=size)
  for name, value in changes.items():
    setattr(entry, name, value)
  return entry.SerializeToString()


def _good_header(**changes):
  header = _HEADER(num_shards=1, **changes)
  header.version.producer = 1
  return header.SerializeToString()


def _good(number):
  return f'layer/variable{number:03}'.encode(), _good_entry()


def _literally(data):
  """Compresses as Snappy does, by copying nothing."""
  size = len(data)
  assert 256 < size < 1 << 16
  return (
    _varint(size) + bytes([61 << 2]) + (size - 1).to_bytes(2, 'little') + data
  )


def _by_copies(data):
  """Compresses as Snappy does: what repeats within 2 kB, in both short forms."""
  result, place = _varint(len(data)), 0
  while place < len(data):
    back, length = max(
      (
        (
          back,
          next(
            (
              n
              for n in range(11)
              if place + n >= len(data)
              or data[place + n] != data[place - back + n]
            ),
            11,
          ),
        )
        for back in range(1, min(place, 2047) + 1)
      ),
      key=lambda pair: pair[1],
      default=(0, 0),
    )
    if length < 4:
      result += bytes([0]) + data[place : place + 1]
      length = 1
    elif length < 11:
      result += bytes([back >> 8 << 5 | length - 4 << 2 | 1, back & 255])
    elif place % 2:
      result += bytes([length - 1 << 2 | 2]) + back.to_bytes(2, 'little')
    else:
      result += bytes([length - 1 << 2 | 3]) + back.to_bytes(4, 'little')
    place += length
  return result


@pytest.mark.parametrize('compress', [None, _literally, _by_copies])
def test_tables_of_several_blocks(tmp_path, compress):
  def pack(data):
    # A block is compressed if that makes it smaller, so some are not.
    return (compress(data), 1) if len(data) > 256 and compress else (data, 0)

  entries = [_good(number) for number in range(40)]
  _write_v2(
    tmp_path / 'a',
    [[(b'', _good_header()), *entries[:1]], entries[1:30], entries[30:]],
    pack=pack,
  )
  assert_same(tmp_path / 'a')


def test_a_copy_may_reach_into_itself():
  # As a run of one byte is compressed.
  assert (
    checkpoint_reader._decompress(
      _varint(31) + b'\0x' + bytes([29 << 2 | 2, 1, 0])
    )
    == b'x' * 31
  )


@pytest.mark.parametrize(
  'data',
  [
    b'',
    b'\x80',
    _varint(5) + b'\0x',
    _varint(1) + b'\0xy',
    _varint(9) + b'\0x' + bytes([4 << 2 | 1, 2]),
    _varint(9) + b'\0x' + bytes([4 << 2 | 1, 0]),
    _varint(2**40) + b'\0x',
    _varint(100) + bytes([63 << 2, 255, 255, 255]),
  ],
)
def test_what_cannot_be_decompressed(data):
  with pytest.raises(ValueError, match='decompressed|without an end'):
    checkpoint_reader._decompress(data)


def test_the_other_order_of_bytes(tmp_path):
  swapped = _VALUE.byteswap()
  entry = _ENTRY.FromString(_good_entry())
  entry.crc32c = int.from_bytes(
    files.masked(google_crc32c.value(swapped.tobytes())), 'little'
  )
  _write_v2(
    tmp_path / 'a',
    [
      [
        (b'', _good_header(endianness=_HEADER.BIG)),
        (b'v', entry.SerializeToString()),
      ]
    ],
    swapped,
  )
  reader = checkpoint_reader.open_reader(str(tmp_path / 'a'))
  np.testing.assert_array_equal(reader.get('v'), _VALUE)


# Forged files: all checksums are right --------------------------------------


def error(prefix):
  """Reads all of a checkpoint, and returns the one line of the error."""
  with pytest.raises(ValueError) as caught:
    reader = checkpoint_reader.open_reader(str(prefix))
    for name in reader.shapes:
      reader.get(name)
  message = str(caught.value)
  assert '\n' not in message and len(message) < 200
  return message


@pytest.mark.parametrize(
  'entry, message',
  [
    (b'\xff\xff', 'v: a damaged or missing BundleEntryProto'),
    (b'', 'v: values of an unknown type (0)'),
    (_good_entry(dtype=99), 'v: values of an unknown type (99)'),
    (
      _good_entry(dtype=tf.variant.as_datatype_enum),
      'v: values of an unknown type (21)',
    ),
    (_good_entry(shape=[2, -3]), 'v: a shape that no value has'),
    (_good_entry(shape=[1] * 300), 'v: a shape that no value has'),
    (
      _good_entry(shape=[2, 4]),
      'v: 24 bytes, which is not the size of float32 [2, 4]',
    ),
    (_good_entry(shape=[2**62, 2**62]), 'v: 24 bytes, which is not the size'),
    (
      _good_entry(
        shape=[0, 2**62, 2**62],
        size=0,
        crc32c=int.from_bytes(files.masked(0), 'little'),
      ),
      'v: array is too big',
    ),
    (
      _good_entry(shape=[2**40], size=2**42),
      f'v: {2**42} bytes at 0, in a file of 24',
    ),
    (_good_entry(offset=1), 'v: 24 bytes at 1, in a file of 24'),
    (_good_entry(offset=-1), 'v: 24 bytes at -1, in a file of 24'),
    (_good_entry(offset=2**63 - 1), 'v: 24 bytes at 9223372036854775807, in'),
    (_good_entry(shard_id=1), 'v: in the data file 1 of 1'),
    (_good_entry(shard_id=-1), 'v: in the data file -1 of 1'),
    (_good_entry(crc32c=1), 'v: a checksum does not fit'),
  ],
)
def test_forged_entries(tmp_path, entry, message):
  _write_v2(tmp_path / 'a', [[(b'', _good_header()), (b'v', entry)]])
  assert error(tmp_path / 'a').startswith(message)


@pytest.mark.parametrize(
  'entries, message',
  [
    ([(b'v', _good_entry())], 'a damaged or missing BundleHeaderProto'),
    ([(b'', b'\xff')], 'a damaged or missing BundleHeaderProto'),
    ([(b'', b''), _good(1)], 'layer/variable001: in the data file 0 of 0'),
    (
      [(b'', b'\x08' + _varint(2**64 - 1)), _good(1)],
      'layer/variable001: in the data file 0 of -1',
    ),
    (
      [(b'', b'\x08\x01\x1a\x02\x10\x02'), _good(1)],
      'written for a later TensorFlow',
    ),
    (
      [(b'', b'\x08\x01\x1a\x02\x18\x01'), _good(1)],
      'written for a later TensorFlow',
    ),
    (
      [(b'', _good_header()), (b'a\nb', _good_entry())],
      r"b'a\nb' is no name of a variable",
    ),
    (
      [(b'', _good_header()), (b'\xff', _good_entry())],
      r"b'\xff' is no name of a variable",
    ),
    (
      [(b'', _good_header()), _good(1), _good(1)],
      'too many entries, or in a wrong order',
    ),
    (
      [(b'', _good_header()), _good(2), _good(1)],
      'too many entries, or in a wrong order',
    ),
    (
      [(b'', _good_header()), (b'x' * 1001, _good_entry())],
      'an entry that does not fit',
    ),
  ],
)
def test_forged_tables(tmp_path, entries, message):
  _write_v2(tmp_path / 'a', [entries])
  assert error(tmp_path / 'a') == message


@pytest.mark.parametrize(
  'block',
  [
    _entry(1, b'v', b''),
    _entry(0, b'', b'')[:-1] + _varint(2**40),
    _varint(0) + _varint(2**63) + _varint(0),
    b'\xff' * 12,
    b'\x80',
  ],
)
def test_forged_blocks(tmp_path, block):
  _write_v2(tmp_path / 'a', [block + bytes(4) + (1).to_bytes(4, 'little')])
  assert error(tmp_path / 'a') in (
    'an entry that does not fit',
    'a number without an end',
  )


@pytest.mark.parametrize('block', [b'', b'\1', b'\xff' * 4, bytes(4)])
def test_blocks_without_entries(tmp_path, block):
  _write_v2(tmp_path / 'a', [block])
  assert error(tmp_path / 'a') == 'a damaged or missing BundleHeaderProto'


def test_a_small_file_names_no_end_of_large_blocks(tmp_path):
  (tmp_path / 'a').write_bytes(_table([[(b'k', b'v')]]))
  table = checkpoint_reader.Table(str(tmp_path / 'a'))
  handle = b''.join(map(_varint, table.blocks[0]))
  data = (tmp_path / 'a').read_bytes()[: table.index[0]]
  index = _block([(b'k', handle), (b'l', handle)]) + b'\0'
  handle = _varint(len(data)) + _varint(len(index) - 1)
  data += index + files.masked(google_crc32c.value(index))
  (tmp_path / 'a').write_bytes(
    data
    + (handle * 2).ljust(40, b'\0')
    + (0xDB4775248B80FB57).to_bytes(8, 'little')
  )
  assert error(tmp_path / 'a') == 'blocks that overlap'


def test_nor_of_entries(tmp_path, monkeypatch):
  monkeypatch.setattr(checkpoint_reader, 'MOST_ENTRIES', 3)
  blocks = [[(b'', _good_header()), _good(1)], [_good(2)]]
  _write_v2(tmp_path / 'a', blocks)
  assert_same(tmp_path / 'a')
  _write_v2(tmp_path / 'a', [*blocks, [_good(3)]])
  assert error(tmp_path / 'a') == 'too many entries, or in a wrong order'


def test_blocks_of_an_unknown_kind(tmp_path):
  _write_v2(
    tmp_path / 'a', [[(b'', _good_header())]], pack=lambda data: (data, 2)
  )
  assert error(tmp_path / 'a') == 'a block of an unknown kind (2)'


_KEY = b'\0v\0\1\1\2\x80\x7f\x80\x7f'


def _v1_meta(times=1, **changes):
  """Returns the first value of a V1 file, of the variable v."""
  slices = _SLICES()
  for _ in range(times):
    tensor = slices.meta.tensor.add(name='v', type=_FLOAT)
    for size in changes.get('shape', [2, 3]):
      tensor.shape.dim.add(size=size)
    part = tensor.slice.add()
    for _ in range(changes.get('extents', 2)):
      part.extent.add()
    tensor.type = changes.get('type', _FLOAT)
    tensor.name = changes.get('name', 'v')
  return slices.SerializeToString()


def _v1_value(**fields):
  slices = _SLICES()
  for name, values in fields.items():
    getattr(slices.data.data, name).extend(values)
  return slices.SerializeToString()


_V1_VALUE = _v1_value(float_val=_VALUE.ravel())


def test_a_v1_file_that_is_not_forged(tmp_path):
  (tmp_path / 'a').write_bytes(
    _table([[(b'', _v1_meta())], [(_KEY, _V1_VALUE)]])
  )
  assert_same(tmp_path / 'a')


@pytest.mark.parametrize(
  'meta, value, message',
  [
    (b'\xff', _V1_VALUE, 'a damaged or missing SavedTensorSlices'),
    (_v1_meta(), b'\xff', 'v: a damaged or missing SavedTensorSlices'),
    (_v1_meta(type=0), _V1_VALUE, 'v: values of an unknown type (0)'),
    (_v1_meta(type=99), _V1_VALUE, 'v: values of an unknown type (99)'),
    (_v1_meta(shape=[-2, 3]), _V1_VALUE, 'v: a shape that no value has'),
    (_v1_meta(shape=[2, 4]), _V1_VALUE, 'v: 6 value(s), not those of [2, 4]'),
    (_v1_meta(shape=[2**62] * 2), _V1_VALUE, 'v: 6 value(s), not those of ['),
    (_v1_meta(), b'', 'v: 0 value(s), not those of [2, 3]'),
    (_v1_meta(), _v1_value(int_val=range(6)), 'v: 0 value(s), not those of'),
    (_v1_meta(shape=[6]), _V1_VALUE, 'v: no value'),
    (_v1_meta(name='w'), _V1_VALUE, 'w: no value'),
    (_v1_meta(name='v\n'), _V1_VALUE, r"b'v\n' is no name of a variable"),
    (_v1_meta(times=2), _V1_VALUE, 'v: there twice'),
    (
      _v1_meta(type=tf.uint8.as_datatype_enum),
      _v1_value(int_val=[1, 2, 3, 4, 5, 256]),
      'v: values that are none of uint8',
    ),
  ],
)
def test_forged_v1_files(tmp_path, meta, value, message):
  (tmp_path / 'a').write_bytes(_table([[(b'', meta), (_KEY, value)]]))
  assert error(tmp_path / 'a').startswith(message)


@pytest.mark.parametrize('content', [b'', b'text', b'text' * 99, bytes(48)])
def test_what_is_no_table(tmp_path, content):
  (tmp_path / 'a').write_bytes(content)
  assert error(tmp_path / 'a')


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
