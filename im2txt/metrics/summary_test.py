# SPDX-License-Identifier: Apache-2.0
"""Tests of summary."""

import sys

import pytest

from im2txt.metrics import caption_scores
from im2txt.metrics import summary


@pytest.fixture(autouse=True)
def fixture_without_meteor(monkeypatch):
  # METEOR starts for ten seconds; caption_scores_test tests it.
  monkeypatch.setattr(
    caption_scores,
    'unavailable',
    lambda: {'meteor': 'left out', 'spice': 'left out'},
  )


def test_summarize():
  references = {
    1: ['A dog runs on grass.'],
    2: ['Two men sit there.'],
    3: ['never asked for'],
  }
  n_best = {
    2: ['two men sit there .', 'men sit'],
    1: ['a dog runs on grass .', 'a dog'],
  }
  scores = summary.summarize(references, n_best)
  assert list(scores) == [
    'images',
    'bleu_1',
    'bleu_2',
    'bleu_3',
    'bleu_4',
    'rouge_l',
    'cider',
    'distinct_captions',
    'vocabulary_used',
    'mean_length',
    'oracle_cider',
    'mbleu_4',
    'self_cider',
  ]
  assert scores['images'] == 2
  assert scores['bleu_4'] == pytest.approx(1)
  assert scores['cider'] == pytest.approx(10)
  assert scores['mean_length'] == 4.5
  assert scores['oracle_cider'] == pytest.approx(10)
  assert 0 < scores['mbleu_4'] < scores['self_cider'] < 1
  some = summary.summarize(references, n_best, metrics=['mean_length', 'cider'])
  assert some == {
    name: scores[name] for name in ('images', 'cider', 'mean_length')
  }
  assert list(summary.summarize(references, n_best, metrics=['cider'])) == [
    'images',
    'cider',
  ]
  # Of one caption per image there is no set.
  assert 'self_cider' not in summary.summarize(
    references, {1: ['a dog'], 2: ['two men']}
  )
  scores = summary.summarize(
    references, n_best, {'a dog', 'men sit', 'two men sit there'}
  )
  assert scores['best_in_training'] == 0.5
  assert scores['n_best_in_training'] == 0.75


def test_image_without_reference():
  with pytest.raises(ValueError, match="1 images have no .* image_id '7'"):
    summary.summarize({7: ['a']}, {'7': ['a']})


def test_table_marks_what_a_run_has_not():
  assert summary.table({'a': {'x': 1, 'y': 0.5}, 'bb': {'x': 22}}).split(
    '\n'
  ) == ['        a  bb', 'x       1  22', 'y  0.5000   -']


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
