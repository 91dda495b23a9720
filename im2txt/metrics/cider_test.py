# SPDX-License-Identifier: Apache-2.0
"""Tests of cider."""

import math
import sys

import numpy as np
from pycocoevalcap.cider import cider_scorer
import pytest

from im2txt.metrics import cider
from im2txt.metrics import ngrams

_END, _UNKNOWN = 1, 9


def _scores(candidates, references):
  return cider.scores(*ngrams.pair(candidates, references)).tolist()


def test_worked_by_hand():
  # All unigrams weigh the same; one of two is right.
  assert _scores(['a b', 'x'], [['a c'], ['p q']]) == pytest.approx(
    [10 / 4 * 1 / 2, 0]
  )
  # A word that all images have weighs nothing.
  assert _scores(['a', 'a'], [['a'], ['a']]) == [0, 0]
  # Two bigrams more cost exp(-4 / 72).
  assert _scores(['a b', 'x'], [['a b c d'], ['p q']])[0] == pytest.approx(
    10 / 4 * math.exp(-4 / 72) * (2 / math.sqrt(2 * 4) + 1 / math.sqrt(1 * 3))
  )


def test_mean_of_references():
  (whole,) = _scores(['a b', 'x'], [['a b'], ['p']])[:1]
  assert _scores(['a b', 'x'], [['a b', 'c d'], ['p']])[0] == pytest.approx(
    whole / 2
  )


def test_one_image_and_no_words():
  assert _scores(['a b'], [['a b']]) == [0]
  assert _scores(['', 'a'], [['a'], ['']]) == [0, 0]


def _random_caption(rng):
  return [*rng.integers(2, 10, rng.integers(0, 12)).tolist(), _END]


class _Text:
  """Writes captions as words; each unknown word is one of its own."""

  def __init__(self):
    self._unknown = 0

  def __call__(self, caption):
    words = []
    for word in caption:
      self._unknown += word == _UNKNOWN
      words.append(f'u{self._unknown}' if word == _UNKNOWN else f'w{word}')
    return ' '.join(words)


def test_scorer_of_word_ids():
  rng = np.random.default_rng(0)
  references = [
    [_random_caption(rng) for _ in range(rng.integers(1, 6))] for _ in range(40)
  ]
  references[0][0] = [2, 3, _UNKNOWN, 4, _END]
  references[20] = [[2, 3, 4, 5, 6, _END]]
  candidates = [_random_caption(rng) for _ in references]
  # Close to their references, equal, of one word, without end, too long.
  for image in range(8, 20):
    candidates[image] = references[image][0][:-2] + [5, _END]
  candidates[20:25] = [references[i][0] for i in range(20, 25)]
  candidates[25] = [_END]
  candidates[26] = references[26][0][:-1] or [3]
  candidates[27] = references[27][0] * 4
  candidates[28] = [2] * 15
  candidates[0] = [2, 3, _UNKNOWN, 4, _END]
  text, oracle = _Text(), cider_scorer.CiderScorer(n=4, sigma=6.0)
  for candidate, captions in zip(candidates, references):
    oracle += (text(candidate), [text(caption) for caption in captions])
  _, expected = oracle.compute_score()
  reward = cider.Scorer(references, _UNKNOWN)
  found = reward(candidates, np.arange(len(candidates)))
  np.testing.assert_allclose(found, expected, atol=1e-9)
  assert min(found) == 0 and found[20] == pytest.approx(10)
  # In another order, together with others, one by one: the same numbers.
  images = rng.permutation(np.repeat(np.arange(40), 2))
  together = reward([candidates[image] for image in images], images)
  np.testing.assert_allclose(together, found[images], atol=1e-12)
  for image in range(40):
    (alone,) = reward([candidates[image]], [image])
    assert alone == pytest.approx(found[image], abs=1e-12)
  # A caption of another image is worth less.
  assert reward([candidates[20]], [21])[0] < found[20]


def test_scorer_and_unknown_words():
  references = [[[2, _UNKNOWN, 3, _END]], [[4, 5, _END]], [[6, _UNKNOWN, _END]]]
  reward = cider.Scorer(references, _UNKNOWN)
  known, unknown = reward([[4, 5, _END], [2, _UNKNOWN, 3, _END]], [1, 0])
  assert known > unknown
  assert reward([[_UNKNOWN], []], [0, 0]).tolist() == [0, 0]
  assert reward([[]], [0]).tolist() == [0]


def test_scorer_of_one_image():
  assert cider.Scorer([[[2, _END]]], _UNKNOWN)([[2, _END]], [0])[0] > 0


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
