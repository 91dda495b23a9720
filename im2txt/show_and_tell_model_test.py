# SPDX-License-Identifier: Apache-2.0
"""Tests of show_and_tell_model."""

import sys

import numpy as np
import pytest
import tensorflow as tf

from im2txt import checkpoints
from im2txt import configuration
from im2txt import show_and_tell_model
from im2txt import testing
from im2txt.ops import lstm

_SMALL = configuration.ModelConfig(
  vocab_size=100,
  embedding_size=32,
  num_lstm_units=24,
  lstm_dropout_keep_prob=1.0,
)


@pytest.fixture(name='small')
def fixture_small():
  tf.random.set_seed(1)
  return show_and_tell_model.ShowAndTellModel(_SMALL, with_inception=False)


@pytest.fixture(scope='module', name='default')
def fixture_default():
  return show_and_tell_model.ShowAndTellModel(configuration.ModelConfig())


def test_variables_of_the_default_configuration(default):
  found = {
    n: (v.shape.as_list(), v.dtype.name)
    for n, v in default.named_variables.items()
  }
  assert len(found) == 383
  decoder = {n: v for n, v in found.items() if not n.startswith('InceptionV3/')}
  assert decoder == {
    'image_embedding/weights': ([2048, 512], 'float32'),
    'seq_embedding/map': ([12000, 512], 'float32'),
    'lstm/basic_lstm_cell/kernel': ([1024, 2048], 'float32'),
    'lstm/basic_lstm_cell/bias': ([2048], 'float32'),
    'logits/weights': ([512, 12000], 'float32'),
    'logits/biases': ([12000], 'float32'),
    'global_step': ([], 'int32'),
  }
  kinds = {
    tuple(n.split('/')[2:])[-1] for n in found if n.startswith('InceptionV3/')
  }
  assert kinds == {'weights', 'beta', 'moving_mean', 'moving_variance'}


def test_initial_values(default):
  variables = default.decoder_variables
  for name, variable in variables.items():
    value = variable.numpy()
    if name.endswith(('bias', 'biases')):
      assert not value.any()
    else:
      assert -0.08 <= value.min() < -0.079 and 0.079 < value.max() <= 0.08


def test_inference_mode_from_images(default):
  images = tf.random.stateless_uniform([2, 299, 299, 3], [1, 2], -1.0, 1.0)
  state = default.initial_state(default.encode_images(images))
  assert state.shape == (2, 1024)
  softmax, state = default.inference_step(tf.constant([5, 7], tf.int64), state)
  assert softmax.shape == (2, 12000) and state.shape == (2, 1024)
  np.testing.assert_allclose(tf.reduce_sum(softmax, 1), 1.0, rtol=1e-5)


def test_evaluation_equals_the_product_of_steps(small):
  features, inputs, targets, mask = testing.random_batch()
  losses = small.cross_entropies(features, inputs, targets, mask).numpy()
  assert losses.shape == (mask.sum(),)
  expected = np.zeros(mask.shape)
  state = small.initial_state(features)
  for t in range(mask.shape[1]):
    softmax, state = small.inference_step(inputs[:, t], state)
    expected[:, t] = -np.log(softmax.numpy()[range(4), targets[:, t]])
  np.testing.assert_allclose(losses, expected[mask > 0], atol=1e-5)


def test_padding_changes_nothing(small):
  features, inputs, targets, mask = testing.random_batch()
  losses = small.cross_entropies(features, inputs, targets, mask)
  other = small.cross_entropies(
    features, np.where(mask, inputs, 9), np.where(mask, targets, 9), mask
  )
  np.testing.assert_array_equal(losses, other)


def test_loss_of_a_batch_without_words_is_zero(small):
  features, inputs, targets, mask = testing.random_batch()
  losses = small.losses(features, inputs, targets, mask * 0)
  assert float(losses.total_loss) == float(losses.batch_loss) == 0.0
  assert float(losses.words) == 0.0


def test_dropout_only_in_training():
  config = configuration.replace(
    (_SMALL, configuration.TrainingConfig()),
    {'lstm_dropout_keep_prob': 0.5},
    'test',
  )[0]
  model = show_and_tell_model.ShowAndTellModel(config, with_inception=False)
  batch = testing.random_batch()
  np.testing.assert_array_equal(
    model.cross_entropies(*batch), model.cross_entropies(*batch)
  )
  first = model.cross_entropies(*batch, is_training=True)
  second = model.cross_entropies(*batch, is_training=True)
  assert np.abs(first - second).max() > 1e-4


def test_evaluation_losses_equal_those_of_2016(small):
  vectors = np.load(testing.testdata_path('training', 'steps.npz'))
  checkpoints.Checkpoint(
    testing.testdata_path('training', 'model.ckpt-0')
  ).restore(small.named_variables)
  losses = small.cross_entropies(*testing.training_batch(vectors))
  # Padded positions, which weigh nothing, are never computed here.
  np.testing.assert_allclose(
    losses,
    vectors['eval_cross_entropy'][vectors['eval_weights'] > 0],
    atol=2e-6,
  )


def test_image_embeddings_equal_those_of_2016(small):
  vectors = np.load(testing.testdata_path('training', 'steps.npz'))
  checkpoints.Checkpoint(
    testing.testdata_path('training', 'model.ckpt-0')
  ).restore(small.named_variables)
  units = small.config.num_lstm_units
  np.testing.assert_allclose(
    small.initial_state(vectors['image_features']),
    lstm.lstm_step(
      vectors['image_embeddings'],
      np.zeros([8, 2 * units], 'f'),
      small.lstm_kernel,
      small.lstm_bias,
    ),
    atol=2e-6,
  )


def test_a_step_equals_that_of_2016(small):
  vectors = testing.assign_decoder(small)
  softmax, state = small.inference_step(
    vectors['step_input'], vectors['step_state']
  )
  np.testing.assert_allclose(softmax, vectors['step_softmax'], atol=2e-6)
  np.testing.assert_allclose(state, vectors['step_new_state'], atol=2e-6)


def test_first_states_equal_those_of_2016(small):
  vectors = np.load(testing.reference_path('model_small', 'tensors.npz'))
  checkpoints.Checkpoint(
    testing.reference_path('model_small', 'small_noinception.ckpt')
  ).restore(small.named_variables)
  np.testing.assert_allclose(
    small.initial_state(vectors['features']),
    vectors['initial_state'],
    atol=1e-5,
  )


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
