# SPDX-License-Identifier: Apache-2.0
"""Tests of diversity."""

import math
import sys

import pytest

from im2txt.metrics import caption_scores
from im2txt.metrics import diversity


def test_diversity():
  assert diversity.diversity(['a man', 'a dog runs', 'a man', '']) == {
    'distinct_captions': 3,
    'vocabulary_used': 4,
    'mean_length': 7 / 4,
  }
  assert diversity.diversity([]) == {
    'distinct_captions': 0,
    'vocabulary_used': 0,
    'mean_length': 0,
  }


def test_share_in_training():
  training = {'a man', 'a dog runs'}
  assert (
    diversity.share_in_training(
      ['a man', 'a man', 'a dog', 'a man runs'], training
    )
    == 0.5
  )
  assert diversity.share_in_training([], training) == 0


def test_novelty():
  references = {1: ['a dog runs on grass', 'a dog'], 2: ['two men sit there']}
  n_best = {
    1: ['a dog runs on grass', 'two men sit there', 'a dog'],
    2: ['two men stand there', 'a dog runs on grass', 'two men sit there'],
  }
  training = {'a dog runs on grass', 'two men sit there'}
  found = diversity.novelty(references, n_best, training, n=2)
  assert found.best_in_training == 0.5
  # The third ones are not taken.
  assert found.new == 1 / 4
  scores = {
    'best': [n_best[1][0], n_best[2][0]],
    'new': [n_best[2][0]],
    'known': [n_best[1][0], n_best[1][1], n_best[2][1]],
  }
  owners = {'best': [1, 2], 'new': [2], 'known': [1, 1, 2]}
  for name, captions in scores.items():
    expected = caption_scores.measure(
      {i: references[owner] for i, owner in enumerate(owners[name])},
      dict(enumerate(captions)),
      ['bleu_4'],
      lambda captions: captions,
    ).scores['bleu_4']
    assert getattr(found, f'bleu_4_{name}') == pytest.approx(expected)
  everything = {caption for captions in n_best.values() for caption in captions}
  known = diversity.novelty(references, n_best, everything)
  assert known.new == 0 and math.isnan(known.bleu_4_new)


# Five images without a common word, so that CIDEr knows rare ones.
_REFERENCES = {
  1: ['a dog runs on grass', 'the dog is running'],
  2: ['two men sit there'],
  3: ['one red bus stops'],
  4: ['she holds her kite'],
  5: ['snow lies high'],
}


def test_mbleu():
  assert diversity.mbleu({1: ['a b c d e'] * 3}) == pytest.approx([1.0] * 4)
  assert diversity.mbleu({1: ['a b c d', 'e f g h']}) == pytest.approx(
    [0.0] * 4, abs=1e-3
  )
  # Three of four words, two of three pairs, one of two triples; both ways.
  one_differs = {1: ['a b c d', 'a b c e']}
  expected = [
    3 / 4,
    (3 / 4 * 2 / 3) ** (1 / 2),
    (3 / 4 * 2 / 3 * 1 / 2) ** (1 / 3),
  ]
  assert diversity.mbleu(one_differs)[:3] == pytest.approx(expected)
  # Each caption counts once, and an image with one caption not at all.
  assert diversity.mbleu({**one_differs, 2: ['x y'], 3: ['a b c d e'] * 2})[
    :3
  ] == pytest.approx([(value + 1) / 2 for value in expected])
  # The others are the references, of which one is enough: 2 of 3 captions find
  # themselves, and the third three of its words.
  assert diversity.mbleu({1: ['a b c d', 'a b c d', 'a b c e']})[0] == (
    pytest.approx((1 + 1 + 3 / 4) / 3)
  )


def test_self_cider():
  def of(*captions):
    return diversity.self_cider(_REFERENCES, {1: list(captions)})

  assert of('a dog runs fast', 'a dog runs fast') == pytest.approx(0, abs=1e-6)
  assert of('a dog runs fast', 'two men sit there') == pytest.approx(1)
  # Eigenvalues 2, 1 and 0.
  assert of('a dog runs fast', 'two men sit there', 'a dog runs fast') == (
    pytest.approx(math.log((2**0.5 + 1) / 2**0.5, 3))
  )
  # Words that no reference has are equally rare. The pairs differ, and there
  # is nothing longer: eigenvalues (1 + 1) / 4 +- 1 / 2 / 4.
  low, high = (3 / 8) ** 0.5, (5 / 8) ** 0.5
  both = of('x y', 'x z')
  assert both == pytest.approx(math.log2((low + high) / high))
  # The same of words that are rare to different degrees: "dog" is in one image
  # of five, "x" and "y" in none, which counts as one too; "a" is in three.
  references = {**_REFERENCES, 2: ['a man'], 3: ['a bus']}
  common, rare = math.log(5 / 3) ** 2, math.log(5) ** 2
  cosine = common / (common + rare) / 4
  low, high = (1 / 2 - cosine) ** 0.5, (1 / 2 + cosine) ** 0.5
  assert diversity.self_cider(references, {1: ['a x', 'a y']}) == (
    pytest.approx(math.log2((low + high) / high))
  )
  # The mean over images with two captions or more.
  assert diversity.self_cider(
    _REFERENCES, {1: ['x y', 'x z'], 2: ['one'], 3: ['a dog', 'a dog']}
  ) == pytest.approx(both / 2)
  assert diversity.self_cider(_REFERENCES, {1: ['', '']}) == 0


def test_oracle_cider():
  n_best = {
    1: ['two men sit', 'a dog runs on grass'],
    2: ['two men sit there'],
    3: ['a dog runs', 'snow lies'],
    4: ['she holds her kite', 'a bus'],
    5: ['one', 'snow lies high'],
  }
  best, chosen = diversity.oracle_cider(_REFERENCES, n_best)
  assert chosen == {
    1: 'a dog runs on grass',
    2: 'two men sit there',
    3: 'a dog runs',
    4: 'she holds her kite',
    5: 'snow lies high',
  }
  # By hand: equal captions of four words or more have 10, of three 7.5 as they
  # have nothing of four. Image 1 has two references; with the second it shares
  # the word "dog" of four each, all in one image, the lengths differ by 1:
  # 1 / (sqrt(5) sqrt(4)) of single words, nothing longer.
  other = 10 / 4 * math.exp(-1 / 72) / (5 * 4) ** 0.5
  assert best == pytest.approx(
    ((10 + other) / 2 + 10 + 0 + 10 + 7.5) / 5, abs=1e-6
  )


def test_of_sets():
  assert diversity.of_sets(_REFERENCES, {1: ['a dog'], 2: ['two']}) == {}
  n_best = {i: captions * 2 for i, captions in _REFERENCES.items()}
  found = diversity.of_sets(_REFERENCES, n_best)
  assert tuple(found) == diversity.SET_MEASURES
  assert diversity.of_sets(_REFERENCES, n_best, ['self_cider', 'bleu_1']) == {
    'self_cider': found['self_cider']
  }


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
