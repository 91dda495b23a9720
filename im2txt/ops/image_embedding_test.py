# SPDX-License-Identifier: Apache-2.0
"""Tests of image_embedding."""

import os
import sys

import numpy as np
import pytest
import tensorflow as tf

from im2txt import checkpoints
from im2txt import testing
from im2txt.ops import folded_inception
from im2txt.ops import image_embedding
from im2txt.ops import image_processing

# Parameters of each block of Inception v3: weights, beta, moving averages.
_PARAMETERS = {
  'Conv2d_1a_3x3': 960,
  'Conv2d_2a_3x3': 9312,
  'Conv2d_2b_3x3': 18624,
  'Conv2d_3b_1x1': 5360,
  'Conv2d_4a_3x3': 138816,
  'Mixed_5b': 256368,
  'Mixed_5c': 277968,
  'Mixed_5d': 285648,
  'Mixed_6a': 1153920,
  'Mixed_6b': 1298944,
  'Mixed_6c': 1692736,
  'Mixed_6d': 1692736,
  'Mixed_6e': 2143872,
  'Mixed_7a': 1699584,
  'Mixed_7b': 5047872,
  'Mixed_7c': 6080064,
}


@pytest.fixture(scope='module', name='frozen')
def fixture_frozen():
  return image_embedding.InceptionV3(trainable=False)


@pytest.fixture(scope='module', name='trained')
def fixture_trained():
  # Of some weights a unit is so near to zero that rounding turns it on or off.
  tf.random.set_seed(1)
  return image_embedding.InceptionV3(trainable=True)


@pytest.fixture(scope='module', name='images')
def fixture_images():
  return tf.random.stateless_uniform([2, 299, 299, 3], [1, 2], -1.0, 1.0)


def moving_mean(network):
  return network.named_variables[
    'InceptionV3/Conv2d_1a_3x3/BatchNorm/moving_mean'
  ].numpy()


def test_variables_are_those_of_slim(frozen):
  assert len(frozen.named_variables) == 376
  suffixes = [
    '/BatchNorm/beta',
    '/BatchNorm/moving_mean',
    '/BatchNorm/moving_variance',
    '/weights',
  ]
  for suffix in suffixes:
    assert sum(n.endswith(suffix) for n in frozen.named_variables) == 94


def test_parameters_of_each_block(frozen):
  found = {}
  for name, variable in frozen.named_variables.items():
    scope, block = name.split('/')[:2]
    assert scope == 'InceptionV3'
    found[block] = found.get(block, 0) + int(np.prod(variable.shape))
  assert found == _PARAMETERS


def test_frozen_network_has_nothing_to_train(frozen):
  assert not [v for v in frozen.named_variables.values() if v.trainable]
  assert float(frozen.regularization_loss()) == 0.0


def test_trained_network_trains_weights_and_beta(trained):
  names = {n for n, v in trained.named_variables.items() if v.trainable}
  assert names == {
    n
    for n in trained.named_variables
    if n.endswith('/weights') or n.endswith('/beta')
  }
  assert len(names) == 188


@pytest.mark.parametrize('is_training', [False, True])
def test_frozen_network_never_changes(frozen, images, is_training):
  before = moving_mean(frozen)
  first = frozen(images, is_training)
  assert first.shape == (2, 2048)
  # No dropout and no batch statistics: the same twice.
  np.testing.assert_array_equal(first, frozen(images, is_training))
  np.testing.assert_array_equal(moving_mean(frozen), before)


def test_trained_network_evaluates_without_change(trained, images):
  before = moving_mean(trained)
  first = trained(images, False)
  np.testing.assert_array_equal(first, trained(images, False))
  np.testing.assert_array_equal(moving_mean(trained), before)


def test_training_updates_averages_and_drops_out(trained, images):
  mean = 'InceptionV3/Conv2d_1a_3x3/BatchNorm/moving_mean'
  variance = 'InceptionV3/Conv2d_1a_3x3/BatchNorm/moving_variance'
  weights = trained.named_variables['InceptionV3/Conv2d_1a_3x3/weights']
  before = {n: trained.named_variables[n].numpy() for n in (mean, variance)}
  features = trained(images, True).numpy()
  activations = tf.nn.conv2d(images, weights, strides=2, padding='VALID')
  batch_mean, batch_variance = tf.nn.moments(activations, [0, 1, 2])
  n = float(np.prod(activations.shape[:3]))
  expected = {
    mean: batch_mean.numpy(),
    variance: batch_variance.numpy() * n / (n - 1),  # Bessel's correction.
  }
  for name, value in expected.items():
    np.testing.assert_allclose(
      trained.named_variables[name].numpy() - before[name],
      (1 - 0.9997) * (value - before[name]),
      rtol=2e-3,
      atol=1e-6,
    )
  # About a fifth of the features is dropped; ReLU alone zeroes fewer here.
  again = trained(images, True).numpy()
  dropped_once = ((features == 0) != (again == 0)).mean()
  assert 0.2 < dropped_once < 0.45


