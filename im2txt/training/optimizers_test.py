# SPDX-License-Identifier: Apache-2.0
"""Tests of optimizers."""

import sys

import numpy as np
import pytest
import tensorflow as tf

from im2txt import configuration
from im2txt.training import optimizers

_SHAPES = {'embedding/map': [6, 3], 'kernel': [3, 4], 'bias': [4]}


def initial():
  rng = np.random.default_rng(1)
  return {
    name: rng.normal(size=shape).astype(np.float32)
    for name, shape in _SHAPES.items()
  }


def variables():
  return {name: tf.Variable(value) for name, value in initial().items()}


def gradients(step):
  """Returns (what optimizers take, the same as float64 arrays) by name.

  That of the embedding is of rows, of which one comes twice and most never.
  """
  rng = np.random.default_rng(100 + step)
  given = {
    name: rng.normal(size=shape).astype(np.float32)
    for name, shape in _SHAPES.items()
  }
  rows = np.array([4, 1, 4], np.int64)
  values = rng.normal(size=[3, 3]).astype(np.float32)
  dense = {name: value.astype(np.float64) for name, value in given.items()}
  dense['embedding/map'] = np.zeros([6, 3])
  np.add.at(dense['embedding/map'], rows, values)
  return {
    **{name: tf.constant(value) for name, value in given.items()},
    'embedding/map': tf.IndexedSlices(
      tf.constant(values), tf.constant(rows), tf.constant([6, 3])
    ),
  }, dense


def make(name, named_variables, **values):
  config = configuration.TrainingConfig(optimizer=name, **values)
  return optimizers.BY_NAME[name](named_variables, config)


def apply(optimizer, named_variables, step, learning_rate, scale):
  """Takes a step inside of a `tf.function`, as training does."""

  @tf.function(autograph=False)
  def traced(rate, scale):
    given, _ = gradients(step)
    optimizer.apply(
      [
        (name, variable, given[name], rate)
        for name, variable in named_variables.items()
      ],
      scale,
    )

  traced(tf.constant(learning_rate), tf.constant(scale))


def test_sgd_is_the_update_of_2016():
  found, expected = variables(), initial()
  optimizer = make('SGD', found, weight_decay=0.1)
  for step, (rate, scale) in enumerate([(2.0, 1.0), (0.5, 0.25), (1.0, 0.1)]):
    apply(optimizer, found, step, rate, scale)
    for name, gradient in gradients(step)[1].items():
      expected[name] = expected[name] - rate * scale * gradient
      np.testing.assert_allclose(found[name], expected[name], atol=3e-6)
  assert optimizer.named_slots == {}


@pytest.mark.parametrize('name', ['Adam', 'AdamW'])
@pytest.mark.parametrize('weight_decay', [0.0, 0.3])
def test_adam_is_that_of_its_paper(name, weight_decay):
  found = variables()
  optimizer = make(name, found, weight_decay=weight_decay)
  theta = {n: v.astype(np.float64) for n, v in initial().items()}
  m = {n: np.zeros(s) for n, s in _SHAPES.items()}
  v = {n: np.zeros(s) for n, s in _SHAPES.items()}
  for t in range(1, 7):
    rate, scale = 0.1 / t, 1.0 / (1 + t % 3)
    apply(optimizer, found, t, rate, scale)
    for name, gradient in gradients(t)[1].items():
      g = scale * gradient
      m[name] = 0.9 * m[name] + 0.1 * g
      v[name] = 0.999 * v[name] + 0.001 * g**2
      decay = 0.0 if name == 'bias' else rate * weight_decay * theta[name]
      # The order of computation at the end of section 2 of the paper, as in
      # TensorFlow: epsilon is added before the bias is corrected.
      theta[name] = (
        theta[name]
        - decay
        - (
          rate
          * np.sqrt(1 - 0.999**t)
          / (1 - 0.9**t)
          * m[name]
          / (np.sqrt(v[name]) + 1e-8)
        )
      )
      np.testing.assert_allclose(
        found[name], theta[name], atol=1e-5, err_msg=f'{name} at {t}'
      )
  slots = optimizer.named_slots
  assert set(slots) == {
    'adam_updates',
    *(f'{name}/{slot}' for name in _SHAPES for slot in ('Adam', 'Adam_1')),
  }
  assert slots['adam_updates'].numpy() == 6
  for name in _SHAPES:
    np.testing.assert_allclose(slots[f'{name}/Adam'], m[name], atol=1e-6)
    np.testing.assert_allclose(slots[f'{name}/Adam_1'], v[name], atol=1e-6)


