# SPDX-License-Identifier: Apache-2.0
"""Tests of lstm."""

import sys

import numpy as np
import pytest

from im2txt.ops import lstm


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def make(batch=3, time=5, size=4, units=6):
  rng = np.random.default_rng(0)
  return (rng.normal(size=[batch, time, size]).astype(np.float32),
          rng.normal(size=[size + units, 4 * units]).astype(np.float32),
          rng.normal(size=[4 * units]).astype(np.float32))


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
      np.concatenate([c, h], 1), atol=1e-5)


def test_sequence_equals_steps():
  inputs, kernel, bias = make()
  # Large cells, so that a clipped one would show.
  bias[:] += 3.0
  outputs = lstm.lstm_sequence(inputs, kernel, bias)
  state = np.zeros([3, 12], np.float32)
  for t in range(inputs.shape[1]):
    state = lstm.lstm_step(inputs[:, t], state, kernel, bias).numpy()
    np.testing.assert_allclose(outputs[:, t], state[:, 6:], atol=1e-5)
  assert np.abs(state[:, :6]).max() > 3.0


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
