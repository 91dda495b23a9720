# SPDX-License-Identifier: Apache-2.0
"""Tests of image_features."""

import concurrent.futures
import dataclasses
import itertools
import json
import os
import shutil
import sys
import threading

import numpy as np
import pytest
import tensorflow as tf

from im2txt import configuration
from im2txt import testing
from im2txt.data import shards
from im2txt.data import shards as shards_lib
from im2txt.input_pipeline import feature_cache
from im2txt.input_pipeline import image_features
from im2txt.ops import image_processing
from im2txt.runtime import files
from im2txt.runtime import locks
from im2txt.runtime import sharing

_CONFIG = configuration.ModelConfig(
  vocab_size=20, batch_size=2, image_height=75, image_width=75
)


class Killed(Exception):
  """Stands in for the signal that ends a program."""


class Encoder:
  """Stands in for Inception: mean colours; counts, and stops when told to."""

  def __init__(self, most=10**9):
    self.count = 0
    self.most = most

  def __call__(self, images):
    self.count += len(images)
    if self.count > self.most:
      raise Killed
    return tf.repeat(tf.reduce_mean(images, [1, 2]), [2046, 1, 1], axis=1)


@pytest.fixture(scope='module', name='small_files', autouse=True)
def fixture_small_files():
  with pytest.MonkeyPatch.context() as monkeypatch:
    monkeypatch.setattr(image_features, 'IMAGES_PER_FILE', 3)
    monkeypatch.setattr(image_features, 'BATCH_SIZE', 4)
    yield


def write_shards(directory):
  """Writes 2 shards of 8 images and 12 captions; image 5 is none."""
  records = [
    (i, testing.jpeg(i)[: -300 if i == 5 else None], [1, *range(3, 5 + i), 2])
    for i in (0, 1, 2, 0, 3, 4, 5, 1, 6, 0, 7, 5)
  ]
  testing.write_shard(directory / 'train-00000-of-00002', records[:7])
  testing.write_shard(directory / 'train-00001-of-00002', records[7:])
  return shards.list_files(f'{directory}/train-*')


@pytest.fixture(name='shards')
def fixture_shards(tmp_path):
  return write_shards(tmp_path)


@pytest.fixture(scope='module', name='made')
def fixture_made(tmp_path_factory, small_files):
  """A directory of shards and, below it, their cache."""
  path = tmp_path_factory.mktemp('made')
  build(path, write_shards(path))
  return path


@pytest.fixture(name='cached')
def fixture_cached(made, tmp_path):
  """Shards whose cache, a copy of `made`, lies in `tmp_path`."""
  shutil.copytree(made, tmp_path, dirs_exist_ok=True)
  return shards.list_files(f'{tmp_path}/train-*')


def variables(value=1.0):
  return {
    'InceptionV3/a/weights': tf.Variable([value]),
    'InceptionV3/b/weights': tf.Variable([2.0]),
  }


def build(
  tmp_path,
  shards,
  encode_fn=None,
  weights=1.0,
  views=2,
  seed=0,
  config=_CONFIG,
  precision='float32',
  may_write=True,
):
  return feature_cache.open_or_build(
    str(tmp_path / 'cache'),
    shards,
    encode_fn or Encoder(),
    variables(weights),
    config,
    views,
    seed,
    precision,
    may_write=may_write,
  )


def all_features(data):
  return np.concatenate(data.arrays)


def test_each_image_is_encoded_once(tmp_path, shards):
  encoder = Encoder()
  data = build(tmp_path, shards, encoder)
  assert 7 * 3 <= encoder.count <= 7 * 3 + 9  # At most 3 more in each file.
  assert all_features(data).shape == (8, 3, 2048)
  again = build(tmp_path, shards, Encoder(most=0))
  np.testing.assert_array_equal(all_features(again), all_features(data))
  assert isinstance(again.arrays[0], np.memmap)
  assert again.undecodable == data.undecodable


def block_inputs(images):
  """Stands in for the part of Inception below a block."""
  return tf.cast(images[:, 10:12, 20:23, :], tf.bfloat16) * 3


