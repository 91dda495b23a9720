# SPDX-License-Identifier: Apache-2.0
"""Beam search in the TensorFlow graph, for a batch of images at once.

With the settings of 2016 it finds the same captions as
`caption_generator.CaptionGenerator`, unless captions have equal scores. There
their order is that of a heap, which cannot be reproduced with tensors. Such
images are marked, and the caller must search them again, or asks for the order
in which they were found.

Other settings add
  rules      that exclude words, see `decoding_rules`;
  groups     of the beam, which avoid the words of other groups: Vijayakumar et
             al. 2018, "Diverse Beam Search", with the Hamming diversity;
  banks      for words that a caption must contain: Hokamp and Liu 2017,
             "Lexically Constrained Decoding with Grid Beam Search". Bank i has
             a whole beam of partial captions with i of the words. So a caption
             with an unlikely required word does not compete with captions that
             do not have it yet. Only captions of the last bank may end.
"""

from collections.abc import Sequence
import typing

import numpy as np
import tensorflow as tf

from im2txt.inference_utils import caption_generator
from im2txt.inference_utils import decoding_rules
from im2txt.inference_utils import search_config

_IMPOSSIBLE = np.float64('-inf')
# Scores that differ by less count as equal. This is above the rounding error of
# sums and logarithms in float64, and far below the resolution of float32
# probabilities.
_EQUAL = 1e-9
# Words per chunk, see `top_words`.
_CHUNK = 64
# A float32 softmax may exceed 1 by a rounding error at every step.
_SLACK = 1e-5


class Captions(typing.NamedTuple):
  """The captions of a batch of images, best first.

  Attributes:
    sentences: int32 [batch, beam_size, max_caption_length], word ids. Ids after
      the end of a caption have no meaning.
    lengths: int32 [batch, beam_size], words per caption, including <S> and
      </S>; 0 if fewer captions were found.
    log_probabilities: float64 [batch, beam_size].
    scores: float64 [batch, beam_size], by which captions are ranked.
    ambiguous: bool [batch], True if captions have equal scores, so that
      `CaptionGenerator` might order or choose them differently. The other
      fields are then not valid for this image. Always False without
      `mark_ties`, and with rules, groups or banks, which `CaptionGenerator`
      does not support.
  """

  sentences: tf.Tensor
  lengths: tf.Tensor
  log_probabilities: tf.Tensor
  scores: tf.Tensor
  ambiguous: tf.Tensor


class _Partial(typing.NamedTuple):
  """Partial captions, best first in each bank, padded with impossible ones.

  n is banks times width, where width is the number of captions per bank.
  """

  sentences: tf.Tensor  # int32 [batch, n, max_caption_length].
  states: tf.Tensor  # float32 [batch, n, state_size].
  log_probabilities: tf.Tensor  # float64 [batch, n].
  penalties: tf.Tensor  # float64 [batch, n], for words of earlier groups.


class _Found(typing.NamedTuple):
  """Captions that may be returned, best first, padded with impossible ones."""

  sentences: tf.Tensor
  lengths: tf.Tensor
  log_probabilities: tf.Tensor
  scores: tf.Tensor


class _Group(typing.NamedTuple):
  """The search of one group of the beam."""

  partial: _Partial
  complete: _Found  # [batch, width].
  # The last partial captions that a word could follow, [batch, n].
  last: _Found


