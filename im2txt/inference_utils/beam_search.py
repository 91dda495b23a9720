# SPDX-License-Identifier: Apache-2.0
"""Beam search in the TensorFlow graph, for a batch of images at once.

It finds what `caption_generator.CaptionGenerator` finds, except where captions
have equal scores: their order there is that of a heap, which has no
counterpart in tensors. Such images are marked for the caller to search again.
Nor does it keep the captions that no word may follow: where it finds nothing,
the caller searches again too.
"""

import typing

import numpy as np
import tensorflow as tf

from im2txt.inference_utils import caption_generator

_IMPOSSIBLE = np.float64('-inf')
# Scores this close count as equal: above the rounding error of sums and
# logarithms in float64, far below what float32 probabilities can tell apart.
_EQUAL = 1e-9
# Words of which the best is found first, when the best of all are sought.
_CHUNK = 64
# Leaves a float32 softmax room to exceed 1 by rounding, at every step.
_SLACK = 1e-5


class Captions(typing.NamedTuple):
  """The captions of a batch of images, best first.

  Attributes:
    sentences: int32 [batch, beam_size, max_caption_length], word ids; what
      follows the end of a caption means nothing.
    lengths: int32 [batch, beam_size], words of each caption with both special
      ones; 0 where fewer captions were found.
    log_probabilities: float64 [batch, beam_size].
    scores: float64 [batch, beam_size], what captions are ranked by.
    ambiguous: bool [batch], True where captions with equal scores may have
      been put in another order than by `CaptionGenerator`, or one kept for
      another: the rest then says nothing about that image.
  """
  sentences: tf.Tensor
  lengths: tf.Tensor
  log_probabilities: tf.Tensor
  scores: tf.Tensor
  ambiguous: tf.Tensor


class _Partial(typing.NamedTuple):
  """Partial captions, best first; impossible ones fill the beam."""
  sentences: tf.Tensor  # int32 [batch, n, max_caption_length].
  states: tf.Tensor  # float32 [batch, beam_size, state_size].
  log_probabilities: tf.Tensor  # float64 [batch, n].


class _Complete(typing.NamedTuple):
  """Complete captions, best first; impossible ones fill the list."""
  sentences: tf.Tensor
  lengths: tf.Tensor
  log_probabilities: tf.Tensor
  scores: tf.Tensor


def _equal(a, b):
  # Not so for two impossible ones: their difference is no number.
  return tf.abs(a - b) <= _EQUAL


def _best(scores, n):
  """Returns the n best of each row.

  Args:
    scores: float64 [batch, candidates].
    n: int.

  Returns:
    (scores float64 [batch, n], their columns int32 [batch, n], bool [batch]
    whether the best of those left out is as good as the last one kept).
    Where there are fewer than n, the rest scores as impossible and its columns
    mean nothing.
  """
  padded = tf.pad(scores, [[0, 0], [0, n + 1]], constant_values=_IMPOSSIBLE)
  best, columns = tf.math.top_k(padded, n + 1)
  columns = tf.minimum(columns[:, :n], tf.shape(scores)[1] - 1)
  return best[:, :n], columns, _equal(best[:, n - 1], best[:, n])


