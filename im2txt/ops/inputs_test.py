# SPDX-License-Identifier: Apache-2.0
"""Tests of inputs."""

import sys

import numpy as np
import pytest
import tensorflow as tf

from im2txt import configuration
from im2txt import testing
from im2txt.data import shards as shards_lib
from im2txt.ops import inputs

_CONFIG = configuration.ModelConfig(vocab_size=10, batch_size=2)


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
  path = testing.reference_path('batch8.tfrecord')
  captions = inputs.read_captions([path])
  assert len(captions) == 8
  source, target, mask = captions.sequences(np.arange(8))
  time = mask.shape[1]
  for found, name in ((source, 'input_seqs'), (target, 'target_seqs'),
                      (mask, 'mask')):
    np.testing.assert_array_equal(found, vectors[name][:, :time], name)
    assert not vectors[name][:, time:].any()
  for record in tf.data.TFRecordDataset(path):
    assert inputs.parse_sequence_example(record)[1].numpy().startswith(
        b'\xff\xd8')


def words(source, target, mask):
  """Returns the set of the captions in a batch; checks how they are padded."""
  found = []
  # Padded to the longest of the batch, no further.
  assert mask.numpy().any(axis=0).all()
  for s, t, m in zip(source.numpy(), target.numpy(), mask.numpy()):
    n = m.sum()
    assert m[:n].all() and not s[n:].any() and not t[n:].any()
    np.testing.assert_array_equal(s[1:n], t[:n - 1])
    found.append((*s[:n], t[n - 1]))
  return found


def test_training_batches(shards):
  seen = set()
  for images, rows, *captions in inputs.training_batches(
      shards, _CONFIG, seed=1).take(40):
    assert images.shape == (2, 299, 299, 3)
    assert rows.numpy().tolist() == [0, 1]
    seen.update(words(*captions))
  # Everything but the caption of the damaged image, which is skipped.
  assert seen == {(1, 5, 2), (1, 6, 7, 8, 2), (1, 2), (1, 4, 4, 2)}


def test_a_seed_repeats_order_and_distortion(shards):
  first, again = (
      list(inputs.training_batches(shards, _CONFIG, seed=3).take(4))
      for _ in range(2))
  for batch, same in zip(first, again):
    for found, expected in zip(batch, same):
      np.testing.assert_array_equal(found, expected)


def test_captions_without_a_word(tmp_path):
  path = str(tmp_path / 'shard')
  testing.write_shard(path, [(1, testing.jpeg(), []), (1, testing.jpeg(), [])])
  _, rows, *captions = next(iter(inputs.training_batches([path], _CONFIG)))
  assert rows.shape == (2,)
  assert {c.shape for c in captions} == {(2, 0)}


@pytest.fixture(name='captioned_twice')
def fixture_captioned_twice(tmp_path):
  """4 images of 1 to 4 captions over three shards, none beside the other.

  Image i is of grey level 20 * i, its captions are [1, i, n, 2].
  """
  shards = [[(1, 0), (4, 0), (2, 0)], [(4, 1), (3, 0), (4, 2), (2, 1), (3, 1)],
            [(3, 2), (4, 3)]]
  files = []
  for number, shard in enumerate(shards):
    files.append(str(tmp_path / f'shard{number}'))
    testing.write_shard(files[-1], [
        (i, tf.io.encode_png(np.full([9, 9, 3], 20 * i, 'u1')).numpy(),
         [1, i, n, 2]) for i, n in shard])
  return files


@pytest.fixture(name='compact')
def fixture_compact(tmp_path):
  """The images and captions of `captioned_twice`, in compact records."""
  files = []
  for number, images in enumerate([(4, 2), (), (1, 3)]):
    files.append(str(tmp_path / f'compact{number}'))
    with shards_lib.Writer(files[-1]) as writer:
      for i in images:
        writer.write(shards_lib.serialize_compact(
            i, tf.io.encode_png(np.full([9, 9, 3], 20 * i, 'u1')).numpy(),
            [(['w'] * 4, [1, i, n, 2]) for n in range(i)]))
  return files


def test_compact_captions_are_separate_examples(compact):
  seen, together = [], 0
  for images, rows, *captions in inputs.training_batches(
      compact, _CONFIG, seed=1).take(5):
    assert len(images) == 2 and rows.numpy().tolist() == [0, 1]
    first, second = words(*captions)
    together += first[1] == second[1]
    seen += [first, second]
  assert together < 5  # They are shuffled.
  assert sorted(seen) == sorted(
      (1, i, n, 2) for i in range(1, 5) for n in range(i))


def test_compact_shards_are_grouped_without_reading_them_first(
    compact, captioned_twice, monkeypatch):
  config = configuration.ModelConfig(vocab_size=10, batch_size=4)
  # In the other layout, they are read.
  monkeypatch.delattr(inputs, 'read_captions')
  inputs.training_batches(compact, config, captions_per_image=2)
  with pytest.raises(NameError):
    inputs.training_batches(captioned_twice, config, captions_per_image=2)


