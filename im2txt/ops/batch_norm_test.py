# SPDX-License-Identifier: Apache-2.0
"""Tests of batch norm over replicas."""

import sys

import numpy as np
import pytest
import tensorflow as tf

from im2txt.ops import batch_norm
from im2txt.ops import slim_bridge

_NAMES = ('beta', 'moving_mean', 'moving_variance')


class _Layer(tf.Module):
  """A layer of batch norm that owns its variables."""

  def __init__(self, function):
    super().__init__()
    self._function = function

  @slim_bridge.track_tf1_style_variables
  def __call__(self, inputs, is_training=True):
    with tf.compat.v1.variable_scope('Layer'):
      return self._function(
        inputs,
        is_training=is_training,
        trainable=True,
        decay=0.9,
        epsilon=0.001,
      )

  def named(self):
    return {v.name.split('/')[-1].split(':')[0]: v for v in self.variables}


class _Replica:
  """One of two replicas; it knows the sums of the other."""

  num_replicas_in_sync = 2

  def __init__(self):
    self.sums = None
    self.other = 0.0

  def all_reduce(self, op, value):
    assert op == tf.distribute.ReduceOp.SUM
    self.sums = value
    return value + self.other


@pytest.mark.parametrize('is_training', [True, False])
def test_shares_are_normalized_as_the_whole_batch(monkeypatch, is_training):
  rng = np.random.default_rng(0)
  images = (rng.normal(size=[5, 3, 4, 2]) * [1, 20] + [3, -5]).astype('f')
  start = {name: rng.uniform(1, 2, 2).astype('f') for name in _NAMES}
  shares = images[:2], images[2:]

  def run(function, inputs):
    layer = _Layer(function)
    layer(inputs)
    for name, variable in layer.named().items():
      variable.assign(start[name])
    outputs = layer(inputs, is_training)
    return outputs, {n: v.numpy() for n, v in layer.named().items()}

  expected, averages = run(slim_bridge.tf_slim.batch_norm, images)
  assert set(averages) == set(_NAMES)
  sums = []
  for share in shares:
    replica = _Replica()
    monkeypatch.setattr(tf.distribute, 'get_replica_context', lambda: replica)
    run(batch_norm.over_replicas, share)
    sums.append(replica.sums)
  for share, other, part in zip(
    shares, reversed(sums), (expected[:2], expected[2:])
  ):
    replica.other = other if is_training else 0.0
    outputs, found = run(batch_norm.over_replicas, share)
    np.testing.assert_allclose(outputs, part, rtol=1e-4, atol=1e-5)
    assert set(found) == set(_NAMES)
    for name in _NAMES:
      np.testing.assert_allclose(found[name], averages[name], rtol=1e-5)
  assert (averages['moving_mean'] != start['moving_mean']).any() == is_training
  assert batch_norm.is_divided()
  monkeypatch.undo()
  assert not batch_norm.is_divided()


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
