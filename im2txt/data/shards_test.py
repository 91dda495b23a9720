# SPDX-License-Identifier: Apache-2.0
"""Tests of shards."""

import os
import sys

import google_crc32c
import pytest
import tensorflow as tf

from im2txt import testing
from im2txt.data import shards
from im2txt.runtime import files
from im2txt.text import vocabulary


def _write(path, *contents):
  with shards.Writer(path) as writer:
    for content in contents:
      writer.write(content)
  return str(path)


def test_reads_what_was_written(tmp_path):
  records = [
    shards.Record(2**40, b'\xff\xd8\0', ['<S>', 'café', '</S>'], [1, 77, 2]),
    shards.Record(0, b'', [], []),
  ]
  path = _write(tmp_path / 'x', *(shards.serialize(*r) for r in records))
  assert list(shards.read(path)) == records


def _by_tensorflow(image_id, data, caption, caption_ids):
  """Serializes lists of the values of each feature with TensorFlow's classes."""
  train = tf.train
  raw = lambda v: train.Feature(bytes_list=train.BytesList(value=v))
  int64 = lambda v: train.Feature(int64_list=train.Int64List(value=v))
  return train.SequenceExample(
    context=train.Features(
      feature={'image/image_id': int64([image_id]), 'image/data': raw([data])}
    ),
    feature_lists=train.FeatureLists(
      feature_list={
        'image/caption': train.FeatureList(
          feature=[raw([word.encode() for word in words]) for words in caption]
        ),
        'image/caption_ids': train.FeatureList(
          feature=[int64(ids) for ids in caption_ids]
        ),
      }
    ),
  ).SerializeToString(deterministic=True)


@pytest.mark.parametrize('image_id', [0, 127, 128, 2**40, 2**63 - 1, -1])
def test_bytes_are_those_of_tensorflow(image_id):
  data = bytes(range(256)) * 70  # A length of three bytes.
  tokens = ['<S>', 'café', '', 'x' * 200, '</S>']
  ids = [0, 1, 300, image_id, 12000]
  found = shards.serialize(image_id, data, tokens, ids)
  assert b''.join(found) == _by_tensorflow(
    image_id, data, [[token] for token in tokens], [[i] for i in ids]
  )
  captions = [(tokens, ids), (['<S>', '</S>'], [1, 2])]
  found = shards.serialize_compact(image_id, data, captions)
  assert b''.join(found) == _by_tensorflow(image_id, data, *zip(*captions))


def test_files_are_those_of_tensorflow(tmp_path):
  records = [
    [],
    [b''],
    [b'ab', b'c'],
    [bytes(range(256)) * 5000],
    [b'x' * (1 << 19), b'y', b'z' * 70000],
    [b'end'],
  ]
  with tf.io.TFRecordWriter(str(tmp_path / 'expected')) as writer:
    for record in records:
      writer.write(b''.join(record))
  path = _write(tmp_path / 'found', *records)
  assert (tmp_path / 'found').read_bytes() == (
    tmp_path / 'expected'
  ).read_bytes()
  assert list(tf.data.TFRecordDataset(path).as_numpy_iterator()) == [
    b''.join(record) for record in records
  ]


def test_errors_of_writing_name_the_file(tmp_path):
  with pytest.raises(OSError, match='nowhere/x'):
    shards.Writer(str(tmp_path / 'nowhere' / 'x'))
  with pytest.raises(OSError, match='No space left.*/dev/full'):
    with shards.Writer('/dev/full') as writer:
      writer.write([b'x' * (1 << 20)])
  with pytest.raises(OSError, match='No space left.*/dev/full'):
    with shards.Writer('/dev/full') as writer:
      writer.write([b'small enough to be kept until the end'])


def test_layouts_are_told_apart_by_record(tmp_path):
  captions = [(['<S>', 'a', '</S>'], [1, 7, 2]), (['<S>', '</S>'], [1, 2])]
  path = _write(
    tmp_path / 'x',
    shards.serialize_compact(3, b'J', captions),
    shards.serialize(4, b'K', *captions[1]),
    shards.serialize_compact(5, b'L', captions[1:]),
  )
  groups = [
    [shards.Record(3, b'J', *caption) for caption in captions],
    [shards.Record(4, b'K', *captions[1])],
    [shards.Record(5, b'L', *captions[1])],
  ]
  assert list(shards.read_grouped(path)) == groups
  assert list(shards.read(path)) == sum(groups, [])


