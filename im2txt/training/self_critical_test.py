# SPDX-License-Identifier: Apache-2.0
"""Tests of self_critical."""

import sys

import numpy as np
import pytest
import tensorflow as tf

from im2txt import configuration
from im2txt import show_and_tell_model
from im2txt.metrics import cider
from im2txt.training import self_critical

_START, _END, _UNKNOWN = 0, 1, 9


@pytest.fixture(name='model')
def fixture_model():
  tf.random.set_seed(3)
  # Large weights: captions and images differ.
  return show_and_tell_model.ShowAndTellModel(
    configuration.ModelConfig(
      vocab_size=12,
      embedding_size=4,
      num_lstm_units=5,
      initializer_scale=1.0,
      lstm_dropout_keep_prob=1.0,
    ),
    with_inception=False,
  )


def features(count=2):
  return (
    np.random.default_rng(4).normal(size=[count, 2048]).astype(np.float32) / 50
  )


def test_samples_follow_the_distribution_of_the_model(model):
  left_out = [_UNKNOWN, 10, 11]
  rows = 6000
  image = features(1)
  draw = tf.function(
    lambda: self_critical.sample(
      model, np.repeat(image, rows, axis=0), _START, _END, left_out, 3, [1, 2]
    ),
    autograph=False,
  )
  drawn = draw().numpy()
  np.testing.assert_array_equal(draw(), drawn)
  assert drawn.dtype == np.int64 and drawn.shape == (rows, 3)
  assert not np.isin(drawn, left_out).any()
  ended = drawn[:, 0] == _END
  assert (drawn[ended] == _END).all()
  # Probabilities of all pairs of words, word by word.
  probability = np.zeros([12, 12])
  state = model.initial_state(image)
  first, state = model.inference_step(tf.constant([_START], tf.int64), state)
  second, _ = model.inference_step(
    tf.range(12, dtype=tf.int64), tf.repeat(state, 12, axis=0)
  )
  allowed = ~np.isin(np.arange(12), left_out)
  first, second = first.numpy()[0] * allowed, second.numpy() * allowed
  probability = (
    first[:, None] / first.sum() * (second / second.sum(axis=1, keepdims=True))
  )
  probability[_END] = 0.0
  probability[_END, _END] = first[_END] / first.sum()
  found = np.zeros([12, 12])
  np.add.at(found, (drawn[:, 0], drawn[:, 1]), 1 / rows)
  deviation = np.sqrt(probability * (1 - probability) / rows)
  assert (np.abs(found - probability) <= 5 * deviation + 1e-6).all()
  assert probability.max() < 0.9 and 0 < ended.mean() < 1


def test_samples_are_of_their_own_image(model):
  # Weights so large that there is one word to draw.
  for variable in (model.image_embedding_weights, model.logits_weights):
    variable.assign(variable * 500)
  images = features(16)
  drawn = self_critical.sample(
    model, images, _START, _END, [], 1, [1, 2]
  ).numpy()
  softmax, _ = model.inference_step(
    tf.zeros([16], tf.int64), model.initial_state(images)
  )
  likely = softmax.numpy().max(axis=1) > 0.9999
  expected = np.argmax(softmax, axis=1)
  assert likely.sum() >= 4 and len(set(expected[likely])) > 1
  np.testing.assert_array_equal(drawn[likely, 0], expected[likely])


def test_sampling_stops_when_all_captions_have_ended(model):
  model.logits_biases.assign(tf.one_hot(_END, 12) * 1000)
  drawn = self_critical.sample(model, features(), _START, _END, [], 7, [1, 2])
  np.testing.assert_array_equal(drawn, [[_END], [_END]])


def test_advantages_are_over_the_mean_of_the_others():
  found = self_critical.advantages([1.0, 2.0, 6.0, 5.0, 5.0, 5.0], 3)
  np.testing.assert_allclose(found, [-3.0, -1.5, 4.5, 0, 0, 0])
  assert found.dtype == np.float32
  np.testing.assert_allclose(
    self_critical.advantages([1.0, 3.0], 2), [-2.0, 2.0]
  )


def test_advantages_are_over_the_greedy_caption():
  found = self_critical.advantages([1.0, 2.0, 6.0, 5.0], 2, [1.5, 7.0])
  np.testing.assert_allclose(found, [-0.5, 0.5, -1.0, -2.0])
  assert found.dtype == np.float32
  # One sample is enough.
  np.testing.assert_allclose(
    self_critical.advantages([1.0, 3.0], 1, [2.0, 2.0]), [-1.0, 1.0]
  )


