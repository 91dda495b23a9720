# SPDX-License-Identifier: Apache-2.0
"""Tests of lstm."""

import sys

import numpy as np
import pytest
import tensorflow as tf

from im2txt.ops import lstm


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def make(batch=3, time=5, size=4, units=6):
  rng = np.random.default_rng(0)
  return (
    rng.normal(size=[batch, time, size]).astype(np.float32),
    rng.normal(size=[size + units, 4 * units]).astype(np.float32),
    rng.normal(size=[4 * units]).astype(np.float32),
  )


def test_step_is_the_textbook_lstm_with_forget_bias_one():
  inputs, kernel, bias = make()
  state = np.random.default_rng(1).normal(size=[3, 12]).astype(np.float32)
  c, h = state[:, :6], state[:, 6:]
  gates = np.concatenate([inputs[:, 0], h], 1) @ kernel + bias
  i, j, f, o = np.split(gates, 4, axis=1)
  c = sigmoid(f + 1.0) * c + sigmoid(i) * np.tanh(j)
  h = sigmoid(o) * np.tanh(c)
  np.testing.assert_allclose(
    lstm.lstm_step(inputs[:, 0], state, kernel, bias),
    np.concatenate([c, h], 1),
    atol=1e-5,
  )


def by_steps(inputs, lengths, kernel, bias):
  """Outputs of each sequence, zero where it has ended, one step at a time."""
  units = bias.shape[0] // 4
  state = tf.zeros([len(inputs), 2 * units])
  outputs = []
  for t in range(inputs.shape[1]):
    state = lstm.lstm_step(inputs[:, t], state, kernel, bias)
    outputs.append(state[:, units:] * (lengths > t).astype('f')[:, None])
  return tf.stack(outputs, axis=1)


_LENGTHS = np.array([2, 5, 3])


def test_packing_puts_the_longest_first_step_by_step():
  packing = lstm.pack(_LENGTHS)
  assert packing.sequences.numpy().tolist() == [1, 2, 0, 1, 2, 0, 1, 2, 1, 1]
  assert packing.steps.numpy().tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 3, 4]
  assert packing.counts.numpy().tolist() == [3, 3, 2, 1, 1]


@pytest.mark.parametrize('as_graph', [False, True])
def test_sequences_and_gradients_equal_those_of_steps(as_graph):
  inputs, kernel, bias = (tf.constant(x) for x in make())
  # Large cells, so that a clipped one would show.
  bias += 3.0
  weights = tf.constant(
    np.random.default_rng(2).normal(size=[3, 5, 6]).astype('f')
  )

  def packed(inputs, kernel, bias):
    packing = lstm.pack(_LENGTHS)
    positions = tf.stack([packing.sequences, packing.steps], axis=1)
    outputs = lstm.lstm_sequence(
      tf.gather_nd(inputs, positions), packing.counts, kernel, bias
    )
    return tf.scatter_nd(positions, outputs, [3, 5, 6])

  def run(sequence_fn, *args):
    with tf.GradientTape() as tape:
      tape.watch(args)
      outputs = sequence_fn(*args)
      loss = tf.reduce_sum(outputs * weights)
    return outputs, *tape.gradient(loss, args)

  if as_graph:
    packed = tf.function(packed, autograph=False)
  found = run(packed, inputs, kernel, bias)
  expected = run(
    lambda *args: by_steps(args[0], _LENGTHS, *args[1:]), inputs, kernel, bias
  )
  for f, e in zip(found, expected):
    np.testing.assert_allclose(f, e, atol=2e-5)


def test_bfloat16_products_are_close_and_the_result_float32():
  inputs, kernel, bias = make()
  packed, counts = inputs.transpose(1, 0, 2).reshape([15, 4]), [3] * 5
  exact = lstm.lstm_sequence(packed, counts, kernel, bias)
  rough = lstm.lstm_sequence(packed, counts, kernel, bias, tf.bfloat16)
  assert rough.dtype == tf.float32
  assert 1e-4 < np.abs(exact - rough).max() < 0.05


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