def top_words(softmax, n):
  """Returns what `tf.math.top_k` does, in a fifth of the time.

  The n best words are in the n chunks of words whose own best are best: a word
  elsewhere has at least n before it, one in each of these. With equal ones the
  first counts, of chunks as of words.

  Args:
    softmax: float32 [rows, vocab_size], not below 0.
    n: int, at most vocab_size.

  Returns:
    (float32 [rows, n], int32 [rows, n]), the largest of each row, equal ones in
    the order of their columns; and the columns.
  """
  vocab_size = softmax.shape[1]
  num_chunks = -(-vocab_size // _CHUNK)
  if num_chunks <= 2 * n:
    return tf.math.top_k(softmax, n)
  chunks = tf.reshape(
      tf.pad(softmax, [[0, 0], [0, num_chunks * _CHUNK - vocab_size]],
             constant_values=-1.0), [-1, num_chunks, _CHUNK])
  _, best = tf.math.top_k(tf.reduce_max(chunks, axis=2), n)
  best = tf.sort(best, axis=1)
  values, columns = tf.math.top_k(tf.reshape(
      tf.gather(chunks, best, batch_dims=1), [-1, n * _CHUNK]), n)
  return values, (tf.gather(best, columns // _CHUNK, batch_dims=1) * _CHUNK
                  + columns % _CHUNK)


def _rows(tensors, rows):
  """Gathers `rows` [batch, n] of each of the tensors [batch, m, ...]."""
  return [tf.gather(t, rows, batch_dims=1) for t in tensors]


def beam_search(step_fn, initial_states, start_id, end_id, beam_size=3,
                max_caption_length=20, length_normalization_factor=0.0):
  """Searches captions for a batch of images; to be traced.

  The search ends early, with the result of the full one: an image is settled
  as soon as its list of complete captions is full and no partial caption can
  grow into one that enters it. That is known from the best partial one alone.
  A word's log probability is never above 0 (the probabilities of all words
  need not sum to 1, as where one may not be chosen), so whatever descends from
  a partial caption of log probability p has one of at most p; and a score is
  that divided by length ** factor, which for a negative number is the closer to
  0 the longer the caption, so it is at most p / max_caption_length ** factor.
  That bound grows with p. Where it is below the worst complete score for the
  best partial caption, it is so for all, and the list stays as it is whatever
  further steps do; partial captions do not count beside complete ones. The
  loop ends when all images are settled.

  Args:
    step_fn: callable (words int64 [n], states float32 [n, state_size]) ->
      (softmax float32 [n, vocab_size], new states), all tensors. A word of
      probability 0 is never tried.
    initial_states: float32 [batch, state_size], after the image was fed.
    start_id: see `caption_generator.CaptionGenerator`.
    end_id: likewise.
    beam_size: likewise.
    max_caption_length: likewise.
    length_normalization_factor: likewise.

  Returns:
    `Captions`.
  """
  batch = tf.shape(initial_states)[0]
  state_size = initial_states.shape[1]
  divisors = tf.constant(
      [float(n) ** max(length_normalization_factor, 0.0)
       for n in range(max_caption_length + 1)], tf.float64)
  columns = tf.range(max_caption_length)

  def advance(t, live, ambiguous, partial, complete):
    """Extends the captions of t words by one; returns all, one step on."""
    softmax, states = step_fn(
        tf.cast(tf.reshape(partial.sentences[:, :, t - 1], [-1]), tf.int64),
        tf.reshape(partial.states, [-1, state_size]))
    # Among equally probable words the smaller ids, as in the other search.
    probabilities, words = top_words(
        softmax, min(beam_size, softmax.shape[1]))
    probabilities = tf.cast(probabilities, tf.float64)
    log_probabilities = tf.where(
        probabilities < caption_generator.MIN_PROBABILITY, _IMPOSSIBLE,
        tf.math.log(probabilities))
    tries = words.shape[1]
    words = tf.reshape(words, [batch, beam_size, tries])
    log_probabilities = partial.log_probabilities[:, :, tf.newaxis] + (
        tf.reshape(log_probabilities, [batch, beam_size, tries]))
    ends = tf.equal(words, end_id)

    # A caption ends in one way at most.
    ended = tf.reduce_max(
        tf.where(ends, log_probabilities, _IMPOSSIBLE), axis=2)
    candidates = _Complete(
        tf.where(tf.equal(columns, t), end_id, partial.sentences),
        tf.fill([batch, beam_size], t + 1), ended, ended / divisors[t + 1])
    candidates = _Complete(
        *(tf.concat(pair, 1) for pair in zip(complete, candidates)))
    scores, kept, complete_tied = _best(candidates.scores, beam_size)
    complete = _Complete(*_rows(candidates[:-1], kept), scores)

    extended = tf.reshape(tf.where(ends, _IMPOSSIBLE, log_probabilities),
                          [batch, beam_size * tries])
    log_probabilities, kept, partial_tied = _best(extended, beam_size)
    word, = _rows([tf.reshape(words, [batch, beam_size * tries])], kept)
    sentences, states = _rows(
        [partial.sentences, tf.reshape(states, [batch, beam_size, state_size])],
        kept // tries)
    partial = _Partial(
        tf.where(tf.equal(columns, t), word[:, :, tf.newaxis], sentences),
        states, log_probabilities)

    best_partial = log_probabilities[:, 0]
    can_win = (best_partial > _IMPOSSIBLE) & (
        (best_partial + _SLACK) / divisors[max_caption_length]
        >= complete.scores[:, -1])
    ambiguous |= live & (complete_tied | (can_win & partial_tied))
    return t + 1, can_win & ~ambiguous, ambiguous, partial, complete

  shape = [batch, beam_size]
  nothing = tf.fill(shape, _IMPOSSIBLE)
  blank = tf.fill(shape + [max_caption_length], start_id)
  partial = _Partial(
      blank, tf.repeat(initial_states[:, tf.newaxis], beam_size, axis=1),
      # The start word is one caption, not beam_size equal ones.
      tf.concat([tf.zeros([batch, 1], tf.float64), nothing[:, 1:]], 1))
  complete = _Complete(blank, tf.zeros(shape, tf.int32), nothing, nothing)
  t, _, ambiguous, partial, complete = tf.while_loop(
      lambda t, live, *_: (t < max_caption_length) & tf.reduce_any(live),
      advance,
      (1, tf.ones([batch], tf.bool), tf.zeros([batch], tf.bool), partial,
       complete))

  # Partial captions only count when no caption was completed.
  has_complete = complete.scores[:, :1] > _IMPOSSIBLE
  scores = tf.where(
      has_complete, complete.scores, partial.log_probabilities)
  lengths = tf.where(has_complete, complete.lengths, t)
  return Captions(
      sentences=tf.where(has_complete[:, :, tf.newaxis], complete.sentences,
                         partial.sentences),
      lengths=tf.where(scores > _IMPOSSIBLE, lengths, 0),
      log_probabilities=tf.where(
          has_complete, complete.log_probabilities, partial.log_probabilities),
      scores=scores,
      ambiguous=ambiguous | tf.reduce_any(
          _equal(scores[:, :-1], scores[:, 1:]), axis=1))
