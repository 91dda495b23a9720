# SPDX-License-Identifier: Apache-2.0
"""The perplexity of one checkpoint after another, on the same captions."""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import math
from typing import NamedTuple

from absl import logging
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from im2txt import checkpoints
from im2txt import configuration
from im2txt import show_and_tell_model
from im2txt.checkpoints import encoder_stamp
from im2txt.input_pipeline import feature_cache
from im2txt.input_pipeline import image_features
from im2txt.runtime import distribution
from im2txt.runtime.progress import Progress
from im2txt.text import vocabulary_stamp


@dataclasses.dataclass(frozen=True)
class Result:
  """What was measured of one checkpoint.

  Attributes:
    global_step: step of the checkpoint.
    num_captions: captions evaluated.
    num_words: words predicted, `</S>` included.
    cross_entropy: mean per word, in nats.
  """

  global_step: int
  num_captions: int
  num_words: int
  cross_entropy: float

  @property
  def perplexity(self) -> float:
    return math.exp(min(self.cross_entropy, 700.0))


class _Network(NamedTuple):
  """A model, and what of it is compiled."""

  model: show_and_tell_model.ShowAndTellModel
  encode: Callable[[tf.Tensor], tf.Tensor]
  cross_entropies: Callable[..., tf.Tensor]


class PerplexityEvaluator:
  """Evaluates checkpoints on fixed captions.

  Every caption is scored exactly once. Each image is encoded once, and again
  only when a checkpoint's Inception weights have changed.

  Args:
    files: shard file names.
    num_examples: captions to evaluate at most.
    batch_size: captions scored at once; 0: that of the training.
    feature_cache_dir: keeps the features of the images; '': in memory only.
    replicas: share each batch.
  """

  def __init__(
    self,
    files: Sequence[str],
    num_examples: int,
    batch_size: int = 0,
    feature_cache_dir: str = '',
    replicas: distribution.Replicas = distribution.ALONE,
  ):
    self._files = files
    self._num_examples = num_examples
    self._batch_size = batch_size
    self._feature_cache_dir = feature_cache_dir
    self._replicas = replicas
    self._network: _Network | None = None
    self._inception_fingerprint = ''
    self._data: image_features.CaptionedFeatures | None = None

  def evaluate(self, checkpoint_path: str) -> Result:
    """Evaluates a checkpoint.

    Args:
      checkpoint_path: a prefix, or a directory, whose latest is taken.

    Raises:
      checkpoints.CheckpointError: the checkpoint cannot be used, or was deleted.
      ValueError: the input cannot be used.
    """
    trained = checkpoints.load(checkpoint_path)
    config = trained.model_config
    if self._batch_size:
      config = dataclasses.replace(config, batch_size=self._batch_size)
    if self._network is None:
      vocabulary_stamp.check(
        [
          *vocabulary_stamp.of_shards(self._files),
          trained.vocabulary,
        ],
        'give shards that were made with the vocabulary of the model',
      )
    if self._network is None or self._network.model.config != config:
      self._network = _build(config, self._replicas)
      self._inception_fingerprint = ''
    model = self._network.model
    trained.checkpoint.restore(model.named_variables)
    data = self._data = self._encoded_images(self._network)
    total, captions, words = 0.0, 0, 0
    usable = len(data.usable(self._num_examples))
    with Progress('Evaluating', usable, 'captions') as progress:
      for batch in data.batches(config.batch_size, self._num_examples):
        losses = self._network.cross_entropies(
          *(tf.constant(x) for x in batch)
        ).numpy()
        total += float(losses.sum(dtype='float64'))
        captions += len(batch[0])
        words += losses.size
        progress.update(len(batch[0]))
    if not words:
      raise ValueError(f'no word to predict in {self._files[0]} ...')
    return Result(
      int(model.global_step.numpy()), captions, words, total / words
    )

  def _encoded_images(
    self, network: _Network
  ) -> image_features.CaptionedFeatures:
    """Returns the features, the earlier ones if the weights are the same."""
    assert network.model.inception  # It is built with it.
    inception = network.model.inception.named_variables
    fingerprint = encoder_stamp.fingerprint(inception)
    if self._data and fingerprint == self._inception_fingerprint:
      return self._data
    config = network.model.config
    batch_size = image_features.BATCH_SIZE * self._replicas.count
    if self._feature_cache_dir:
      data = feature_cache.open_or_build(
        self._feature_cache_dir,
        self._files,
        network.encode,
        inception,
        config,
        batch_size=batch_size,
      )
    else:
      data = image_features.encode_in_memory(
        self._files,
        network.encode,
        config,
        limit=self._num_examples,
        batch_size=batch_size,
      )
    self._inception_fingerprint = fingerprint
    if len(data.captions) < self._num_examples:
      logging.info(
        '%d captions (--num_eval_examples=%d)',
        len(data.captions),
        self._num_examples,
      )
    return data

  @property
  def model(self) -> show_and_tell_model.ShowAndTellModel:
    """The model with the weights of the checkpoint evaluated last.

    Raises:
      ValueError: none has been evaluated.
    """
    if self._network is None:
      raise ValueError('no checkpoint has been evaluated')
    return self._network.model

  def images(
    self, max_images: int | None
  ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Returns the images of the captions that are evaluated.

    Args:
      max_images: the first so many; None: all.

    Returns:
      (image ids [images], features [images, 2048] by the checkpoint evaluated
      last).

    Raises:
      ValueError: none has been evaluated.
    """
    if self._data is None:
      raise ValueError('no checkpoint has been evaluated')
    return self._data.images(self._num_examples, max_images)


def _build(
  config: configuration.ModelConfig, replicas: distribution.Replicas
) -> _Network:
  logging.info('building the network')
  with replicas.scope():
    model = show_and_tell_model.ShowAndTellModel(config)
  return _Network(
    model,
    replicas.by_rows(
      model.encode_images,
      image_features.SMALLEST_BATCH,
      reduce_retracing=True,
    ),
    replicas.by_rows(model.cross_entropies, reduce_retracing=True),
  )