def test_inputs_of_a_block_are_kept_instead_of_features(tmp_path, shards):

  def build_block(block):
    return feature_cache.open_or_build(
      str(tmp_path / 'cache'),
      shards,
      block_inputs,
      variables(),
      _CONFIG,
      views=1,
      seed=0,
      block=block,
    )

  data = build_block('Mixed_7b')
  kept = all_features(data)
  assert kept.shape == (8, 2, 2, 3, 3) and kept.dtype == np.float16
  assert data.undecodable == [5] and np.isnan(kept[5]).all()
  for i in (0, 1, 2, 3, 4, 6, 7):
    image = image_processing.process_image(testing.jpeg(i), height=75, width=75)
    np.testing.assert_array_equal(
      kept[i, 0], tf.cast(block_inputs(image[None])[0], tf.float32)
    )
  # Each image comes once, its captions say which it is.
  maps, rows, sources, _, mask, *_ = next(
    data.training_batches(4, seed=1, captions_per_image=2)
  )
  assert maps.dtype == np.float32 and maps.shape == (2, 2, 3, 3)
  assert rows[0] == 0 and rows[-1] == 1 and (np.diff(rows) >= 0).all()
  assert len(rows) == len(sources) == len(mask)
  np.testing.assert_array_equal(all_features(build_block('Mixed_7b')), kept)
  with pytest.raises(
    ValueError, match='the inputs of Mixed_7b, not those of Mixed_7c'
  ):
    build_block('Mixed_7c')
  with pytest.raises(ValueError, match='not those of the decoder'):
    build_block(None)


def test_compact_shards_give_the_same_features(tmp_path, shards):
  compact = []
  for name, images in (('a', (0, 1, 2)), ('b', (3, 4, 5, 6, 7))):
    compact.append(str(tmp_path / name))
    with shards_lib.Writer(compact[-1]) as writer:
      for i in images:
        ids = [1, *range(3, 5 + i), 2]
        writer.write(
          shards_lib.serialize_compact(
            i,
            testing.jpeg(i)[: -300 if i == 5 else None],
            [(['w'] * len(ids), ids)] * 2,
          )
        )
  expected = build(tmp_path, shards)
  encoder = Encoder(most=20)
  with pytest.raises(Killed):
    build(tmp_path / 'compact', compact, encoder)
  found = build(tmp_path / 'compact', compact)
  assert len(found.captions) == 16
  assert found.undecodable == expected.undecodable
  np.testing.assert_array_equal(all_features(found), all_features(expected))
  part = image_features.encode_in_memory(compact, Encoder(), _CONFIG, limit=5)
  assert part.captions.images.tolist() == [0, 0, 1, 1, 2]
  np.testing.assert_array_equal(
    all_features(part)[:, 0], all_features(expected)[:3, 0]
  )


def test_view_0_is_undistorted_and_the_others_differ(tmp_path, shards):
  features = all_features(build(tmp_path, shards))
  for i in (0, 1, 2, 3, 4, 6, 7):
    image = image_processing.process_image(testing.jpeg(i), height=75, width=75)
    np.testing.assert_array_equal(features[i, 0], Encoder()(image[None])[0])
    for a, b in itertools.combinations(features[i], 2):
      assert np.abs(a - b).max() > 1e-3


def test_distortions_are_those_of_the_seed(tmp_path, shards):
  one, same, other = (
    all_features(build(tmp_path / str(n), shards, seed=seed))
    for n, seed in enumerate((7, 7, 8))
  )
  np.testing.assert_array_equal(one, same)
  np.testing.assert_array_equal(one[:, 0], other[:, 0])
  assert (np.abs(one - other)[[0, 7], 1:].max(axis=2) > 1e-3).all()


def test_undecodable_images_are_left_out_named_and_counted(
  tmp_path, shards, caplog
):
  data = build(tmp_path, shards)
  assert data.undecodable == [5]
  assert '1 image(s) skipped: ids 5' in caplog.text
  assert data.usable().tolist() == [0, 1, 2, 3, 4, 5, 7, 8, 9, 10]
  assert np.isnan(all_features(data)[5]).all()
  for features, *_ in itertools.islice(data.training_batches(4, 0), 20):
    assert np.isfinite(features).all()


