# SPDX-License-Identifier: Apache-2.0
"""Tests of inputs."""

import sys

import numpy as np
import pytest
import tensorflow as tf

from im2txt import configuration
from im2txt import testing
from im2txt.ops import inputs

_CONFIG = configuration.ModelConfig(vocab_size=10, batch_size=2)


def pixels(images):
  """Stands in for an encoder: the mean colour, repeated."""
  return tf.repeat(tf.reduce_mean(images, [1, 2, 3])[:, None], 2048, axis=1)


@pytest.fixture(name='shards')
def fixture_shards(tmp_path):
  """Two shards: 3 images, 5 captions, one of them of a damaged image."""
  testing.write_shard(tmp_path / 'train-00001-of-00002', [
      (1, testing.jpeg(1), [1, 5, 2]), (3, testing.jpeg(3), [1, 6, 7, 8, 2])])
  testing.write_shard(tmp_path / 'train-00000-of-00002', [
      (1, testing.jpeg(1), [1, 2]), (2, testing.jpeg(2)[:-300], [1, 9, 2]),
      (4, testing.jpeg(4), [1, 4, 4, 2])])
  return inputs.list_files(str(tmp_path / 'train-?????-of-00002'))


def test_files_are_sorted_and_patterns_joined(tmp_path):
  for name in 'cab':
    (tmp_path / name).touch()
  files = inputs.list_files(f'{tmp_path}/[bc],{tmp_path}/a,{tmp_path}/?')
  assert [f[-1] for f in files] == ['a', 'b', 'c']
  with pytest.raises(ValueError, match='--input_file_pattern=.*no file'):
    inputs.list_files(f'{tmp_path}/a,{tmp_path}/missing-*')


def test_reads_what_the_2016_program_wrote():
  vectors = np.load(
      testing.reference_path('train_small', 'train_vectors.npz'))
  dataset = tf.data.TFRecordDataset(
      testing.reference_path('batch8.tfrecord')).map(
          inputs.parse_sequence_example)
  for row, (_, encoded, caption) in enumerate(dataset.as_numpy_iterator()):
    source, target, mask = inputs.caption_to_sequences(tf.constant(caption))
    n = len(caption) - 1
    np.testing.assert_array_equal(source, vectors['input_seqs'][row, :n])
    np.testing.assert_array_equal(target, vectors['target_seqs'][row, :n])
    np.testing.assert_array_equal(mask, np.ones(n))
    assert vectors['mask'][row].sum() == n
    assert encoded.startswith(b'\xff\xd8')
  assert row == 7


def test_training_batches(shards):
  seen = set()
  for images, source, target, mask in inputs.training_batches(
      shards, _CONFIG, seed=1).take(40):
    assert images.shape == (2, 299, 299, 3)
    assert source.shape == target.shape == mask.shape
    # Padded to the longest of the batch, no further.
    assert mask.numpy().any(axis=0).all()
    for s, t, m in zip(source.numpy(), target.numpy(), mask.numpy()):
      n = m.sum()
      assert m[:n].all() and not s[n:].any() and not t[n:].any()
      np.testing.assert_array_equal(s[1:n], t[:n - 1])
      seen.add((*s[:n], t[n - 1]))
  # Everything but the caption of the damaged image, which is skipped.
  assert seen == {(1, 5, 2), (1, 6, 7, 8, 2), (1, 2), (1, 4, 4, 2)}


def test_training_images_differ_each_time(shards):
  batches = inputs.training_batches(shards[:1], _CONFIG).take(6)
  means = {round(float(m), 5) for b in batches
           for m in tf.reduce_mean(b[0], [1, 2, 3])}
  assert len(means) > 4


def test_an_id_beyond_the_vocabulary_is_refused(tmp_path):
  path = str(tmp_path / 'shard')
  testing.write_shard(path, [(1, testing.jpeg(), [1, 10, 2])])
  with pytest.raises(tf.errors.InvalidArgumentError, match='--vocab_size=10'):
    next(iter(inputs.training_batches([path, path], _CONFIG)))
  with pytest.raises(ValueError, match='image 1:.*word id 10'):
    inputs.encode_captioned_images([path], pixels, _CONFIG)


def test_each_image_is_encoded_once_and_each_caption_kept(shards):
  encoded = []

  def encode(images):
    encoded.append(len(images))
    return pixels(images)

  data = inputs.encode_captioned_images(shards, encode, _CONFIG)
  assert sum(encoded) == 3
  assert [list(c) for c in data.captions] == [
      [1, 2], [1, 4, 4, 2], [1, 5, 2], [1, 6, 7, 8, 2]]
  assert data.skipped == [2]
  assert list(data.rows) == [0, 1, 0, 2]
  assert data.features.shape == (3, 2048)


def test_the_limit_counts_captions(shards):
  data = inputs.encode_captioned_images(shards, pixels, _CONFIG, limit=3)
  assert len(data.captions) == 2  # The third is the damaged image's.


def test_batches_cover_everything_once_with_its_remainder(shards):
  data = inputs.encode_captioned_images(shards, pixels, _CONFIG)
  batches = list(data.batches(3))
  assert [len(b[0]) for b in batches] == [3, 1]
  features, source, target, mask = batches[0]
  np.testing.assert_array_equal(features, data.features[[0, 1, 0]])
  np.testing.assert_array_equal(source, [[1, 0, 0], [1, 4, 4], [1, 5, 0]])
  np.testing.assert_array_equal(target, [[2, 0, 0], [4, 4, 2], [5, 2, 0]])
  np.testing.assert_array_equal(mask, [[1, 0, 0], [1, 1, 1], [1, 1, 0]])


def test_endless_batches_go_through_every_epoch(shards):
  data = inputs.encode_captioned_images(shards, pixels, _CONFIG)
  batches = data.endless_shuffled_batches(2, seed=0)
  for _ in range(3):
    epoch = [next(batches), next(batches)]
    assert sorted(int(b[3][i].sum()) for b in epoch for i in range(2)) == [
        1, 2, 3, 4]


def test_a_damaged_shard_is_named(shards):
  with open(shards[0], 'r+b') as f:
    f.seek(40)
    f.write(b'xxxx')
  with pytest.raises(ValueError, match='damaged record'):
    inputs.encode_captioned_images(shards, pixels, _CONFIG)


def test_no_usable_caption_is_an_error(tmp_path):
  path = str(tmp_path / 'shard')
  testing.write_shard(path, [(1, b'no image', [1, 2])])
  with pytest.raises(ValueError, match='no usable caption'):
    inputs.encode_captioned_images([path], pixels, _CONFIG)


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
