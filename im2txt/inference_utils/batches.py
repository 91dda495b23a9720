# SPDX-License-Identifier: Apache-2.0
"""Captions or encodes any number of images, batch by batch."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import itertools
from typing import TypeVar

from absl import logging
import numpy as np
import tensorflow as tf

from im2txt.inference_utils import captioner as captioner_lib
from im2txt.runtime import progress as progress_lib

_Item = TypeVar('_Item')
_Result = TypeVar('_Result')


def caption_in_batches(
  captioner: captioner_lib.Captioner,
  images: Iterator[tuple[_Item, tf.Tensor | OSError | ValueError]],
  batch_size: int,
  captioned: int = 0,
  word_probabilities: bool = False,
) -> Iterator[
  tuple[_Item, list[captioner_lib.ScoredCaption] | OSError | ValueError]
]:
  """Captions any number of images, of which one batch is in memory at a time.

  Args:
    captioner: the model.
    images: (item, result of `decode`, or the error in its place).
    batch_size: images captioned at once.
    captioned: number of images captioned before these, see
      `FeatureCaptioner.caption`.
    word_probabilities: see `FeatureCaptioner.caption`.

  Yields:
    (item, captions, best first, or the error), in order.
  """

  def caption(
    good: Sequence[tf.Tensor],
  ) -> list[list[captioner_lib.ScoredCaption]]:
    nonlocal captioned
    captions = captioner.caption(good, captioned, word_probabilities)
    captioned += len(good)
    return captions

  for batch in _in_batches(images, batch_size, caption):
    yield from batch


def encode_in_batches(
  captioner: captioner_lib.Captioner,
  images: Iterator[tuple[_Item, tf.Tensor | OSError | ValueError]],
  batch_size: int,
) -> Iterator[list[tuple[_Item, np.ndarray | OSError | ValueError]]]:
  """Encodes any number of images, of which one batch is in memory at a time.

  Args:
    captioner: the model.
    images: (item, result of `decode`, or the error in its place).
    batch_size: images encoded at once.

  Yields:
    A batch of (item, float32 [2048 * encoders], or the error), in order.
  """
  return _in_batches(
    images, batch_size, lambda good: captioner.encode(good).numpy()
  )


def _in_batches(
  images: Iterator[tuple[_Item, tf.Tensor | OSError | ValueError]],
  batch_size: int,
  work: Callable[[list[tf.Tensor]], Iterable[_Result]],
) -> Iterator[list[tuple[_Item, _Result | OSError | ValueError]]]:
  """Yields batches of (item, result of `work`, or the error in its place)."""
  while batch := list(itertools.islice(images, batch_size)):
    good = [image for _, image in batch if not isinstance(image, Exception)]
    results = iter(work(good) if good else ())
    yield [
      (item, image)
      if isinstance(image, (OSError, ValueError))
      else (item, next(results))
      for item, image in batch
    ]


def encode_batches(
  captioner: captioner_lib.Captioner,
  batches: Iterable[Sequence[tuple[int, bytes]]],
  progress: progress_lib.Progress,
) -> Iterator[tuple[list[int], np.ndarray]]:
  """Encodes batches of images as in training, without turning them by EXIF.

  Images that cannot be decoded are left out with a warning.

  Args:
    captioner: encodes the images.
    batches: batches of (image id, bytes of the file).
    progress: is updated after each batch, when its features have been used.

  Yields:
    (image ids; float32 [images, 2048 * encoders], their features).
  """
  for batch in batches:
    images = {}
    for image_id, data in batch:
      try:
        images[image_id] = captioner.decode(data, exif_orientation=False)
      except ValueError as error:
        logging.warning('image %d left out: %s', image_id, error)
    if images:
      yield list(images), captioner.encode(list(images.values())).numpy()
    progress.update(len(batch))
