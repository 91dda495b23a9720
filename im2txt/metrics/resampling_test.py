# SPDX-License-Identifier: Apache-2.0
"""Tests of resampling."""

import sys

import numpy as np
import pytest

from im2txt.metrics import caption_scores
from im2txt.metrics import resampling

_METRICS = ('bleu_1', 'bleu_4', 'rouge_l', 'cider')
_WORDS = 'a the man dog cat runs sits on grass red ball with two in'.split()


def _captions(seed, images, right):
  """Returns (references, candidates); of each word a share is right."""
  random = np.random.RandomState(seed)
  references, candidates = {}, {}
  for image in range(images):
    words = random.choice(_WORDS, 9)
    references[image] = [' '.join(words)]
    candidates[image] = ' '.join(
      np.where(random.rand(9) < right, words, random.choice(_WORDS, 9))
    )
  return references, candidates


def _measured(references, candidates):
  return caption_scores.measure(references, candidates, _METRICS)


def test_intervals_are_those_of_sets_scored_anew():
  references, candidates = _captions(1, 30, 0.6)
  measured = _measured(references, candidates)
  found = resampling.intervals(measured, 50, 7)
  random = np.random.RandomState(7)
  values = {name: [] for name in _METRICS}
  for _ in range(50):
    drawn = random.randint(30, size=30)
    again = caption_scores.score(
      {i: references[image] for i, image in enumerate(drawn)},
      {i: candidates[image] for i, image in enumerate(drawn)},
      ['bleu_1', 'bleu_4', 'rouge_l'],
    )
    for name, value in again.items():
      values[name].append(value)
    # Its n-grams keep their weights.
    values['cider'].append(measured.image_scores['cider'][drawn].mean())
  assert list(found) == list(_METRICS)
  for name, expected in values.items():
    assert found[name] == pytest.approx(
      tuple(np.quantile(expected, [0.025, 0.975]))
    )
    assert found[name][0] < measured.scores[name] < found[name][1]


def test_the_seed_tells_the_intervals():
  measured = _measured(*_captions(2, 20, 0.5))
  first = resampling.intervals(measured, 100)
  assert resampling.intervals(measured, 100) == first
  assert resampling.intervals(measured, 100, 1) != first


def test_parts_do_not_matter(monkeypatch):
  ours, theirs = (_measured(*_captions(3, 20, right)) for right in (0.5, 0.6))
  whole = (
    resampling.intervals(ours, 100),
    resampling.compare(ours, theirs, 100),
  )
  monkeypatch.setattr(resampling, 'VALUES_AT_ONCE', 140)
  parts = (
    resampling.intervals(ours, 100),
    resampling.compare(ours, theirs, 100),
  )
  for name in _METRICS:
    assert parts[0][name] == pytest.approx(whole[0][name])
    assert parts[1][name] == pytest.approx(whole[1][name])


def test_95_of_100_intervals_hold_the_truth():
  truth = _measured(*_captions(4, 4000, 0.6)).scores
  held = {'bleu_1': 0, 'rouge_l': 0}
  for seed in range(100):
    found = resampling.intervals(
      _measured(*_captions(seed + 10, 60, 0.6)), 200, seed
    )
    for name in held:
      held[name] += found[name][0] <= truth[name] <= found[name][1]
  for count in held.values():
    assert 86 <= count <= 100


def test_what_is_better_is_found_and_what_is_alike_is_not():
  references, good = _captions(5, 300, 0.7)
  _, bad = _captions(5, 300, 0.5)
  _, other = _captions(6, 300, 0.0)
  ours, theirs, worse = (_measured(references, c) for c in (good, bad, other))
  found = resampling.compare(ours, theirs, 1000)
  for name in _METRICS:
    assert found[name].value == ours.scores[name] - theirs.scores[name]
    assert 0 < found[name].low < found[name].value < found[name].high
    assert found[name].p_value == pytest.approx(1 / 1001)
    # The other way round, the other sign.
    back = resampling.compare(theirs, ours, 1000)[name]
    assert (-back.high, -back.low) == pytest.approx(
      (found[name].low, found[name].high)
    )
    same = resampling.compare(ours, ours, 100)[name]
    assert same == (0, 0, 0, 1)
  _, alike = _captions(7, 300, 0.0)
  for difference in resampling.compare(
    worse, _measured(references, alike), 1000
  ).values():
    assert difference.p_value > 0.05
    assert difference.low < 0 < difference.high


def test_p_values_of_chance_are_even():
  values = []
  for seed in range(100):
    references, ours = _captions(100 + seed, 40, 0.5)
    _, theirs = _captions(100 + seed, 40, 0.5)
    # The same captions, but for half of the images from one other.
    random = np.random.RandomState(seed)
    for image in ours:
      noise = [ours[image], ' '.join(random.choice(_WORDS, 9))]
      random.shuffle(noise)
      ours[image], theirs[image] = noise
    values.append(
      resampling.compare(
        _measured(references, ours), _measured(references, theirs), 200, seed
      )['rouge_l'].p_value
    )
  assert 0.35 < np.mean(values) < 0.65
  assert np.mean(np.array(values) <= 0.05) <= 0.12


def test_other_images_are_refused():
  with pytest.raises(ValueError, match='must be of the same images'):
    resampling.compare(
      _measured(*_captions(8, 4, 0.5)), _measured(*_captions(8, 5, 0.5))
    )


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