def test_images_that_are_too_large_are_left_out(tmp_path, shards, monkeypatch):
  testing.write_shard(
    tmp_path / 'large',
    [(1, testing.jpeg(1, 41, 60), [1, 2]), (2, testing.jpeg(2), [1, 2])],
  )
  files = [*shards, str(tmp_path / 'large')]
  assert build(tmp_path / 'all', files).undecodable == [5]
  testing.write_shard(
    tmp_path / 'large',
    [(9, testing.jpeg(1, 41, 60), [1, 2]), (8, testing.jpeg(2), [1, 2])],
  )
  testing.set_largest_image(monkeypatch, 40 * 60)
  data = build(tmp_path / 'few', files)
  assert data.captions.image_ids[data.undecodable].tolist() == [5, 9]


def test_evaluation_is_the_same_with_and_without(tmp_path, cached):
  data = build(tmp_path, cached)
  for limit in (None, 9):
    memory = image_features.encode_in_memory(cached, Encoder(), _CONFIG, limit)
    expected = list(memory.batches(4, limit))
    assert sum(len(b[0]) for b in expected) == (8 if limit else 10)
    for found, batch in zip(data.batches(4, limit), expected, strict=True):
      for a, b in zip(found, batch, strict=True):
        np.testing.assert_array_equal(a, b)


def test_images_come_once_in_order(tmp_path, cached):
  data = build(tmp_path, cached)
  everything = all_features(data)[:, 0]
  for limit, most, expected in (
    (None, None, [0, 1, 2, 3, 4, 6, 7]),
    (5, None, [0, 1, 2, 3]),
    (7, 9, [0, 1, 2, 3, 4]),
    (None, 3, [0, 1, 2]),
  ):
    ids, features = data.images(limit, most)
    assert ids.tolist() == expected
    np.testing.assert_array_equal(features, everything[expected])


def test_any_views_do_for_evaluation(tmp_path, shards):
  build(tmp_path, shards, views=3, seed=5)
  assert (
    build(tmp_path, shards, Encoder(most=0), views=None, seed=None)
    .arrays[0]
    .shape[1]
    == 4
  )
  assert (
    build(tmp_path / 'new', shards, views=None, seed=None).arrays[0].shape[1]
    == 1
  )


def test_a_killed_build_goes_on_after_the_finished_files(tmp_path, shards):
  expected = all_features(build(tmp_path / 'whole', shards))
  with pytest.raises(Killed):
    build(tmp_path, shards, Encoder(most=14))
  directory = tmp_path / 'cache'
  names = {p.name: p.stat().st_mtime_ns for p in directory.iterdir()}
  assert 'features-00000.npy' in names and 'features-00001.npy' not in names
  (directory / '.features-00001.npy.tmp').write_bytes(b'half a file')
  # It was killed between the file and its checksum.
  description = json.loads((directory / 'cache.json').read_text())
  del description['checksums']['features-00000.npy']
  (directory / 'cache.json').write_text(json.dumps(description))
  encoder = Encoder()
  data = build(tmp_path, shards, encoder)
  np.testing.assert_array_equal(all_features(data), expected)
  # Image 5 has no features.
  assert 4 * 3 <= encoder.count <= 4 * 3 + 6
  assert (directory / 'features-00000.npy').stat().st_mtime_ns == (
    names['features-00000.npy']
  )
  assert not list(directory.glob('.*.tmp'))
  assert (directory / 'cache.json').read_text() == (
    tmp_path / 'whole' / 'cache' / 'cache.json'
  ).read_text()


