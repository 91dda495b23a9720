# SPDX-License-Identifier: Apache-2.0
"""Self-critical training: captions are sampled and rewarded by their CIDEr-D.

Rennie et al. 2017, "Self-critical Sequence Training for Image Captioning",
equation 7. The baseline is the mean reward of the image's other samples (Luo
2020), or the reward of its greedy caption as in the first paper. Training
starts from a model that was trained by cross entropy.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from im2txt import show_and_tell_model

# What the reward of a sample is compared with.
MEAN, GREEDY = BASELINES = ('mean', 'greedy')


def sample(
  model: show_and_tell_model.ShowAndTellModel,
  features: tf.Tensor,
  start_id: int,
  end_id: int,
  left_out: Sequence[int],
  max_length: int,
  seed: tf.Tensor,
  greedy_from: tf.Tensor | None = None,
) -> tf.Tensor:
  """Samples a caption for each row; to be traced.

  Args:
    model: the model to sample from.
    features: float32 [batch, 2048].
    start_id: id of the start word.
    end_id: id of the end word.
    left_out: ids that are never drawn.
    max_length: largest number of words, including the end word.
    seed: int [2] that determines the samples.
    greedy_from: int32 scalar. Rows from this one on get the likeliest word at
      each step instead; None if there are none.

  Returns:
    int64 [batch, time], word ids, padded with the end word.
  """
  batch = tf.shape(features)[0]
  allowed = np.ones(model.config.vocab_size, np.float32)
  allowed[left_out] = 0.0
  end = tf.fill([batch], tf.constant(end_id, tf.int64))

  def draw(
    words: tf.Tensor, states: tf.Tensor, ended: tf.Tensor, drawn: tf.Tensor
  ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    softmax, states = model.inference_step(words, states)
    words = tf.random.stateless_categorical(
      tf.math.log(softmax * allowed),
      1,
      tf.random.experimental.stateless_fold_in(
        seed, tf.shape(drawn)[1], alg='philox'
      ),
    )[:, 0]
    if greedy_from is not None:
      likeliest = tf.argmax(softmax * allowed, axis=1)
      words = tf.where(tf.range(batch) < greedy_from, words, likeliest)
    words = tf.where(ended, end, words)
    return (
      words,
      states,
      ended | (words == end_id),
      tf.concat([drawn, words[:, tf.newaxis]], axis=1),
    )

  state = (
    tf.fill([batch], tf.constant(start_id, tf.int64)),
    model.initial_state(features),
    tf.zeros([batch], tf.bool),
    tf.zeros([batch, 0], tf.int64),
  )
  shapes = (*(x.shape for x in state[:-1]), tf.TensorShape([None, None]))
  *_, drawn = tf.while_loop(
    lambda words, states, ended, drawn: ~tf.reduce_all(ended),
    draw,
    state,
    shape_invariants=shapes,
    maximum_iterations=max_length,
  )
  return drawn


def lengths(drawn: np.ndarray, end_id: int) -> np.ndarray:
  """Returns the lengths of captions in words, including the end word.

  A caption without an end word has been cut off.

  Args:
    drawn: int [batch, time].
    end_id: id of the end word.

  >>> lengths(np.array([[5, 1, 1], [5, 6, 7]]), end_id=1).tolist()
  [2, 3]
  """
  ended = drawn == end_id
  return np.where(
    ended.any(axis=1), np.argmax(ended, axis=1) + 1, drawn.shape[1]
  )


def advantages(
  rewards: np.ndarray | Sequence[float],
  samples_per_image: int,
  baselines: np.ndarray | Sequence[float] | None = None,
) -> np.ndarray:
  """Returns each reward minus its baseline.

  Args:
    rewards: float [images * samples_per_image], grouped by image.
    samples_per_image: 2 or more without `baselines`.
    baselines: float [images]. The default is, for each reward, the mean reward
      of the image's other samples.

  Returns:
    float32 [images * samples_per_image].

  >>> advantages([1.0, 3.0], 2).tolist()
  [-2.0, 2.0]
  >>> advantages([1.0, 3.0], 2, baselines=[2.5]).tolist()
  [-1.5, 0.5]
  """
  rewards = np.reshape(rewards, [-1, samples_per_image])
  if baselines is None:
    others = rewards.sum(axis=1, keepdims=True) - rewards
    baselines = others / (samples_per_image - 1)
  else:
    baselines = np.reshape(baselines, [-1, 1])
  return (rewards - baselines).astype(np.float32).reshape(-1)


def loss(
  model: show_and_tell_model.ShowAndTellModel,
  features: tf.Tensor,
  input_seqs: tf.Tensor,
  target_seqs: tf.Tensor,
  input_mask: tf.Tensor,
  weights: tf.Tensor,
  seed: tf.Tensor,
) -> tf.Tensor:
  """A loss that has the gradient of the negative expected reward.

  Args:
    model: the model that is trained.
    features: see `ShowAndTellModel.cross_entropies`, as the next three.
    input_seqs: sampled captions.
    target_seqs: sampled captions.
    input_mask: marks the words of the sampled captions.
    weights: float32 [batch], see `advantages`.
    seed: see `ShowAndTellModel.cross_entropies`.

  Returns:
    float32 scalar, the mean over words of cross entropy times weight.
  """
  entropies = model.cross_entropies(
    features, input_seqs, target_seqs, input_mask, is_training=True, seed=seed
  )
  rows = tf.where(input_mask > 0)[:, 0]
  return tf.reduce_mean(entropies * tf.gather(weights, rows))
