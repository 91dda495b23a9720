# SPDX-License-Identifier: Apache-2.0
"""A training run to examine: its events, its checkpoint and a few images.

Everything is opened when a check first asks for it. What is missing raises
`NotAtHandError`, so the check is left out.
"""

from collections.abc import Callable
import dataclasses
import functools
import os

from absl import logging
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from im2txt import checkpoints
from im2txt import configuration
from im2txt.data import shards
from im2txt.inference_utils import captioner as captioner_lib
from im2txt.inference_utils import likelihood
from im2txt.text import vocabulary as vocabulary_lib
from im2txt.text import vocabulary_stamp
from im2txt.visualization import curves

_BATCH_SIZE = 32
# TensorBoard reads about 1 MB of scalars per second.
_LARGE_EVENTS = 20_000_000
# Captions per image whose likelihood is measured.
_CAPTIONS_PER_IMAGE = 2


class NotAtHandError(Exception):
  """Something that a check needs is missing; the message says what."""


# How a program might process images, from the right result, float32 in [-1, 1].
Preprocessing = Callable[[tf.Tensor], tf.Tensor]


def right(image: tf.Tensor) -> tf.Tensor:
  """The preprocessing of im2txt: pixels in [-1, 1], red first."""
  return image


@dataclasses.dataclass(frozen=True)
class Sample:
  """The first images of shards.

  Attributes:
    images: the content of the JPEG file of each image, by image id.
    captions: word ids of its captions, with <S> and </S>, by image id.
    captions_in_all: about how many captions all shards have.
  """

  images: dict[int, bytes]
  captions: dict[int, list[list[int]]]
  captions_in_all: int


