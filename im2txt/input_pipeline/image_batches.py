# SPDX-License-Identifier: Apache-2.0
"""Batches of distorted images with their captions, straight from shards."""

from collections.abc import Iterator
from collections.abc import Sequence
import concurrent.futures
import os
from typing import NamedTuple
from typing import Protocol
from typing import Self

from absl import logging
import numpy as np
import tensorflow as tf

from im2txt.data import shards
from im2txt.input_pipeline import captions as captions_lib
from im2txt.input_pipeline import example_order
from im2txt.ops import image_processing
from im2txt.runtime import lookahead
from im2txt.runtime import sharing


class InputConfig(Protocol):
  """The part of `configuration.ModelConfig` that batches depend on."""

  @property
  def vocab_size(self) -> int:
    """Number of word ids."""

  @property
  def batch_size(self) -> int:
    """Captions per batch."""

  @property
  def image_height(self) -> int:
    """Height of the network's images in pixels."""

  @property
  def image_width(self) -> int:
    """Width of the network's images in pixels."""


class Batch(NamedTuple):
  """The captions of a batch or of a replica's share, and the encoder's inputs.

  Attributes:
    inputs: float32 [images, height, width, 3] in [-1, 1]; or float32 [images,
      2048], the features of images; or float32 [images, rows, columns,
      channels], the inputs of a block of Inception.
    rows: int64 [batch], the row of `inputs` for each caption.
    input_seqs: int64 [batch, time], <S> w1 ... wn, padded with zeros.
    target_seqs: int64 [batch, time], w1 ... wn </S>, padded.
    mask: int32 [batch, time], 1 where there is a word, else 0.
    first_random_rows: int64 [batch], where the random numbers of each caption
      begin among those of the whole batch, see
      `show_and_tell_model.first_random_rows`.
    places: int64 [images], the place of each image in the whole batch.
  """

  inputs: np.ndarray | tf.Tensor
  rows: np.ndarray
  input_seqs: np.ndarray
  target_seqs: np.ndarray
  mask: np.ndarray
  first_random_rows: np.ndarray
  places: np.ndarray

  @classmethod
  def whole(
    cls,
    inputs: np.ndarray | tf.Tensor,
    rows: np.ndarray,
    input_seqs: np.ndarray,
    target_seqs: np.ndarray,
    mask: np.ndarray,
  ) -> Self:
    """Returns a batch that is not a share of another."""
    steps = np.count_nonzero(mask, axis=1) + 1
    return cls(
      inputs,
      rows,
      input_seqs,
      target_seqs,
      mask,
      np.cumsum(steps) - steps,
      np.arange(len(inputs)),
    )


class ShareOfGroups(NamedTuple):
  """A replica's share of the groups of captions of a batch.

  Attributes:
    groups: int [n] each, the captions of each group.
    first_place: place of the first group in the whole batch.
    first_random_rows: int64 [n] each, see `Batch`, of each group.
  """

  groups: list[np.ndarray]
  first_place: int
  first_random_rows: list[np.ndarray]


def shares_of_groups(
  captions: captions_lib.Captions,
  groups: list[np.ndarray],
  shares: Sequence[sharing.Share],
) -> Iterator[ShareOfGroups]:
  """Divides the groups of a batch.

  Args:
    captions: the captions of the data set.
    groups: the captions of each group of the batch.
    shares: the parts to return.
  """
  # The image is the first step, so a caption with its <S> has as many steps.
  steps = np.maximum(captions.lengths(np.concatenate(groups)), 1)
  ends = np.cumsum([len(group) for group in groups])
  first_rows = np.split(np.cumsum(steps) - steps, ends[:-1])
  for share in shares:
    start, end = share.bounds(len(groups))
    yield ShareOfGroups(groups[start:end], start, first_rows[start:end])


class _Futures(NamedTuple):
  """A share, and the images that are being made for it."""

  share: ShareOfGroups
  images: list[concurrent.futures.Future[tf.Tensor | None]]