def _equal(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
  # Two impossible scores are not equal: their difference is NaN.
  return tf.abs(a - b) <= _EQUAL


def _best(scores: tf.Tensor, n: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
  """Returns the n best of each row.

  Args:
    scores: float64 [batch, candidates].
    n: how many to return.

  Returns:
    (float64 [batch, n], their scores; int32 [batch, n], their columns; bool
    [batch], whether the next best is as good as the last one kept). If there
    are fewer than n, the rest has impossible scores and meaningless columns.
  """
  padded = tf.pad(scores, [[0, 0], [0, n + 1]], constant_values=_IMPOSSIBLE)
  best, columns = tf.math.top_k(padded, n + 1)
  columns = tf.minimum(columns[:, :n], tf.shape(scores)[1] - 1)
  return best[:, :n], columns, _equal(best[:, n - 1], best[:, n])


def top_words(softmax: tf.Tensor, n: int) -> tuple[tf.Tensor, tf.Tensor]:
  """Returns the same as `tf.math.top_k`, in a fifth of the time.

  The top n words lie in the n chunks with the largest maxima: any other word is
  beaten by one word in each of these. Of equal words, and of equal chunks, the
  first counts as larger.

  Args:
    softmax: float32 [rows, vocab_size], not below 0.
    n: at most vocab_size.

  Returns:
    (float32 [rows, n], the largest values of each row, equal ones in the order
    of their columns; int32 [rows, n], the columns).
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


def _rows(tensors: Sequence[tf.Tensor], rows: tf.Tensor) -> list[tf.Tensor]:
  """Gathers `rows` [batch, n] of each of the tensors [batch, m, ...]."""
  return [tf.gather(t, rows, batch_dims=1) for t in tensors]


class _Search:
  """The search of `beam_search`, whose arguments it takes.

  The shapes below have `rows`, the partial captions of a group: `banks` times
  `width`.
  """

  def __init__(
    self,
    step_fn: decoding_rules.StepFn,
    initial_states: tf.Tensor,
    start_id: int,
    end_id: int,
    search: search_config.SearchConfig,
    rules: Sequence[decoding_rules.Rule],
    required_ids: Sequence[int],
    mark_ties: bool,
  ) -> None:
    self._step_fn = step_fn
    self._initial_states = initial_states
    self._start_id = start_id
    self._end_id = end_id
    self._search = search = search.completed()
    self._rules = rules
    self._required_ids = required_ids
    assert search.beam_size and search.length_normalization_factor is not None
    self._max_caption_length = search.max_caption_length
    self._num_groups = search.beam_groups
    self._banks = len(required_ids) + 1
    self._width = search.beam_size // self._num_groups
    self._rows = self._banks * self._width
    # `CaptionGenerator` settles ties, and has the settings of 2016 only.
    self._marks_ties = (
      mark_ties and not rules and self._num_groups == self._banks == 1
    )
    self._batch = initial_states.shape[0] or tf.shape(initial_states)[0]
    self._state_size = initial_states.shape[1]
    factor = max(search.length_normalization_factor, 0.0)
    self._divisors = tf.constant(
      [float(n) ** factor for n in range(self._max_caption_length + 1)],
      tf.float64,
    )
    self._columns = tf.range(self._max_caption_length)

  def run(self) -> Captions:
    """Searches until the captions of all images are settled."""
    group = self._start()
    _, _, ambiguous, groups = tf.while_loop(
      lambda t, live, *_: (t < self._max_caption_length) & tf.reduce_any(live),
      self._advance,
      (
        1,
        tf.ones([self._batch], tf.bool),
        tf.zeros([self._batch], tf.bool),
        (group,) * self._num_groups,
      ),
    )
    return self._captions(groups, ambiguous)

  def _start(self) -> _Group:
    """Returns a group whose only possible caption is the start word."""
    nothing = tf.fill([self._batch, self._rows], _IMPOSSIBLE)
    blank = tf.fill(
      [self._batch, self._rows, self._max_caption_length], self._start_id
    )
    # All but one of the captions of only the start word are impossible.
    start = tf.concat(
      [tf.zeros([self._batch, 1], tf.float64), nothing[:, 1:]], 1
    )
    return _Group(
      _Partial(
        blank,
        tf.repeat(self._initial_states[:, tf.newaxis], self._rows, axis=1),
        start,
        tf.zeros([self._batch, self._rows], tf.float64),
      ),
      _Found(
        blank[:, : self._width],
        tf.zeros([self._batch, self._width], tf.int32),
        nothing[:, : self._width],
        nothing[:, : self._width],
      ),
      _Found(blank, tf.ones([self._batch, self._rows], tf.int32), start, start),
    )

  def _joined(self, tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """Concatenates the rows of the groups."""
    return tensors[0] if self._num_groups == 1 else tf.concat(tensors, axis=1)

  def _parted(self, tensor: tf.Tensor) -> list[tf.Tensor]:
    """The inverse of `_joined`."""
    return (
      [tensor]
      if self._num_groups == 1
      else tf.split(tensor, self._num_groups, axis=1)
    )

  def _likeliest(
    self, softmax: tf.Tensor, sentences: tf.Tensor, counts: tf.Tensor | None
  ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
    """Returns the words to try next.

    Args:
      softmax: float32 [batch * rows, vocab_size].
      sentences: int32 [batch * rows, max_caption_length].
      counts: see `_extend`.

    Returns:
      (int32 [batch, rows, tries], words; float64 likewise, their log
      probabilities; int32 likewise, the banks of the captions with these words,
      None if there is only one bank).
    """
    ranked = softmax
    if counts is not None:
      ranked *= tf.repeat(
        tf.exp(-self._search.beam_group_penalty * counts), self._rows, axis=0
      )
    # Of equally probable words the smaller id comes first, as in 2016.
    probabilities, words = top_words(ranked, min(self._width, softmax.shape[1]))
    if counts is not None:
      probabilities = tf.gather(softmax, words, batch_dims=1)
    bank = None
    if self._required_ids:
      is_in = decoding_rules.contains(sentences, self._required_ids)
      left = ~(is_in | decoding_rules.contains(words, self._required_ids))
      probabilities = tf.concat(
        [
          probabilities,
          tf.where(left, tf.gather(softmax, self._required_ids, axis=1), 0.0),
        ],
        axis=1,
      )
      words = tf.concat(
        [
          words,
          tf.repeat(
            tf.constant([self._required_ids]), tf.shape(words)[0], axis=0
          ),
        ],
        axis=1,
      )
      is_new = tf.reduce_any(
        (words[:, :, tf.newaxis] == self._required_ids) & ~is_in[:, tf.newaxis],
        axis=2,
      )
      bank = tf.reshape(
        tf.reduce_sum(tf.cast(is_in, tf.int32), axis=1, keepdims=True)
        + tf.cast(is_new, tf.int32),
        [self._batch, self._rows, -1],
      )
    probabilities = tf.cast(probabilities, tf.float64)
    log_probabilities = tf.where(
      probabilities < caption_generator.MIN_PROBABILITY,
      _IMPOSSIBLE,
      tf.math.log(probabilities),
    )
    shape = [self._batch, self._rows, words.shape[1]]
    return (
      tf.reshape(words, shape),
      tf.reshape(log_probabilities, shape),
      bank,
    )

  def _extend(
    self,
    t: tf.Tensor,
    group: _Group,
    softmax: tf.Tensor,
    states: tf.Tensor,
    counts: tf.Tensor | None,
  ) -> tuple[_Group, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Extends the captions of a group, which have t words, by one word.

    Args:
      t: int32, the place of the new word.
      group: the group to extend.
      softmax: float32 [batch, rows, vocab_size].
      states: float32 [batch, rows, state_size].
      counts: float32 [batch, vocab_size], the number of partial captions of
        earlier groups with this word in this place; None for the first group.

    Returns:
      (the new group; bool [batch], whether its complete captions can still
      change; bool [batch], whether a complete caption that was dropped is as
      good as one kept; bool [batch], the same for partial captions).
    """
    partial = group.partial
    words, log_probabilities, bank = self._likeliest(
      tf.reshape(softmax, [-1, softmax.shape[2]]),
      tf.reshape(partial.sentences, [-1, self._max_caption_length]),
      counts,
    )
    tries = words.shape[2]
    log_probabilities += partial.log_probabilities[:, :, tf.newaxis]
    penalties = tf.repeat(partial.penalties[:, :, tf.newaxis], tries, axis=2)
    if counts is not None:
      penalties += self._search.beam_group_penalty * tf.cast(
        tf.gather(counts, words, batch_dims=1), tf.float64
      )
    ends = tf.equal(words, self._end_id)

    # A caption can end in one way at most. The end word has no penalty.
    ended = tf.reduce_max(
      tf.where(ends, log_probabilities, _IMPOSSIBLE), axis=2
    )
    candidates = _Found(
      tf.where(tf.equal(self._columns, t), self._end_id, partial.sentences),
      tf.fill([self._batch, self._rows], t + 1),
      ended,
      (ended - partial.penalties) / self._divisors[t + 1],
    )
    candidates = _Found(
      *(tf.concat(pair, 1) for pair in zip(group.complete, candidates))
    )
    scores, kept, complete_tied = _best(candidates.scores, self._width)
    sentences, lengths, found = _rows(candidates[:-1], kept)
    complete = _Found(sentences, lengths, found, scores)

    flat = [self._batch, self._rows * tries]
    scores = tf.reshape(
      tf.where(ends, _IMPOSSIBLE, log_probabilities) - penalties, flat
    )
    if bank is not None:
      scores = tf.reshape(
        tf.where(
          tf.reshape(bank, [self._batch, 1, -1])
          == tf.range(self._banks)[:, tf.newaxis],
          scores[:, tf.newaxis],
          _IMPOSSIBLE,
        ),
        [self._batch * self._banks, -1],
      )
    scores, kept, partial_tied = _best(scores, self._width)
    scores, kept = (
      tf.reshape(x, [self._batch, self._rows]) for x in (scores, kept)
    )
    word, log_probabilities, penalties = _rows(
      [tf.reshape(x, flat) for x in (words, log_probabilities, penalties)], kept
    )
    log_probabilities = tf.where(
      scores > _IMPOSSIBLE, log_probabilities, _IMPOSSIBLE
    )
    sentences, states = _rows([partial.sentences, states], kept // tries)
    partial = _Partial(
      tf.where(tf.equal(self._columns, t), word[:, :, tf.newaxis], sentences),
      states,
      log_probabilities,
      penalties,
    )

    is_alive = tf.repeat(self._any_in_bank(scores), self._width, axis=1)
    last = _Found(
      *(
        tf.where(
          tf.reshape(
            is_alive, [self._batch, self._rows, *[1] * (len(new.shape) - 2)]
          ),
          new,
          old,
        )
        for new, old in zip(
          (
            partial.sentences,
            tf.fill([self._batch, self._rows], t + 1),
            log_probabilities,
            scores,
          ),
          group.last,
        )
      )
    )
    best = tf.reduce_max(scores, axis=1)
    can_win = (best > _IMPOSSIBLE) & (
      (best + _SLACK) / self._divisors[self._max_caption_length]
      >= complete.scores[:, -1]
    )
    return (
      _Group(partial, complete, last),
      can_win,
      complete_tied,
      tf.reduce_any(
        tf.reshape(partial_tied, [self._batch, self._banks]), axis=1
      ),
    )

  def _any_in_bank(self, scores: tf.Tensor) -> tf.Tensor:
    """Returns bool [batch, banks], of scores [batch, rows]."""
    return (
      tf.reduce_max(
        tf.reshape(scores, [self._batch, self._banks, self._width]), axis=2
      )
      > _IMPOSSIBLE
    )

  def _advance(
    self,
    t: tf.Tensor,
    live: tf.Tensor,
    ambiguous: tf.Tensor,
    groups: Sequence[_Group],
  ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tuple[_Group, ...]]:
    """Extends all captions, which have t words, by one word."""
    sentences = tf.reshape(
      self._joined([g.partial.sentences for g in groups]),
      [-1, self._max_caption_length],
    )
    softmax, states = self._step_fn(
      tf.cast(sentences[:, t - 1], tf.int64),
      tf.reshape(
        self._joined([g.partial.states for g in groups]), [-1, self._state_size]
      ),
    )
    for rule in self._rules:
      softmax = rule(softmax, sentences, t)
    lanes = self._num_groups * self._rows
    softmax, states = (
      self._parted(tf.reshape(x, [self._batch, lanes, x.shape[1]]))
      for x in (softmax, states)
    )
    counts, extended, can_win = None, [], tf.zeros([self._batch], tf.bool)
    tied = tf.zeros([self._batch], tf.bool)
    for group, of_group in zip(groups, zip(softmax, states)):
      group, can_win_too, complete_tied, partial_tied = self._extend(
        t, group, *of_group, counts
      )
      extended.append(group)
      can_win |= can_win_too
      tied |= complete_tied | (can_win_too & partial_tied)
      if len(extended) < self._num_groups:
        counts = (0.0 if counts is None else counts) + _count_words(
          group.partial, t, softmax[0].shape[2]
        )
    if self._marks_ties:
      ambiguous |= live & tied
    return t + 1, can_win & ~ambiguous, ambiguous, tuple(extended)

  def _captions(
    self, groups: Sequence[_Group], ambiguous: tf.Tensor
  ) -> Captions:
    """Chooses the captions to return from those of all groups."""
    # Partial captions count only if there are no complete ones. They are taken
    # from the last bank that has any.
    complete = _Found(*map(self._joined, zip(*(g.complete for g in groups))))
    bank = tf.reduce_max(
      tf.where(
        self._any_in_bank(groups[0].last.scores), tf.range(self._banks), 0
      ),
      axis=1,
    )
    found = _Found(
      *map(
        self._joined,
        zip(*(_of_bank(g.last, bank, self._banks) for g in groups)),
      )
    )
    has_complete = tf.reduce_any(
      complete.scores > _IMPOSSIBLE, axis=1, keepdims=True
    )
    found = _Found(
      *(
        tf.where(
          tf.reshape(has_complete, [self._batch, *[1] * (len(a.shape) - 1)]),
          a,
          b,
        )
        for a, b in zip(complete, found)
      )
    )
    if self._num_groups > 1:
      # Scores within a group include penalties, so rank all captions without.
      scores = found.log_probabilities / tf.where(
        has_complete, tf.gather(self._divisors, found.lengths), 1.0
      )
      scores, kept, _ = _best(scores, self._num_groups * self._width)
      found = _Found(*_rows(found, kept))._replace(scores=scores)
    if self._marks_ties:
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


def beam_search(
  step_fn: decoding_rules.StepFn,
  initial_states: tf.Tensor,
  start_id: int,
  end_id: int,
  search: search_config.SearchConfig,
  rules: Sequence[decoding_rules.Rule] = (),
  required_ids: Sequence[int] = (),
  mark_ties: bool = True,
) -> Captions:
  """Searches captions for a batch of images; to be traced.

  The search ends early, with the same result as the full search. A group is
  settled as soon as its list of complete captions is full and no partial
  caption can grow into one that enters the list. The best partial caption
  decides this:
    The log probability of a word is at most 0, and a penalty is at least 0.
    (The probabilities need not sum to 1, as some words may be excluded.) So a
    caption that grows from a partial one of log probability p has at most p.
    Its score is its log probability divided by length ** factor. This is
    negative, and closest to 0 for the longest caption. So the score is at most
    p / max_caption_length ** factor, and this bound grows with p.
    If the bound of the best partial caption is below the worst complete score,
    so are the bounds of all others. Then no later step changes the list.
  An image is settled when all its groups are. Until then each group goes on, as
  later groups avoid its words. The loop ends when all images are settled.

  Args:
    step_fn: the model. A word of probability 0 is never tried.
    initial_states: float32 [batch, state_size], after the image was fed.
    start_id: id of <S>.
    end_id: id of </S>.
    search: settings of the search.
    rules: see `decoding_rules`.
    required_ids: ids of words that captions must contain, see the module. A
      rule must prevent that captions end without them.
    mark_ties: whether images whose captions have equal scores are marked as
      ambiguous. If not, the caption that was found first counts as better.

  Returns:
    The captions of each image.
  """
  return _Search(
    step_fn,
    initial_states,
    start_id,
    end_id,
    search,
    rules,
    required_ids,
    mark_ties,
  ).run()


def _count_words(partial: _Partial, t: tf.Tensor, vocab_size: int) -> tf.Tensor:
  """Returns float32 [batch, vocab_size], captions with each word in place t."""
  return tf.math.bincount(
    partial.sentences[:, :, t],
    tf.cast(partial.log_probabilities > _IMPOSSIBLE, tf.float32),
    minlength=vocab_size,
    maxlength=vocab_size,
    axis=-1,
  )


def _of_bank(found: _Found, bank: tf.Tensor, banks: int) -> _Found:
  """Returns the captions of one bank per image.

  Args:
    found: captions, [batch, banks * width].
    bank: int32 [batch], the bank of each image.
    banks: number of banks.

  Returns:
    Captions, [batch, width].
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
