# SPDX-License-Identifier: Apache-2.0
"""Tests of int8, and of the runtimes that compute it."""

import sys

import numpy as np
import pytest
import tensorflow as tf

from im2txt import checkpoints
from im2txt import testing
from im2txt.encoders import int8
from im2txt.encoders import onnx_int8
from im2txt.encoders import openvino_int8
from im2txt.encoders import tensorflow_int8
from im2txt.ops import folded_inception

_SIZE = 75
_BLOCK = 'InceptionV3/Mixed_'


@pytest.fixture(scope='module', name='folded')
def fixture_folded(tmp_path_factory):
  path = tmp_path_factory.mktemp('model')
  testing.caption_model(path)
  return folded_inception.fold(checkpoints.load(str(path)).checkpoint.get)


@pytest.fixture(scope='module', name='images')
def fixture_images():
  return tf.random.stateless_uniform([2, _SIZE, _SIZE, 3], [1, 2], -1.0, 1.0)


@pytest.fixture(scope='module', name='largest')
def fixture_largest(folded, images):
  largest, count = int8.calibrate(folded, [images[:1], images[1:]])
  assert count == 2
  return largest


@pytest.fixture(scope='module', name='exact')
def fixture_exact(folded, images):
  return folded_inception.encode(images, folded)


@pytest.fixture(scope='module', name='rounded')
def fixture_rounded(folded, images, largest):
  """The features by TensorFlow, rounded as the other runtimes do."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(tensorflow_int8._Runtime, 'rounds_last', False)
    return tensorflow_int8.encode(images, folded, largest)


def _error(found, expected):
  found, expected = np.asarray(found), np.asarray(expected)
  return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def test_calibration_takes_the_largest_of_all_images(folded, images, largest):
  assert list(largest) == folded_inception.convolutions()
  alone = [int8.calibrate(folded, [images[i : i + 1]])[0] for i in range(2)]
  for name, value in largest.items():
    np.testing.assert_allclose(
      value, max(found[name] for found in alone), rtol=1e-5
    )
  weights, bias = folded['InceptionV3/Conv2d_1a_3x3']
  first = tf.nn.conv2d(images, weights, 2, 'VALID') + bias
  np.testing.assert_allclose(
    largest['InceptionV3/Conv2d_1a_3x3'], np.max(first), rtol=1e-5
  )


def test_weights_are_rounded_by_the_largest_of_each_channel():
  weights = np.random.default_rng(0).normal(size=[3, 3, 8, 4])
  weights = (weights * [1, 10, 0, 0.1]).astype(np.float32)
  rounded, scale = int8.quantized(weights)
  assert rounded.dtype == np.int8
  assert np.abs(rounded).max((0, 1, 2)).tolist() == [127, 127, 0, 127]
  assert (np.abs(rounded * scale - weights) <= scale * 0.501).all()


def test_what_is_concatenated_shares_a_scale():
  names = folded_inception.convolutions()
  largest = {name: float(i) for i, name in enumerate(names)}
  shared = int8.shared(largest)
  assert all(shared[name] >= value for name, value in largest.items())
  # The maxima of 5d are a branch of 6a, and those of 6e one of 7a.
  for blocks in (('5b',), ('5d', '6a'), ('6e', '7a'), ('7b',), ('7c',)):
    of_blocks = [
      n for n in names if n.startswith(tuple(_BLOCK + b for b in blocks))
    ]
    assert shared[f'{_BLOCK}{blocks[0]}/Branch_0/Conv2d_0a_1x1'] == max(
      largest[n] for n in of_blocks
    )
  for name in (names[0], names[4], f'{_BLOCK}6b/Branch_1/Conv2d_0b_1x7'):
    assert shared[name] == largest[name]
  del largest[names[7]]
  with pytest.raises(KeyError, match=names[7]):
    int8.shared(largest)


def test_rounded_features_are_near(folded, images, largest, exact, rounded):
  assert 0.001 < _error(rounded, exact) < 0.2
  # And they depend on the image.
  assert _error(rounded[0], rounded[1]) > 2 * _error(rounded, exact)
  all_rounded = tensorflow_int8.encode(images, folded, largest)
  assert 0 < _error(all_rounded, rounded) < 0.1


def _assert_alike(found, rounded, exact):
  """Checks features of another runtime.

  Where a value lies between two steps, runtimes may round it either way, and 94
  layers make more of that. Another stride or scale would give errors of 1.
  """
  error = _error(rounded, exact)
  assert _error(found, exact) < 1.3 * error
  assert _error(found, rounded) < error


def test_openvino_computes_the_same(folded, images, largest, exact, rounded):
  pytest.importorskip('openvino', reason='needs requirements-int8.txt')
  encoder = openvino_int8.Encoder(folded, largest, _SIZE, _SIZE, threads=1)
  found = encoder(images)
  _assert_alike(found, rounded, exact)
  # The result of a call stays what it was.
  alone = encoder(images[1:])
  np.testing.assert_allclose(alone[0], found[1], rtol=1e-5, atol=1e-5)


def test_onnx_runtime_computes_the_same(
  folded, images, largest, exact, rounded
):
  for package in ('onnx', 'onnxruntime'):
    pytest.importorskip(package, reason='needs requirements-benchmark.txt')
  encode = onnx_int8.make_encoder(folded, largest, _SIZE, _SIZE, 1)
  _assert_alike(encode(images.numpy()), rounded, exact)


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
