# SPDX-License-Identifier: Apache-2.0
"""Tests of likelihood."""

import sys

import numpy as np
import pytest
import tensorflow as tf

from im2txt import configuration
from im2txt import show_and_tell_model
from im2txt.inference_utils import ensemble
from im2txt.inference_utils import likelihood

_CONFIG = configuration.ModelConfig(
  vocab_size=30, embedding_size=8, num_lstm_units=6, initializer_scale=1.0
)


def _captions(rng, count):
  """Captions with common beginnings, equal ones and very short ones."""
  captions = [[0, 1], [0, 5, 1], [0, 5, 7, 1], [0, 5, 7, 1], [0, 5, 7]]
  captions += [
    [0, *rng.integers(3, 6, rng.integers(1, 9)), 1] for _ in range(count)
  ]
  return captions


@pytest.fixture(scope='module', name='one_by_one')
def fixture_one_by_one():
  """(model, features, captions, their log likelihoods scored one by one)."""
  rng = np.random.default_rng(1)
  tf.random.set_seed(1)
  model = show_and_tell_model.ShowAndTellModel(_CONFIG, with_inception=False)
  model.logits_biases.assign(rng.normal(size=30).astype(np.float32))
  features = rng.random([5, 2048], np.float32)
  captions = _captions(rng, 40)
  scores = []
  for caption in captions:
    batch = np.tile(np.array(caption), [5, 1])
    losses = model.cross_entropies(
      features, batch[:, :-1], batch[:, 1:], np.ones_like(batch[:, 1:])
    )
    scores.append(-losses.numpy().reshape([5, -1]).sum(axis=1))
  return model, features, captions, np.stack(scores, axis=1)


@pytest.mark.parametrize('rows, states', [(1024, 16384), (8, 40), (1, 1)])
def test_tree_scores_as_one_by_one(one_by_one, rows, states):
  model, features, captions, expected = one_by_one
  done = []
  scores = likelihood.Likelihood(model, rows, states).log_likelihoods(
    features, captions, done.append
  )
  assert done[-1] == 5 and done == sorted(set(done))
  np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_probabilities_of_all_captions_sum_to_one():
  model = show_and_tell_model.ShowAndTellModel(
    configuration.ModelConfig(vocab_size=5, embedding_size=4, num_lstm_units=3),
    with_inception=False,
  )
  captions = [[0, a, b] for a in range(5) for b in range(5)]
  scores = likelihood.Likelihood(model).log_likelihoods(
    np.ones([2, 2048], np.float32), captions
  )
  np.testing.assert_allclose(np.exp(scores).sum(axis=1), 1, rtol=1e-5)


def test_an_ensemble_scores_by_the_mean_of_probabilities():
  rng = np.random.default_rng(2)
  models = []
  for seed in (1, 2):
    tf.random.set_seed(seed)
    models.append(
      show_and_tell_model.ShowAndTellModel(_CONFIG, with_inception=False)
    )
  features = rng.random([3, 2 * 2048], np.float32)
  captions = _captions(rng, 10)
  scorer = likelihood.Likelihood(ensemble.Ensemble(models, [0, 1]), rows=8)
  members = [likelihood.Likelihood(model) for model in models]
  scores = scorer.log_likelihoods(features, captions)
  for column, caption in enumerate(captions):
    for row, image in enumerate(features):
      words = -np.log(
        np.mean(
          [
            np.exp(-member.cross_entropies(half[None], [caption]))
            for member, half in zip(members, np.split(image, 2))
          ],
          axis=0,
        )
      )
      np.testing.assert_allclose(scores[row, column], -words.sum(), rtol=1e-5)
      if not row:
        np.testing.assert_allclose(
          scorer.cross_entropies(image[None], [caption]), words, rtol=1e-5
        )


def test_work_is_shared():
  levels = likelihood._prefix_tree([[0, 5, 7, 1], [0, 5, 8, 1], [0, 5, 7, 9]])
  assert [len(level.words) for level in levels] == [1, 1, 2]
  assert [len(level.edge_words) for level in levels] == [1, 2, 3]


def test_captions_of_their_own_images():
  tf.random.set_seed(1)
  model = show_and_tell_model.ShowAndTellModel(_CONFIG, with_inception=False)
  scorer = likelihood.Likelihood(model)
  features = np.random.default_rng(1).random([2, 2048], np.float32)
  captions = [[0, 4, 3, 1], [0, 4, 1]]
  losses = scorer.cross_entropies(features, captions)
  assert losses.shape == (5,)
  scores = scorer.log_likelihoods(features, captions)
  assert abs(scores[0, 0] - scores[1, 0]) > 1e-3
  np.testing.assert_allclose(
    np.diag(scores), [-losses[:3].sum(), -losses[3:].sum()], rtol=1e-5
  )


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