def test_refusals(tmp_path):
  good = shards.serialize(1, b'x', ['a'], [1])
  no_image = tf.train.SequenceExample()
  no_word = tf.train.SequenceExample.FromString(b''.join(good))
  no_word.feature_lists.feature_list['image/caption'].feature.add()
  for content, part in (
    (b'\xff\xff', 'not a SequenceExample'),
    (no_image.SerializeToString(), 'has no image/image_id'),
    (no_word.SerializeToString(), 'without text or id'),
  ):
    path = _write(tmp_path / 'bad', good, [content])
    with pytest.raises(ValueError, match=f'bad is .* 1 good .*{part}'):
      list(shards.read(path))
  with open(path, 'r+b') as f:
    f.truncate(20)
  with pytest.raises(ValueError, match='0 good records') as error:
    list(shards.read(path))
  assert '\n' not in str(error.value)
  with open(_write(tmp_path / 'bad', good, good), 'r+b') as f:
    f.truncate(os.path.getsize(path) - 5)
  with pytest.raises(
    ValueError, match=r'1 good records \(a record is cut short near byte \d+\)'
  ):
    list(shards.read(path))
  with open(_write(tmp_path / 'bad', good), 'r+b') as f:
    f.seek(20)
    f.write(b'\xff')
  with pytest.raises(ValueError, match='a record has a wrong checksum near'):
    list(shards.read(path))
  with pytest.raises(ValueError, match='nowhere'):
    list(shards.read(str(tmp_path / 'nowhere')))


@pytest.fixture(name='files')
def fixture_files(tmp_path):
  """Two shards of images 30, 10, 20, 40, of which 10 is in both."""
  records = [
    (30, b'c', 'a man', [2, 3]),
    (10, b'a', 'a dog', [2, 4]),
    (20, b'b', 'a cat', [2, 5]),
    (40, b'd', '', []),
    (10, b'a', 'dogs', [5]),
  ]
  records = [
    shards.serialize(
      image_id, data, ['<S>', *caption.split(), '</S>'], [0, *ids, 1]
    )
    for image_id, data, caption, ids in records
  ]
  return [
    _write(tmp_path / '0', *records[::2]),
    _write(tmp_path / '1', *records[1::2]),
  ]


def test_captions_by_image(files, tmp_path):
  examples = shards.captions_by_image(files)
  assert list(examples) == [30, 20, 10, 40]
  assert examples[10] == (['dogs', 'a dog'], [[0, 5, 1], [0, 2, 4, 1]])
  assert examples[40] == ([''], [[0, 1]])
  assert list(shards.captions_by_image(files, max_images=2)) == [30, 20]
  words = tmp_path / 'words'
  words.write_text('<S>\n</S>\na\nman\ndog')
  vocab = vocabulary.Vocabulary(str(words))
  assert shards.captions_by_image(files, vocab=vocab) == examples
  words.write_text('<S>\n</S>\na\ndog\nman')
  vocab = vocabulary.Vocabulary(str(words))
  with pytest.raises(ValueError, match='0: the word ids are not those'):
    shards.captions_by_image(files, vocab=vocab)


def test_image_batches(files):
  batches = lambda *arguments: list(shards.image_batches(files, *arguments))
  assert batches([10, 20, 30, 40], 3) == [
    [(30, b'c'), (20, b'b'), (10, b'a')],
    [(40, b'd')],
  ]
  assert batches([20, 10], 8) == [[(20, b'b'), (10, b'a')]]
  assert batches([], 8) == []


@pytest.mark.parametrize('length', [2**20, 2**63 - 1, 2**64 - 1])
def test_a_record_that_claims_a_huge_length_is_damaged(tmp_path, length):
  header = length.to_bytes(8, 'little')
  path = tmp_path / 'shard'
  path.write_bytes(
    header + files.masked(google_crc32c.value(header)) + bytes(50)
  )
  with pytest.raises(ValueError, match='damaged record at byte 0'):
    shards.read_record(str(path), 0)
  with pytest.raises(
    ValueError,
    match='not a shard, after 0 good records .the '
    f'record at byte 0 claims {length} bytes, .*: make the shards again$',
  ) as error:
    next(shards.read(str(path)))
  assert str(error.value).count('make the shards again') == 1


def test_is_whole(tmp_path):
  path = tmp_path / 'shard'
  testing.write_shard(path, [(1, testing.jpeg(), [0, 1])] * 2)
  content = path.read_bytes()
  assert shards.is_whole(path)
  for size in (1, 11, 12, 500, len(content) - 1):
    path.write_bytes(content[:size])
    assert not shards.is_whole(path), size
  path.write_bytes(b'')
  assert shards.is_whole(path)


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
