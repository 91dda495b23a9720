# SPDX-License-Identifier: Apache-2.0
"""Inception's features of the images of shards, each image encoded once.

With a frozen Inception v3 the features of an image change with its random
distortion only. So each image is encoded undistorted (view 0, for evaluation)
and under some random distortions (the other views, for training). Where the top
blocks of Inception are trained, what is kept of a view is the input of the
first of these.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import os

from absl import logging
import numpy as np
import tensorflow as tf

from im2txt.data import shards
from im2txt.input_pipeline import captions as captions_lib
from im2txt.input_pipeline import example_order
from im2txt.input_pipeline import image_batches
from im2txt.ops import folded_inception
from im2txt.ops import image_processing
from im2txt.runtime import lookahead
from im2txt.runtime import progress

IMAGES_PER_FILE = 1024
_BATCH_SIZE = 32
# Below this, convolutions take other ways, with other rounding errors.
_SMALLEST_BATCH = 4
# Shape and dtype of what is kept of a view.
FEATURES = ((folded_inception.FEATURE_SIZE,), np.float32)


@dataclasses.dataclass
class CaptionedFeatures:
  """The captions of a data set with the features of their images.

  Attributes:
    captions: `captions.Captions`.
    files: list of float32 [IMAGES_PER_FILE, views + 1, 2048], in memory or
      mapped from disk; the last may hold fewer images. Or, for the inputs of a
      block of Inception, float16 [..., rows, columns, channels].
    undecodable: indices of the images without features, a list.

  Raises:
    ValueError: no image has features.
  """

  captions: captions_lib.Captions
  files: list
  undecodable: list

  def __post_init__(self):
    if len(self.undecodable) == len(self.captions.image_ids):
      raise ValueError(
        f'none of the {len(self.undecodable)} image(s) can be decoded'
      )
    if self.undecodable:
      logging.warning(
        '%d image(s) skipped: ids %s',
        len(self.undecodable),
        ', '.join(map(str, self.captions.image_ids[self.undecodable])),
      )

  def usable(self, limit=None):
    """Indices of those of the first `limit` captions that have features."""
    return np.flatnonzero(
      ~np.isin(self.captions.images[:limit], self.undecodable)
    )

  def batch(self, indices, views):
    """Returns (features, input_seqs, target_seqs, mask) of some captions.

    Args:
      indices: int [batch], of captions.
      views: int [batch], the view of each caption's image.

    Returns:
      float32 [batch, 2048] and what `captions.Captions.sequences` returns.
    """
    return (
      self._features(self.captions.images[indices], views),
      *self.captions.sequences(indices),
    )

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
    return (
      self.captions.image_ids[images],
      self._features(images, np.zeros_like(images)),
    )

  def _features(self, images, views):
    """Returns what is kept of views of images, float32 [n, 2048] or [n, ...]."""
    # TensorFlow has no fast way with float16 on most processors, and says so.
    return np.stack(
      [
        self.files[image // IMAGES_PER_FILE][image % IMAGES_PER_FILE, view]
        for image, view in zip(images, views)
      ]
    ).astype(np.float32, copy=False)

  def batches(self, batch_size, limit=None):
    """Yields captions once, in order, undistorted; the last may be a smaller.

    Args:
      batch_size: captions in a batch.
      limit: of the first so many captions, those whose image has features.
    """
    usable = self.usable(limit)
    for start in range(0, len(usable), batch_size):
      indices = usable[start : start + batch_size]
      yield self.batch(indices, np.zeros_like(indices))

  def training_batches(
    self,
    batch_size,
    seed,
    captions_per_image=1,
    undistorted=False,
    first_step=0,
  ):
    """Yields `image_batches.Batch`es forever, each epoch in another order.

    The batch of a step is a function of the seed and the step.

    Args:
      batch_size: captions in a batch.
      seed: int, not negative.
      captions_per_image: captions of one image that stand together in a batch,
        with one view of it. Images with fewer left make a batch smaller, as by
        `image_batches.ImageBatches`.
      undistorted: whether views are drawn from all there are; False: from the
        distorted ones, or if there are none the undistorted one.
      first_step: int, the step to begin with.

    Raises:
      ValueError: captions_per_image does not divide the batch size.
    """
    for groups, images, views in self._training_groups(
      batch_size, seed, captions_per_image, undistorted, first_step
    ):
      yield image_batches.Batch(
        self._features(images, views),
        np.repeat(np.arange(len(groups)), [len(group) for group in groups]),
        *self.captions.sequences(np.concatenate(groups)),
      )

  def training_images(
    self, batch_size, seed, samples_per_image=1, undistorted=False, first_step=0
  ):
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
      batch_size,
      seed,
      samples_per_image,
      undistorted,
      first_step,
      'samples_per_image',
    ):
      yield images, self._features(images, views)

  def _training_groups(
    self,
    batch_size,
    seed,
    captions_per_image,
    undistorted,
    first_step,
    flag='captions_per_image',
  ):
    """Yields (groups of captions of one image each, images, views) forever."""
    captions_lib.check_captions_per_image(captions_per_image, batch_size, flag)
    groups = self.captions.groups(captions_per_image, self.usable())
    images = self.captions.images[groups.first_captions]
    views = self.files[0].shape[1] - 1
    first_view = 0 if undistorted else min(views, 1)
    for chosen, _, rng in example_order.batches(
      len(groups), batch_size // captions_per_image, seed, first_step
    ):
      yield (
        [groups[i] for i in chosen],
        images[chosen],
        rng.integers(first_view, views + 1, len(chosen)),
      )


def encode(
  names, captions, encode_fn, config, views=0, seed=0, first=0, kept=FEATURES
):
  """Encodes each view of each image of some shards once, in order.

  Args:
    names: shard file names.
    captions: their `captions.Captions`.
    encode_fn: callable, images float32 [batch, height, width, 3] -> features
      float32 [batch, 2048], or inputs of a block [batch, rows, columns,
      channels].
    config: a `configuration.ModelConfig`.
    views: distorted views of each image, after the undistorted one.
    seed: int that, with an image's place, determines its distortions.
    first: image to start from, a multiple of IMAGES_PER_FILE.
    kept: (shape, dtype) of what is kept of a view.

  Yields:
    What a file of the cache holds, see above; NaN where an image cannot be
    decoded.
  """

  @tf.function(
    autograph=False,
    input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int64)],
  )
  def process(encoded, image):
    size = dict(height=config.image_height, width=config.image_width)
    seeds = tf.random.split(tf.stack([tf.cast(seed, tf.int64), image]), views)
    resized = image_processing.resize_image(
      tf.io.decode_jpeg(image_processing.check_size(encoded), channels=3)
    )
    return tf.stack(
      [image_processing.crop_image(resized, **size)]
      + [
        image_processing.crop_image(
          resized, is_training=True, ordering=view, seed=seeds[view], **size
        )
        for view in range(views)
      ]
    )

  def run(batch):
    images = tf.stack(batch)
    missing = max(_SMALLEST_BATCH - len(batch), 0)
    encoded = encode_fn(tf.pad(images, [[0, missing], [0, 0], [0, 0], [0, 0]]))
    return tf.cast(encoded, dtype).numpy()[: len(batch)]

  num_images = len(captions.image_ids)
  shape, dtype = kept
  with contextlib.ExitStack() as stack:
    pool = stack.enter_context(
      concurrent.futures.ThreadPoolExecutor(os.cpu_count())
    )
    bar = stack.enter_context(
      progress.Progress('Encoding', num_images, 'images', done=first)
    )
    decoded = lookahead.ahead(
      functools.partial(pool.submit, process),
      _images(names, captions, first),
      2 * os.cpu_count(),
    )
    for start in range(first, num_images, IMAGES_PER_FILE):
      features = np.full(
        [min(IMAGES_PER_FILE, num_images - start), views + 1, *shape],
        np.nan,
        dtype,
      )
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


def block_inputs(encode_fn, config):
  """Returns (shape, dtype) of what is kept of a view for a block."""
  shape = encode_fn(
    tf.zeros([_SMALLEST_BATCH, config.image_height, config.image_width, 3])
  ).shape[1:]
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
    wanted = set(
      first_captions[
        (first_captions >= start) & (first_captions < end)
      ].tolist()
    )
    if wanted:
      caption = start
      dataset = tf.data.TFRecordDataset(name).map(shards.parse_sequence_example)
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
  captions = captions_lib.read_captions(names, limit)
  captions.check_ids(config.vocab_size)
  files = list(encode(names, captions, encode_fn, config))
  return CaptionedFeatures(captions, files, undecodable_images(files, captions))


def undecodable_images(files, captions):
  """Returns the indices of the images that could not be decoded, a list.

  Args:
    files: see `CaptionedFeatures`. An image that was not decoded has nothing
      but NaN.
    captions: `captions.Captions`.

  Raises:
    ValueError: one that was has NaN or infinity, which training would spread.
  """
  result = []
  for number, features in enumerate(files):
    features = features.reshape(len(features), -1)
    for row in np.flatnonzero(~np.isfinite(features).all(axis=1)):
      result.append(number * IMAGES_PER_FILE + int(row))
      if not np.isnan(features[row]).all():
        raise ValueError(
          f'the features of image {captions.image_ids[result[-1]]} hold NaN '
          'or infinity; give another checkpoint of Inception v3'
        )
  return result
