# SPDX-License-Identifier: Apache-2.0
"""Tests of inputs."""

import dataclasses
import itertools
import os
import sys

import numpy as np
import pytest
import tensorflow as tf

from im2txt import configuration
from im2txt import testing
from im2txt.data import shards
from im2txt.data import shards as shards_lib
from im2txt.input_pipeline import captions as captions_lib
from im2txt.input_pipeline import image_batches
from im2txt.runtime import sharing

_CONFIG = configuration.ModelConfig(vocab_size=10, batch_size=2)


@pytest.fixture(name='shards')
def fixture_shards(tmp_path):
  """Two shards: 3 images, 5 captions, one of them of a damaged image."""
  testing.write_shard(
    tmp_path / 'train-00001-of-00002',
    [(1, testing.jpeg(1), [1, 5, 2]), (3, testing.jpeg(3), [1, 6, 7, 8, 2])],
  )
  testing.write_shard(
    tmp_path / 'train-00000-of-00002',
    [
      (1, testing.jpeg(1), [1, 2]),
      (2, testing.jpeg(2)[:-300], [1, 9, 2]),
      (4, testing.jpeg(4), [1, 4, 4, 2]),
    ],
  )
  return shards.list_files(str(tmp_path / 'train-?????-of-00002'))


def test_files_are_sorted_and_patterns_joined(tmp_path):
  for name in 'cab':
    (tmp_path / name).touch()
  files = shards.list_files(f'{tmp_path}/[bc],{tmp_path}/a,{tmp_path}/?')
  assert [f[-1] for f in files] == ['a', 'b', 'c']
  with pytest.raises(ValueError, match='--input_file_pattern=.*no file'):
    shards.list_files(f'{tmp_path}/a,{tmp_path}/missing-*')


def test_a_directory_with_brackets_and_commas(tmp_path):
  directory = tmp_path / 'photos [2024], all'
  directory.mkdir()
  for name in ('train-00000-of-00002', 'train-00001-of-00002'):
    (directory / name).touch()
  expected = [str(directory / name) for name in sorted(os.listdir(directory))]
  assert shards.list_files(f'{directory}/train-?????-of-00002') == expected
  assert (
    shards.list_files(f'{directory}/train-00001-of-*,{expected[0]}') == expected
  )
  with pytest.raises(ValueError, match='--input_file_pattern=: no file'):
    shards.list_files('')


def test_reads_what_the_2016_program_wrote():
  vectors = np.load(testing.testdata_path('training', 'steps.npz'))
  path = testing.testdata_path('training', 'batch8.tfrecord')
  captions = captions_lib.read_captions([path])
  assert len(captions) == 8
  source, target, mask = captions.sequences(np.arange(8))
  time = mask.shape[1]
  for found, name in (
    (source, 'input_seqs'),
    (target, 'target_seqs'),
    (mask, 'mask'),
  ):
    np.testing.assert_array_equal(found, vectors[name][:, :time], name)
    assert not vectors[name][:, time:].any()
  for record in tf.data.TFRecordDataset(path):
    assert (
      shards.parse_sequence_example(record)[1].numpy().startswith(b'\xff\xd8')
    )


def words(source, target, mask):
  """Returns the set of the captions in a batch; checks how they are padded."""
  found = []
  # Padded to the longest of the batch, no further.
  assert mask.any(axis=0).all()
  for s, t, m in zip(source, target, mask):
    n = m.sum()
    assert m[:n].all() and not s[n:].any() and not t[n:].any()
    np.testing.assert_array_equal(s[1:n], t[: n - 1])
    found.append((*s[:n], t[n - 1]))
  return found


def first(count, files, config=_CONFIG, captions_per_image=1, seed=1, step=0):
  """Returns a list of the first batches from a step on."""
  return list(
    itertools.islice(
      image_batches.ImageBatches(files, config, captions_per_image).from_step(
        seed, step
      ),
      count,
    )
  )


