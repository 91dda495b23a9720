# SPDX-License-Identifier: Apache-2.0
"""Tests of image_decoder."""

import io
import sys

import numpy as np
from PIL import Image
from PIL import ImageOps
import pytest
import tensorflow as tf

from im2txt import testing
from im2txt.data import image_formats
from im2txt.inference_utils import image_decoder


@pytest.fixture(scope='module', name='decoder')
def fixture_decoder():
  """A decoder to the size of 2016."""
  return image_decoder.ImageDecoder(299, 299)


@pytest.mark.parametrize(
  'data, message',
  [
    (b'', 'empty'),
    (b'text', 'JPEG, PNG, GIF'),
    (testing.jpeg()[:-300], 'damaged JPEG'),
    (testing.jpeg()[:100], 'damaged JPEG'),
    (b'\0\0\0\x18ftypheic\0\0\0\0', 'HEIC image.*JPEG'),
  ],
)
def test_what_is_no_image_is_refused(decoder, data, message):
  with pytest.raises(ValueError, match=message):
    decoder.decode(data)


def _encode(image, kind, **options):
  out = io.BytesIO()
  image.save(out, kind, **options)
  return out.getvalue()


def _picture(mode='RGB'):
  return Image.open(io.BytesIO(testing.jpeg(3))).convert(mode)


@pytest.mark.parametrize(
  'kind, options',
  [('BMP', {}), ('TIFF', {}), ('WebP', {'lossless': True}), ('GIF', {})],
)
def test_other_kinds_are_decoded_to_the_same_as_a_png(decoder, kind, options):
  picture = _picture('P').convert('RGB')
  np.testing.assert_array_equal(
    decoder.decode(_encode(picture, kind, **options)),
    decoder.decode(_encode(picture, 'PNG')),
  )


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WebP'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_exif_orientation(decoder, kind, orientation):
  options = {'WebP': {'lossless': True}}.get(kind, {})
  exif = Image.Exif()
  exif[274] = orientation
  data = _encode(_picture(), kind, exif=exif, **options)
  stored = _encode(_picture(), kind, **options)
  pixels = (
    tf.io.decode_image(stored).numpy()
    if (kind != 'WebP')
    else np.asarray(_picture())
  )
  upright = Image.fromarray(pixels)
  upright.getexif()[274] = orientation
  upright = ImageOps.exif_transpose(upright)
  np.testing.assert_array_equal(
    decoder.decode(data), decoder.decode(_encode(upright, 'PNG'))
  )
  np.testing.assert_array_equal(
    decoder.decode(data, exif_orientation=False), decoder.decode(stored)
  )


@pytest.mark.parametrize('kind', ['GIF', 'PNG', 'WebP', 'TIFF'])
def test_the_first_frame_of_an_animation(decoder, kind):
  options = {'WebP': {'lossless': True}}.get(kind, {})
  first = _picture('P').convert('RGB')
  moving = _encode(
    first,
    kind,
    save_all=True,
    append_images=[Image.new('RGB', first.size, 'blue')],
    **options,
  )
  np.testing.assert_array_equal(
    decoder.decode(moving), decoder.decode(_encode(first, 'PNG'))
  )


@pytest.mark.parametrize('mode', ['RGBA', 'LA', 'P'])
def test_transparent_pixels_of_a_png_are_white(decoder, mode):
  picture = _picture(mode)
  if mode == 'P':
    data = _encode(picture, 'PNG', transparency=picture.getpixel((0, 0)))
    rgba = Image.open(io.BytesIO(data)).convert('RGBA')
  else:
    picture.putalpha(Image.linear_gradient('L').resize(picture.size))
    data, rgba = _encode(picture, 'PNG'), picture.convert('RGBA')
  white = Image.new('RGBA', picture.size, 'white')
  expected = Image.alpha_composite(white, rgba).convert('RGB')
  # One step of 256.
  np.testing.assert_allclose(
    decoder.decode(data),
    decoder.decode(_encode(expected, 'PNG')),
    atol=2.1 / 255,
  )
  dark = decoder.decode(_encode(rgba.convert('RGB'), 'PNG'))
  assert np.abs(decoder.decode(data) - dark).max() > 0.1


def test_a_png_of_16_bits(decoder):
  values = np.full([20, 20], 0x8001, np.uint16)
  np.testing.assert_allclose(
    decoder.decode(_encode(Image.fromarray(values), 'PNG')),
    (0x80 / 255 - 0.5) * 2,
    atol=1e-5,
  )


def test_a_jpeg_that_is_too_large_is_decoded_smaller(decoder, monkeypatch):
  data = testing.jpeg(3, 400, 600)
  whole = decoder.decode(data).numpy()
  testing.set_largest_image(monkeypatch, 200 * 300)
  half = decoder.decode(data).numpy()
  assert 0 < np.abs(half - whole).max() < 0.2
  for other in (
    _encode(_picture().resize((600, 400)), 'PNG'),
    _encode(_picture().resize((600, 400)), 'JPEG', progressive=True),
  ):
    with pytest.raises(ValueError, match='too large, 600 x 400 pixels'):
      decoder.decode(other)


@pytest.mark.parametrize(
  'error', [MemoryError(), tf.errors.ResourceExhaustedError(None, None, 'OOM')]
)
def test_too_little_memory_is_told(decoder, monkeypatch, error):
  def fail(*_):
    raise error

  monkeypatch.setattr(image_formats, 'first_frame', fail)
  with pytest.raises(ValueError, match='too little memory .* 60 x 40 pixels'):
    decoder.decode(testing.jpeg())


def test_a_path_is_no_image(decoder):
  with pytest.raises(TypeError, match="bytes of an image file, not 'a.jpg'"):
    decoder.decode('a.jpg')


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