def test_the_decay_of_adamw_is_that_of_another_implementation():
  """Decoupled: without a gradient nothing else moves the weights."""
  import tf_keras

  found, expected = variables(), variables()
  optimizer = make('AdamW', found, weight_decay=0.3)
  other = tf_keras.optimizers.AdamW(
    weight_decay=0.3, epsilon=1e-8, jit_compile=False
  )
  other.exclude_from_weight_decay(var_list=[expected['bias']])
  other.build(list(expected.values()))
  for step, rate in enumerate([0.1, 0.05, 0.2]):
    apply(optimizer, found, step, rate, 1.0)
    other.learning_rate = rate
    other.apply_gradients(
      [
        (tf.constant(gradient, tf.float32), expected[name])
        for name, gradient in gradients(step)[1].items()
      ]
    )
    for name, variable in found.items():
      np.testing.assert_allclose(variable, expected[name], atol=1e-5)


@pytest.mark.parametrize('nesterov', [False, True])
@pytest.mark.parametrize('weight_decay', [0.0, 0.3])
def test_momentum_is_that_of_sutskever_et_al(nesterov, weight_decay):
  found, theta = variables(), initial()
  optimizer = make(
    'Momentum',
    found,
    momentum=0.8,
    nesterov=nesterov,
    weight_decay=weight_decay,
  )
  total = {n: np.zeros(s) for n, s in _SHAPES.items()}
  for step in range(6):
    rate, scale = 0.2 / (1 + step), 1.0 / (1 + step % 3)
    apply(optimizer, found, step, rate, scale)
    for name, gradient in gradients(step)[1].items():
      g = scale * gradient
      decay = 0.0 if name == 'bias' else rate * weight_decay * theta[name]
      total[name] = 0.8 * total[name] + g
      # Looking ahead, the sum of the next step without its gradient counts.
      direction = g + 0.8 * total[name] if nesterov else total[name]
      theta[name] = theta[name] - decay - rate * direction
      np.testing.assert_allclose(
        found[name], theta[name], atol=1e-5, err_msg=f'{name} at {step}'
      )
  assert set(optimizer.named_slots) == {f'{name}/Momentum' for name in _SHAPES}
  for name in _SHAPES:
    np.testing.assert_allclose(
      optimizer.named_slots[f'{name}/Momentum'], total[name], atol=1e-5
    )


@pytest.mark.parametrize('name', ['Adam', 'AdamW', 'Momentum'])
def test_goes_on_from_its_slots(name):
  expected = variables()
  optimizer = make(name, expected, weight_decay=0.01)
  for step in range(3):
    apply(optimizer, expected, step, 0.1, 1.0)
  resumed = {n: tf.Variable(v) for n, v in expected.items()}
  other = make(name, resumed, weight_decay=0.01)
  assert optimizer.named_slots
  for slot, value in optimizer.named_slots.items():
    other.named_slots[slot].assign(value)
  for step in range(3, 5):
    apply(optimizer, expected, step, 0.1, 1.0)
    apply(other, resumed, step, 0.1, 1.0)
  for variable in _SHAPES:
    np.testing.assert_array_equal(resumed[variable], expected[variable])


def test_moving_average():
  named = variables()
  average = optimizers.MovingAverage(named, 0.4)
  update = tf.function(average.update, autograph=False)
  expected = {n: v.astype(np.float64) for n, v in initial().items()}
  decays = []
  for count in range(1, 9):
    for name, variable in named.items():
      variable.assign(variable * 0.5 + count)
    update()
    # min(decay, (1 + n) / (10 + n)), as tf.train.ExponentialMovingAverage.
    decays.append(min(0.4, (1 + count) / (10 + count)))
    for name, variable in named.items():
      expected[name] = (
        decays[-1] * expected[name] + (1 - decays[-1]) * variable.numpy()
      )
      np.testing.assert_allclose(
        average.named_averages[name], expected[name], atol=1e-5
      )
  assert decays[0] < decays[-2] == 0.4  # Both kinds of step were taken.
  assert set(average.named_averages) == set(_SHAPES)


def test_a_moving_average_goes_on_from_its_checkpoint_and_slots():
  named = variables()
  average = optimizers.MovingAverage(named, 0.9)
  for variable in named.values():
    variable.assign_add(tf.ones_like(variable))
  average.update()
  # The checkpoint has the averages, the slots the rest.
  resumed = {n: tf.Variable(v) for n, v in average.named_averages.items()}
  other = optimizers.MovingAverage(resumed, 0.9)
  assert set(other.named_slots) == {
    'average_updates',
    *(f'{name}/not_averaged' for name in _SHAPES),
  }
  for name, slot in average.named_slots.items():
    other.named_slots[name].assign(slot)
  for state in (named, average), (resumed, other):
    for variable in state[0].values():
      variable.assign(variable * 2.0)
    state[1].update()
  for name in _SHAPES:
    np.testing.assert_array_equal(resumed[name], named[name])
    np.testing.assert_array_equal(
      other.named_averages[name], average.named_averages[name]
    )


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