class Case:
  """A training run to examine.

  Args:
    train_dir: directory of checkpoints and events.
    input_file_pattern: file pattern of the shards of the training; '' if not at
      hand.
    vocab_file: the vocabulary; '' takes the one beside the checkpoint or the
      shards.
    max_images: images to look at.

  Attributes:
    train_dir: see above.
    files: paths of the shards, maybe none.

  Raises:
    ValueError: there is no such directory, or no such shards.
  """

  def __init__(
    self,
    train_dir: str,
    input_file_pattern: str = '',
    vocab_file: str = '',
    max_images: int = 64,
  ) -> None:
    if not os.path.isdir(train_dir):
      raise ValueError(
        f'--train_dir={train_dir} is not a directory: give that of train'
      )
    self.train_dir = train_dir
    self.files = (
      shards.list_files(input_file_pattern) if input_file_pattern else []
    )
    self._vocab_file = vocab_file
    self._max_images = max_images
    self._features: dict[str, npt.NDArray[np.float32]] = {}

  @functools.cached_property
  def training_config(self) -> configuration.TrainingConfig:
    """The hyperparameters of the training.

    Raises:
      ValueError: their file is damaged.
    """
    return configuration.load(self.train_dir).training

  @functools.cached_property
  def scalars(self) -> curves.Scalars:
    """The points that training has logged, by tag."""
    sizes = [
      os.path.getsize(os.path.join(self.train_dir, name))
      for name in os.listdir(self.train_dir)
      if '.tfevents.' in name
    ]
    if not sizes:
      raise NotAtHandError('no event file in --train_dir')
    if sum(sizes) > _LARGE_EVENTS:
      logging.info(
        'reading %.0f MB of event files, which may take minutes',
        sum(sizes) / 1e6,
      )
    return curves.read_scalars(self.train_dir)

  def points(self, *tags: str) -> list[curves.Point]:
    """Returns the points of the first of these tags that was logged."""
    for tag in tags:
      if self.scalars.get(tag):
        return self.scalars[tag]
    raise NotAtHandError(f'no {tags[0]} in the event files of --train_dir')

  @functools.cached_property
  def trained(self) -> checkpoints.TrainedModel:
    """The newest whole checkpoint.

    Raises:
      ValueError: a file beside it is damaged.
    """
    try:
      return checkpoints.load(self.train_dir)
    except checkpoints.CheckpointError as error:
      raise NotAtHandError('no whole checkpoint in --train_dir') from error

  @functools.cached_property
  def vocab(self) -> vocabulary_lib.Vocabulary:
    """The vocabulary.

    Raises:
      ValueError: its file is damaged.
    """
    found = self._vocab_file or checkpoints.vocabulary_beside(
      [self.train_dir, *self.files[:1]]
    )
    if not found:
      raise NotAtHandError('no vocabulary: give --vocab_file')
    return vocabulary_lib.Vocabulary(found)

  @functools.cached_property
  def sample(self) -> Sample:
    """The first images of the shards.

    Raises:
      ValueError: a shard is damaged.
    """
    if not self.files:
      raise NotAtHandError('no shards: give --input_file_pattern')
    # One shard of MSCOCO is enough, and all of them take minutes.
    count = 1
    found = shards.captions_by_image(self.files[:count])
    while len(found) < self._max_images and count < len(self.files):
      count *= 2
      found = shards.captions_by_image(self.files[:count])
    files = self.files[:count]
    if not found:
      raise NotAtHandError('no image in the shards')
    part = sum(map(os.path.getsize, files)) / sum(
      map(os.path.getsize, self.files)
    )
    in_files = sum(len(texts) for texts, _ in found.values())
    # Some images have only captions without words.
    chosen = [image for image, (_, ids) in found.items() if ids]
    chosen = chosen[: self._max_images]
    if not chosen:
      raise NotAtHandError('no image in the shards has a caption with words')
    images = dict(
      pair
      for batch in shards.image_batches(files, chosen, _BATCH_SIZE)
      for pair in batch
    )
    return Sample(
      images,
      {image: found[image][1] for image in chosen},
      round(in_files / part),
    )

  @functools.cached_property
  def vocabulary_fault(self) -> tuple[str, str] | None:
    """What is wrong with the vocabulary: (evidence, remedy); None if nothing.

    Raises:
      ValueError: a file is damaged.
    """
    remedy = (
      'give the shards and the word_counts.txt that the model was trained with'
    )
    sources = vocabulary_stamp.of_shards(self.files)
    try:
      sources.append(self.trained.vocabulary)
      vocab_size = self.trained.model_config.vocab_size
    except NotAtHandError:
      vocab_size = None
    try:
      vocab = self.vocab
      sources.append(vocabulary_stamp.of_vocabulary(vocab))
    except NotAtHandError:
      vocab = None
    if len(sources) < 2:
      raise NotAtHandError(
        'nothing to compare: give --input_file_pattern and --vocab_file'
      )
    ending = f': {remedy}'
    try:
      vocabulary_stamp.check(sources, remedy)
      if vocab and vocab_size:
        vocab.check_fits_model(vocab_size)
    except ValueError as error:
      return str(error).removesuffix(ending), remedy
    if not self.files:
      return None
    # The sample may be of shards whose vocabulary nothing tells.
    largest = max(
      word
      for captions in self.sample.captions.values()
      for caption in captions
      for word in caption
    )
    if vocab_size and largest >= vocab_size:
      return (
        f'a caption of {self.files[0]} has word id {largest}, and the model '
        f'{vocab_size} words',
        remedy,
      )
    if vocab:
      try:
        shards.captions_by_image(self.files[:1], vocab=vocab)
      except ValueError as error:
        return str(error).partition('; ')[0], remedy
    return None

  @functools.cached_property
  def captioner(self) -> captioner_lib.Captioner:
    """The newest whole checkpoint, ready to caption."""
    if not self.files:
      raise NotAtHandError('no shards: give --input_file_pattern')
    prefix, vocab = self.trained.prefix, self.vocab
    if self.vocabulary_fault:
      raise NotAtHandError('shards and model have not one vocabulary')
    try:
      return captioner_lib.Captioner(prefix, vocab.file)
    except ValueError as error:
      raise NotAtHandError(f'the model cannot caption: {error}') from error

  @functools.cached_property
  def images(self) -> dict[int, tf.Tensor]:
    """The decoded images of the sample, by image id."""
    images = {}
    captioner = self.captioner
    for image_id, data in self.sample.images.items():
      try:
        images[image_id] = captioner.decode(data, exif_orientation=False)
      except ValueError as error:
        logging.warning('image %d left out: %s', image_id, error)
    if not images:
      raise NotAtHandError('no image of the sample can be decoded')
    return images

  def features(
    self, preprocess: Preprocessing = right, most: int | None = None
  ) -> npt.NDArray[np.float32]:
    """Returns the features of the sample, float32 [images, 2048].

    Args:
      preprocess: is applied to each image.
      most: of the first so many images; None for all.
    """
    key = f'{preprocess.__name__} {most}'
    if key not in self._features:
      images = [preprocess(image) for image in self.images.values()][:most]
      self._features[key] = np.concatenate(
        [
          self.captioner.encode(images[start : start + _BATCH_SIZE]).numpy()
          for start in range(0, len(images), _BATCH_SIZE)
        ]
      )
    return self._features[key]

  @functools.cached_property
  def captions(self) -> list[str]:
    """The best caption of each image of the sample."""
    features = self.features()
    return [
      captions[0].text if captions else ''
      for start in range(0, len(features), _BATCH_SIZE)
      for captions in self.captioner.decoder.caption(
        features[start : start + _BATCH_SIZE]
      )
    ]

  @functools.cached_property
  def _likelihood(self) -> likelihood.Likelihood:
    return likelihood.Likelihood(self.captioner.model)

  def perplexity(self, features: npt.NDArray[np.float32]) -> float:
    """Returns the perplexity of the captions of the sample.

    Args:
      features: float32 [images, 2048], in the order of the sample; the captions
        of further images are left out.
    """
    rows, captions = [], []
    for image_id, row in zip(self.images, features):
      for caption in self.sample.captions[image_id][:_CAPTIONS_PER_IMAGE]:
        rows.append(row)
        captions.append(caption)
    losses = np.concatenate(
      [
        self._likelihood.cross_entropies(
          np.stack(rows[start : start + _BATCH_SIZE]),
          captions[start : start + _BATCH_SIZE],
        )
        for start in range(0, len(rows), _BATCH_SIZE)
      ]
    )
    return float(np.exp(min(losses.mean(dtype=np.float64), 700.0)))
