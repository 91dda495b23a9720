# SPDX-License-Identifier: Apache-2.0
"""Tests of shards."""

import sys

import pytest
import tensorflow as tf

from im2txt.data import shards


def _write(path, *contents):
  with tf.io.TFRecordWriter(str(path)) as writer:
    for content in contents:
      writer.write(content)
  return str(path)


def test_reads_what_was_written(tmp_path):
  records = [
      shards.Record(2**40, b'\xff\xd8\0', ['<S>', 'café', '</S>'], [1, 77, 2]),
      shards.Record(0, b'', [], [])]
  path = _write(tmp_path / 'x', *(shards.serialize(*r) for r in records))
  assert list(shards.read(path)) == records


def test_refusals(tmp_path):
  good = shards.serialize(1, b'x', ['a'], [1])
  no_image = tf.train.SequenceExample()
  no_word = tf.train.SequenceExample.FromString(good)
  no_word.feature_lists.feature_list['image/caption'].feature.add()
  for content, part in ((b'\xff\xff', 'no SequenceExample'),
                        (no_image.SerializeToString(), 'lacks image/image_id'),
                        (no_word.SerializeToString(), 'without text or id')):
    path = _write(tmp_path / 'bad', good, content)
    with pytest.raises(ValueError, match=f'bad is .* 1 good .*{part}'):
      list(shards.read(path))
  with open(path, 'r+b') as f:
    f.truncate(20)
  with pytest.raises(ValueError, match='0 good records') as error:
    list(shards.read(path))
  assert '\n' not in str(error.value)
  with pytest.raises(ValueError, match='nowhere'):
    list(shards.read(str(tmp_path / 'nowhere')))


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
