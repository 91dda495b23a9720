# SPDX-License-Identifier: Apache-2.0
"""Tests of image_processing."""

import io
import json
import sys

import numpy as np
from PIL import Image
from PIL import ImageOps
import pytest
import tensorflow as tf

from im2txt import testing
from im2txt.ops import image_processing


def test_evaluation_images_equal_those_of_2016_to_the_bit():
  decoded = np.load(testing.reference_path('decoded_uint8.npz'))
  processed = np.load(testing.reference_path('processed_eval_images.npz'))
  assert len(processed.files) == 10
  for name in processed.files:
    encoded = tf.io.read_file(testing.reference_path('jpegs', name))
    np.testing.assert_array_equal(
      tf.io.decode_jpeg(encoded, channels=3), decoded[name], name
    )
    np.testing.assert_array_equal(
      image_processing.process_image(encoded), processed[name], name
    )


@pytest.mark.parametrize(
  'name',
  [
    'c_rgb_1024x683_prog.jpg',
    'd_grey_427x640.jpg',
    'e_cmyk_400x300.jpg',
    'x_rgb_2000x31_422.jpg',
    'x_rgb_53x37_tiny.jpg',
  ],
)
def test_images_in_testdata_equal_those_of_2016_to_the_bit(name):
  with open(
    testing.testdata_path('images', 'digests.json'), encoding='utf-8'
  ) as f:
    expected = json.load(f)['images'][name]
  pixels = np.load(testing.testdata_path('images', 'pixels.npz'))[name]
  encoded = tf.io.read_file(testing.testdata_path('images', name))
  decoded = tf.io.decode_jpeg(encoded, channels=3).numpy()
  assert list(decoded.shape) == expected['decoded_shape']
  assert testing.array_sha256(decoded) == expected['decoded_sha256']
  processed = image_processing.process_image(encoded).numpy()
  # Shows by how much, where the digest only says that they differ.
  np.testing.assert_array_equal(processed[::23, ::23], pixels)
  assert testing.array_sha256(processed) == expected['processed_sha256']


def test_evaluation_image_is_the_center_of_the_tf1_resize():
  # 346 x 346 needs no resize, so the crop's offset of 23 shows.
  image = np.random.default_rng(0).integers(0, 256, [346, 346, 3], np.uint8)
  encoded = tf.io.encode_png(image)
  result = image_processing.process_image(encoded).numpy()
  expected = (image[23 : 23 + 299, 23 : 23 + 299] / 255.0 - 0.5) * 2
  np.testing.assert_allclose(result, expected, atol=1e-6)


def test_png_grey_and_alpha_become_three_channels():
  for channels in (1, 3, 4):
    encoded = tf.io.encode_png(np.full([20, 30, channels], 200, np.uint8))
    result = image_processing.process_image(encoded).numpy()
    assert result.shape == (299, 299, 3)
    np.testing.assert_allclose(result, (200 / 255 - 0.5) * 2, atol=1e-5)


@pytest.mark.parametrize('orientation', range(1, 9))
def test_turns_as_pillow_does(orientation):
  image = np.random.default_rng(0).integers(0, 256, [5, 8, 3], np.uint8)
  exif = Image.Exif()
  exif[274] = orientation
  out = io.BytesIO()
  Image.fromarray(image).save(out, 'PNG', exif=exif)
  with Image.open(out) as stored:
    expected = np.asarray(ImageOps.exif_transpose(stored))
  np.testing.assert_array_equal(
    image_processing.turn(image, orientation), expected
  )


def test_a_large_image_is_resized_to_the_same_colours():
  image = tf.io.decode_jpeg(testing.jpeg(height=700, width=500))
  exact = image_processing.resize_image(image).numpy()
  resize = tf.function(image_processing.resize_image, autograph=False)
  large = resize(image, 349_999).numpy()
  np.testing.assert_allclose(large, exact, atol=5e-7)
  assert (large != exact).any()  # It went the other way.
  np.testing.assert_array_equal(resize(image, 350_000), exact)


def test_the_size_is_checked_in_a_graph():
  check = tf.function(
    image_processing.check_size, input_signature=[tf.TensorSpec([], tf.string)]
  )
  assert check(testing.jpeg()).numpy() == testing.jpeg()
  with pytest.raises(tf.errors.InvalidArgumentError, match='too large, 20000'):
    check(testing.claim_size(testing.jpeg(), 20000, 20000))


@pytest.mark.parametrize('ordering', [0, 1])
def test_training_images_are_distorted_within_range(ordering):
  tf.random.set_seed(1)
  encoded = testing.jpeg()
  first, second = (
    image_processing.process_image(
      encoded, is_training=True, ordering=ordering
    ).numpy()
    for _ in range(2)
  )
  assert first.shape == (299, 299, 3)
  assert np.abs(first - second).max() > 0.01
  for image in (first, second):
    assert image.min() >= -1 and image.max() <= 1


def test_a_seed_determines_the_distortion():
  first, again, other = (
    image_processing.process_image(
      testing.jpeg(), is_training=True, seed=seed
    ).numpy()
    for seed in ([3, 4], [3, 4], [3, 5])
  )
  np.testing.assert_array_equal(first, again)
  assert np.abs(first - other).max() > 0.01


def test_colour_order_follows_the_ordering(monkeypatch):
  calls = []
  for name in ('brightness', 'saturation', 'hue', 'contrast'):
    monkeypatch.setattr(
      tf.image,
      f'stateless_random_{name}',
      lambda x, *a, _name=name, **k: calls.append(_name) or x,
    )
  image = tf.zeros([4, 4, 3])
  image_processing.distort_image(image, 0, [1, 2])
  assert calls == ['brightness', 'saturation', 'hue', 'contrast']
  calls.clear()
  image_processing.distort_image(image, 3, [1, 2])
  assert calls == ['brightness', 'contrast', 'saturation', 'hue']


def test_damaged_image_raises():
  with pytest.raises(tf.errors.InvalidArgumentError):
    image_processing.process_image(testing.jpeg()[:-200])


def test_images_are_processed_on_the_processor():
  process = tf.function(
    image_processing.on_processor(image_processing.process_image),
    autograph=False,
  )
  with tf.device('GPU:0'):  # There need not be one to trace it.
    graph = process.get_concrete_function(
      tf.TensorSpec([], tf.string), is_training=True, seed=(1, 2)
    ).graph
  elsewhere = [
    op.type for op in graph.get_operations() if not op.device.endswith('CPU:0')
  ]
  assert len(graph.get_operations()) > 50
  # The argument and the result.
  assert set(elsewhere) <= {'Placeholder', 'Identity', 'NoOp'}


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
