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

# Words less probable than this are never tried.
MIN_PROBABILITY = 1e-12

# What the configuration of a model says of the search.
_CONFIGURED = ('beam_size', 'length_normalization_factor', 'allow_unknown_word')


def define_flags(flags):
  """Defines the flags of the search, for a program's own --help.

  Args:
    flags: the `absl.flags` module.
  """
  flags.disclaim_key_flags()
  flags.DEFINE_integer('beam_size', 3, 'Captions kept by the search.')
  flags.DEFINE_integer(
      'max_caption_length', 20,
      'Longest caption in words, start and end word included.')
  flags.DEFINE_float(
      'length_normalization_factor', 0.0,
      'Above 0: divide the score of a caption by its length to this power.')
  flags.DEFINE_bool(
      'allow_unknown_word', None,
      'Whether a caption may hold <UNK>. This, beam_size and '
      'length_normalization_factor are what the configuration.json beside the '
      'checkpoint says unless they are given.')


def from_flags(flag_values):
  """Returns what the flags say, arguments of `FeatureCaptioner`, a dict.

  Args:
    flag_values: `flags.FLAGS` after `define_flags`.

  Returns:
    dict, name -> value; None for what is left to the model's configuration.

  Raises:
    ValueError: a value that no search can have.
  """
  for name in ('beam_size', 'max_caption_length'):
    if getattr(flag_values, name) < 1:
      raise ValueError(
          f'--{name}={getattr(flag_values, name)} should be 1 or more')
  search = {name: None if flag_values[name].using_default_value
            else getattr(flag_values, name) for name in _CONFIGURED}
  return {**search, 'max_caption_length': flag_values.max_caption_length}


def completed(search, config):
  """Returns `search`, with what it leaves open as a configuration says.

  Args:
    search: dict, name -> value; None for what is left open.
    config: the `configuration.ModelConfig` of the model.
  """
  return {name: getattr(config, name)
          if value is None and name in _CONFIGURED else value
          for name, value in search.items()}


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
    best_words = np.argsort(-softmax, axis=1, kind='stable')[:, :g.beam_size]
    for caption, probabilities, words, state in zip(
        captions, softmax, best_words, states):
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
    return next(found.best_first() for found in (
        self.complete, self.partial, self._extended) if len(found))


class CaptionGenerator:
  """Beam search over a model that predicts the next word.

  Args:
    step_fn: callable (words int64 [n], states float32 [n, state_size]) ->
      (softmax [n, vocab_size], new states [n, state_size]), all arrays. A word
      of probability 0 is never tried.
    start_id: id of <S>.
    end_id: id of </S>.
    beam_size: captions kept at each step, and returned at most.
    max_caption_length: words in a caption at most, <S> and </S> included; the
      search takes one step less. A caption cut there has no </S>.
    length_normalization_factor: x > 0 divides a complete caption's score by
      length ** x (with both special words counted), which favours longer ones.

  Raises:
    ValueError: beam_size or max_caption_length below 1.
  """

  def __init__(self, step_fn, start_id, end_id, beam_size=3,
               max_caption_length=20, length_normalization_factor=0.0):
    if beam_size < 1 or max_caption_length < 1:
      raise ValueError(
          f'beam_size={beam_size} and max_caption_length={max_caption_length} '
          'should be 1 or more')
    self._step_fn = step_fn
    self.start_id = start_id
    self.end_id = end_id
    self.beam_size = beam_size
    self.max_caption_length = max_caption_length
    self.length_normalization_factor = length_normalization_factor

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
          np.stack([c.state for c in captions]))
      start = 0
      for beam, partial in live:
        end = start + len(partial)
        beam.advance(partial, softmax[start:end], states[start:end])
        start = end
    return [b.result() for b in beams]
