# SPDX-License-Identifier: Apache-2.0
"""Compiled functions that take one step of training."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
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
from im2txt.runtime import distribution
from im2txt.text import vocabulary
from im2txt.training import scheduled_sampling
from im2txt.training import self_critical
from im2txt.training import update as update_lib

# What a batch holds of its images.
IMAGES, FEATURES, BLOCK_INPUTS = 'images', 'features', 'block inputs'

# The indices of some images and their features, float32 [images, 2048].
ImageFeatures = tuple[np.ndarray, np.ndarray]

# Takes a step: its batches, and the learning rates of the decoder and of
# Inception. A batch is an `image_batches.Batch` or, for self-critical training,
# `ImageFeatures`. Each batch is as many shares as this process has replicas.
StepFn = Callable[[Sequence[Any], tf.Tensor, tf.Tensor], update_lib.Scalars]

# The same, but the batches may be produced lazily.
LearnFn = Callable[[Iterable[Any], tf.Tensor, tf.Tensor], update_lib.Scalars]


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
  numbers = tf.TensorSpec([None], tf.int64)
  words = tf.TensorSpec([None, None], tf.int64)
  return image_batches.Batch(
    inputs=tf.TensorSpec(encoder_inputs),
    rows=numbers,
    input_seqs=words,
    target_seqs=words,
    mask=tf.TensorSpec([None, None], tf.int32),
    first_random_rows=numbers,
    places=numbers,
  )


def step_seed(
  model: show_and_tell_model.ShowAndTellModel,
  seed: int,
  batches: int = 1,
  index: int | tf.Tensor = 0,
) -> tf.Tensor:
  """Returns the seed of a batch, int64 [2]; to be traced.

  Args:
    model: knows the step.
    seed: of the run.
    batches: number of batches per step.
    index: of the batch in its step.
  """
  step = tf.cast(model.global_step, tf.int64)
  return tf.stack(
    [tf.constant(seed, tf.int64), step * batches + tf.cast(index, tf.int64)]
  )


def _make_learn_fn(
  model: show_and_tell_model.ShowAndTellModel,
  update: update_lib.Update,
  seed: int,
  batches_per_step: int,
  losses_fn: Callable[[Any, tf.Tensor], show_and_tell_model.Losses],
  batch_spec: Any,
  replicas: distribution.Replicas,
) -> LearnFn:
  """Returns a compiled function that takes one step on some batches.

  Args:
    model: the model to train.
    update: changes the variables.
    seed: of the run.
    batches_per_step: number of batches of a step.
    losses_fn: takes a batch and its seed, int64 [2]; to be traced.
    batch_spec: the TensorSpecs of a batch.
    replicas: those that train together.
  """
  rate = tf.TensorSpec([])
  specs = (batch_spec,) * replicas.local_count
  if batches_per_step == 1:

    @functools.partial(
      tf.function, autograph=False, input_signature=[specs, rate, rate]
    )
    def step(
      shares: Sequence[Any],
      learning_rate: tf.Tensor,
      inception_rate: tf.Tensor,
    ) -> update_lib.Scalars:
      seeds = step_seed(model, seed)
      return replicas.run(
        lambda replica: update(
          lambda: losses_fn(shares[replica], seeds),
          learning_rate,
          inception_rate,
        )
      )

    return lambda batches, *rates: step(tuple(batches), *rates)

  @functools.partial(
    tf.function,
    autograph=False,
    input_signature=[specs, tf.TensorSpec([], tf.int64)],
  )
  def add(shares: Sequence[Any], index: tf.Tensor) -> None:
    seeds = step_seed(model, seed, batches_per_step, index)
    replicas.run(
      lambda replica: update.add(lambda: losses_fn(shares[replica], seeds))
    )

  @functools.partial(tf.function, autograph=False, input_signature=[rate, rate])
  def finish(
    learning_rate: tf.Tensor, inception_rate: tf.Tensor
  ) -> update_lib.Scalars:
    return replicas.run(lambda _: update.finish(learning_rate, inception_rate))

  def learn(
    batches: Iterable[Any],
    learning_rate: tf.Tensor,
    inception_rate: tf.Tensor,
  ) -> update_lib.Scalars:
    shares = zip(*[iter(batches)] * replicas.local_count)
    for index, batch in enumerate(shares):
      add(batch, tf.constant(index, tf.int64))
    return finish(learning_rate, inception_rate)

  return learn


def make_step_fn(
  model: show_and_tell_model.ShowAndTellModel,
  update: update_lib.Update,
  seed: int,
  source: str,
  config: configuration.TrainingConfig,
  replicas: distribution.Replicas | None = None,
) -> StepFn:
  """Returns a function that takes one step on `image_batches.Batch`es.

  Args:
    model: the model to train.
    update: changes the variables.
    seed: of the run.
    source: see `batch_signature`.
    config: scheduled sampling, label smoothing and batches per step.
    replicas: those that train together; None: there is one.
  """
  sampling = config.scheduled_sampling != scheduled_sampling.NONE

  def encode(batch: image_batches.Batch, seeds: tf.Tensor) -> tf.Tensor:
    if source == IMAGES:
      return model.encode_images(batch.inputs, True, seeds, batch.places)
    if source == BLOCK_INPUTS:
      assert model.inception
      return model.inception.encode_from_block(
        batch.inputs, model.training_dtype
      )
    return batch.inputs

  def losses(
    batch: image_batches.Batch, seeds: tf.Tensor
  ) -> show_and_tell_model.Losses:
    features = tf.gather(encode(batch, seeds), batch.rows)
    words = batch.input_seqs
    if sampling:
      words = scheduled_sampling.input_words(
        model,
        features,
        words,
        batch.mask,
        scheduled_sampling.probability(config, model.global_step),
        seeds,
        batch.first_random_rows,
      )
    return model.losses(
      features,
      words,
      batch.target_seqs,
      batch.mask,
      seeds,
      config.label_smoothing,
      batch.first_random_rows,
    )

  learn = _make_learn_fn(
    model,
    update,
    seed,
    config.accumulate_steps,
    losses,
    batch_signature(model.config, source),
    replicas or distribution.Replicas(),
  )
  if not sampling:
    return learn

  def step(
    batches: Sequence[Any],
    learning_rate: tf.Tensor,
    inception_rate: tf.Tensor,
  ) -> update_lib.Scalars:
    sampled = scheduled_sampling.probability(config, model.global_step)
    scalars = learn(batches, learning_rate, inception_rate)
    return {**scalars, 'sampling_probability': sampled}

  return step


def make_self_critical_step_fn(
  model: show_and_tell_model.ShowAndTellModel,
  update: update_lib.Update,
  data: image_features.CaptionedFeatures,
  vocab: vocabulary.Vocabulary,
  seed: int,
  samples_per_image: int = 5,
  max_sample_length: int = 20,
  baseline: str = self_critical.MEAN,
  batches_per_step: int = 1,
) -> StepFn:
  """Returns a function that takes one step of self-critical training.

  It takes what `CaptionedFeatures.training_images` yields. In its result
  total_loss is the negative mean reward of the samples. With the greedy
  baseline, greedy_reward is the mean reward of the greedy captions.

  Args:
    model: the model to train.
    update: changes the variables.
    data: the references, and the features of their images.
    vocab: the vocabulary of the shards.
    seed: of the run.
    samples_per_image: captions sampled per image.
    max_sample_length: largest number of words in a sample, including the end
      word.
    baseline: one of `self_critical.BASELINES`.
    batches_per_step: number of batches of a step.
  """
  captions = data.captions
  references: list[list[list[int]]] = [[] for _ in captions.image_ids]
  for index, image in enumerate(captions.images):
    # The end word counts, so that a caption that breaks off is worth less.
    references[image].append(captions.caption(index)[1:].tolist())
  reward = cider.Scorer(references, vocab.unk_id)
  left_out = [vocab.unk_id, *range(len(vocab), model.config.vocab_size)]
  spec = batch_signature(model.config, FEATURES)
  features_spec = spec.inputs
  words_specs = spec.input_seqs, spec.target_seqs, spec.mask
  greedy = baseline == self_critical.GREEDY

  @functools.partial(
    tf.function,
    autograph=False,
    input_signature=[features_spec, tf.TensorSpec([], tf.int64)],
  )
  def sample(features: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    # The greedy captions are more rows of the same products: the weights, which
    # the processor waits for, are read once for all.
    rows = tf.repeat(features, samples_per_image, axis=0)
    return self_critical.sample(
      model,
      tf.concat([rows, features], axis=0) if greedy else rows,
      vocab.start_id,
      vocab.end_id,
      left_out,
      max_sample_length,
      step_seed(model, seed, batches_per_step, index),
      greedy_from=tf.shape(rows)[0] if greedy else None,
    )

  def losses(
    batch: tuple[tf.Tensor, ...], seeds: tf.Tensor
  ) -> show_and_tell_model.Losses:
    features, sources, targets, mask, weights = batch
    loss = self_critical.loss(
      model, features, sources, targets, mask, weights, seeds
    )
    words = tf.cast(tf.math.count_nonzero(mask), tf.float32)
    return show_and_tell_model.Losses(loss, loss, words)

  learn = _make_learn_fn(
    model,
    update,
    seed,
    batches_per_step,
    losses,
    (features_spec, *words_specs, tf.TensorSpec([None])),
    distribution.Replicas(),
  )

  def step(
    batches: Sequence[ImageFeatures],
    learning_rate: tf.Tensor,
    inception_rate: tf.Tensor,
  ) -> update_lib.Scalars:
    rewards, greedy_rewards = [], []

    def sampled() -> Iterator[tuple[tf.Tensor, ...]]:
      for index, (images, features) in enumerate(batches):
        drawn = sample(
          tf.constant(features), tf.constant(index, tf.int64)
        ).numpy()
        lengths = self_critical.lengths(drawn, vocab.end_id)
        owners = np.repeat(images, samples_per_image)
        found = reward(
          [words[:length].tolist() for words, length in zip(drawn, lengths)],
          np.concatenate([owners, images]) if greedy else owners,
        )
        count = len(owners)
        rewards.append(found[:count])
        greedy_rewards.append(found[count:])
        drawn, lengths = drawn[:count], lengths[:count]
        mask = np.arange(drawn.shape[1]) < lengths[:, np.newaxis]
        sources = np.concatenate(
          [np.full([count, 1], vocab.start_id), drawn[:, :-1]], axis=1
        )
        yield tuple(
          map(
            tf.constant,
            (
              np.repeat(features, samples_per_image, axis=0),
              sources,
              drawn,
              mask.astype(np.int32),
              self_critical.advantages(
                found[:count],
                samples_per_image,
                found[count:] if greedy else None,
              ),
            ),
          )
        )

    scalars = learn(sampled(), learning_rate, inception_rate)
    loss = -np.concatenate(rewards).mean()
    scalars = {**scalars, 'total_loss': loss, 'batch_loss': loss}
    if greedy:
      scalars['greedy_reward'] = np.concatenate(greedy_rewards).mean()
    return scalars

  return step
