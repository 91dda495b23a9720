# SPDX-License-Identifier: Apache-2.0
"""Tests of scheduled_sampling."""

import dataclasses
import math
import sys

import numpy as np
import pytest
import tensorflow as tf

from im2txt import configuration
from im2txt import show_and_tell_model
from im2txt.training import scheduled_sampling

_CONFIG = configuration.ModelConfig(
  vocab_size=12,
  embedding_size=4,
  num_lstm_units=5,
  initializer_scale=1.0,
  lstm_dropout_keep_prob=1.0,
)
_SEED = [1, 2]


def make_model(**changes):
  tf.random.set_seed(3)
  return show_and_tell_model.ShowAndTellModel(
    dataclasses.replace(_CONFIG, **changes), with_inception=False
  )


def features(count):
  return (
    np.random.default_rng(4).normal(size=[count, 2048]).astype(np.float32) / 50
  )


def batch(count=40, time=7):
  """Returns (features, input_seqs, target_seqs, mask); some captions are one."""
  rng = np.random.default_rng(5)
  ids = rng.integers(2, 12, [count, time + 1])
  ids[:, 0] = 0
  lengths = rng.integers(1, time + 1, count)
  lengths[:2] = time, 1
  mask = (np.arange(time) < lengths[:, None]).astype(np.int32)
  return features(count), ids[:, :-1] * mask, ids[:, 1:] * mask, mask


def input_words(model, batch, sampled, seed=_SEED):
  images, inputs, _, mask = batch
  draw = tf.function(
    lambda: scheduled_sampling.input_words(
      model, images, inputs, mask, sampled, tf.constant(seed, tf.int64)
    ),
    autograph=False,
  )
  return draw().numpy()


def config(name, **values):
  return configuration.TrainingConfig(
    scheduled_sampling=name,
    **{
      'scheduled_sampling_start_step': 100,
      'scheduled_sampling_half_steps': 50,
      'scheduled_sampling_max': 1.0,
      **values,
    },
  )


def probabilities(config, steps):
  return [
    float(scheduled_sampling.probability(config, tf.constant(step)))
    for step in steps
  ]


def test_decays_are_those_of_the_paper():
  after = [0, 1, 25, 50, 75, 400, 5000]
  steps = [100 + i for i in after]
  # k - c i with k = 1.
  np.testing.assert_allclose(
    probabilities(config('linear'), steps),
    [1 - max(0, 1 - 0.01 * i) for i in after],
    atol=1e-6,
  )
  # k^i.
  k = 0.5 ** (1 / 50)
  np.testing.assert_allclose(
    probabilities(config('exponential'), steps),
    [1 - k**i for i in after],
    atol=1e-6,
  )
  # k / (k + exp(i / k)).
  k = np.interp(50, *(lambda k: (k * np.log(k), k))(np.linspace(15, 20, 10001)))
  np.testing.assert_allclose(
    probabilities(config('inverse_sigmoid'), steps),
    [1 - k / (k + math.exp(i / k)) for i in after],
    atol=1e-6,
  )


@pytest.mark.parametrize('name', scheduled_sampling.BY_NAME)
def test_starts_at_its_step_and_is_bounded(name):
  given = config(name, scheduled_sampling_max=0.3)
  found = probabilities(given, [0, 99, 150, 10**6])
  assert found[:2] == [0, 0]
  np.testing.assert_allclose(found[2:], [0.3, 0.3])
  for half in (1, 500000):
    given = config(name, scheduled_sampling_half_steps=half)
    assert math.isclose(
      probabilities(given, [100 + half])[0], 0.5, rel_tol=1e-4
    )


def test_an_unknown_decay_is_named():
  with pytest.raises(ValueError, match='--scheduled_sampling=cubic must be'):
    scheduled_sampling.check(config('cubic'))
  scheduled_sampling.check(configuration.TrainingConfig())


def test_replaces_no_word_at_probability_zero():
  given = batch()
  found = input_words(make_model(), given, 0.0)
  assert found.dtype == np.int64
  np.testing.assert_array_equal(found, given[1])