def test_greedy_rows_take_the_likeliest_word_at_each_step(model):
  images = features(12)
  left_out = [_UNKNOWN, 10, 11]

  def sample(greedy_from, seed):
    return self_critical.sample(
      model,
      np.repeat(images, 2, axis=0),
      _START,
      _END,
      left_out,
      6,
      [1, seed],
      greedy_from,
    ).numpy()

  drawn = sample(8, 2)
  # The rows before are sampled as they are without a greedy row.
  sampled = sample(None, 2)
  time = min(drawn.shape[1], sampled.shape[1])
  np.testing.assert_array_equal(drawn[:8, :time], sampled[:8, :time])
  assert (drawn[8:, :time] != sampled[8:, :time]).any()
  expected = []
  for image in images:
    words, state = [_START], model.initial_state(image[None])
    while len(words) <= 6 and words[-1] != _END:
      softmax, state = model.inference_step(
        tf.constant(words[-1:], tf.int64), state
      )
      probability = softmax.numpy()[0]
      probability[left_out] = 0
      words.append(int(np.argmax(probability)))
    expected.append([*words[1:], *[_END] * 6][:6])
  greedy = [[*row, *[_END] * 6][:6] for row in drawn.tolist()]
  assert greedy[8:] == [row for row in expected for _ in range(2)][8:]
  assert len(set(map(tuple, expected))) > 2
  # They do not depend on the seed.
  other = [[*row, *[_END] * 6][:6] for row in sample(8, 3).tolist()]
  assert other[8:] == greedy[8:] and other[:8] != greedy[:8]


def test_lengths_count_the_end_word():
  drawn = np.array([[5, _END, _END], [_END, _END, _END], [5, 6, 7], [5, 6, 1]])
  assert self_critical.lengths(drawn, _END).tolist() == [2, 1, 3, 3]


def test_gradient_of_the_loss_is_that_of_the_weighted_log_probability(model):
  # Captions of different length, the shorter one first: rows are reordered.
  sources = np.array([[0, 4, 0, 0], [0, 5, 6, 7], [0, 2, 3, 0]])
  targets = np.array([[4, 1, 0, 0], [5, 6, 7, 1], [2, 3, 1, 0]])
  mask = np.array([[1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 0]], np.int32)
  weights = np.array([2.0, -1.0, 0.5], np.float32)
  images = features(3)

  def expected():
    """The loss, a word at a time."""
    total = 0.0
    for row in range(3):
      state = model.initial_state(images[row : row + 1])
      for t in range(mask[row].sum()):
        softmax, state = model.inference_step(sources[row, t : t + 1], state)
        total -= weights[row] * tf.math.log(softmax[0, targets[row, t]])
    return total / mask.sum()

  names = model.decoder_variables
  values, gradients = [], []
  for fn in (
    lambda: self_critical.loss(
      model, images, sources, targets, mask, weights, [1, 2]
    ),
    expected,
  ):
    with tf.GradientTape() as tape:
      values.append(fn())
    gradients.append(
      [
        tf.convert_to_tensor(g)
        for g in tape.gradient(values[-1], list(names.values()))
      ]
    )
  np.testing.assert_allclose(*values, rtol=1e-5)
  for name, found, wanted in zip(names, *gradients):
    assert np.abs(wanted).max() > 1e-4, name
    np.testing.assert_allclose(found, wanted, atol=2e-5, err_msg=name)


def test_training_raises_the_reward(model):
  """The parts together: sampled captions come to be the reference."""
  reference = [2, 3, 4, _END]
  reward = cider.Scorer([[reference], [[5, 6, _END]], [[7, 8, _END]]], _UNKNOWN)
  images = np.repeat(features(1), 40, axis=0)
  means = []
  for step in range(60):
    drawn = self_critical.sample(
      model, images, _START, _END, [_UNKNOWN], 5, [1, step]
    ).numpy()
    lengths = [[*row, _END].index(_END) + 1 for row in drawn.tolist()]
    rewards = reward(
      [row[:n].tolist() for row, n in zip(drawn, lengths)], [0] * len(drawn)
    )
    means.append(np.mean(rewards))
    mask = (np.arange(drawn.shape[1]) < np.array(lengths)[:, None]).astype(
      np.int32
    )
    sources = np.insert(drawn, 0, _START, axis=1)[:, :-1]
    with tf.GradientTape() as tape:
      loss = self_critical.loss(
        model,
        images,
        sources,
        drawn,
        mask,
        self_critical.advantages(rewards, 40),
        [1, step],
      )
    variables = list(model.decoder_variables.values())
    for variable, gradient in zip(variables, tape.gradient(loss, variables)):
      variable.assign_sub(1.0 * tf.convert_to_tensor(gradient))
  assert np.mean(means[-5:]) > np.mean(means[:5]) + 1


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