def test_waits_for_another_program_that_makes_it(tmp_path, shards, monkeypatch):
  (tmp_path / 'cache').mkdir()
  waiting = threading.Event()
  monkeypatch.setattr(
    locks.logging,
    'info',
    lambda text, *_: waiting.set() if 'waiting' in text else None,
  )
  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    with locks.hold(str(tmp_path / 'cache'), 'features'):
      data = pool.submit(build, tmp_path, shards)
      assert waiting.wait(60)
      assert os.listdir(tmp_path / 'cache') == ['.features.lock']
    assert len(data.result().captions) == len(build(tmp_path, shards).captions)


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'weights': 1.5}, 'other Inception v3 weights'),
    ({'views': 4}, '--feature_views=2, not 4'),
    ({'seed': 1}, '--feature_seed=0, not 1'),
    ({'precision': 'bfloat16'}, '--feature_precision=float32, not bfloat16'),
    (
      {'config': dataclasses.replace(_CONFIG, image_height=80)},
      'images of 75x75 pixels, not 80x75',
    ),
  ],
)
def test_a_foreign_cache_is_refused(tmp_path, cached, changes, message):
  build(tmp_path, cached)
  with pytest.raises(
    ValueError,
    match=(
      f'--feature_cache_dir=.*cache was made from {message}; give another'
    ),
  ):
    build(tmp_path, cached, Encoder(most=0), **changes)


def test_a_cache_of_unsaid_precision_is_float32(tmp_path, cached):
  build(tmp_path, cached)
  path = tmp_path / 'cache' / 'cache.json'
  description = json.loads(path.read_text())
  assert description.pop('precision') == 'float32'
  path.write_text(json.dumps(description))
  build(tmp_path, cached, Encoder(most=0))
  with pytest.raises(ValueError, match='--feature_precision=float32, not'):
    build(tmp_path, cached, Encoder(most=0), precision='bfloat16')


def test_changed_data_are_refused(tmp_path, cached):
  build(tmp_path, cached)
  with pytest.raises(
    ValueError,
    match=(r'2 shard\(s\), not these 1 \(see train-00001-of-00002\)'),
  ):
    build(tmp_path, cached[:1])
  os.utime(cached[1], (1, 1))
  with pytest.raises(ValueError, match='another train-00001-of-00002'):
    build(tmp_path, cached)


def test_a_half_built_foreign_cache_is_refused_too(tmp_path, shards):
  with pytest.raises(Killed):
    build(tmp_path, shards, Encoder(most=14))
  with pytest.raises(ValueError, match='other Inception v3 weights'):
    build(tmp_path, shards, weights=3.0)


@pytest.mark.parametrize(
  'name, damage, message',
  [
    (
      'features-00001.npy',
      lambda p: p.write_bytes(p.read_bytes()[:-1]),
      'features-00001.npy is damaged',
    ),
    (
      'features-00001.npy',
      lambda p: p.write_bytes((p.parent / 'features-00002.npy').read_bytes()),
      'features-00001.npy is damaged: it has another checksum',
    ),
    (
      'features-00000.npy',
      lambda p: p.write_bytes(b''),
      'features-00000.npy is damaged',
    ),
    (
      'features-00002.npy',
      lambda p: np.save(p, np.zeros_like(np.load(p))),
      'features-00002.npy is damaged: it has another checksum',
    ),
    (
      'captions.npz',
      lambda p: p.write_bytes(p.read_bytes()[:-30]),
      'captions.npz is damaged: it has another checksum',
    ),
    *(
      (
        'cache.json',
        lambda p, content=content: p.write_text(content),
        'cache is damaged',
      )
      for content in ('{', '[]', '[' * 100_000)
    ),
    *(
      (
        'cache.json',
        lambda p, changes=changes: p.write_text(
          json.dumps({**json.loads(p.read_text()), **changes})
        ),
        'cache is damaged',
      )
      for changes in (
        {'checksums': []},
        {'undecodable': 5},
        {'finite': 1},
        {'shards': 5},
        {'image_size': []},
      )
    ),
    ('cache.json', lambda p: p.unlink(), 'no cache.json'),
    ('captions.npz', lambda p: p.unlink(), 'cache is damaged'),
  ],
)
def test_a_damaged_cache_is_refused(tmp_path, cached, name, damage, message):
  build(tmp_path, cached)
  damage(tmp_path / 'cache' / name)
  with pytest.raises(ValueError, match=message):
    build(tmp_path, cached)


