# SPDX-License-Identifier: Apache-2.0
"""Batches of distorted images with their captions, straight from shards."""

import concurrent.futures
import os
from typing import NamedTuple

from absl import logging
import numpy as np
import tensorflow as tf

from im2txt.data import shards
from im2txt.input_pipeline import captions as captions_lib
from im2txt.input_pipeline import example_order
from im2txt.ops import image_processing
from im2txt.runtime import lookahead


class Batch(NamedTuple):
  """Captions of a step, and what the encoder's part of the step begins with.

  Attributes:
    inputs: float32 [images, height, width, 3] in [-1, 1]; or float32 [images,
      2048], the features of images; or float32 [images, rows, columns,
      channels], the inputs of a block of Inception.
    rows: int64 [batch], which of `inputs` each caption is of.
    input_seqs: int64 [batch, time], <S> w1 ... wn, padded with zeros.
    target_seqs: int64 [batch, time], w1 ... wn </S>, padded.
    mask: int32 [batch, time], 1 where there is a word, else 0.
  """

  inputs: np.ndarray
  rows: np.ndarray
  input_seqs: np.ndarray
  target_seqs: np.ndarray
  mask: np.ndarray


class ImageBatches:
  """Batches of distorted images and their captions, to train from.

  The batch of a step is a function of the seed and the step. Images are read
  from the shards one by one, at the places that a first pass over them found.

  An image that cannot be decoded is named in a warning, once, and its captions
  are left out of the batch.

  Args:
    files: shard file names.
    config: a `configuration.ModelConfig`.
    captions_per_image: captions of one image that share one distorted view of
      it in a batch. Images with fewer left make a batch smaller than the
      configuration's.

  Raises:
    ValueError: captions_per_image does not divide the batch size; a damaged
      shard; or a word id outside the vocabulary.
  """

  def __init__(self, files, config, captions_per_image=1):
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
    self._undecodable = set()

    @tf.function(
      autograph=False,
      input_signature=[
        tf.TensorSpec([], tf.string),
        tf.TensorSpec([], tf.int64),
        tf.TensorSpec([], tf.int64),
      ],
    )
    def process(record, place, seed):
      encoded = shards.parse_sequence_example(record)[1]
      return image_processing.process_image(
        image_processing.check_size(encoded),
        is_training=True,
        height=config.image_height,
        width=config.image_width,
        ordering=place,
        seed=tf.stack([seed, place]),
      )

    self._process = process

  def from_step(self, seed, step=0):
    """Yields the `Batch`es from a step on, forever.

    Args:
      seed: int, not negative.
      step: int.

    Raises:
      ValueError: no image can be decoded, or a shard has changed.
    """
    steps = example_order.batches(
      len(self._groups), self._size, seed, step, self._shards
    )
    # Decoding and distorting is TensorFlow's work, which threads share.
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
      yield from map(
        self._batch,
        lookahead.ahead(
          lambda groups, place: (
            groups,
            [
              pool.submit(self._image, group, place + i, seed)
              for i, group in enumerate(groups)
            ],
          ),
          (
            ([self._groups[i] for i in examples], place)
            for examples, place, _ in steps
          ),
          depth=2,
        ),
      )

  def _image(self, group, place, seed):
    """Returns the distorted image of a group; None if it is undecodable."""
    caption = group[0]
    shard = np.searchsorted(self._captions.file_ends, caption, 'right')
    record = shards.read_record(
      self._files[shard], int(self._captions.offsets[caption])
    )
    try:
      return self._process(record, place, seed)
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

  def _batch(self, groups_and_images):
    """Makes a batch of groups of captions and the futures of their images."""
    groups, futures = groups_and_images
    images = [future.result() for future in futures]
    good = [
      (group, image)
      for group, image in zip(groups, images)
      if image is not None
    ]
    if not good:
      if len(self._undecodable) == len(self._captions.image_ids):
        raise ValueError(
          f'none of the {len(self._undecodable)} image(s) in '
          f'{self._files[0]} ... can be decoded; make the shards again'
        )
      # A step without a word: it counts, and changes nothing.
      blank = np.zeros([1, 1], np.int64)
      return Batch(
        tf.zeros([1, *self._image_shape]),
        np.zeros([1], np.int64),
        blank,
        blank,
        blank.astype(np.int32),
      )
    return Batch(
      tf.stack([image for _, image in good]),
      np.repeat(np.arange(len(good)), [len(group) for group, _ in good]),
      *self._captions.sequences(np.concatenate([group for group, _ in good])),
    )
