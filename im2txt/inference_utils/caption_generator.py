# SPDX-License-Identifier: Apache-2.0
"""Beam search for captions, as in the program of 2016.

See section 3.1.3 of the paper. Log probabilities are summed in float64. The
beam is a heap, as in 2016, so captions of equal scores have the same order.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import heapq
import math

import numpy as np

from im2txt.inference_utils import search_config

# Words less probable than this are never tried.
MIN_PROBABILITY = 1e-12

# Takes words int64 [n] and states float32 [n, state_size]. Returns the softmax
# float32 [n, vocab_size] and the new states.
StepFn = Callable[[np.ndarray, np.ndarray], Sequence[np.ndarray]]


@dataclasses.dataclass(eq=False)
class Caption:
  """A caption, complete or partial.

  Attributes:
    sentence: word ids, <S> first; </S> last if complete.
    state: float32 [state_size], the state of the model after the last word.
    logprob: natural logarithm of the probability of the caption.
    score: by which captions are ranked.
  """

  sentence: list[int]
  state: np.ndarray
  logprob: float
  score: float

  def __lt__(self, other: 'Caption') -> bool:
    return self.score < other.score


class TopN:
  """Keeps the n largest of the captions pushed into it."""

  def __init__(self, n: int) -> None:
    self._n = n
    self._heap: list[Caption] = []

  def __len__(self) -> int:
    return len(self._heap)

  def push(self, caption: Caption) -> None:
    """Adds a caption, and drops the worst if there are more than n."""
    if len(self._heap) < self._n:
      heapq.heappush(self._heap, caption)
    else:
      heapq.heappushpop(self._heap, caption)

  def in_heap_order(self) -> list[Caption]:
    """Returns the captions in the order in which 2016's search went on."""
    return list(self._heap)

  def best_first(self) -> list[Caption]:
    """Returns the captions by falling score."""
    return sorted(self._heap, reverse=True)


class _Beam:
  """The search for one image."""

  def __init__(self, generator: 'CaptionGenerator', state: np.ndarray) -> None:
    self._generator = generator
    self.partial = TopN(generator.beam_size)
    self.partial.push(Caption([generator.start_id], state, 0.0, 0.0))
    self._extended = self.partial
    self.complete = TopN(generator.beam_size)

  def advance(
    self, captions: Sequence[Caption], softmax: np.ndarray, states: np.ndarray
  ) -> None:
    """Extends captions by one word.

    Args:
      captions: n partial captions.
      softmax: float32 [n, vocab_size].
      states: float32 [n, state_size].
    """
    g = self._generator
    self._extended, self.partial = self.partial, TopN(g.beam_size)
    # A stable sort puts the smaller of two equally probable ids first.
    best_words = np.argsort(-softmax, axis=1, kind='stable')[:, : g.beam_size]
    for caption, probabilities, words, state in zip(
      captions, softmax, best_words, states
    ):
      for word in words.tolist():
        p = float(probabilities[word])
        if p < MIN_PROBABILITY:
          break  # The next words are not more likely.
        sentence = caption.sentence + [word]
        logprob = caption.logprob + math.log(p)
        score = logprob
        if word == g.end_id:
          if g.length_normalization_factor > 0:
            score /= len(sentence) ** g.length_normalization_factor
          self.complete.push(Caption(sentence, state, logprob, score))
        else:
          self.partial.push(Caption(sentence, state, logprob, score))

  def result(self) -> list[Caption]:
    # Partial captions count only if there are no complete ones, and those of
    # the previous step only if no word could follow them.
    return next(
      found.best_first()
      for found in (self.complete, self.partial, self._extended)
      if len(found)
    )


# Told of a step: the partial captions before it, n; softmax float32 [n,
# vocab_size]; and the complete captions so far, best first.
OnStep = Callable[[list[Caption], np.ndarray, list[Caption]], None]


class CaptionGenerator:
  """Beam search over a model that predicts the next word.

  Args:
    step_fn: the model. A word of probability 0 is never tried.
    start_id: id of <S>.
    end_id: id of </S>.
    search: only its beam_size, max_caption_length and
      length_normalization_factor are used.
  """

  def __init__(
    self,
    step_fn: StepFn,
    start_id: int,
    end_id: int,
    search: search_config.SearchConfig = search_config.SearchConfig(),
  ) -> None:
    search = search.completed()
    assert search.beam_size and search.length_normalization_factor is not None
    self._step_fn = step_fn
    self.start_id = start_id
    self.end_id = end_id
    self.beam_size = search.beam_size
    self.max_caption_length = search.max_caption_length
    self.length_normalization_factor = search.length_normalization_factor

  def beam_search(
    self, initial_states: np.ndarray, on_step: OnStep | None = None
  ) -> list[list[Caption]]:
    """Searches captions for a batch of images.

    Args:
      initial_states: float32 [batch, state_size], after the image was fed.
      on_step: called for each image after each step.

    Returns:
      For each image at most beam_size captions, best first.
    """
    beams = [_Beam(self, state) for state in np.asarray(initial_states)]
    for _ in range(self.max_caption_length - 1):
      live = [(b, b.partial.in_heap_order()) for b in beams if len(b.partial)]
      if not live:
        break
      # Call the model once for the beams of all images.
      captions = [c for _, partial in live for c in partial]
      softmax, states = self._step_fn(
        np.array([c.sentence[-1] for c in captions], np.int64),
        np.stack([c.state for c in captions]),
      )
      start = 0
      for beam, partial in live:
        end = start + len(partial)
        beam.advance(partial, softmax[start:end], states[start:end])
        if on_step:
          on_step(partial, softmax[start:end], beam.complete.best_first())
        start = end
    return [b.result() for b in beams]