@pytest.mark.parametrize(
  'name, damage, message',
  [
    (
      'features-00001.npy',
      lambda p: p.write_bytes((p.parent / 'features-00002.npy').read_bytes()),
      r'holds float32 \(2, 3, 2048\), not',
    ),
    (
      'features-00000.npy',
      lambda p: p.write_bytes(b''),
      'features-00000.npy is damaged',
    ),
    (
      'captions.npz',
      lambda p: p.write_bytes(p.read_bytes()[:-30]),
      'cache is damaged',
    ),
  ],
)
def test_a_cache_of_an_earlier_version_has_no_checksums(
  tmp_path, cached, name, damage, message
):
  build(tmp_path, cached)
  path = tmp_path / 'cache' / 'cache.json'
  description = json.loads(path.read_text())
  assert set(description.pop('checksums')) == {
    'captions.npz',
    *(f'features-0000{number}.npy' for number in range(3)),
  }
  path.write_text(json.dumps(description))
  build(tmp_path, cached)
  damage(tmp_path / 'cache' / name)
  with pytest.raises(ValueError, match=message):
    build(tmp_path, cached)


def test_an_id_beyond_the_vocabulary_is_refused(tmp_path, cached):
  build(tmp_path, cached)
  small = dataclasses.replace(_CONFIG, vocab_size=11)
  for run in (
    lambda: build(tmp_path, cached, config=small),
    lambda: image_features.encode_in_memory(cached, Encoder(), small),
  ):
    with pytest.raises(ValueError, match='image 7:.*word id 11'):
      run()


def test_training_goes_through_every_epoch_and_view(tmp_path, cached):
  data = build(tmp_path, cached)
  features = all_features(data)
  batches = data.training_batches(2, seed=0)
  views, orders = set(), []
  for _ in range(12):
    epoch = []
    for batch in itertools.islice(batches, 5):
      for row, target, m in zip(
        batch.inputs[batch.rows], batch.target_seqs, batch.mask
      ):
        image = m.sum() - 3  # As many words as its captions have more.
        assert target[m.sum() - 1] == 2
        (view,) = np.flatnonzero((features[image] == row).all(axis=1))
        views.add((image, view))
        epoch.append(image)
    assert sorted(epoch) == [0, 0, 0, 1, 1, 2, 3, 4, 6, 7]
    orders.append(tuple(epoch))
  assert len(set(orders)) > 1
  assert {(0, 1), (0, 2), (1, 1), (1, 2)} <= views
  assert not any(view == 0 for _, view in views)


def test_shares_make_up_the_batch(tmp_path, cached):
  data = build(tmp_path, cached)

  def take(step, shares):
    batches = data.training_batches(4, 0, 2, first_step=step, shares=shares)
    return list(itertools.islice(batches, len(shares)))

  for step in range(3):
    (whole,) = take(step, [sharing.WHOLE])
    parts = take(step, [sharing.Share(i, 2) for i in range(2)])
    for name in ('inputs', 'first_random_rows', 'places'):
      np.testing.assert_array_equal(
        np.concatenate([getattr(part, name) for part in parts]),
        getattr(whole, name),
      )
    # Each caption has a row for each word and one for its image.
    np.testing.assert_array_equal(
      whole.first_random_rows + whole.mask.sum(axis=1) + 1,
      [*whole.first_random_rows[1:], whole.mask.sum() + len(whole.mask)],
    )


def test_others_open_a_whole_cache_without_writing(tmp_path, cached):
  with pytest.raises(ValueError, match='is not complete here'):
    build(tmp_path / 'none', cached, may_write=False)
  assert not (tmp_path / 'none').exists()
  cache = tmp_path / 'cache'
  expected = all_features(build(tmp_path, cached))
  before = sorted(os.listdir(cache))
  # The chief may hold its lock.
  with locks.hold(cache, 'features'):
    found = build(tmp_path, cached, may_write=False)
  np.testing.assert_array_equal(all_features(found), expected)
  assert sorted(os.listdir(cache)) == before
  (cache / 'features-00001.npy').unlink()
  with pytest.raises(ValueError, match='is not complete here'):
    build(tmp_path, cached, may_write=False)


