# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of every vintage, in testdata/checkpoints, still load.

testdata/make_checkpoints.py made them once. If this test fails, mend what
reads checkpoints: users have such files.
"""

import os
import shutil
import sys

import numpy as np
import pytest
import tensorflow as tf

from im2txt import checkpoints
from im2txt import configuration
from im2txt import testing

_VINTAGES = [
  'im2txt_2.0',
  'v1_linear',
  'v1_weights_int64',
  'v2_kernel',
  'v2_kernel_int64',
  'v2_linear',
  'v2_moving_averages',
  'v2_moving_averages_only',
  'v2_sharded',
  'v2_weights',
]


@pytest.fixture(scope='module', name='expected')
def fixture_expected():
  """Dict from today's name to value: the decoder in all of them."""
  with np.load(testing.testdata_path('checkpoints', 'expected.npz')) as arrays:
    return dict(arrays)


def _variables(expected):
  return {
    **{
      name: tf.Variable(np.zeros_like(value))
      for name, value in expected.items()
    },
    'global_step': tf.Variable(0),
  }


def test_every_vintage_is_tested():
  found = os.listdir(testing.testdata_path('checkpoints'))
  assert sorted(found) == sorted([*_VINTAGES, 'expected.npz'])


@pytest.mark.parametrize('named', ['directory', 'prefix'])
@pytest.mark.parametrize('vintage', _VINTAGES)
def test_loads(expected, vintage, named):
  path = testing.testdata_path('checkpoints', vintage)
  if named == 'prefix':
    path = os.path.join(path, 'model.ckpt-7')
  variables = _variables(expected)
  checkpoint = checkpoints.Checkpoint(path)
  unused = checkpoint.restore(variables)
  for name, value in expected.items():
    np.testing.assert_array_equal(variables[name], value, name)
  assert variables['global_step'].numpy() == checkpoint.global_step == 7
  assert checkpoint.model_sizes() == {
    'vocab_size': 6,
    'embedding_size': 1,
    'num_lstm_units': 3,
  }
  # Averages beside the weights are not taken, and nothing else is left over.
  assert len(unused) == (
    len(expected) if vintage == 'v2_moving_averages' else 0
  )
  assert all(name.endswith('/ExponentialMovingAverage') for name in unused)


@pytest.mark.parametrize('vintage', _VINTAGES)
def test_training_goes_on_beside_it(expected, vintage, tmp_path):
  """A newer checkpoint in its directory is the one that is taken."""
  directory = tmp_path / 'train'
  shutil.copytree(testing.testdata_path('checkpoints', vintage), directory)
  values = {name: value + 1 for name, value in expected.items()}
  saved = checkpoints.CheckpointManager(str(directory)).save(
    {**values, 'global_step': np.int32(8)}
  )
  variables = _variables(expected)
  checkpoint = checkpoints.Checkpoint(str(directory))
  checkpoint.restore(variables)
  assert checkpoint.prefix == saved
  for name, value in values.items():
    np.testing.assert_array_equal(variables[name], value, name)


def test_what_lies_beside_a_checkpoint_of_version_2_loads(expected):
  directory = testing.testdata_path('checkpoints', 'im2txt_2.0')
  slots = {
    'adam_updates': tf.Variable(0, dtype=tf.int64),
    'logits/biases/Adam': tf.Variable(tf.zeros([6])),
    'logits/biases/Adam_1': tf.Variable(tf.zeros([6])),
  }
  assert checkpoints.restore_training_state(
    os.path.join(directory, 'model.ckpt-7'), slots
  )
  assert slots['adam_updates'].numpy() == 7
  biases = expected['logits/biases']
  np.testing.assert_array_equal(slots['logits/biases/Adam'], biases / 2)
  np.testing.assert_array_equal(slots['logits/biases/Adam_1'], biases**2)
  model, training = configuration.load(directory)
  assert (model.vocab_size, model.embedding_size, model.num_lstm_units) == (
    6,
    1,
    3,
  )
  assert training.optimizer == 'Adam'


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
