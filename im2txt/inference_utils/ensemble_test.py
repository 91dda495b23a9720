# SPDX-License-Identifier: Apache-2.0
"""Tests of ensemble."""

import sys

import numpy as np
import pytest
import tensorflow as tf

from im2txt import configuration
from im2txt import show_and_tell_model
from im2txt.inference_utils import ensemble


def _model(seed, units=6, **config):
  tf.random.set_seed(seed)
  return show_and_tell_model.ShowAndTellModel(
    configuration.ModelConfig(
      **{
        'vocab_size': 9,
        'embedding_size': 5,
        'num_lstm_units': units,
        'initializer_scale': 1.0,
        **config,
      }
    ),
    with_inception=False,
  )


def _features(seed, columns=2048):
  return (
    np.random.default_rng(seed).normal(size=[4, columns]).astype(np.float32)
    / 20
  )


def test_probabilities_are_averaged_at_each_step():
  # Members may be of different sizes.
  models = [_model(1), _model(2, units=3), _model(3, embedding_size=7)]
  together = ensemble.Ensemble(models, [0, 0, 0])
  assert together.feature_size == 2048
  assert together.state_size == 12 + 6 + 12
  features = _features(1)
  state = together.initial_state(features)
  states = [model.initial_state(features) for model in models]
  for words in ([1, 2, 3, 4], [5, 5, 8, 0]):
    softmax, state = together.inference_step(words, state)
    each, states = zip(
      *(model.inference_step(words, s) for model, s in zip(models, states))
    )
    np.testing.assert_allclose(softmax, np.mean(each, axis=0), rtol=1e-6)
    np.testing.assert_array_equal(state, np.concatenate(states, axis=1))
    # The mean of the logits would be something else.
    other = np.exp(np.mean(np.log(each), axis=0))
    other /= other.sum(axis=1, keepdims=True)
    assert np.abs(softmax - other).max() > 1e-3


def test_each_model_reads_its_own_encoder():
  models = [_model(1), _model(2), _model(3)]
  together = ensemble.Ensemble(models, [0, 1, 0])
  features = _features(2, together.feature_size)
  assert features.shape[1] == 2 * 2048
  first, second = np.split(features, 2, axis=1)
  np.testing.assert_array_equal(
    together.initial_state(features),
    np.concatenate(
      [
        models[0].initial_state(first),
        models[1].initial_state(second),
        models[2].initial_state(first),
      ],
      axis=1,
    ),
  )


def test_two_of_one_model_are_that_model():
  model = _model(1)
  twice = ensemble.Ensemble([model, model], [0, 0])
  features = _features(3)
  softmax, state = twice.inference_step(
    [1, 2, 3, 4], twice.initial_state(features)
  )
  alone, half = model.inference_step(
    [1, 2, 3, 4], model.initial_state(features)
  )
  np.testing.assert_array_equal(softmax, alone)
  np.testing.assert_array_equal(state, np.tile(half, 2))


def test_the_mean_of_logarithms():
  values = np.log(np.array([[0.5, 0.2], [0.25, 0.6]], np.float32))
  np.testing.assert_allclose(
    np.exp(ensemble.mean_of_logarithms(list(values))), [0.375, 0.4], rtol=1e-6
  )
  assert ensemble.mean_of_logarithms([values]) is values


def test_vocabularies_of_different_sizes_are_refused():
  with pytest.raises(ValueError, match='one vocabulary'):
    ensemble.Ensemble([_model(1), _model(1, vocab_size=10)], [0, 0])


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