def test_captions_of_an_image_stand_together(tmp_path, cached):
  data = build(tmp_path, cached)
  features = all_features(data)
  batches = data.training_batches(4, seed=0, captions_per_image=2)
  # 10 captions, 3 of image 0 and 2 of image 1: 8 groups, two in a batch.
  for _ in range(5):
    epoch, sizes = [], []
    for batch in itertools.islice(batches, 4):
      assert len(batch.inputs) == 2
      found = batch.inputs[batch.rows]
      rows = [int(m.sum()) - 3 for m in batch.mask]
      for image in set(rows):
        at = [i for i, row in enumerate(rows) if row == image]
        sizes.append((image, len(at)))
        assert at == list(range(at[0], at[-1] + 1))
      for row, image in zip(found, rows):
        assert (features[image] == row).all(axis=1).any()
      epoch += rows
    assert sorted(epoch) == [0, 0, 0, 1, 1, 2, 3, 4, 6, 7]
    assert (1, 2) in sizes
  with pytest.raises(ValueError, match='--captions_per_image=3'):
    next(data.training_batches(4, 0, captions_per_image=3))


def test_without_distorted_views_training_takes_the_other(tmp_path, shards):
  data = build(tmp_path, shards, views=0)
  features, *_ = next(data.training_batches(2, seed=0))
  assert (
    (all_features(data)[:, 0][:, None] == features)
    .all(axis=2)
    .any(axis=0)
    .all()
  )


def test_undistorted_views_are_trained_from_too_if_asked(tmp_path, cached):
  data = build(tmp_path, cached)
  features = all_features(data)
  for undistorted, expected in (False, {1, 2}), (True, {0, 1, 2}):
    views = set()
    for found, *_ in itertools.islice(
      data.training_batches(2, seed=0, undistorted=undistorted), 20
    ):
      views.update(
        np.argwhere((features[:, :, None] == found).all(axis=3))[:, 1].tolist()
      )
    assert views == expected


def test_images_to_sample_captions_for(tmp_path, cached):
  data = build(tmp_path, cached)
  features = all_features(data)
  for undistorted, expected in (False, {1, 2}), (True, {0, 1, 2}):
    batches = data.training_images(
      4, seed=0, samples_per_image=2, undistorted=undistorted
    )
    views = set()
    for _ in range(8):
      epoch = []
      # 10 captions, 3 of image 0 and 2 of image 1: 8 times an image.
      for images, found in itertools.islice(batches, 4):
        assert found.shape == (2, 2048) and found.dtype == np.float32
        for image, row in zip(images, found):
          (view,) = np.flatnonzero((features[image] == row).all(axis=1))
          views.add(view)
          epoch.append(image)
      assert sorted(epoch) == [0, 0, 1, 2, 3, 4, 6, 7]
    assert views == expected
  with pytest.raises(ValueError, match='--samples_per_image=3 does not divide'):
    next(data.training_images(4, 0, samples_per_image=3))


@pytest.mark.parametrize('captions_per_image', [1, 2])
def test_what_comes_at_a_step_is_a_function_of_seed_and_step(
  tmp_path, cached, captions_per_image
):
  data = build(tmp_path, cached)

  def first(count, kind, step=0, seed=3):
    return list(
      itertools.islice(kind(4, seed, captions_per_image, True, step), count)
    )

  for kind in data.training_batches, data.training_images:
    whole = first(12, kind)
    for step in range(12):
      (batch,) = first(1, kind, step)
      for found, expected in zip(batch, whole[step], strict=True):
        np.testing.assert_array_equal(found, expected)
    assert any(
      (a[0] != b[0]).any()
      for a, b in zip(whole, first(12, kind, seed=4))
      if a[0].shape == b[0].shape
    )