class ImageBatches:
  """Batches of distorted images and their captions, for training.

  The batch of a step is a function of the seed and the step. Images are read
  from the shards one by one, at the offsets that a first pass has found.

  An image that cannot be decoded is named in one warning, and its captions are
  left out of the batches.

  Args:
    files: paths of shards.
    config: configuration of the model.
    captions_per_image: captions of one image that share one distorted view of
      it in a batch. If an image has fewer left, the batch is smaller than the
      configuration's.

  Raises:
    ValueError: captions_per_image does not divide the batch size; a shard is
      damaged; or a word id is outside the vocabulary.
  """

  def __init__(
    self, files: Sequence[str], config: InputConfig, captions_per_image: int = 1
  ) -> None:
    captions_lib.check_captions_per_image(captions_per_image, config.batch_size)
    self._files = files
    self._captions = captions_lib.read_captions(files)
    self._captions.check_ids(config.vocab_size)
    self._groups = self._captions.groups(captions_per_image)
    self._shards = np.searchsorted(
      self._captions.file_ends, self._groups.first_captions, 'right'
    )
    self._size = config.batch_size // captions_per_image
    self._image_shape = (config.image_height, config.image_width, 3)
    self._undecodable: set[int] = set()

    @tf.function(
      autograph=False,
      input_signature=[
        tf.TensorSpec([], tf.string),
        tf.TensorSpec([], tf.int64),
        tf.TensorSpec([], tf.int64),
      ],
    )
    @image_processing.on_processor
    def process(
      record: tf.Tensor, position: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
      encoded = shards.parse_sequence_example(record)[1]
      return image_processing.process_image(
        image_processing.check_size(encoded),
        is_training=True,
        height=config.image_height,
        width=config.image_width,
        ordering=position,
        seed=tf.stack([seed, position]),
      )

    self._process = process

  def from_step(
    self,
    seed: int,
    step: int = 0,
    shares: Sequence[sharing.Share] = (sharing.WHOLE,),
  ) -> Iterator[Batch]:
    """Yields the batches from a step on, forever.

    Args:
      seed: a number that is not negative.
      step: the step to begin with.
      shares: the parts of each batch to yield, one after the other. Images of
        other parts are not read.

    Raises:
      ValueError: no image can be decoded, or a shard has changed.
    """
    steps = example_order.batches(
      len(self._groups), self._size, seed, step, self._shards
    )
    # TensorFlow decodes and distorts without Python's lock, so threads help.
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
      yield from map(
        self._batch,
        lookahead.ahead(
          lambda share, position: _Futures(
            share,
            [
              pool.submit(
                self._image, group, position + share.first_place + i, seed
              )
              for i, group in enumerate(share.groups)
            ],
          ),
          (
            (share, position)
            for examples, position, _ in steps
            for share in shares_of_groups(
              self._captions, [self._groups[i] for i in examples], shares
            )
          ),
          depth=2 * len(shares),
        ),
      )

  @image_processing.on_processor
  def _image(
    self, group: np.ndarray, position: int, seed: int
  ) -> tf.Tensor | None:
    """Returns the distorted image of a group; None if it is undecodable."""
    caption = group[0]
    shard = np.searchsorted(self._captions.file_ends, caption, 'right')
    assert self._captions.offsets is not None  # `read_captions` sets them.
    record = shards.read_record(
      self._files[shard], int(self._captions.offsets[caption])
    )
    try:
      return self._process(record, position, seed)
    except tf.errors.InvalidArgumentError:
      image = int(self._captions.images[caption])
      if image not in self._undecodable:
        self._undecodable.add(image)
        logging.warning(
          'image %d in %s cannot be decoded: its captions are left out',
          self._captions.image_ids[image],
          self._files[shard],
        )
      return None

  @image_processing.on_processor
  def _batch(self, futures: _Futures) -> Batch:
    """Makes a batch when its images are ready."""
    images = [future.result() for future in futures.images]
    good = [i for i, image in enumerate(images) if image is not None]
    if not good:
      if len(self._undecodable) == len(self._captions.image_ids):
        raise ValueError(
          f'none of the {len(self._undecodable)} image(s) in '
          f'{self._files[0]} ... can be decoded; make the shards again'
        )
      # A batch without a word: the step counts, but changes nothing.
      blank = np.zeros([1, 1], np.int64)
      return Batch(
        tf.zeros([1, *self._image_shape]),
        np.zeros([1], np.int64),
        blank,
        blank,
        blank.astype(np.int32),
        np.zeros([1], np.int64),
        np.zeros([1], np.int64),
      )
    share = futures.share
    groups = [share.groups[i] for i in good]
    return Batch(
      tf.stack([images[i] for i in good]),
      np.repeat(np.arange(len(good)), [len(group) for group in groups]),
      *self._captions.sequences(np.concatenate(groups)),
      np.concatenate([share.first_random_rows[i] for i in good]),
      share.first_place + np.array(good),
    )