def test_a_seed_determines_what_is_dropped(trained, images):
  one, same, other = (
    trained(images, True, seed).numpy() for seed in ([1, 2], [1, 2], [1, 3])
  )
  np.testing.assert_array_equal(one, same)
  assert ((one == 0) != (other == 0)).mean() > 0.2


def test_weight_decay(trained):
  expected = sum(
    4e-5 * (v.numpy().astype(np.float64) ** 2).sum() / 2
    for n, v in trained.named_variables.items()
    if n.endswith('/weights')
  )
  np.testing.assert_allclose(
    float(trained.regularization_loss()), expected, rtol=1e-5
  )


@pytest.fixture(scope='module', name='top')
def fixture_top(trained):
  """A network of which the last two blocks are trained, scaled to be alive."""
  network = image_embedding.InceptionV3(trainable=True, trained_from='Mixed_7b')
  for name, variable in network.named_variables.items():
    scale = np.sqrt(2 / np.prod(variable.shape[:-1]))
    variable.assign(
      trained.named_variables[name]
      * (scale / 0.088 if name.endswith('/weights') else 1)
    )
  return network


def test_top_blocks_are_trained(top):
  assert len(top.named_variables) == 376
  assert len(top.trained_variables) == 36
  for name, variable in top.trained_variables.items():
    assert name.startswith(('InceptionV3/Mixed_7b/', 'InceptionV3/Mixed_7c/'))
    assert name.endswith(('/weights', '/BatchNorm/beta'))
    assert variable is top.named_variables[name]
  expected = sum(
    4e-5 * (v.numpy().astype(np.float64) ** 2).sum() / 2
    for n, v in top.trained_variables.items()
    if n.endswith('/weights')
  )
  np.testing.assert_allclose(
    float(top.regularization_loss()), expected, rtol=1e-5
  )


def test_training_top_blocks_passes_gradients_to_them_alone(top, images):
  before = {n: v.numpy() for n, v in top.named_variables.items()}
  direction = tf.random.stateless_normal([2, 2048], [3, 4])

  def gradients(is_training):
    with tf.GradientTape() as tape:
      features = top(images, is_training)
      loss = tf.reduce_sum(features * direction)
    variables = top.named_variables
    return features, dict(
      zip(variables, tape.gradient(loss, list(variables.values())))
    )

  (trained, found), (evaluated, expected) = gradients(True), gradients(False)
  scale = np.abs(evaluated).max()
  assert scale > 0.1
  np.testing.assert_allclose(trained, evaluated, atol=1e-4 * scale)
  for name, gradient in found.items():
    if name in top.trained_variables:
      largest = np.abs(expected[name]).max()
      assert largest > 0
      np.testing.assert_allclose(
        gradient, expected[name], atol=1e-3 * largest, err_msg=name
      )
    else:
      assert gradient is None, name
  for name, variable in top.named_variables.items():
    np.testing.assert_array_equal(variable, before[name])


def test_top_blocks_go_on_from_what_is_kept(top, images):
  folded = folded_inception.fold(lambda name: top.named_variables[name].numpy())
  kept = folded_inception.encode(images, folded, 'Mixed_7b')
  assert kept.shape == (2, 8, 8, 1280)
  features = top.encode_from_block(kept)
  np.testing.assert_allclose(
    features, top(images), atol=1e-4 * np.abs(features).max()
  )
  # What is kept of a bfloat16 network, and computed in that.
  rough = top.encode_from_block(tf.cast(kept, tf.bfloat16), tf.bfloat16)
  assert rough.dtype == tf.float32
  error = np.abs(rough - features).max() / np.abs(features).max()
  assert 1e-5 < error < 0.05


def test_features_equal_those_of_2016(frozen, tmp_path):
  vectors = np.load(testing.reference_path('full2000', 'tensors.npz'))
  checkpoint = testing.inception_checkpoint(tmp_path)
  checkpoints.load_inception(checkpoint, frozen)
  images = []
  for name in vectors['files']:
    paths = [
      testing.reference_path('..', folder, 'images', str(name))
      for folder in ('flickr8k', 'coco_mini')
    ]
    path = next((p for p in paths if os.path.exists(p)), None)
    if path is None:
      pytest.skip(f'needs the photo {name}')
    images.append(image_processing.process_image(tf.io.read_file(path)))
  features = frozen(tf.stack(images))
  np.testing.assert_allclose(features, vectors['features'], atol=1e-5)


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
