# SPDX-License-Identifier: Apache-2.0
"""Inception's features of all images of a data set, in memory or in a cache.

With a frozen Inception v3 the features of an image change with its random
distortion only. So each image is encoded once: undistorted (view 0, for
evaluation) and under some random distortions (the other views, for training).
Where the top blocks of Inception are trained, what is kept of a view is the
input of the first of these.

A cache is a directory:

  cache.json            what it was made from, and the checksums of the other
                        files; once it is whole, also which images could not be
                        decoded
  captions.npz          the fields of `inputs.Captions`
  features-00000.npy    float32 [1024, views + 1, 2048], the first 1,024 images
  features-00001.npy    the next, and so on; the last may hold fewer

The input of a block is float16 [1024, views + 1, rows, columns, channels].

Each file has its name once it is on the disk, so what is there is whole, and a
build that was killed or lost its power goes on after the last finished file.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import os
import re

from absl import logging
import numpy as np
import tensorflow as tf

from im2txt import encoder_stamp
from im2txt import files as files_lib
from im2txt import locks
from im2txt import numpy_files
from im2txt import progress
from im2txt.ops import example_order
from im2txt.ops import folded_inception
from im2txt.ops import image_processing
from im2txt.ops import inputs

# Bump when the same input gives other features.
_FORMAT = 1
_IMAGES_PER_FILE = 1024
_BATCH_SIZE = 32
# Below this, convolutions take other ways, with other rounding errors.
_SMALLEST_BATCH = 4
_CAPTIONS = 'captions.npz'
# Shape and dtype of what is kept of a view.
_FEATURES = ((folded_inception.FEATURE_SIZE,), np.float32)


@dataclasses.dataclass
class CaptionedFeatures:
  """The captions of a data set with the features of their images.

  Attributes:
    captions: `inputs.Captions`.
    files: list of float32 [_IMAGES_PER_FILE, views + 1, 2048], in memory or
      mapped from disk; the last may hold fewer images. Or, for the inputs of a
      block of Inception, float16 [..., rows, columns, channels].
    undecodable: indices of the images without features, a list.

  Raises:
    ValueError: no image has features.
  """
  captions: inputs.Captions
  files: list
  undecodable: list

  def __post_init__(self):
    if len(self.undecodable) == len(self.captions.image_ids):
      raise ValueError(
          f'none of the {len(self.undecodable)} image(s) can be decoded')
    if self.undecodable:
      logging.warning(
          '%d image(s) skipped: ids %s',
          len(self.undecodable), ', '.join(
              map(str, self.captions.image_ids[self.undecodable])))

  def usable(self, limit=None):
    """Indices of those of the first `limit` captions that have features."""
    return np.flatnonzero(
        ~np.isin(self.captions.images[:limit], self.undecodable))

  def batch(self, indices, views):
    """Returns (features, input_seqs, target_seqs, mask) of some captions.

    Args:
      indices: int [batch], of captions.
      views: int [batch], the view of each caption's image.

    Returns:
      float32 [batch, 2048] and what `inputs.Captions.sequences` returns.
    """
    return (self._features(self.captions.images[indices], views),
            *self.captions.sequences(indices))

  def images(self, limit=None, max_images=None):
    """Returns the images of captions, each once, undistorted.

    Args:
      limit: of the first so many captions, those whose image has features.
      max_images: return the first so many of them at most.

    Returns:
      (image ids int64 [images], features float32 [images, 2048]), in the order
      of the shards.
    """
    # Images are numbered as they come.
    images = np.unique(self.captions.images[self.usable(limit)])[:max_images]
    return (self.captions.image_ids[images],
            self._features(images, np.zeros_like(images)))

  def _features(self, images, views):
    """Returns what is kept of views of images, float32 [n, 2048] or [n, ...].
    """
    # TensorFlow has no fast way with float16 on most processors, and says so.
    return np.stack([
        self.files[image // _IMAGES_PER_FILE][image % _IMAGES_PER_FILE, view]
        for image, view in zip(images, views)]).astype(np.float32, copy=False)

  def batches(self, batch_size, limit=None):
    """Yields captions once, in order, undistorted; the last may be a smaller.

    Args:
      batch_size: captions in a batch.
      limit: of the first so many captions, those whose image has features.
    """
    usable = self.usable(limit)
    for start in range(0, len(usable), batch_size):
      indices = usable[start:start + batch_size]
      yield self.batch(indices, np.zeros_like(indices))

  def training_batches(self, batch_size, seed, captions_per_image=1,
                       undistorted=False, first_step=0):
    """Yields `inputs.Batch`es forever, each epoch in another order.

    The batch of a step is a function of the seed and the step.

    Args:
      batch_size: captions in a batch.
      seed: int, not negative.
      captions_per_image: captions of one image that stand together in a batch,
        with one view of it. Images with fewer left make a batch smaller, as by
        `inputs.ImageBatches`.
      undistorted: whether views are drawn from all there are; False: from the
        distorted ones, or if there are none the undistorted one.
      first_step: int, the step to begin with.

    Raises:
      ValueError: captions_per_image does not divide the batch size.
    """
    for groups, images, views in self._training_groups(
        batch_size, seed, captions_per_image, undistorted, first_step):
      yield inputs.Batch(
          self._features(images, views),
          np.repeat(np.arange(len(groups)), [len(group) for group in groups]),
          *self.captions.sequences(np.concatenate(groups)))

  def training_images(self, batch_size, seed, samples_per_image=1,
                      undistorted=False, first_step=0):
    """Yields the images of `training_batches`, without their captions.

    Args:
      batch_size: captions that are sampled in a step.
      seed: see `training_batches`.
      samples_per_image: captions that are sampled per image; an image comes
        once in an epoch for each so many captions that it has.
      undistorted: see `training_batches`.
      first_step: likewise.

    Yields:
      (int [images], indices into `captions.image_ids`; their features, float32
      [images, 2048]).

    Raises:
      ValueError: samples_per_image does not divide the batch size.
    """
    for _, images, views in self._training_groups(
        batch_size, seed, samples_per_image, undistorted, first_step,
        'samples_per_image'):
      yield images, self._features(images, views)

  def _training_groups(self, batch_size, seed, captions_per_image, undistorted,
                       first_step, flag='captions_per_image'):
    """Yields (groups of captions of one image each, images, views) forever."""
    inputs.check_captions_per_image(captions_per_image, batch_size, flag)
    groups = self.captions.groups(captions_per_image, self.usable())
    images = self.captions.images[groups.first_captions]
    views = self.files[0].shape[1] - 1
    first_view = 0 if undistorted else min(views, 1)
    for chosen, _, rng in example_order.batches(
        len(groups), batch_size // captions_per_image, seed, first_step):
      yield ([groups[i] for i in chosen], images[chosen],
             rng.integers(first_view, views + 1, len(chosen)))


def encode(names, captions, encode_fn, config, views=0, seed=0, first=0,
           kept=_FEATURES):
  """Encodes each view of each image of some shards once, in order.

  Args:
    names: shard file names.
    captions: their `inputs.Captions`.
    encode_fn: callable, images float32 [batch, height, width, 3] -> features
      float32 [batch, 2048], or inputs of a block [batch, rows, columns,
      channels].
    config: a `configuration.ModelConfig`.
    views: distorted views of each image, after the undistorted one.
    seed: int that, with an image's place, determines its distortions.
    first: image to start from, a multiple of _IMAGES_PER_FILE.
    kept: (shape, dtype) of what is kept of a view.

  Yields:
    What a file of the cache holds, see above; NaN where an image cannot be
    decoded.
  """

  @tf.function(autograph=False, input_signature=[
      tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int64)])
  def process(encoded, image):
    size = dict(height=config.image_height, width=config.image_width)
    seeds = tf.random.split(tf.stack([tf.cast(seed, tf.int64), image]), views)
    resized = image_processing.resize_image(tf.io.decode_jpeg(
        image_processing.check_size(encoded), channels=3))
    return tf.stack(
        [image_processing.crop_image(resized, **size)] + [
            image_processing.crop_image(
                resized, is_training=True, ordering=view, seed=seeds[view],
                **size) for view in range(views)])

  def run(batch):
    images = tf.stack(batch)
    missing = max(_SMALLEST_BATCH - len(batch), 0)
    encoded = encode_fn(
        tf.pad(images, [[0, missing], [0, 0], [0, 0], [0, 0]]))
    return tf.cast(encoded, dtype).numpy()[:len(batch)]

  num_images = len(captions.image_ids)
  shape, dtype = kept
  with contextlib.ExitStack() as stack:
    pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(
        os.cpu_count()))
    bar = stack.enter_context(progress.Progress(
        'Encoding', num_images, 'images', done=first))
    decoded = inputs.ahead(
        functools.partial(pool.submit, process),
        _images(names, captions, first), 2 * os.cpu_count())
    for start in range(first, num_images, _IMAGES_PER_FILE):
      features = np.full(
          [min(_IMAGES_PER_FILE, num_images - start), views + 1, *shape],
          np.nan, dtype)
      flat = features.reshape([-1, *shape])
      rows, batch = [], []
      for image in range(len(features)):
        bar.update(1)
        # The rows of an image that cannot be decoded stay NaN.
        with contextlib.suppress(tf.errors.InvalidArgumentError):
          batch.extend(next(decoded).result())
          rows.extend(range(image * (views + 1), (image + 1) * (views + 1)))
        last = image == len(features) - 1
        while len(batch) >= _BATCH_SIZE or (batch and last):
          flat[rows[:_BATCH_SIZE]] = run(batch[:_BATCH_SIZE])
          del rows[:_BATCH_SIZE], batch[:_BATCH_SIZE]
      yield features


def _block_inputs(encode_fn, config):
  """Returns (shape, dtype) of what is kept of a view for a block."""
  shape = encode_fn(tf.zeros([
      _SMALLEST_BATCH, config.image_height, config.image_width, 3])).shape[1:]
  # 40 times as large as features. Half as many digits serve: these are small
  # numbers, of a network that tolerates bfloat16.
  return tuple(shape), np.float16


def _images(names, captions, first):
  """Yields (encoded image, index) of each distinct image from `first` on."""
  # np.unique sorts, and images are numbered as they come.
  first_captions = np.unique(captions.images, return_index=True)[1][first:]
  start = 0
  image = first
  for name, end in zip(names, captions.file_ends):
    wanted = set(first_captions[
        (first_captions >= start) & (first_captions < end)].tolist())
    if wanted:
      caption = start
      dataset = tf.data.TFRecordDataset(name).map(inputs.parse_sequence_example)
      for _, encoded, _, lengths in dataset.prefetch(8):
        if caption in wanted:
          yield encoded, image
          image += 1
        caption += len(lengths)
    start = end


def encode_in_memory(names, encode_fn, config, limit=None):
  """Returns the `CaptionedFeatures` of shards, undistorted.

  Args:
    names: shard file names.
    encode_fn: see `encode`.
    config: a `configuration.ModelConfig`.
    limit: read at most so many captions.

  Raises:
    ValueError: a damaged shard, a word id outside the model's vocabulary, or
      not one good image.
  """
  captions = inputs.read_captions(names, limit)
  captions.check_ids(config.vocab_size)
  files = list(encode(names, captions, encode_fn, config))
  return CaptionedFeatures(captions, files, _undecodable(files, captions))


def _undecodable(files, captions):
  """Returns the indices of the images that could not be decoded, a list.

  Args:
    files: see `CaptionedFeatures`. An image that was not decoded has nothing
      but NaN.
    captions: `inputs.Captions`.

  Raises:
    ValueError: one that was has NaN or infinity, which training would spread.
  """
  result = []
  for number, features in enumerate(files):
    features = features.reshape(len(features), -1)
    for row in np.flatnonzero(~np.isfinite(features).all(axis=1)):
      result.append(number * _IMAGES_PER_FILE + int(row))
      if not np.isnan(features[row]).all():
        raise ValueError(
            f'the features of image {captions.image_ids[result[-1]]} hold NaN '
            'or infinity; give another checkpoint of Inception v3')
  return result


def fingerprint(names, variables, config):
  """Returns what features depend on beside their views, a dict for JSON.

  Args:
    names: shard file names. Told apart by size and time, as they can be too
      large to read again and again.
    variables: dict from name to variable of Inception v3.
    config: a `configuration.ModelConfig`.
  """
  # Without the directory, so that data and cache can be moved together.
  keys = [os.path.basename(name) for name in names]
  if len(set(keys)) < len(keys):
    keys = names
  stats = {key: os.stat(name) for key, name in zip(keys, names)}
  return {
      'format': _FORMAT,
      'image_size': [config.image_height, config.image_width],
      'inception': encoder_stamp.fingerprint(variables),
      'shards': {key: [s.st_size, s.st_mtime_ns] for key, s in stats.items()},
  }


def _difference(found, wanted):
  """Says in a few words what a cache was made from, if not what is wanted."""
  if found.get('format') != wanted['format']:
    return 'another version of this program'
  if found['inception'] != wanted['inception']:
    return 'other Inception v3 weights'
  if found['image_size'] != wanted['image_size']:
    return 'images of {}x{} pixels, not {}x{}'.format(
        *found['image_size'], *wanted['image_size'])
  if set(found['shards']) != set(wanted['shards']):
    name = min(set(found['shards']) ^ set(wanted['shards']))
    return (f'{len(found["shards"])} shard(s), not these '
            f'{len(wanted["shards"])} (see {name})')
  for name, stat in wanted['shards'].items():
    if found['shards'][name] != stat:
      return f'another {name} (its size or time has changed)'
  # Caches of earlier versions do not say their precision, nor what is kept.
  found = {'precision': 'float32', 'block': None, **found}
  if found['block'] != wanted['block']:
    return (f'the inputs of {found["block"] or "the decoder"}, not those of '
            f'{wanted["block"] or "the decoder"}')
  for key in ('views', 'seed', 'precision'):
    if found[key] != wanted.get(key, found[key]):
      return f'--feature_{key}={found[key]}, not {wanted[key]}'
  return None


def open_or_build(directory, names, encode_fn, variables, config, views=None,
                  seed=None, precision='float32', block=None):
  """Opens the cache in a directory, after making or finishing it if need be.

  Args:
    directory: of one data set.
    names: shard file names.
    encode_fn: see `encode`.
    variables: dict from name to variable of Inception v3.
    config: a `configuration.ModelConfig`.
    views: distorted views of each image; None: whatever the cache has.
    seed: of the distortions; None: whatever the cache has.
    precision: of `encode_fn`, 'float32' or 'bfloat16'. Compared only where
      `views` is.
    block: of Inception, the one whose input `encode_fn` returns; None: it
      returns features.

  Returns:
    `CaptionedFeatures`, mapped from disk.

  Raises:
    ValueError: the cache was made from something else or is damaged; or see
      `encode_in_memory`.
    OSError: it cannot be written.
  """
  os.makedirs(directory, exist_ok=True)
  wanted = {**fingerprint(names, variables, config), 'block': block}
  if views is not None:
    wanted.update(views=views, seed=seed, precision=precision)
  with locks.hold(directory, 'features', wait=True):
    captions, description = _open(directory, wanted)
    if captions is None:
      captions = inputs.read_captions(names)
      description = {'views': 0, 'seed': 0, 'precision': precision, **wanted,
                     'checksums': {}}
      _save(directory, _CAPTIONS, description, np.savez,
            **{name: value for name, value in dataclasses.asdict(
                captions).items() if name != 'offsets'})
    captions.check_ids(config.vocab_size)
    kept = _block_inputs(encode_fn, config) if block else _FEATURES
    paths = [
        os.path.join(directory, f'features-{number:05}.npy')
        for number in range(-(-len(captions.image_ids) // _IMAGES_PER_FILE))]
    missing = [n for n, path in enumerate(paths) if not os.path.exists(path)]
    if missing:
      # Files are finished in order, so this one and all after it are missing.
      number = missing[0]
      if number:
        logging.info('%s: going on after %d of %d files', directory, number,
                     len(paths))
      for path, features in zip(paths[number:], encode(
          names, captions, encode_fn, config, description['views'],
          description['seed'], number * _IMAGES_PER_FILE, kept)):
        _save(directory, os.path.basename(path), description, np.save, features)
    _check(paths, description)
    files = [_map_features(path, captions, description['views'], *kept)
             for path in paths]
    # What has a checksum was looked at when it was made.
    known = description.get('checksums', {})
    if 'undecodable' not in description or not known.keys() >= set(
        map(os.path.basename, paths)):
      try:
        description['undecodable'] = _undecodable(files, captions)
      except ValueError as error:
        raise ValueError(f'{error}, and delete --feature_cache_dir={directory}'
                        ) from error
      _write_description(directory, description)
  return CaptionedFeatures(captions, files, description['undecodable'])


def _open(directory, wanted):
  """Returns the captions and description of a cache; None twice if new."""
  path = os.path.join(directory, 'cache.json')
  if not os.path.exists(path):
    if any(re.fullmatch(r'features-\d+\.npy', name)
           for name in os.listdir(directory)):
      raise ValueError(f'--feature_cache_dir={directory} holds features but no '
                       'cache.json that tells of what; give another directory, '
                       'or delete this one')
    return None, None
  try:
    description = files_lib.read_json(path)
    if not isinstance(description, dict):
      raise ValueError('cache.json is no JSON object')
    difference = _difference(description, wanted)
    if not difference:
      for key, kind in (('views', int), ('seed', int), ('checksums', dict),
                        ('undecodable', list)):
        if not isinstance(description.get(key, kind()), kind):
          raise ValueError(f'cache.json: {key} is no {kind.__name__}')
      captions = os.path.join(directory, _CAPTIONS)
      _check([captions], description)
      return inputs.Captions(**numpy_files.read(captions)), description
  except (ValueError, LookupError, TypeError, OSError) as e:
    raise ValueError(f'--feature_cache_dir={directory} is damaged ({e}); '
                     'delete it') from e
  raise ValueError(
      f'--feature_cache_dir={directory} was made from {difference}; give '
      'another directory, or delete this one to make it again')


def _map_features(path, captions, views, kept_shape, dtype):
  """Maps one file into memory, see `_FEATURES`."""
  number = int(path[-len('00000.npy'):-len('.npy')])
  shape = (min(_IMAGES_PER_FILE,
               len(captions.image_ids) - number * _IMAGES_PER_FILE),
           views + 1, *kept_shape)
  try:
    features = numpy_files.map_file(path)
  except (ValueError, OSError) as e:
    raise ValueError(f'{path} is damaged ({e}); delete it') from e
  if features.shape != shape or features.dtype != dtype:
    raise ValueError(f'{path} holds {features.dtype} {features.shape}, not '
                     f'{np.dtype(dtype)} {shape}; delete it')
  return features


def _check(paths, description):
  """Raises ValueError if a file is not as it was written.

  All of it is read, which takes a second for 2 GB in memory and else as long as
  the disk needs; training reads all of it in its first epoch anyway.

  Args:
    paths: list of str.
    description: dict, what cache.json tells. Caches of earlier versions know no
      checksums.
  """
  known = description.get('checksums', {})
  with progress.Progress('Checking features', len(paths), 'files') as bar:
    for path in paths:
      expected = known.get(os.path.basename(path))
      if expected is not None and files_lib.checksum(path) != expected:
        raise ValueError(
            f'{path} is damaged: it has another checksum than when it was '
            'written; delete it, and it is made again')
      bar.update(1)


def _save(directory, name, description, save, *args, **kwargs):
  """Writes a file of a cache by NumPy's `save` or `savez`, and its checksum."""
  with files_lib.writing(os.path.join(directory, name)) as f:
    save(f, *args, **kwargs)
  # A cache that an earlier version began has none of its first files.
  description.setdefault('checksums', {})[name] = f.checksum
  _write_description(directory, description)


def _write_description(directory, description):
  files_lib.write_json(os.path.join(directory, 'cache.json'), description)