def test_read_captions_of_compact_shards(compact):
  whole = inputs.read_captions(compact)
  assert whole.image_ids.tolist() == [4, 2, 1, 3]
  assert whole.images.tolist() == [0, 0, 0, 0, 1, 1, 2, 3, 3, 3]
  assert whole.file_ends.tolist() == [6, 6, 10]
  assert [whole.caption(i).tolist() for i in range(len(whole))] == [
      [1, i, n, 2] for i in (4, 2, 1, 3) for n in range(i)]
  for limit in range(1, 10):
    captions = inputs.read_captions(compact, limit)
    assert captions.images.tolist() == whole.images[:limit].tolist()
    assert captions.words.tolist() == whole.words[:4 * limit].tolist()
    assert len(captions.image_ids) == captions.images[-1] + 1


@pytest.mark.parametrize('layout', ['captioned_twice', 'compact'])
@pytest.mark.parametrize('size, images_an_epoch', [(2, 6), (4, 4)])
def test_captions_of_an_image_share_it(
    request, layout, monkeypatch, size, images_an_epoch):
  # Without distortion, an image is known by its grey.
  original = inputs.image_processing.process_image
  monkeypatch.setattr(
      inputs.image_processing, 'process_image',
      lambda image, is_training, ordering, seed, **kwargs: original(
          image, **kwargs))
  config = configuration.ModelConfig(vocab_size=10, batch_size=2 * size)
  batches = inputs.training_batches(
      request.getfixturevalue(layout), config, seed=1, captions_per_image=size)
  epoch = []
  for images, rows, *captions in batches.take(images_an_epoch // 2):
    assert len(images) == 2
    assert rows.shape == (len(captions[0]),) and len(rows) <= 2 * size
    for row, caption in zip(rows.numpy(), words(*captions)):
      grey = (images[row, 0, 0, 0] + 1) / 2 * 255
      np.testing.assert_allclose(grey, 20 * caption[1], atol=.1)
      epoch.append(caption)
  # Each caption once an epoch, however few groups its image makes.
  assert sorted(epoch) == sorted(
      (1, i, n, 2) for i in range(1, 5) for n in range(i))


def test_captions_per_image_must_divide_the_batch(shards):
  with pytest.raises(ValueError, match='--captions_per_image=5.*make that 30'):
    inputs.training_batches(
        shards, configuration.ModelConfig(), captions_per_image=5)


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
  with pytest.raises(ValueError,
                     match='image 1:.*word id 10.*--vocab_size=11 or more'):
    inputs.read_captions([path]).check_ids(10)
  inputs.read_captions([path]).check_ids(11)


def test_an_image_that_is_too_large_is_left_out(tmp_path, monkeypatch):
  path = str(tmp_path / 'shard')
  testing.write_shard(path, [(1, testing.jpeg(1), [1, 3, 2]),
                             (2, testing.jpeg(2, 41, 60), [1, 4, 2])])

  def seen():
    batches = inputs.training_batches([path], _CONFIG, seed=1).take(4)
    return {word for batch in batches for word in batch[2][:, 1].numpy()}

  assert seen() == {3, 4}
  testing.set_largest_image(monkeypatch, 40 * 60)
  assert seen() == {3}


def test_read_captions(shards):
  captions = inputs.read_captions(shards)
  assert captions.image_ids.tolist() == [1, 2, 4, 3]
  assert captions.images.tolist() == [0, 1, 2, 0, 3]
  assert captions.file_ends.tolist() == [3, 5]
  assert [captions.caption(i).tolist() for i in range(len(captions))] == [
      [1, 2], [1, 9, 2], [1, 4, 4, 2], [1, 5, 2], [1, 6, 7, 8, 2]]
  source, target, mask = captions.sequences([0, 2, 3])
  np.testing.assert_array_equal(source, [[1, 0, 0], [1, 4, 4], [1, 5, 0]])
  np.testing.assert_array_equal(target, [[2, 0, 0], [4, 4, 2], [5, 2, 0]])
  np.testing.assert_array_equal(mask, [[1, 0, 0], [1, 1, 1], [1, 1, 0]])


def test_the_limit_counts_captions(shards):
  for limit in (2, 3, 4):
    captions = inputs.read_captions(shards, limit)
    assert len(captions) == limit == captions.file_ends[-1]


def test_images_without_an_id_are_told_apart_by_their_bytes(tmp_path):
  path = str(tmp_path / 'shard')
  testing.write_shard(
      path, [(-1, testing.jpeg(seed), [1, 2]) for seed in (0, 1, 0)])
  assert inputs.read_captions([path]).images.tolist() == [0, 1, 0]


def test_a_damaged_shard_is_named(shards):
  with open(shards[1], 'r+b') as f:
    f.seek(40)
    f.write(b'xxxx')
  with pytest.raises(
      ValueError, match='damaged record after 3 captions, in .*train-00001'):
    inputs.read_captions(shards)


def test_no_caption_is_an_error(tmp_path):
  path = str(tmp_path / 'shard')
  testing.write_shard(path, [])
  with pytest.raises(ValueError, match='no caption in .*shard'):
    inputs.read_captions([path])


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
