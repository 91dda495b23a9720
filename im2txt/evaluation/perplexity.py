# SPDX-License-Identifier: Apache-2.0
"""The perplexity of one checkpoint after another, on the same captions."""

from collections.abc import Sequence
import dataclasses
import math
import os

from absl import logging
import numpy as np
import tensorflow as tf

from im2txt import checkpoints
from im2txt import configuration
from im2txt import show_and_tell_model
from im2txt.checkpoints import encoder_stamp
from im2txt.input_pipeline import feature_cache
from im2txt.input_pipeline import image_features
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


class PerplexityEvaluator:
  """Evaluates checkpoints on fixed captions.

  Every caption is scored exactly once. Each image is encoded once, and again
  only when a checkpoint's Inception weights have changed.

  Args:
    files: shard file names.
    num_examples: captions to evaluate at most.
    batch_size: captions scored at once; 0: that of the training.
    feature_cache_dir: keeps the features of the images; '': in memory only.
  """

  def __init__(
    self,
    files: Sequence[str],
    num_examples: int,
    batch_size: int = 0,
    feature_cache_dir: str = '',
  ):
    self._files = files
    self._num_examples = num_examples
    self._batch_size = batch_size
    self._feature_cache_dir = feature_cache_dir
    self._model = None
    self._inception_fingerprint = None
    self._data = None

  def evaluate(self, checkpoint_path: str) -> Result:
    """Evaluates a checkpoint.

    Args:
      checkpoint_path: a prefix, or a directory, whose latest is taken.

    Raises:
      checkpoints.CheckpointError: it cannot be used, or not any more.
      ValueError: the input cannot be used.
    """
    checkpoint = checkpoints.Checkpoint(checkpoint_path)
    config, _ = configuration.load(os.path.dirname(checkpoint.prefix))
    config = dataclasses.replace(config, **checkpoint.model_sizes())
    if self._batch_size:
      config = dataclasses.replace(config, batch_size=self._batch_size)
    if self._model is None:
      vocabulary_stamp.check(
        [
          *vocabulary_stamp.of_shards(self._files),
          vocabulary_stamp.of_checkpoint(checkpoint.prefix),
        ],
        'give shards that were made with the vocabulary of the model',
      )
    if self._model is None or self._model.config != config:
      self._build(config)
    checkpoint.restore(self._model.named_variables)
    self._encode_images(config)
    total, captions, words = 0.0, 0, 0
    usable = len(self._data.usable(self._num_examples))
    with Progress('Evaluating', usable, 'captions') as progress:
      for batch in self._data.batches(config.batch_size, self._num_examples):
        losses = self._score(*(tf.constant(x) for x in batch)).numpy()
        total += float(losses.sum(dtype='float64'))
        captions += len(batch[0])
        words += losses.size
        progress.update(len(batch[0]))
    if not words:
      raise ValueError(f'no word to predict in {self._files[0]} ...')
    return Result(int(self._model.global_step), captions, words, total / words)

  def _build(self, config: configuration.ModelConfig) -> None:
    """Builds a network of other sizes than the last one."""
    logging.info('building the network')
    self._model = show_and_tell_model.ShowAndTellModel(config)
    self._inception_fingerprint = None
    self._encode = tf.function(
      self._model.encode_images, autograph=False, reduce_retracing=True
    )
    self._score = tf.function(
      self._model.cross_entropies, autograph=False, reduce_retracing=True
    )

  def _encode_images(self, config: configuration.ModelConfig) -> None:
    """Encodes the images unless the Inception weights are those of before."""
    inception = self._model.inception.named_variables
    fingerprint = encoder_stamp.fingerprint(inception)
    if fingerprint == self._inception_fingerprint:
      return
    if self._feature_cache_dir:
      self._data = feature_cache.open_or_build(
        self._feature_cache_dir, self._files, self._encode, inception, config
      )
    else:
      self._data = image_features.encode_in_memory(
        self._files, self._encode, config, limit=self._num_examples
      )
    self._inception_fingerprint = fingerprint
    if len(self._data.captions) < self._num_examples:
      logging.info(
        '%d captions (--num_eval_examples=%d)',
        len(self._data.captions),
        self._num_examples,
      )

  def named_variables(self) -> dict[str, tf.Variable]:
    """Returns the variables of the checkpoint evaluated last."""
    return self._model.named_variables

  def model_and_images(
    self, max_images: int | None
  ) -> tuple[show_and_tell_model.ShowAndTellModel, np.ndarray, np.ndarray]:
    """Returns what there is to caption with the checkpoint evaluated last.

    Args:
      max_images: of the images whose captions are evaluated, the first so
        many; None: all.

    Returns:
      (model, image ids int64 [images], features float32 [images, 2048]).
    """
    return self._model, *self._data.images(self._num_examples, max_images)
