# SPDX-License-Identifier: Apache-2.0
"""Samples captions in the TensorFlow graph, for a batch of images."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from im2txt.inference_utils import beam_search
from im2txt.inference_utils import decoding_rules
from im2txt.inference_utils import search_config


def sample(
  step_fn: decoding_rules.StepFn,
  initial_states: tf.Tensor,
  start_id: int,
  end_id: int,
  search: search_config.SearchConfig,
  rules: Sequence[decoding_rules.Rule] = (),
  first_image: int | tf.Tensor = 0,
) -> beam_search.Captions:
  """Samples captions for a batch of images; to be traced.

  The samples of an image depend only on the seed and the number of the image,
  not on its batch.

  Args:
    step_fn: the model.
    initial_states: float32 [batch, state_size], after the image was fed.
    start_id: id of <S>.
    end_id: id of </S>.
    search: settings. `beam_size` captions are sampled per image.
    rules: see `decoding_rules`.
    first_image: the number of the first image of the batch.

  Returns:
    The captions of each image. Log probabilities are those of the model, and do
    not depend on temperature, `top_k` and `top_p`.
  """
  search = search.completed()
  assert search.beam_size and search.length_normalization_factor is not None
  factor = max(search.length_normalization_factor, 0.0)
  time, count = search.max_caption_length, search.beam_size
  batch = tf.shape(initial_states)[0]
  # One random number per word, from a seed of each image.
  uniform = tf.map_fn(
    lambda image: tf.random.stateless_uniform(
      [count, time], tf.stack([search.sampling_seed, image]), dtype=tf.float64
    ),
    tf.range(batch, dtype=tf.int64) + tf.cast(first_image, tf.int64),
    fn_output_signature=tf.TensorSpec([count, time], tf.float64),
  )
  uniform = tf.reshape(uniform, [-1, time])
  columns = tf.range(time)

  def advance(
    t: tf.Tensor,
    sentences: tf.Tensor,
    lengths: tf.Tensor,
    log_probabilities: tf.Tensor,
    ended: tf.Tensor,
    states: tf.Tensor,
  ) -> tuple[tf.Tensor, ...]:
    softmax, states = step_fn(tf.cast(sentences[:, t - 1], tf.int64), states)
    for rule in rules:
      softmax = rule(softmax, sentences, t)
    words = draw(filtered(softmax, search), uniform[:, t])
    # If no word may follow, the caption stays as it is.
    ended |= tf.reduce_max(softmax, axis=1) <= 0
    sentences = tf.where(
      (columns == t) & ~ended[:, tf.newaxis], words[:, tf.newaxis], sentences
    )
    lengths += tf.cast(~ended, tf.int32)
    log_probabilities += tf.where(
      ended,
      tf.zeros([], tf.float64),
      tf.math.log(tf.cast(tf.gather(softmax, words, batch_dims=1), tf.float64)),
    )
    return (
      t + 1,
      sentences,
      lengths,
      log_probabilities,
      ended | (words == end_id),
      states,
    )

  rows = batch * count
  _, sentences, lengths, log_probabilities, *_ = tf.while_loop(
    lambda t, _sentences, _lengths, _log_probabilities, ended, _states: (
      (t < time) & ~tf.reduce_all(ended)
    ),
    advance,
    (
      1,
      tf.fill([rows, time], start_id),
      tf.ones([rows], tf.int32),
      tf.zeros([rows], tf.float64),
      tf.zeros([rows], tf.bool),
      tf.repeat(initial_states, count, axis=0),
    ),
  )
  divisors = tf.constant(
    [max(n, 1) ** factor for n in range(time + 1)],
    tf.float64,
  )
  sentences, lengths, log_probabilities, scores = (
    tf.reshape(x, tf.concat([[batch, count], tf.shape(x)[1:]], axis=0))
    for x in (
      sentences,
      lengths,
      log_probabilities,
      log_probabilities / tf.gather(divisors, lengths),
    )
  )
  order = tf.argsort(scores, axis=1, direction='DESCENDING', stable=True)
  sentences, lengths, log_probabilities, scores = (
    tf.gather(x, order, batch_dims=1)
    for x in (sentences, lengths, log_probabilities, scores)
  )
  return beam_search.Captions(
    sentences, lengths, log_probabilities, scores, tf.zeros([batch], tf.bool)
  )


def filtered(
  softmax: tf.Tensor, search: search_config.SearchConfig
) -> tf.Tensor:
  """Applies temperature, `top_k` and `top_p`, in this order.

  Words as likely as the last one that is kept are kept too.

  Args:
    softmax: float32 [n, vocab_size].
    search: settings of the search.

  Returns:
    float32 [n, vocab_size], weights of words. They need not sum to 1.
  """
  weights = softmax
  if search.temperature != 1.0:
    # Divide by the largest weight first, so that it cannot underflow to 0.
    weights = tf.math.divide_no_nan(
      weights, tf.reduce_max(weights, axis=1, keepdims=True)
    ) ** (1.0 / search.temperature)
  if 0 < search.top_k < softmax.shape[1]:
    largest, _ = beam_search.top_words(weights, search.top_k)
    weights = tf.where(weights >= largest[:, -1:], weights, 0.0)
  if search.top_p < 1.0:
    largest = tf.sort(weights, axis=1, direction='DESCENDING')
    share = tf.cumsum(tf.cast(largest, tf.float64), axis=1, exclusive=True)
    is_kept = share < search.top_p * tf.reduce_sum(
      tf.cast(weights, tf.float64), axis=1, keepdims=True
    )
    least = tf.reduce_min(
      tf.where(is_kept, largest, np.inf), axis=1, keepdims=True
    )
    weights = tf.where(weights >= least, weights, 0.0)
  return weights


def draw(weights: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
  """Draws a word per row.

  Args:
    weights: float32 [n, vocab_size], proportional to the probabilities.
    uniform: float64 [n], random numbers in [0, 1).

  Returns:
    int32 [n], words. The word has weight 0 only if all words have.
  """
  sums = tf.cumsum(tf.cast(weights, tf.float64), axis=1)
  words = tf.searchsorted(
    sums, (uniform * sums[:, -1])[:, tf.newaxis], side='right'
  )[:, 0]
  return tf.minimum(words, tf.shape(weights)[1] - 1)
