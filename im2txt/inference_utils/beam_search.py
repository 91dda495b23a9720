# SPDX-License-Identifier: Apache-2.0
"""Beam search in the TensorFlow graph, for a batch of images at once.

With the settings of 2016 it finds what `caption_generator.CaptionGenerator`
finds, except where captions have equal scores: their order there is that of a
heap, which has no counterpart in tensors. Such images are marked for the caller
to search again.

Beyond these there are
  rules      that strike out words, see `decoding_rules`;
  groups     of the beam, which avoid one another's words: Vijayakumar et al.
             2018, "Diverse Beam Search", with the Hamming diversity;
  banks      for words that a caption must hold: Hokamp and Liu 2017, "Lexically
             Constrained Decoding with Grid Beam Search". Bank i has a whole
             beam of partial captions with i of the words, so that captions
             which have to take in an unlikely word do not compete with those
             that have it still before them. Only the last bank's may end.
"""

import typing

import numpy as np
import tensorflow as tf

from im2txt.inference_utils import caption_generator
from im2txt.inference_utils import decoding_rules

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
      another: the rest then says nothing about that image. Never so with
      rules, groups or banks, of which `CaptionGenerator` knows nothing.
  """

  sentences: tf.Tensor
  lengths: tf.Tensor
  log_probabilities: tf.Tensor
  scores: tf.Tensor
  ambiguous: tf.Tensor


class _Partial(typing.NamedTuple):
  """Partial captions, best first in each bank; impossible ones fill it.

  n is banks times width, the latter the captions of one bank.
  """

  sentences: tf.Tensor  # int32 [batch, n, max_caption_length].
  states: tf.Tensor  # float32 [batch, n, state_size].
  log_probabilities: tf.Tensor  # float64 [batch, n].
  penalties: tf.Tensor  # float64 [batch, n], for words of earlier groups.


class _Found(typing.NamedTuple):
  """Captions that may be returned, best first; impossible ones fill the list."""

  sentences: tf.Tensor
  lengths: tf.Tensor
  log_probabilities: tf.Tensor
  scores: tf.Tensor


class _Group(typing.NamedTuple):
  """The search of one group of the beam."""

  partial: _Partial
  complete: _Found  # [batch, width].
  # The partial captions before no word could follow, [batch, n].
  last: _Found


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
    tf.pad(
      softmax,
      [[0, 0], [0, num_chunks * _CHUNK - vocab_size]],
      constant_values=-1.0,
    ),
    [-1, num_chunks, _CHUNK],
  )
  _, best = tf.math.top_k(tf.reduce_max(chunks, axis=2), n)
  best = tf.sort(best, axis=1)
  values, columns = tf.math.top_k(
    tf.reshape(tf.gather(chunks, best, batch_dims=1), [-1, n * _CHUNK]), n
  )
  return values, (
    tf.gather(best, columns // _CHUNK, batch_dims=1) * _CHUNK + columns % _CHUNK
  )


def _rows(tensors, rows):
  """Gathers `rows` [batch, n] of each of the tensors [batch, m, ...]."""
  return [tf.gather(t, rows, batch_dims=1) for t in tensors]


def beam_search(
  step_fn, initial_states, start_id, end_id, search, rules=(), required_ids=()
):
  """Searches captions for a batch of images; to be traced.

  The search ends early, with the result of the full one: a group is settled
  as soon as its list of complete captions is full and no partial caption can
  grow into one that enters it. That is known from the best partial one alone.
  A word's log probability is never above 0 (the probabilities of all words
  need not sum to 1, as where one may not be chosen), and a penalty never below,
  so whatever descends from a partial caption of log probability p has one of at
  most p; and a score is that divided by length ** factor, which for a negative
  number is the closer to 0 the longer the caption, so it is at most
  p / max_caption_length ** factor. That bound grows with p. Where it is below
  the worst complete score for the best partial caption, it is so for all, and
  the list stays as it is whatever further steps do; partial captions do not
  count beside complete ones. An image is settled when all its groups are: until
  then each goes on, as others avoid its words. The loop ends when all images
  are settled.

  Args:
    step_fn: callable (words int64 [n], states float32 [n, state_size]) ->
      (softmax float32 [n, vocab_size], new states), all tensors. A word of
      probability 0 is never tried.
    initial_states: float32 [batch, state_size], after the image was fed.
    start_id: id of <S>.
    end_id: id of </S>.
    search: a `search_config.SearchConfig`.
    rules: list, see `decoding_rules`.
    required_ids: ids of words that captions must hold, see the module. There
      must be a rule that no caption ends without them.

  Returns:
    `Captions`.
  """
  search = search.completed()
  max_caption_length = search.max_caption_length
  num_groups, banks = search.beam_groups, len(required_ids) + 1
  width = search.beam_size // num_groups
  rows = banks * width  # Of one group.
  is_as_in_2016 = not rules and num_groups == banks == 1
  batch = initial_states.shape[0] or tf.shape(initial_states)[0]
  state_size = initial_states.shape[1]
  divisors = tf.constant(
    [
      float(n) ** max(search.length_normalization_factor, 0.0)
      for n in range(max_caption_length + 1)
    ],
    tf.float64,
  )
  columns = tf.range(max_caption_length)

  def joined(tensors):
    """Concatenates the rows of the groups."""
    return tensors[0] if num_groups == 1 else tf.concat(tensors, axis=1)

  def parted(tensor):
    """The inverse of `joined`."""
    return [tensor] if num_groups == 1 else tf.split(tensor, num_groups, axis=1)

  def likeliest(softmax, sentences, counts):
    """Returns the words that are tried next.

    Args:
      softmax: float32 [batch * rows, vocab_size].
      sentences: int32 [batch * rows, max_caption_length].
      counts: see `extend`.

    Returns:
      (words int32 [batch, rows, tries], log probabilities float64 likewise,
      banks int32 likewise that captions are in with these words, None if there
      is but one).
    """
    ranked = softmax
    if counts is not None:
      ranked *= tf.repeat(
        tf.exp(-search.beam_group_penalty * counts), rows, axis=0
      )
    # Among equally probable words the smaller ids, as in the other search.
    probabilities, words = top_words(ranked, min(width, softmax.shape[1]))
    if counts is not None:
      probabilities = tf.gather(softmax, words, batch_dims=1)
    bank = None
    if required_ids:
      is_in = decoding_rules.contains(sentences, required_ids)
      left = ~(is_in | decoding_rules.contains(words, required_ids))
      probabilities = tf.concat(
        [
          probabilities,
          tf.where(left, tf.gather(softmax, required_ids, axis=1), 0.0),
        ],
        axis=1,
      )
      words = tf.concat(
        [
          words,
          tf.repeat(tf.constant([required_ids]), tf.shape(words)[0], axis=0),
        ],
        axis=1,
      )
      is_new = tf.reduce_any(
        (words[:, :, tf.newaxis] == required_ids) & ~is_in[:, tf.newaxis],
        axis=2,
      )
      bank = tf.reshape(
        tf.reduce_sum(tf.cast(is_in, tf.int32), axis=1, keepdims=True)
        + tf.cast(is_new, tf.int32),
        [batch, rows, -1],
      )
    probabilities = tf.cast(probabilities, tf.float64)
    log_probabilities = tf.where(
      probabilities < caption_generator.MIN_PROBABILITY,
      _IMPOSSIBLE,
      tf.math.log(probabilities),
    )
    shape = [batch, rows, words.shape[1]]
    return (
      tf.reshape(words, shape),
      tf.reshape(log_probabilities, shape),
      bank,
    )

  def extend(t, group, softmax, states, counts):
    """Extends the captions of a group, which are of t words, by one.

    Args:
      t: int32, the place of the new word.
      group: `_Group`.
      softmax: float32 [batch, rows, vocab_size].
      states: float32 [batch, rows, state_size].
      counts: float32 [batch, vocab_size], how many partial captions of earlier
        groups have the word in this place; None if there is no such group.

    Returns:
      (`_Group`, bool [batch] whether its complete captions can still change,
      whether a complete caption that was left out is as good as one kept, and
      whether a partial one is).
    """
    partial = group.partial
    words, log_probabilities, bank = likeliest(
      tf.reshape(softmax, [-1, softmax.shape[2]]),
      tf.reshape(partial.sentences, [-1, max_caption_length]),
      counts,
    )
    tries = words.shape[2]
    log_probabilities += partial.log_probabilities[:, :, tf.newaxis]
    penalties = tf.repeat(partial.penalties[:, :, tf.newaxis], tries, axis=2)
    if counts is not None:
      penalties += search.beam_group_penalty * tf.cast(
        tf.gather(counts, words, batch_dims=1), tf.float64
      )
    ends = tf.equal(words, end_id)

    # A caption ends in one way at most, and no penalty is on that.
    ended = tf.reduce_max(
      tf.where(ends, log_probabilities, _IMPOSSIBLE), axis=2
    )
    candidates = _Found(
      tf.where(tf.equal(columns, t), end_id, partial.sentences),
      tf.fill([batch, rows], t + 1),
      ended,
      (ended - partial.penalties) / divisors[t + 1],
    )
    candidates = _Found(
      *(tf.concat(pair, 1) for pair in zip(group.complete, candidates))
    )
    scores, kept, complete_tied = _best(candidates.scores, width)
    complete = _Found(*_rows(candidates[:-1], kept), scores)

    flat = [batch, rows * tries]
    scores = tf.reshape(
      tf.where(ends, _IMPOSSIBLE, log_probabilities) - penalties, flat
    )
    if bank is not None:
      scores = tf.reshape(
        tf.where(
          tf.reshape(bank, [batch, 1, -1]) == tf.range(banks)[:, tf.newaxis],
          scores[:, tf.newaxis],
          _IMPOSSIBLE,
        ),
        [batch * banks, -1],
      )
    scores, kept, partial_tied = _best(scores, width)
    scores, kept = (tf.reshape(x, [batch, rows]) for x in (scores, kept))
    word, log_probabilities, penalties = _rows(
      [tf.reshape(x, flat) for x in (words, log_probabilities, penalties)], kept
    )
    log_probabilities = tf.where(
      scores > _IMPOSSIBLE, log_probabilities, _IMPOSSIBLE
    )
    sentences, states = _rows([partial.sentences, states], kept // tries)
    partial = _Partial(
      tf.where(tf.equal(columns, t), word[:, :, tf.newaxis], sentences),
      states,
      log_probabilities,
      penalties,
    )

    is_alive = tf.repeat(_any_in_bank(scores), width, axis=1)
    last = _Found(
      *(
        tf.where(
          tf.reshape(is_alive, [batch, rows, *[1] * (len(new.shape) - 2)]),
          new,
          old,
        )
        for new, old in zip(
          (
            partial.sentences,
            tf.fill([batch, rows], t + 1),
            log_probabilities,
            scores,
          ),
          group.last,
        )
      )
    )
    best = tf.reduce_max(scores, axis=1)
    can_win = (best > _IMPOSSIBLE) & (
      (best + _SLACK) / divisors[max_caption_length] >= complete.scores[:, -1]
    )
    return (
      _Group(partial, complete, last),
      can_win,
      complete_tied,
      tf.reduce_any(tf.reshape(partial_tied, [batch, banks]), axis=1),
    )

  def _any_in_bank(scores):
    """Returns bool [batch, banks], of scores [batch, rows]."""
    return (
      tf.reduce_max(tf.reshape(scores, [batch, banks, width]), axis=2)
      > _IMPOSSIBLE
    )

  def advance(t, live, ambiguous, groups):
    """Extends the captions of t words by one; returns all, one step on."""
    sentences = tf.reshape(
      joined([g.partial.sentences for g in groups]), [-1, max_caption_length]
    )
    softmax, states = step_fn(
      tf.cast(sentences[:, t - 1], tf.int64),
      tf.reshape(joined([g.partial.states for g in groups]), [-1, state_size]),
    )
    for rule in rules:
      softmax = rule(softmax, sentences, t)
    lanes = num_groups * rows
    softmax, states = (
      parted(tf.reshape(x, [batch, lanes, x.shape[1]]))
      for x in (softmax, states)
    )
    counts, extended, can_win = None, [], tf.zeros([batch], tf.bool)
    tied = tf.zeros([batch], tf.bool)
    for group, of_group in zip(groups, zip(softmax, states)):
      group, can_win_too, complete_tied, partial_tied = extend(
        t, group, *of_group, counts
      )
      extended.append(group)
      can_win |= can_win_too
      tied |= complete_tied | (can_win_too & partial_tied)
      if len(extended) < num_groups:
        counts = (0.0 if counts is None else counts) + _count_words(
          group.partial, t, softmax[0].shape[2]
        )
    if is_as_in_2016:
      ambiguous |= live & tied
    return t + 1, can_win & ~ambiguous, ambiguous, tuple(extended)

  nothing = tf.fill([batch, rows], _IMPOSSIBLE)
  blank = tf.fill([batch, rows, max_caption_length], start_id)
  # The start word is one caption, not many equal ones.
  start = tf.concat([tf.zeros([batch, 1], tf.float64), nothing[:, 1:]], 1)
  group = _Group(
    _Partial(
      blank,
      tf.repeat(initial_states[:, tf.newaxis], rows, axis=1),
      start,
      tf.zeros([batch, rows], tf.float64),
    ),
    _Found(
      blank[:, :width],
      tf.zeros([batch, width], tf.int32),
      nothing[:, :width],
      nothing[:, :width],
    ),
    _Found(blank, tf.ones([batch, rows], tf.int32), start, start),
  )
  _, _, ambiguous, groups = tf.while_loop(
    lambda t, live, *_: (t < max_caption_length) & tf.reduce_any(live),
    advance,
    (
      1,
      tf.ones([batch], tf.bool),
      tf.zeros([batch], tf.bool),
      (group,) * num_groups,
    ),
  )

  # Partial captions only count when no caption was completed, and those of the
  # last bank that has any.
  complete = _Found(*map(joined, zip(*(g.complete for g in groups))))
  bank = tf.reduce_max(
    tf.where(_any_in_bank(groups[0].last.scores), tf.range(banks), 0), axis=1
  )
  found = _Found(
    *map(joined, zip(*(_of_bank(g.last, bank, banks) for g in groups)))
  )
  has_complete = tf.reduce_any(
    complete.scores > _IMPOSSIBLE, axis=1, keepdims=True
  )
  found = _Found(
    *(
      tf.where(
        tf.reshape(has_complete, [batch, *[1] * (len(a.shape) - 1)]), a, b
      )
      for a, b in zip(complete, found)
    )
  )
  if num_groups > 1:
    # Each group ranked its own with penalties.
    scores = found.log_probabilities / tf.where(
      has_complete, tf.gather(divisors, found.lengths), 1.0
    )
    scores, kept, _ = _best(scores, search.beam_size)
    found = _Found(*_rows(found[:-1], kept), scores)
  if is_as_in_2016:
    ambiguous |= tf.reduce_any(
      _equal(found.scores[:, :-1], found.scores[:, 1:]), axis=1
    )
  return Captions(
    sentences=found.sentences,
    lengths=tf.where(found.scores > _IMPOSSIBLE, found.lengths, 0),
    log_probabilities=found.log_probabilities,
    scores=found.scores,
    ambiguous=ambiguous,
  )


def _count_words(partial, t, vocab_size):
  """Returns how many partial captions have each word in place t.

  Args:
    partial: `_Partial`.
    t: int32.
    vocab_size: int.

  Returns:
    float32 [batch, vocab_size].
  """
  return tf.math.bincount(
    partial.sentences[:, :, t],
    tf.cast(partial.log_probabilities > _IMPOSSIBLE, tf.float32),
    minlength=vocab_size,
    maxlength=vocab_size,
    axis=-1,
  )


def _of_bank(found, bank, banks):
  """Returns the captions of one bank per image.

  Args:
    found: `_Found` [batch, banks * width].
    bank: int32 [batch].
    banks: int.

  Returns:
    `_Found` [batch, width].
  """
  if banks == 1:
    return found
  return _Found(
    *(
      tf.gather(
        tf.reshape(
          x, tf.concat([tf.shape(x)[:1], [banks, -1], tf.shape(x)[2:]], axis=0)
        ),
        bank,
        batch_dims=1,
      )
      for x in found
    )
  )
