# SPDX-License-Identifier: Apache-2.0
"""Tests of folded_inception."""

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


def relative_error(found, expected):
  """The largest difference, by the largest of the expected values."""
  found, expected = np.asarray(found), np.asarray(expected)
  return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.fixture(scope='module', name='network')
def fixture_network():
  """tf-slim's network with random batch-norm averages and shifts."""
  network = image_embedding.InceptionV3()
  rng = np.random.default_rng(0)
  for name, variable in network.named_variables.items():
    shape = variable.shape
    if name.endswith('/weights'):
      # Scaled so that activations neither die out nor blow up on the way.
      fan_in = np.prod(shape[:-1])
      variable.assign(rng.normal(scale=np.sqrt(2 / fan_in), size=shape))
    elif name.endswith('/moving_variance'):
      variable.assign(rng.uniform(0.5, 2.0, shape))
    else:
      variable.assign(rng.normal(scale=0.1, size=shape))
  return network


@pytest.fixture(scope='module', name='images')
def fixture_images():
  return tf.random.stateless_uniform([2, 299, 299, 3], [1, 2], -1.0, 1.0)


def get_from(network):
  return lambda name: network.named_variables[name].numpy()


def test_every_variable_is_used_once(network):
  asked = []

  def get(name):
    asked.append(name)
    return network.named_variables[name].numpy()

  folded = folded_inception.fold(get)
  assert len(folded) == 94
  assert sorted(asked) == sorted(network.named_variables)


def encode(images, folded):
  return tf.function(folded_inception.encode, autograph=False)(images, folded)


@pytest.mark.parametrize('height, width', [(299, 299), (140, 180)])
def test_features_equal_those_of_slim(network, images, height, width):
  images = images[:, :height, :width]
  features = encode(images, folded_inception.fold(get_from(network)))
  assert features.shape == (2, folded_inception.FEATURE_SIZE)
  expected = network(images)
  assert np.asarray(expected).std() > 0.01
  assert relative_error(features, expected) < 1e-5


@pytest.mark.parametrize('block', ['Mixed_5b', 'Mixed_6e', 'Mixed_7c'])
def test_a_network_cut_before_a_block_goes_on(network, images, block):
  folded = folded_inception.fold(get_from(network))
  kept = folded_inception.encode(images, folded, until=block)
  rest = folded_inception.fold(get_from(network), block=block)
  assert set(rest) == {
    name
    for name in folded
    if name.split('/')[1]
    in folded_inception.BLOCKS[folded_inception.BLOCKS.index(block) :]
  }
  np.testing.assert_array_equal(
    folded_inception.encode_from(block, kept, rest),
    folded_inception.encode(images, folded),
  )


def test_bfloat16_is_near(network, images):
  folded = folded_inception.fold(get_from(network), tf.bfloat16)
  assert {x.dtype for pair in folded.values() for x in pair} == {tf.bfloat16}
  features = encode(images, folded)
  assert features.dtype == tf.float32
  assert 1e-5 < relative_error(features, network(images)) < 0.1


def test_features_equal_those_of_2016(tmp_path):
  vectors = np.load(testing.reference_path('full2000', 'tensors.npz'))
  checkpoint = checkpoints.Checkpoint(testing.inception_checkpoint(tmp_path))
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
  features = encode(tf.stack(images), folded_inception.fold(checkpoint.get))
  assert relative_error(features, vectors['features']) < 1e-5


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
