# SPDX-License-Identifier: Apache-2.0
"""Tests of image_encoder: int8, and what it needs."""

import dataclasses
import shutil
import sys

import numpy as np
import pytest
import tensorflow as tf

from im2txt import checkpoints
from im2txt import testing
from im2txt.checkpoints import int8_stamp
from im2txt.inference_utils import image_encoder


@pytest.fixture(scope='module', name='directory')
def fixture_directory(tmp_path_factory):
  path = tmp_path_factory.mktemp('model')
  testing.caption_model(path)
  return path


@pytest.fixture(scope='module', name='images')
def fixture_images():
  return tf.random.stateless_uniform([3, 75, 75, 3], [1, 2], -1.0, 1.0)


def _encoder(directory, precision):
  trained = checkpoints.load(str(directory))
  return image_encoder.ImageEncoder(
    trained.prefix, trained.checkpoint, trained.model_config, precision
  )


@pytest.fixture(scope='module', name='exact')
def fixture_exact(directory, images):
  """An encoder in float32, calibrated."""
  encoder = _encoder(directory, 'float32')
  int8_stamp.save(directory, encoder.calibrate(images, 'noise', batch_size=2))
  return encoder


def test_the_mean_of_the_maps_is_the_features(exact, images):
  np.testing.assert_allclose(
    np.mean(exact.feature_maps(images), axis=(1, 2)), exact(images), rtol=1e-4
  )


def test_a_calibration_says_what_it_is_of(directory, exact):
  trained = checkpoints.load(str(directory))
  fingerprint = image_encoder.fingerprint(trained.checkpoint)
  found = int8_stamp.load(trained.prefix, fingerprint)
  assert (found.images, found.source) == (3, 'noise')
  assert exact.largest == found.largest
  with pytest.raises(ValueError, match='no image that can be decoded'):
    exact.calibrate([], 'nothing')


def test_int8_needs_a_calibration_of_this_encoder(
  directory, exact, tmp_path, monkeypatch
):
  for path in directory.iterdir():
    if path.name != int8_stamp.FILE_NAME:
      shutil.copy(path, tmp_path)
  with pytest.raises(ValueError, match=f'needs {tmp_path}/.*run calibrate'):
    _encoder(tmp_path, 'int8')
  found = int8_stamp.load(
    checkpoints.load(str(directory)).prefix,
    image_encoder.fingerprint(checkpoints.load(str(directory)).checkpoint),
  )
  int8_stamp.save(tmp_path, dataclasses.replace(found, fingerprint='0' * 64))
  with pytest.raises(ValueError, match='is of another Inception v3'):
    _encoder(tmp_path, 'int8')
  int8_stamp.save(tmp_path, dataclasses.replace(found, largest={}))
  with pytest.raises(ValueError, match='is damaged: it lacks InceptionV3/'):
    _encoder(tmp_path, 'int8')
  # As if the package were not installed.
  monkeypatch.setitem(sys.modules, 'openvino', None)
  with pytest.raises(ValueError, match='install what requirements-int8.txt'):
    _encoder(directory, 'int8')
  with pytest.raises(ValueError, match='must be one of float32, bfloat16'):
    _encoder(directory, 'float16')


def test_int8_is_near_float32(directory, exact, images):
  pytest.importorskip('openvino', reason='needs requirements-int8.txt')
  encoder = _encoder(directory, 'int8')
  expected = exact(images)
  found = encoder(images)
  assert found.dtype == tf.float32
  difference = np.linalg.norm(found - expected) / np.linalg.norm(expected)
  assert 0.001 < difference < 0.2
  np.testing.assert_allclose(
    encoder.feature_maps(images), exact.feature_maps(images), rtol=1e-4
  )
  with pytest.raises(ValueError, match='not part of a graph of TensorFlow'):
    tf.function(encoder)(images)


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