@pytest.mark.parametrize('value', [np.nan, np.inf])
@pytest.mark.parametrize('place', [0, 1000])
def test_a_feature_that_is_not_finite_is_an_error(
  tmp_path, shards, value, place
):
  """Where the image was decoded: it would spread from there."""

  def diverged(images):
    features = Encoder()(images).numpy()
    features[1, place] = value
    return tf.constant(features)

  with pytest.raises(
    ValueError,
    match='the features of image 1 hold NaN or '
    'infinity; give another checkpoint of Inception v3$',
  ):
    image_features.encode_in_memory(shards, diverged, _CONFIG)
  for _ in range(2):  # The files are there the second time.
    with pytest.raises(
      ValueError,
      match=rf'image \d hold NaN or infinity; .*, '
      f'and delete --feature_cache_dir={tmp_path}/cache$',
    ):
      build(tmp_path, shards, diverged)


def test_so_it_is_in_a_cache_without_checksums(tmp_path, cached):
  build(tmp_path, cached)
  path = tmp_path / 'cache' / 'cache.json'
  description = json.loads(path.read_text())
  del description['checksums']['features-00001.npy']
  path.write_text(json.dumps(description))
  assert build(tmp_path, cached).undecodable == [5]
  features = np.load(tmp_path / 'cache' / 'features-00001.npy')
  features[1, 2, 2047] = np.inf
  np.save(tmp_path / 'cache' / 'features-00001.npy', features)
  with pytest.raises(ValueError, match='the features of image 4 hold NaN'):
    build(tmp_path, cached)


@pytest.mark.parametrize(
  'rows, value, message',
  [
    (
      (1, 2, 7),
      np.nan,
      'the features of image 4 hold NaN or infinity; .* delete',
    ),
    (
      (1, 2, 7),
      -np.inf,
      'the features of image 4 hold NaN or infinity; .* delete',
    ),
    # As of an image that cannot be decoded, but it could be.
    ((1,), np.nan, 'cache is damaged .images without features are not those'),
  ],
)
def test_so_it_is_in_a_cache_whose_checksums_fit(
  tmp_path, shards, rows, value, message
):
  """Earlier versions wrote checksums of features that they had not checked."""
  build(tmp_path, shards)
  path = tmp_path / 'cache' / 'features-00001.npy'
  features = np.load(path)
  features[rows] = value
  np.save(path, features)
  description = json.loads((path.parent / 'cache.json').read_text())
  assert description.pop('finite') is True
  description['checksums'][path.name] = files.checksum(path)
  (path.parent / 'cache.json').write_text(json.dumps(description))
  with pytest.raises(ValueError, match=message):
    build(tmp_path, shards, Encoder(most=0))


def test_a_sound_cache_is_searched_for_nan_only_once(
  tmp_path, shards, monkeypatch
):
  build(tmp_path, shards)
  path = tmp_path / 'cache' / 'cache.json'
  description = json.loads(path.read_text())
  del description['finite']  # As of an earlier version.
  path.write_text(json.dumps(description))
  searched = []
  search = image_features.undecodable_images
  monkeypatch.setattr(
    image_features,
    'undecodable_images',
    lambda *args: searched.append(1) or search(*args),
  )
  for _ in range(2):
    assert build(tmp_path, shards, Encoder(most=0)).undecodable == [5]
  assert len(searched) == 1
  # A file that was made again is new.
  (path.parent / 'features-00002.npy').unlink()
  build(tmp_path, shards)
  assert len(searched) == 2


def test_no_good_image_is_an_error(tmp_path):
  path = str(tmp_path / 'shard')
  testing.write_shard(path, [(1, b'no image', [1, 2])])
  with pytest.raises(ValueError, match=r'none of the 1 image\(s\) can be'):
    image_features.encode_in_memory([path], Encoder(), _CONFIG)


def test_what_is_written_says_what_it_is(tmp_path, cached):
  build(tmp_path, cached)
  description = json.loads((tmp_path / 'cache' / 'cache.json').read_text())
  assert description['views'] == 2 and description['undecodable'] == [5]
  assert set(description['shards']) == {
    'train-00000-of-00002',
    'train-00001-of-00002',
  }


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