def test_replaces_a_share_of_the_words_but_not_the_first_and_no_padding():
  given = batch(count=400)
  _, inputs, _, mask = given
  # The model has one word to say, which no caption has.
  model = make_model()
  model.logits_biases.assign(tf.one_hot(1, 12) * 1000)
  assert not (inputs == 1).any()
  found = input_words(model, given, 0.3)
  replaced = found != inputs
  assert (found[replaced] == 1).all()
  assert not replaced[:, 0].any() and not replaced[mask == 0].any()
  count = mask[:, 1:].sum()
  assert abs(replaced.sum() - 0.3 * count) < 4 * math.sqrt(0.21 * count)
  # All positions alike, and each at most as often as it is there.
  counts = mask[:, 1:].sum(0)
  found_counts = replaced[:, 1:].sum(0)
  assert (
    np.abs(found_counts - 0.3 * counts) < 4 * np.sqrt(0.21 * counts)
  ).all()
  everything = input_words(model, given, 1.0)
  np.testing.assert_array_equal(everything[:, 1:], mask[:, 1:])


def test_is_a_function_of_the_seed():
  model, given = make_model(lstm_dropout_keep_prob=0.7), batch()
  one = input_words(model, given, 0.5)
  np.testing.assert_array_equal(one, input_words(model, given, 0.5))
  assert (one != input_words(model, given, 0.5, seed=[1, 3])).any()


def test_samples_follow_what_the_model_predicts_from_the_samples_before():
  model = make_model()
  rows = 8000
  image = features(1)
  inputs = np.tile([[0, 5, 7, 0]], [rows, 1])
  mask = np.tile([[1, 1, 1, 0]], [rows, 1]).astype(np.int32)
  given = np.repeat(image, rows, axis=0), inputs, None, mask
  found = input_words(model, given, 0.6)
  assert (found[:, 0] == 0).all() and (found[:, 3] == 0).all()
  # The chain rule, word by word. A word is the caption's own or a sample.
  state = model.initial_state(image)
  first, state = model.inference_step(tf.constant([0], tf.int64), state)
  second, _ = model.inference_step(
    tf.range(12, dtype=tf.int64), tf.repeat(state, 12, axis=0)
  )
  own = np.eye(12)
  probability = (0.4 * own[5] + 0.6 * first.numpy()[0])[:, None] * (
    0.4 * own[7] + 0.6 * second.numpy()
  )
  np.testing.assert_allclose(probability.sum(), 1, rtol=1e-5)
  counts = np.zeros([12, 12])
  np.add.at(counts, (found[:, 1], found[:, 2]), 1 / rows)
  deviation = np.sqrt(probability * (1 - probability) / rows)
  assert (np.abs(counts - probability) <= 5 * deviation + 1e-6).all()
  # What comes after the sample depends on it.
  assert np.abs(second.numpy().max(0) - second.numpy().min(0)).max() > 0.05


@pytest.mark.parametrize('dtype', [tf.float32, tf.bfloat16])
def test_samples_are_from_the_predictions_that_are_trained(dtype):
  """With dropout, captions of all lengths, in the order that they are given."""
  tf.random.set_seed(3)
  model = show_and_tell_model.ShowAndTellModel(
    dataclasses.replace(_CONFIG, lstm_dropout_keep_prob=0.5, num_lstm_units=20),
    with_inception=False,
    training_dtype=dtype,
  )
  # So large that each prediction is almost one word.
  model.logits_weights.assign(model.logits_weights * 1000)
  images, inputs, _, mask = given = batch(count=60)
  found = input_words(model, given, 0.5)
  replaced = found != inputs
  # Word n is predicted at n - 1, from the words before, with the same dropout.
  entropies = np.zeros(mask.shape)
  entropies[mask > 0] = model.cross_entropies(
    images,
    found,
    np.concatenate([found[:, 1:], found[:, :1]], axis=1),
    mask,
    is_training=True,
    seed=tf.constant(_SEED, tf.int64),
  )
  entropies = entropies[:, :-1][replaced[:, 1:]]
  assert len(entropies) > 50
  # Now and then two words are as likely.
  assert np.mean(entropies < 0.1) > 0.9 and np.mean(entropies < 5) > 0.98


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
