# SPDX-License-Identifier: Apache-2.0
"""Tests of options."""

import sys

import pytest

from im2txt.evaluation import options


@pytest.fixture(name='no_java', autouse=True)
def fixture_no_java(monkeypatch):
  monkeypatch.setenv('PATH', '')


@pytest.mark.parametrize(
  'values, part',
  [
    (
      {'metrics': ('bleu_4', 'blue_1')},
      "'blue_1' must be one of bleu_1.*, all",
    ),
    ({'metrics': ('perplexity',)}, 'perplexity is always computed'),
    ({'best_metric': 'cider'}, 'is not in --metrics=; add it'),
    (
      {'early_stopping_patience': 2},
      '--early_stopping_patience needs --best_metric',
    ),
    (
      {'metrics': ('all',), 'best_metric': 'mean_length'},
      'is none of perplexity',
    ),
    (
      {'metrics': ('all',), 'best_metric': 'meteor'},
      'Java is not installed',
    ),
    ({'ranking_images': 3}, '--ranking_images needs --metrics'),
    ({'train_file_pattern': 'x'}, '--train_file_pattern needs --metrics'),
    ({'number_of_steps': 7}, 'lower --min_global_step'),
  ],
)
def test_options_that_do_not_go_together_are_refused(values, part):
  with pytest.raises(ValueError, match=part):
    options.EvaluateOptions(**values).check()


@pytest.mark.parametrize(
  'values, metrics',
  [
    ({}, []),
    ({'best_metric': 'perplexity'}, []),
    ({'metrics': ('meteor',)}, []),
    ({'metrics': ('cider', 'bleu_4')}, ['cider', 'bleu_4']),
    (
      {'metrics': ('all',), 'best_metric': 'cider'},
      [
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
      ],
    ),
  ],
)
def test_metrics_that_can_be_had(values, metrics):
  of = options.EvaluateOptions(**values)
  of.check()
  assert of.available_metrics() == metrics


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