def test_training_batches(shards, caplog):
  seen = []
  for images, rows, *captions in first(5, shards):
    assert images.shape == (len(rows), 299, 299, 3)
    assert rows.tolist() == list(range(len(rows)))
    seen += words(*captions[:3])
  # Two epochs: everything twice, but the caption of the damaged image.
  assert sorted(seen) == sorted(
    2 * [(1, 5, 2), (1, 6, 7, 8, 2), (1, 2), (1, 4, 4, 2)]
  )
  assert caplog.text.count('cannot be decoded') == 1
  assert f'image 2 in {shards[0]} cannot be decoded' in caplog.text


def test_a_batch_is_a_function_of_seed_and_step(shards):
  whole = first(9, shards, seed=3)
  for step in range(9):
    (batch,) = first(1, shards, seed=3, step=step)
    for found, expected in zip(batch, whole[step]):
      np.testing.assert_array_equal(found, expected)
  other = first(9, shards, seed=4)
  assert any(
    a.input_seqs.tolist() != b.input_seqs.tolist() for a, b in zip(whole, other)
  )


@pytest.mark.parametrize('captions_per_image', [1, 2])
def test_shares_make_up_the_batch(shards, captions_per_image, monkeypatch):
  """Of any number of replicas, and of another one at the next step."""
  small = dataclasses.replace(_CONFIG, batch_size=4)
  batches = image_batches.ImageBatches(shards, small, captions_per_image)
  reads = []
  read_record = image_batches.shards.read_record
  monkeypatch.setattr(
    image_batches.shards,
    'read_record',
    lambda *args: reads.append(args) or read_record(*args),
  )
  seen = []
  for step, count in enumerate([1, 3, 2, 4, 2]):
    count = min(count, 4 // captions_per_image)
    whole = next(batches.from_step(3, step))
    parts = [
      next(batches.from_step(3, step, [sharing.Share(index, count)]))
      for index in range(count)
    ]
    seen += [
      caption
      for part in parts
      if part.mask.any()
      for caption in words(part.input_seqs, part.target_seqs, part.mask)
    ]
    # All shares in one process.
    every = [sharing.Share(index, count) for index in range(count)]
    together = list(itertools.islice(batches.from_step(3, step, every), count))
    for found in parts, together:
      # One whose image is damaged has a blank batch.
      found = [part for part in found if part.mask.any()]
      for name in ('inputs', 'first_random_rows', 'places'):
        np.testing.assert_array_equal(
          np.concatenate([getattr(part, name) for part in found]),
          getattr(whole, name),
        )
  if captions_per_image == 1:
    # Four epochs of the captions of sound images.
    assert sorted(seen) == sorted(
      4 * [(1, 5, 2), (1, 6, 7, 8, 2), (1, 2), (1, 4, 4, 2)]
    )
  # A share reads its own images, and two steps ahead.
  reads.clear()
  next(batches.from_step(3, 0, [sharing.Share(1, 2)]))
  assert len(reads) <= 3 * 4 // captions_per_image // 2


def test_captions_without_a_word(tmp_path):
  path = str(tmp_path / 'shard')
  testing.write_shard(path, [(1, testing.jpeg(), []), (1, testing.jpeg(), [])])
  (batch,) = first(1, [path])
  assert batch.rows.shape == (2,)
  assert {array.shape for array in batch[2:5]} == {(2, 1)}
  assert not batch.mask.any()


def test_a_caption_without_ids_beside_another(tmp_path):
  path = str(tmp_path / 'shard')
  testing.write_shard(path, [(1, b'', []), (1, b'', [1, 3, 4, 2])])
  source, target, mask = captions_lib.read_captions([path]).sequences([0, 1])
  np.testing.assert_array_equal(source, [[0, 0, 0], [1, 3, 4]])
  np.testing.assert_array_equal(target, [[0, 0, 0], [3, 4, 2]])
  np.testing.assert_array_equal(mask, [[0, 0, 0], [1, 1, 1]])


def test_a_batch_without_a_good_image_has_no_word(tmp_path):
  path = str(tmp_path / 'shard')
  testing.write_shard(path, [(1, b'', [1, 3, 2]), (2, testing.jpeg(), [1, 2])])
  config = configuration.ModelConfig(vocab_size=10, batch_size=1)
  batches = first(4, [path], config)
  assert sorted(batch.mask.sum() for batch in batches) == [0, 0, 1, 1]
  for batch in batches:
    assert batch.inputs.shape == (1, 299, 299, 3)
    assert batch.rows.tolist() == [0]
    assert batch.inputs.numpy().any() == batch.mask.any()


def test_no_good_image_at_all_is_an_error(tmp_path):
  path = str(tmp_path / 'shard')
  testing.write_shard(path, [(1, b'', [1, 3, 2]), (2, b'x', [1, 2])])
  with pytest.raises(ValueError, match='none of the 2 image.* can be decoded'):
    first(2, [path])


@pytest.fixture(name='captioned_twice')
def fixture_captioned_twice(tmp_path):
  """4 images of 1 to 4 captions over three shards, none beside the other.

  Image i is of grey level 20 * i, its captions are [1, i, n, 2].
  """
  shards = [
    [(1, 0), (4, 0), (2, 0)],
    [(4, 1), (3, 0), (4, 2), (2, 1), (3, 1)],
    [(3, 2), (4, 3)],
  ]
  files = []
  for number, shard in enumerate(shards):
    files.append(str(tmp_path / f'shard{number}'))
    testing.write_shard(
      files[-1],
      [
        (
          i,
          tf.io.encode_png(np.full([9, 9, 3], 20 * i, 'u1')).numpy(),
          [1, i, n, 2],
        )
        for i, n in shard
      ],
    )
  return files


@pytest.fixture(name='compact')
def fixture_compact(tmp_path):
  """The images and captions of `captioned_twice`, in compact records."""
  files = []
  for number, images in enumerate([(4, 2), (), (1, 3)]):
    files.append(str(tmp_path / f'compact{number}'))
    with shards_lib.Writer(files[-1]) as writer:
      for i in images:
        writer.write(
          shards_lib.serialize_compact(
            i,
            tf.io.encode_png(np.full([9, 9, 3], 20 * i, 'u1')).numpy(),
            [(['w'] * 4, [1, i, n, 2]) for n in range(i)],
          )
        )
  return files


def test_compact_captions_are_separate_examples(compact):
  seen, together = [], 0
  for images, rows, *captions in first(5, compact):
    assert len(images) == 2 and rows.tolist() == [0, 1]
    one, other = words(*captions[:3])
    together += one[1] == other[1]
    seen += [one, other]
  assert together < 5  # They are shuffled.
  assert sorted(seen) == sorted(
    (1, i, n, 2) for i in range(1, 5) for n in range(i)
  )


def test_read_captions_of_compact_shards(compact):
  whole = captions_lib.read_captions(compact)
  assert whole.image_ids.tolist() == [4, 2, 1, 3]
  assert whole.images.tolist() == [0, 0, 0, 0, 1, 1, 2, 3, 3, 3]
  assert whole.file_ends.tolist() == [6, 6, 10]
  assert [whole.caption(i).tolist() for i in range(len(whole))] == [
    [1, i, n, 2] for i in (4, 2, 1, 3) for n in range(i)
  ]
  for limit in range(1, 10):
    captions = captions_lib.read_captions(compact, limit)
    assert captions.images.tolist() == whole.images[:limit].tolist()
    assert captions.words.tolist() == whole.words[: 4 * limit].tolist()
    assert len(captions.image_ids) == captions.images[-1] + 1


@pytest.mark.parametrize('layout', ['captioned_twice', 'compact'])
@pytest.mark.parametrize('size, images_an_epoch', [(2, 6), (4, 4)])
def test_captions_of_an_image_share_it(
  request, layout, monkeypatch, size, images_an_epoch
):
  # Without distortion, an image is known by its grey.
  original = image_batches.image_processing.process_image
  monkeypatch.setattr(
    image_batches.image_processing,
    'process_image',
    lambda image, is_training, ordering, seed, **kwargs: original(
      image, **kwargs
    ),
  )
  config = configuration.ModelConfig(vocab_size=10, batch_size=2 * size)
  epoch = []
  for images, rows, *captions in first(
    images_an_epoch // 2, request.getfixturevalue(layout), config, size
  ):
    assert len(images) == 2
    assert rows.shape == (len(captions[0]),) and len(rows) <= 2 * size
    for row, caption in zip(rows, words(*captions[:3])):
      grey = (images[row, 0, 0, 0] + 1) / 2 * 255
      np.testing.assert_allclose(grey, 20 * caption[1], atol=0.1)
      epoch.append(caption)
  # Each caption once an epoch, however few groups its image makes.
  assert sorted(epoch) == sorted(
    (1, i, n, 2) for i in range(1, 5) for n in range(i)
  )


def test_every_caption_comes_once_an_epoch_however_often_it_is_stopped(
  captioned_twice,
):
  """A batch of 2 images of 3 captions at most; 5 groups make an epoch."""
  config = configuration.ModelConfig(vocab_size=10, batch_size=6)
  seen = []
  for start, stop in (0, 1), (1, 4), (4, 5):
    for batch in first(stop - start, captioned_twice, config, 3, 7, start):
      seen += words(*batch[2:5])
  # Five steps of two groups are two epochs.
  assert sorted(seen) == sorted(
    2 * [(1, i, n, 2) for i in range(1, 5) for n in range(i)]
  )


def test_captions_per_image_must_divide_the_batch(shards):
  with pytest.raises(
    ValueError, match='--captions_per_image=5.*such as --batch_size=30'
  ):
    image_batches.ImageBatches(shards, configuration.ModelConfig(), 5)


def test_training_images_differ_each_time(shards):
  means = {
    round(float(m), 5)
    for batch in first(6, shards[:1])
    for m in tf.reduce_mean(batch.inputs, [1, 2, 3])
  }
  assert len(means) > 4


def test_an_id_beyond_the_vocabulary_is_refused(tmp_path):
  path = str(tmp_path / 'shard')
  testing.write_shard(path, [(1, testing.jpeg(), [1, 10, 2])])
  with pytest.raises(
    ValueError, match='image 1:.*word id 10.*--vocab_size=11 or more'
  ):
    image_batches.ImageBatches([path, path], _CONFIG)
  captions_lib.read_captions([path]).check_ids(11)


@pytest.mark.parametrize('word', [2**40, -(2**40), 2**31])
def test_an_id_beyond_all_vocabularies_is_refused(tmp_path, word):
  path = str(tmp_path / 'shard')
  testing.write_shard(path, [(7, testing.jpeg(), [0, word, 1])])
  with pytest.raises(
    ValueError,
    match=(
      f'image 7: its caption holds a word id of no vocabulary, {word}, in .*'
      'shard; make'
    ),
  ):
    captions_lib.read_captions([path])


def test_an_image_that_is_too_large_is_left_out(tmp_path, monkeypatch):
  path = str(tmp_path / 'shard')
  testing.write_shard(
    path,
    [(1, testing.jpeg(1), [1, 3, 2]), (2, testing.jpeg(2, 41, 60), [1, 4, 2])],
  )

  def seen():
    return {
      word for batch in first(4, [path]) for word in batch.input_seqs[:, 1]
    }

  assert seen() == {3, 4}
  testing.set_largest_image(monkeypatch, 40 * 60)
  assert seen() == {3}


def test_read_captions(shards):
  captions = captions_lib.read_captions(shards)
  assert captions.image_ids.tolist() == [1, 2, 4, 3]
  assert captions.images.tolist() == [0, 1, 2, 0, 3]
  assert captions.file_ends.tolist() == [3, 5]
  assert [captions.caption(i).tolist() for i in range(len(captions))] == [
    [1, 2],
    [1, 9, 2],
    [1, 4, 4, 2],
    [1, 5, 2],
    [1, 6, 7, 8, 2],
  ]
  source, target, mask = captions.sequences([0, 2, 3])
  np.testing.assert_array_equal(source, [[1, 0, 0], [1, 4, 4], [1, 5, 0]])
  np.testing.assert_array_equal(target, [[2, 0, 0], [4, 4, 2], [5, 2, 0]])
  np.testing.assert_array_equal(mask, [[1, 0, 0], [1, 1, 1], [1, 1, 0]])


def test_the_limit_counts_captions(shards):
  for limit in (2, 3, 4):
    captions = captions_lib.read_captions(shards, limit)
    assert len(captions) == limit == captions.file_ends[-1]


def test_images_without_an_id_are_told_apart_by_their_bytes(tmp_path):
  path = str(tmp_path / 'shard')
  testing.write_shard(
    path, [(-1, testing.jpeg(seed), [1, 2]) for seed in (0, 1, 0)]
  )
  assert captions_lib.read_captions([path]).images.tolist() == [0, 1, 0]


def test_a_damaged_shard_is_named(shards):
  # Of a shard that was whole when training began.
  batches = image_batches.ImageBatches(shards[1:], _CONFIG).from_step(1)
  with open(shards[1], 'r+b') as f:
    f.seek(40)
    f.write(b'xxxx')
  for read in (
    lambda: captions_lib.read_captions(shards),
    lambda: image_batches.ImageBatches(shards, _CONFIG),
  ):
    with pytest.raises(
      ValueError, match='damaged record after 3 captions, in .*train-00001'
    ):
      read()
  with pytest.raises(
    ValueError, match='damaged record at byte 0 of .*train-00001'
  ):
    next(batches)


def test_empty_and_missing_shards_are_named(tmp_path, caplog):
  for number in range(3):
    testing.write_shard(
      tmp_path / f'train-0000{number}-of-00004',
      [(1, testing.jpeg(1), [1, 2])] * 2 * (number % 2),
    )
  files = shards.list_files(f'{tmp_path}/train-*')
  assert (
    f'1 shards are missing, such as {tmp_path}/train-00003-of-00004'
    in caplog.text
  )
  # Fewer records than shards: some have none.
  captions_lib.read_captions(files)
  assert 'shards are empty' not in caplog.text
  testing.write_shard(
    tmp_path / 'train-00000-of-00004', [(1, testing.jpeg(1), [1, 2])]
  )
  captions_lib.read_captions(files)
  assert (
    f'1 of 3 shards are empty, such as {tmp_path}/train-00002-of-00004'
    in caplog.text
  )
  # Where others have many records, it has lost them.
  testing.write_shard(
    tmp_path / 'train-00001-of-00004', [(1, testing.jpeg(1), [1, 2])] * 14
  )
  assert len(captions_lib.read_captions(files, limit=15)) == 15
  for limit in (None, 16):
    with pytest.raises(
      ValueError,
      match=(
        f'1 of 3 shards are empty, such as {tmp_path}/train-00002-of-00004'
      ),
    ):
      captions_lib.read_captions(files, limit)


@pytest.mark.parametrize('word', [-1, -(2**31)])
def test_a_negative_id_is_refused(tmp_path, word):
  path = str(tmp_path / 'shard')
  testing.write_shard(path, [(7, testing.jpeg(1), [1, word, 2])])
  with pytest.raises(ValueError, match=f'image 7: .*negative word id {word};'):
    captions_lib.read_captions([path]).check_ids(10)


def test_no_caption_is_an_error(tmp_path):
  path = str(tmp_path / 'shard')
  testing.write_shard(path, [])
  with pytest.raises(ValueError, match='no caption in .*shard'):
    captions_lib.read_captions([path])


def test_a_record_of_something_else_is_told_in_one_line(tmp_path):
  path = str(tmp_path / 'train-00000-of-00001')
  with tf.io.TFRecordWriter(path) as writer:
    writer.write(b'no SequenceExample')
  with pytest.raises(ValueError) as error:
    captions_lib.read_captions([path])
  assert str(error.value).startswith('damaged record after 0 captions, in ')
  assert '\n' not in str(error.value)


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
