# SPDX-License-Identifier: Apache-2.0
"""Compiled functions that take one step, by what a step learns from."""

import functools

import numpy as np
import tensorflow as tf

from im2txt.input_pipeline import image_batches
from im2txt.ops import folded_inception
from im2txt.training import self_critical

# What the encoder's part of a step begins with.
IMAGES, FEATURES, BLOCK_INPUTS = 'images', 'features', 'block inputs'


def batch_signature(config, source):
  """Returns an `image_batches.Batch` of TensorSpecs.

  Args:
    config: a `configuration.ModelConfig`.
    source: IMAGES, FEATURES or BLOCK_INPUTS, what a batch's `inputs` are.
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


def step_seed(model, seed):
  """Returns an int64 [2] tensor, the seed of a step; to be traced."""
  return tf.stack(
    [tf.constant(seed, tf.int64), tf.cast(model.global_step, tf.int64)]
  )


def make_step_fn(model, update, seed, source):
  """Returns a compiled callable that takes one step.

  Its arguments are an `image_batches.Batch`, and the learning rates of the
  decoder and of Inception. It returns a dict of scalars.

  Args:
    model: a `ShowAndTellModel`.
    update: an `update.Update`.
    seed: int, of the run.
    source: see `batch_signature`.
  """

  def encode(batch, seeds):
    if source == IMAGES:
      return model.encode_images(batch.inputs, True, seeds)
    if source == BLOCK_INPUTS:
      return model.inception.encode_from_block(
        batch.inputs, model.training_dtype
      )
    return batch.inputs

  def step(batch, learning_rate, inception_rate):
    seeds = step_seed(model, seed)

    def losses():
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
  model, update, data, vocab, seed, samples_per_image=5, max_sample_length=20
):
  """Returns a callable that takes one step of self-critical training.

  Its arguments are a pair that `CaptionedFeatures.training_images` yields, and
  two learning rates, see `make_step_fn`. It returns a dict of scalars, in which
  total_loss is the negative mean reward.

  Args:
    model: a `ShowAndTellModel`.
    update: an `Update`.
    data: `image_features.CaptionedFeatures`.
    vocab: the `Vocabulary` of the shards.
    seed: int, of the run.
    samples_per_image: captions sampled per image.
    max_sample_length: words sampled at most, the end word included.
  """
  captions = data.captions
  references = [[] for _ in captions.image_ids]
  for index, image in enumerate(captions.images):
    references[image].append(captions.caption(index)[1:].tolist())
  reward = self_critical.CiderReward(references, vocab.unk_id)
  left_out = [vocab.unk_id, *range(len(vocab), model.config.vocab_size)]
  features_spec, _, *words_specs = batch_signature(model.config, FEATURES)

  @functools.partial(
    tf.function, autograph=False, input_signature=[features_spec]
  )
  def sample(features):
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
  def learn(features, sources, targets, mask, weights, learning_rate):
    def losses():
      loss = self_critical.loss(
        model, features, sources, targets, mask, weights, step_seed(model, seed)
      )
      return loss, loss

    return update(losses, learning_rate)

  def step(batch, learning_rate, unused_inception_rate):
    images, features = batch
    features = np.repeat(features, samples_per_image, axis=0)
    drawn = sample(features).numpy()
    # A caption ends with its first end word, or not at all.
    lengths = np.where(
      (drawn == vocab.end_id).any(axis=1),
      np.argmax(drawn == vocab.end_id, axis=1) + 1,
      drawn.shape[1],
    )
    rewards = np.array(
      [
        reward(words[:length].tolist(), image)
        for words, length, image in zip(
          drawn, lengths, np.repeat(images, samples_per_image)
        )
      ]
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
