# SPDX-License-Identifier: Apache-2.0
"""Tests of confidence_fit."""

import sys

import numpy as np
import pytest

from im2txt.evaluation import confidence_fit


def test_the_fit_finds_the_weights_that_made_the_data():
  rng = np.random.default_rng(0)
  x = rng.normal(size=[20000, 2])
  weights = np.array([-0.5, 2.0, -1.0])
  p = 1 / (1 + np.exp(-(weights[0] + x @ weights[1:])))
  good = rng.random(len(x)) < p
  found = confidence_fit.logistic(x, good, 0.5)
  np.testing.assert_allclose(found, weights, atol=0.08)


def test_a_separable_fit_stays_finite():
  x = np.array([[-1.0], [-0.5], [0.5], [1.0]])
  found = confidence_fit.logistic(x, x[:, 0] > 0, 0.5)
  assert np.isfinite(found).all() and found[1] > 1


@pytest.mark.parametrize('value, word', [(True, 'all'), (False, 'none')])
def test_captions_of_one_kind_are_refused(value, word):
  with pytest.raises(ValueError, match=f'{word} of 3 captions have a CIDEr'):
    confidence_fit.logistic(np.zeros([3, 1]), np.array([value] * 3), 0.5)


def test_figures_worked_by_hand():
  predicted = np.array([0.05, 0.15, 0.12, 0.95, 1.0])
  good = np.array([False, True, False, True, True])
  assert confidence_fit.bins(predicted, good) == [
    (1, 0.05, 0.0),
    (2, pytest.approx(0.135), 0.5),
    (2, pytest.approx(0.975), 1.0),
  ]
  assert confidence_fit.measure(predicted, good) == {
    'share_good': 0.6,
    'calibration_error': pytest.approx((0.05 + 2 * 0.365 + 2 * 0.025) / 5),
    'brier': pytest.approx(
      (0.05**2 + 0.85**2 + 0.12**2 + 0.05**2) / 5, abs=1e-4
    ),
    'auc': 1.0,
  }


def test_auc_counts_a_tie_as_half():
  predicted = np.array([0.2, 0.4, 0.4, 0.6])
  good = np.array([False, True, False, True])
  # Pairs: 0.4 over 0.2, 0.4 like 0.4, 0.6 over both.
  assert confidence_fit.auc(predicted, good) == 3.5 / 4
  assert 'auc' not in confidence_fit.measure(predicted, np.ones(4, bool))


def test_the_table_tells_what_abstaining_leaves():
  table = confidence_fit.table(
    np.array([0.05, 0.55, 0.62, 0.7]), np.array([False, False, True, True])
  ).splitlines()
  assert table[1].split() == ['0.0', '100%', '50%']
  assert table[7].split() == ['0.6', '50%', '100%']
  assert table[10].split() == ['0.9', '0%', '-']


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
