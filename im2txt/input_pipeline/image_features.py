# SPDX-License-Identifier: Apache-2.0
"""Inception's features of the images of shards; each image is encoded once.

With a frozen Inception v3 the features of an image depend only on its random
distortion. So each image is encoded undistorted (view 0, for evaluation) and
with several random distortions (the other views, for training). If the top
blocks of Inception are trained, the input of the lowest of these blocks is kept
instead of the features.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import concurrent.futures
import contextlib
import dataclasses
import functools
import os
from typing import NamedTuple

from absl import logging
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from im2txt.data import shards
from im2txt.input_pipeline import captions as captions_lib
from im2txt.input_pipeline import example_order
from im2txt.input_pipeline import image_batches
from im2txt.ops import folded_inception
from im2txt.ops import image_processing
from im2txt.runtime import lookahead
from im2txt.runtime import progress
from im2txt.runtime import sharing

IMAGES_PER_FILE = 1024
BATCH_SIZE = 32
# Smaller batches use other convolution algorithms, with other rounding errors.
SMALLEST_BATCH = 4


class Kept(NamedTuple):
  """Shape and dtype of the part of a view that is kept."""

  shape: tuple[int, ...]
  dtype: npt.DTypeLike


FEATURES = Kept((folded_inception.FEATURE_SIZE,), np.float32)

# From images, float32 [batch, height, width, 3], to features, float32 [batch,
# 2048], or to the inputs of a block, [batch, rows, columns, channels].
EncodeFn = Callable[[tf.Tensor], tf.Tensor]


class _TrainingGroups(NamedTuple):
  """The captions of a share: groups of one image each, and these images.

  Attributes:
    share: the groups.
    images: int [num_groups], the image of each group.
    views: int [num_groups], the view of each image.
  """

  share: image_batches.ShareOfGroups
  images: np.ndarray
  views: np.ndarray


@dataclasses.dataclass
class CaptionedFeatures:
  """The captions of a data set with the features of their images.

  Attributes:
    captions: the captions.
    arrays: the features, in memory or mapped from disk: float32
      [IMAGES_PER_FILE, views + 1, 2048] each; the last may have fewer images.
      Inputs of a block of Inception are float16 [..., rows, columns, channels].
    undecodable: indices of the images without features.

  Raises:
    ValueError: no image has features.
  """

  captions: captions_lib.Captions
  arrays: list[np.ndarray]
  undecodable: list[int]

  def __post_init__(self) -> None:
    if len(self.undecodable) == len(self.captions.image_ids):
      raise ValueError(
        f'none of the {len(self.undecodable)} image(s) can be decoded; make '
        'the shards again'
      )
    if self.undecodable:
      logging.warning(
        '%d image(s) skipped: ids %s',
        len(self.undecodable),
        ', '.join(map(str, self.captions.image_ids[self.undecodable])),
      )

  def usable(self, limit: int | None = None) -> np.ndarray:
    """Returns which of the first `limit` captions have features, int [n]."""
    return np.flatnonzero(
      ~np.isin(self.captions.images[:limit], self.undecodable)
    )

  def batch(
    self, indices: np.ndarray, views: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns (features, input_seqs, target_seqs, mask) of some captions.

    Args:
      indices: int [batch], indices of captions.
      views: int [batch], the view of each caption's image.

    Returns:
      float32 [batch, 2048], and the `captions.Sequences`.
    """
    return (
      self._features(self.captions.images[indices], views),
      *self.captions.sequences(indices),
    )

  def images(
    self, limit: int | None = None, max_images: int | None = None
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images of captions, each once, undistorted.

    Args:
      limit: use the first `limit` captions, if their images have features;
        None: all captions.
      max_images: return this many images at most; None: all.

    Returns:
      (image ids int64 [images], features float32 [images, 2048]), in the order
      of the shards.
    """
    # Images are numbered in the order of the captions.
    images = np.unique(self.captions.images[self.usable(limit)])[:max_images]
    return (
      self.captions.image_ids[images],
      self._features(images, np.zeros_like(images)),
    )

  def _features(self, images: np.ndarray, views: np.ndarray) -> np.ndarray:
    """Returns the kept part of views of images, float32 [n, ...]."""
    # TensorFlow is slow with float16 on most processors, and logs that.
    return np.stack(
      [
        self.arrays[image // IMAGES_PER_FILE][image % IMAGES_PER_FILE, view]
        for image, view in zip(images, views)
      ]
    ).astype(np.float32, copy=False)

  def batches(
    self, batch_size: int, limit: int | None = None
  ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Yields each caption once, in order, with its undistorted image.

    The last batch may be smaller.

    Args:
      batch_size: captions per batch.
      limit: use the first `limit` captions, if their images have features;
        None: all captions.
    """
    usable = self.usable(limit)
    for start in range(0, len(usable), batch_size):
      indices = usable[start : start + batch_size]
      yield self.batch(indices, np.zeros_like(indices))

  def training_batches(
    self,
    batch_size: int,
    seed: int,
    captions_per_image: int = 1,
    undistorted: bool = False,
    first_step: int = 0,
    shares: Sequence[sharing.Share] = (sharing.WHOLE,),
  ) -> Iterator[image_batches.Batch]:
    """Yields batches forever, each epoch in another order.

    The batch of a step is a function of the seed and the step.

    Args:
      batch_size: captions per batch.
      seed: a number that is not negative.
      captions_per_image: captions of one image that are together in a batch and
        share one view of it. If an image has fewer left, the batch is smaller,
        see `image_batches.ImageBatches`.
      undistorted: whether to choose among all views. If False, only among the
        distorted views, unless there are none.
      first_step: the step to begin with.
      shares: see `image_batches.ImageBatches.from_step`.

    Raises:
      ValueError: captions_per_image does not divide the batch size.
    """
    for share, images, views in self._training_groups(
      batch_size, seed, captions_per_image, undistorted, first_step, shares
    ):
      groups = share.groups
      yield image_batches.Batch(
        self._features(images, views),
        np.repeat(np.arange(len(groups)), [len(group) for group in groups]),
        *self.captions.sequences(np.concatenate(groups)),
        np.concatenate(share.first_random_rows),
        share.first_place + np.arange(len(groups)),
      )

  def training_images(
    self,
    batch_size: int,
    seed: int,
    samples_per_image: int = 1,
    undistorted: bool = False,
    first_step: int = 0,
  ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the images of `training_batches`, without their captions.

    Args:
      batch_size: captions that are sampled per step.
      seed: see `training_batches`.
      samples_per_image: captions that are sampled per image. Per epoch an image
        comes once for each group of this many captions that it has.
      undistorted: see `training_batches`.
      first_step: see `training_batches`.

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
      flag='samples_per_image',
    ):
      yield images, self._features(images, views)

  def _training_groups(
    self,
    batch_size: int,
    seed: int,
    captions_per_image: int,
    undistorted: bool,
    first_step: int,
    shares: Sequence[sharing.Share] = (sharing.WHOLE,),
    flag: str = 'captions_per_image',
  ) -> Iterator[_TrainingGroups]:
    """Yields the shares of each step, forever."""
    captions_lib.check_captions_per_image(captions_per_image, batch_size, flag)
    groups = self.captions.groups(captions_per_image, self.usable())
    images = self.captions.images[groups.first_captions]
    views = self.arrays[0].shape[1] - 1
    first_view = 0 if undistorted else min(views, 1)
    for chosen, _, rng in example_order.batches(
      len(groups), batch_size // captions_per_image, seed, first_step
    ):
      chosen_views = rng.integers(first_view, views + 1, len(chosen))
      for share in image_batches.shares_of_groups(
        self.captions, [groups[i] for i in chosen], shares
      ):
        part = slice(share.first_place, share.first_place + len(share.groups))
        yield _TrainingGroups(share, images[chosen[part]], chosen_views[part])


def encode(
  names: Sequence[str],
  captions: captions_lib.Captions,
  encode_fn: EncodeFn,
  config: image_batches.InputConfig,
  views: int = 0,
  seed: int = 0,
  first: int = 0,
  kept: Kept = FEATURES,
  batch_size: int = BATCH_SIZE,
) -> Iterator[np.ndarray]:
  """Encodes each view of each image of some shards once, in order.

  Args:
    names: paths of shards.
    captions: the captions of these shards.
    encode_fn: encodes a batch of images.
    config: configuration of the model.
    views: number of distorted views of each image, beside the undistorted one.
    seed: determines the distortions, together with an image's index.
    first: image to start from, a multiple of IMAGES_PER_FILE.
    kept: shape and dtype of the part of a view that is kept.
    batch_size: views encoded at once.

  Yields:
    The arrays of `CaptionedFeatures`, one per file of a cache; NaN where an
    image cannot be decoded.
  """

  @tf.function(
    autograph=False,
    input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int64)],
  )
  @image_processing.on_processor
  def process(encoded: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
    crop = functools.partial(
      image_processing.crop_image,
      height=config.image_height,
      width=config.image_width,
    )
    seeds = tf.random.split(tf.stack([tf.cast(seed, tf.int64), image]), views)
    resized = image_processing.resize_image(
      tf.io.decode_jpeg(image_processing.check_size(encoded), channels=3)
    )
    return tf.stack(
      [crop(resized)]
      + [
        crop(resized, is_training=True, ordering=view, seed=seeds[view])
        for view in range(views)
      ]
    )

  def run(batch: list[tf.Tensor]) -> np.ndarray:
    images = tf.stack(batch)
    missing = max(SMALLEST_BATCH - len(batch), 0)
    encoded = encode_fn(tf.pad(images, [[0, missing], [0, 0], [0, 0], [0, 0]]))
    return tf.cast(encoded, dtype).numpy()[: len(batch)]

  num_images = len(captions.image_ids)
  num_threads = os.cpu_count() or 1
  shape, dtype = kept
  with contextlib.ExitStack() as stack:
    pool = stack.enter_context(
      concurrent.futures.ThreadPoolExecutor(num_threads)
    )
    bar = stack.enter_context(
      progress.Progress('Encoding', num_images, 'images', done=first)
    )
    decoded = lookahead.ahead(
      functools.partial(pool.submit, process),
      _images(names, captions, first),
      2 * num_threads,
    )
    for start in range(first, num_images, IMAGES_PER_FILE):
      features = np.full(
        [min(IMAGES_PER_FILE, num_images - start), views + 1, *shape],
        np.nan,
        dtype,
      )
      flat = features.reshape([-1, *shape])
      rows: list[int] = []
      batch: list[tf.Tensor] = []
      for image in range(len(features)):
        bar.update(1)
        # The rows of an image that cannot be decoded stay NaN.
        with contextlib.suppress(tf.errors.InvalidArgumentError):
          batch.extend(next(decoded).result())
          rows.extend(range(image * (views + 1), (image + 1) * (views + 1)))
        last = image == len(features) - 1
        while len(batch) >= batch_size or (batch and last):
          flat[rows[:batch_size]] = run(batch[:batch_size])
          del rows[:batch_size], batch[:batch_size]
      yield features


def block_inputs(
  encode_fn: EncodeFn, config: image_batches.InputConfig
) -> Kept:
  """Returns the shape and dtype of the inputs of a block, for one view."""
  shape = encode_fn(
    tf.zeros([SMALLEST_BATCH, config.image_height, config.image_width, 3])
  ).shape[1:]
  # They take 40 times as much room as features, so float16 is used. It suffices
  # for small numbers of a network that tolerates bfloat16.
  return Kept(tuple(shape), np.float16)


def _images(
  names: Sequence[str], captions: captions_lib.Captions, first: int
) -> Iterator[tuple[tf.Tensor, int]]:
  """Yields (encoded image, index) of each distinct image from `first` on."""
  # np.unique sorts, and images are numbered in the order of the captions.
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


def encode_in_memory(
  names: Sequence[str],
  encode_fn: EncodeFn,
  config: image_batches.InputConfig,
  limit: int | None = None,
  batch_size: int = BATCH_SIZE,
) -> CaptionedFeatures:
  """Returns the captions and undistorted features of shards.

  Args:
    names: paths of shards.
    encode_fn: encodes a batch of images.
    config: configuration of the model.
    limit: read this many captions at most; None: all.
    batch_size: see `encode`.

  Raises:
    ValueError: a shard is damaged, a word id is outside the model's vocabulary,
      or no image can be decoded.
  """
  captions = captions_lib.read_captions(names, limit)
  captions.check_ids(config.vocab_size)
  arrays = list(
    encode(names, captions, encode_fn, config, batch_size=batch_size)
  )
  return CaptionedFeatures(
    captions, arrays, undecodable_images(arrays, captions)
  )


def undecodable_images(
  arrays: Sequence[np.ndarray], captions: captions_lib.Captions
) -> list[int]:
  """Returns the indices of the images that could not be decoded, ascending.

  Args:
    arrays: see `CaptionedFeatures`. Only an image that was not decoded may have
      NaN, and then everywhere.
    captions: the captions.

  Raises:
    ValueError: a decoded image has NaN or infinity, which training would
      spread.
  """
  result: list[int] = []
  for number, features in enumerate(arrays):
    features = features.reshape(len(features), -1)
    for row in np.flatnonzero(~np.isfinite(features).all(axis=1)):
      result.append(number * IMAGES_PER_FILE + int(row))
      if not np.isnan(features[row]).all():
        raise ValueError(
          f'the features of image {captions.image_ids[result[-1]]} hold NaN '
          'or infinity; give another checkpoint of Inception v3'
        )
  return result
