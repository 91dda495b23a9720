# SPDX-License-Identifier: Apache-2.0
"""Beam search for captions, as the 2016 program searched.

Section 3.1.3 of the paper. Log probabilities are summed in float64; the beam
is a heap and ties fall as its order makes them, so that equal scores come out
in the same order as they did in 2016.
"""

import dataclasses
import heapq
import math

import numpy as np

from im2txt.inference_utils import search_config

# Words less probable than this are never tried.
MIN_PROBABILITY = 1e-12


@dataclasses.dataclass(eq=False)
class Caption:
  """A caption, complete or partial.

  Attributes:
    sentence: list of word ids, <S> first; </S> last when complete.
    state: float32 [state_size], the model's state after the last word.
    logprob: float, the natural logarithm of the caption's probability.
    score: float, what captions are ranked by.
  """

  sentence: list
  state: np.ndarray
  logprob: float
  score: float

  def __lt__(self, other):
    return self.score < other.score


class TopN:
  """Keeps the n largest of the captions pushed into it."""

  def __init__(self, n):
    self._n = n
    self._heap = []

  def __len__(self):
    return len(self._heap)

  def push(self, caption):
    if len(self._heap) < self._n:
      heapq.heappush(self._heap, caption)
    else:
      heapq.heappushpop(self._heap, caption)

  def in_heap_order(self):
    return list(self._heap)

  def best_first(self):
    return sorted(self._heap, reverse=True)


class _Beam:
  """The search for one image."""

  def __init__(self, generator, state):
    self._generator = generator
    self.partial = TopN(generator.beam_size)
    self.partial.push(Caption([generator.start_id], state, 0.0, 0.0))
    self._extended = self.partial
    self.complete = TopN(generator.beam_size)

  def advance(self, captions, softmax, states):
    """Extends `captions` by a word each.

    Args:
      captions: the partial captions, a list of n.
      softmax: float32 [n, vocab_size].
      states: float32 [n, state_size].
    """
    g = self._generator
    self._extended, self.partial = self.partial, TopN(g.beam_size)
    # Stable, so that the smaller of two equally probable ids comes first.
    best_words = np.argsort(-softmax, axis=1, kind='stable')[:, : g.beam_size]
    for caption, probabilities, words, state in zip(
      captions, softmax, best_words, states
    ):
      for word in words.tolist():
        p = float(probabilities[word])
        if p < MIN_PROBABILITY:
          break  # The words after it are no likelier.
        sentence = caption.sentence + [word]
        logprob = caption.logprob + math.log(p)
        score = logprob
        if word == g.end_id:
          if g.length_normalization_factor > 0:
            score /= len(sentence) ** g.length_normalization_factor
          self.complete.push(Caption(sentence, state, logprob, score))
        else:
          self.partial.push(Caption(sentence, state, logprob, score))

  def result(self):
    # Partial captions only count when no caption was completed; those of the
    # step before, when no word of this one may be tried.
    return next(
      found.best_first()
      for found in (self.complete, self.partial, self._extended)
      if len(found)
    )


class CaptionGenerator:
  """Beam search over a model that predicts the next word.

  Args:
    step_fn: callable (words int64 [n], states float32 [n, state_size]) ->
      (softmax [n, vocab_size], new states [n, state_size]), all arrays. A word
      of probability 0 is never tried.
    start_id: id of <S>.
    end_id: id of </S>.
    search: a `search_config.SearchConfig`, of which the size of the beam, the
      longest caption and the length normalization count here.
  """

  def __init__(
    self, step_fn, start_id, end_id, search=search_config.SearchConfig()
  ):
    search = search.completed()
    self._step_fn = step_fn
    self.start_id = start_id
    self.end_id = end_id
    self.beam_size = search.beam_size
    self.max_caption_length = search.max_caption_length
    self.length_normalization_factor = search.length_normalization_factor

  def beam_search(self, initial_states):
    """Searches captions for a batch of images.

    Args:
      initial_states: float32 [batch, state_size], after the image was fed.

    Returns:
      For each image a list of at most beam_size `Caption`s, best first.
    """
    beams = [_Beam(self, state) for state in np.asarray(initial_states)]
    for _ in range(self.max_caption_length - 1):
      live = [(b, b.partial.in_heap_order()) for b in beams if len(b.partial)]
      if not live:
        break
      # One call of the model serves the beams of all images.
      captions = [c for _, partial in live for c in partial]
      softmax, states = self._step_fn(
        np.array([c.sentence[-1] for c in captions], np.int64),
        np.stack([c.state for c in captions]),
      )
      start = 0
      for beam, partial in live:
        end = start + len(partial)
        beam.advance(partial, softmax[start:end], states[start:end])
        start = end
    return [b.result() for b in beams]
