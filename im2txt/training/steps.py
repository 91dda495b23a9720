# SPDX-License-Identifier: Apache-2.0
"""Compiled functions that take one step of training."""

from collections.abc import Callable
import functools
from typing import Any

import numpy as np
import tensorflow as tf

from im2txt import configuration
from im2txt import show_and_tell_model
from im2txt.input_pipeline import image_batches
from im2txt.input_pipeline import image_features
from im2txt.metrics import cider
from im2txt.ops import folded_inception
from im2txt.text import vocabulary
from im2txt.training import self_critical
from im2txt.training import update as update_lib

# What a batch holds of its images.
IMAGES, FEATURES, BLOCK_INPUTS = 'images', 'features', 'block inputs'

# The indices of some images and their features, float32 [images, 2048].
ImageFeatures = tuple[np.ndarray, np.ndarray]

# Takes a step: a batch, and the learning rates of the decoder and of Inception.
# The batch is an `image_batches.Batch` or, for self-critical training,
# `ImageFeatures`.
StepFn = Callable[[Any, tf.Tensor, tf.Tensor], update_lib.Scalars]


def batch_signature(
  config: configuration.ModelConfig, source: str
) -> image_batches.Batch:
  """Returns an `image_batches.Batch` of TensorSpecs.

  Args:
    config: size of the images.
    source: what the batch's `inputs` are: IMAGES, FEATURES or BLOCK_INPUTS.
  """
  encoder_inputs = {
    IMAGES: [None, config.image_height, config.image_width, 3],
    FEATURES: [None, folded_inception.FEATURE_SIZE],
    BLOCK_INPUTS: [None, None, None, None],
  }[source]
  words = tf.TensorSpec([None, None], tf.int64)
  return image_batches.Batch(
    tf.TensorSpec(encoder_inputs),
    tf.TensorSpec([None], tf.int64),
    words,
    words,
    tf.TensorSpec([None, None], tf.int32),
  )


def step_seed(
  model: show_and_tell_model.ShowAndTellModel, seed: int
) -> tf.Tensor:
  """Returns the seed of a step, int64 [2]; to be traced."""
  return tf.stack(
    [tf.constant(seed, tf.int64), tf.cast(model.global_step, tf.int64)]
  )


def make_step_fn(
  model: show_and_tell_model.ShowAndTellModel,
  update: update_lib.Update,
  seed: int,
  source: str,
) -> StepFn:
  """Returns a compiled function that takes one step on a batch.

  Args:
    model: the model to train.
    update: changes the variables.
    seed: of the run.
    source: see `batch_signature`.
  """

  def encode(batch: image_batches.Batch, seeds: tf.Tensor) -> tf.Tensor:
    if source == IMAGES:
      return model.encode_images(batch.inputs, True, seeds)
    if source == BLOCK_INPUTS:
      assert model.inception
      return model.inception.encode_from_block(
        batch.inputs, model.training_dtype
      )
    return batch.inputs

  def step(
    batch: image_batches.Batch,
    learning_rate: tf.Tensor,
    inception_rate: tf.Tensor,
  ) -> update_lib.Scalars:
    seeds = step_seed(model, seed)

    def losses() -> tuple[tf.Tensor, tf.Tensor]:
      features = tf.gather(encode(batch, seeds), batch.rows)
      return model.losses(
        features, batch.input_seqs, batch.target_seqs, batch.mask, seeds
      )

    return update(losses, learning_rate, inception_rate)

  return tf.function(
    step,
    autograph=False,
    input_signature=[
      batch_signature(model.config, source),
      tf.TensorSpec([]),
      tf.TensorSpec([]),
    ],
  )


def make_self_critical_step_fn(
  model: show_and_tell_model.ShowAndTellModel,
  update: update_lib.Update,
  data: image_features.CaptionedFeatures,
  vocab: vocabulary.Vocabulary,
  seed: int,
  samples_per_image: int = 5,
  max_sample_length: int = 20,
) -> StepFn:
  """Returns a function that takes one step of self-critical training.

  It takes what `CaptionedFeatures.training_images` yields. In its result
  total_loss is the negative mean reward.

  Args:
    model: the model to train.
    update: changes the variables.
    data: the references, and the features of their images.
    vocab: the vocabulary of the shards.
    seed: of the run.
    samples_per_image: captions sampled per image.
    max_sample_length: largest number of words in a sample, including the end
      word.
  """
  captions = data.captions
  references: list[list[list[int]]] = [[] for _ in captions.image_ids]
  for index, image in enumerate(captions.images):
    # The end word counts, so that a caption that breaks off is worth less.
    references[image].append(captions.caption(index)[1:].tolist())
  reward = cider.Scorer(references, vocab.unk_id)
  left_out = [vocab.unk_id, *range(len(vocab), model.config.vocab_size)]
  features_spec, _, *words_specs = batch_signature(model.config, FEATURES)

  @functools.partial(
    tf.function, autograph=False, input_signature=[features_spec]
  )
  def sample(features: tf.Tensor) -> tf.Tensor:
    return self_critical.sample(
      model,
      features,
      vocab.start_id,
      vocab.end_id,
      left_out,
      max_sample_length,
      step_seed(model, seed),
    )

  @functools.partial(
    tf.function,
    autograph=False,
    input_signature=[
      features_spec,
      *words_specs,
      tf.TensorSpec([None]),
      tf.TensorSpec([]),
    ],
  )
  def learn(
    features: tf.Tensor,
    sources: tf.Tensor,
    targets: tf.Tensor,
    mask: tf.Tensor,
    weights: tf.Tensor,
    learning_rate: tf.Tensor,
  ) -> update_lib.Scalars:
    def losses() -> tuple[tf.Tensor, tf.Tensor]:
      loss = self_critical.loss(
        model, features, sources, targets, mask, weights, step_seed(model, seed)
      )
      return loss, loss

    return update(losses, learning_rate)

  def step(
    batch: ImageFeatures,
    learning_rate: tf.Tensor,
    unused_inception_rate: tf.Tensor,
  ) -> update_lib.Scalars:
    images, features = batch
    features = np.repeat(features, samples_per_image, axis=0)
    drawn = sample(features).numpy()
    # A caption without an end word has been cut off.
    lengths = np.where(
      (drawn == vocab.end_id).any(axis=1),
      np.argmax(drawn == vocab.end_id, axis=1) + 1,
      drawn.shape[1],
    )
    rewards = reward(
      [words[:length].tolist() for words, length in zip(drawn, lengths)],
      np.repeat(images, samples_per_image),
    )
    mask = (np.arange(drawn.shape[1]) < lengths[:, np.newaxis]).astype(np.int32)
    sources = np.concatenate(
      [np.full([len(drawn), 1], vocab.start_id), drawn[:, :-1]], axis=1
    )
    scalars = learn(
      *map(
        tf.constant,
        (
          features,
          sources,
          drawn,
          mask,
          self_critical.advantages(rewards, samples_per_image),
        ),
      ),
      learning_rate,
    )
    return {
      **scalars,
      'total_loss': -rewards.mean(),
      'batch_loss': -rewards.mean(),
    }

  return step
