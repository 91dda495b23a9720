# SPDX-License-Identifier: Apache-2.0
"""Captions drawn at random in the TensorFlow graph, for a batch of images."""

import numpy as np
import tensorflow as tf

from im2txt.inference_utils import beam_search


def sample(
  step_fn, initial_states, start_id, end_id, search, rules=(), first_image=0
):
  """Draws captions for a batch of images; to be traced.

  What is drawn for an image depends on the seed and on the number of the image
  alone, not on the batch that it is in.

  Args:
    step_fn: see `beam_search.beam_search`, as the next three.
    initial_states: likewise.
    start_id: likewise.
    end_id: likewise.
    search: a `search_config.SearchConfig`; `beam_size` captions are drawn per
      image.
    rules: list, see `decoding_rules`.
    first_image: int, the number of the first image of the batch.

  Returns:
    `beam_search.Captions`. Log probabilities are those that the model gives:
    neither the temperature nor what is left out changes them.
  """
  search = search.completed()
  time, count = search.max_caption_length, search.beam_size
  batch = tf.shape(initial_states)[0]
  # A number per word is all the chance there is, so those of an image can be
  # drawn by a seed of its own.
  uniform = tf.map_fn(
    lambda image: tf.random.stateless_uniform(
      [count, time], tf.stack([search.sampling_seed, image]), dtype=tf.float64
    ),
    tf.range(batch, dtype=tf.int64) + tf.cast(first_image, tf.int64),
    fn_output_signature=tf.TensorSpec([count, time], tf.float64),
  )
  uniform = tf.reshape(uniform, [-1, time])
  columns = tf.range(time)

  def advance(t, sentences, lengths, log_probabilities, ended, states):
    softmax, states = step_fn(tf.cast(sentences[:, t - 1], tf.int64), states)
    for rule in rules:
      softmax = rule(softmax, sentences, t)
    words = draw(filtered(softmax, search), uniform[:, t])
    # Where no word may follow, the caption stays as it is.
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
    [
      max(n, 1) ** max(search.length_normalization_factor, 0.0)
      for n in range(time + 1)
    ],
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
  return beam_search.Captions(
    *(
      tf.gather(x, order, batch_dims=1)
      for x in (sentences, lengths, log_probabilities, scores)
    ),
    ambiguous=tf.zeros([batch], tf.bool),
  )


def filtered(softmax, search):
  """Returns what words are drawn by, float32 [n, vocab_size], no sum of 1.

  First the temperature, then the k likeliest, then of these the fewest that
  have a share p. Words as likely as the last one that is kept are kept too.

  Args:
    softmax: float32 [n, vocab_size].
    search: a `search_config.SearchConfig`.
  """
  weights = softmax
  if search.temperature != 1.0:
    # Of the likeliest word first, which then cannot become 0.
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


def draw(weights, uniform):
  """Draws a word per row.

  Args:
    weights: float32 [n, vocab_size], what words are as likely as.
    uniform: float64 [n], in [0, 1), the chance.

  Returns:
    int32 [n]; a word without weight only where all words are.
  """
  sums = tf.cumsum(tf.cast(weights, tf.float64), axis=1)
  words = tf.searchsorted(
    sums, (uniform * sums[:, -1])[:, tf.newaxis], side='right'
  )[:, 0]
  return tf.minimum(words, tf.shape(weights)[1] - 1)
