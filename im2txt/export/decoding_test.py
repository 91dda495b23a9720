# SPDX-License-Identifier: Apache-2.0
"""Tests of decoding: the pixels of the graph are those of run_inference."""

import io
import sys

import numpy as np
from PIL import Image
import pytest
import tensorflow as tf

from im2txt import testing
from im2txt.export import decoding
from im2txt.inference_utils import image_decoder


@pytest.fixture(scope='module', name='decoder')
def fixture_decoder():
  return image_decoder.ImageDecoder(75, 75)


@pytest.fixture(scope='module', name='decode')
def fixture_decode():
  return tf.function(
    decoding.decode,
    autograph=False,
    input_signature=[tf.TensorSpec([], tf.string)],
  )


@pytest.fixture(scope='module', name='decode_as_stored')
def fixture_decode_as_stored():
  return tf.function(
    lambda encoded: decoding.decode(encoded, False),
    autograph=False,
    input_signature=[tf.TensorSpec([], tf.string)],
  )


def _encode(image, kind, **options):
  out = io.BytesIO()
  image.save(out, kind, **options)
  return out.getvalue()


def _picture(mode='RGB'):
  return Image.open(io.BytesIO(testing.jpeg(3))).convert(mode)


def _assert_same(decode, decoder, data):
  pixels = decode(data).numpy()
  np.testing.assert_array_equal(decoder.process(pixels), decoder.decode(data))


def _exif(orientation, kind, big_endian=True, **others):
  """Returns EXIF data with an orientation between two other tags."""
  order = 'big' if big_endian else 'little'
  size = {3: 2, 4: 4}[kind]
  value = orientation.to_bytes(size, order).ljust(4, b'\0')
  entries = [
    (tag, kind, 1, value)
    for tag, kind, value in (
      (271, 3, bytes(4)),
      (274, kind, value),
      (282, 4, b'\0\0\0\6'),
    )
  ]
  return (
    b'Exif\0\0'
    + (b'MM' if big_endian else b'II')
    + b''.join(
      number.to_bytes(size, order)
      for number, size in ((42, 2), (8, 4), (len(entries), 2))
    )
    + b''.join(
      tag.to_bytes(2, order)
      + kind.to_bytes(2, order)
      + count.to_bytes(4, order)
      + value
      for tag, kind, count, value in entries
    )
    + bytes(4)
  )


@pytest.mark.parametrize('kind', ['JPEG', 'PNG'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_images_are_turned(
  decode, decode_as_stored, decoder, kind, orientation
):
  exif = Image.Exif()
  exif[274] = orientation
  data = _encode(_picture(), kind, exif=exif)
  _assert_same(decode, decoder, data)
  np.testing.assert_array_equal(
    decoder.process(decode_as_stored(data).numpy()),
    decoder.decode(data, exif_orientation=False),
  )


@pytest.mark.parametrize(
  'exif',
  [
    _exif(6, 3, big_endian=False),
    _exif(6, 4, big_endian=False),
    _exif(6, 4),
    _exif(9, 3),
    _exif(0, 3),
    _exif(6, 3)[:30],
    b'Exif\0\0',
    b'Exif\0\0MM\0*\xff\xff\xff\xff',
    b'http://ns.adobe.com/xap/1.0/\0',
  ],
)
def test_exif_data_of_all_kinds(decode, decoder, exif):
  _assert_same(decode, decoder, _encode(_picture(), 'JPEG', exif=exif))


def test_exif_data_need_not_come_first(decode, decoder):
  data = _encode(_picture(), 'JPEG', exif=_exif(6, 3))
  stray = data[:2] + b'\xff\xfe\0\5abc\xff\xff\xe2\0\2' + data[2:]
  assert decode(stray).shape == [60, 40, 3]
  _assert_same(decode, decoder, stray)


@pytest.mark.parametrize(
  'kind, mode, options',
  [
    ('JPEG', 'L', {}),
    ('JPEG', 'CMYK', {}),
    ('JPEG', 'RGB', {'progressive': True}),
    ('PNG', 'L', {}),
    ('PNG', '1', {}),
    ('PNG', 'P', {}),
    ('PNG', 'I;16', {}),
    ('GIF', 'P', {}),
    ('BMP', 'RGB', {}),
    ('BMP', 'L', {}),
  ],
)
def test_other_kinds(decode, decoder, kind, mode, options):
  picture = _picture('L' if mode == 'I;16' else mode).convert(mode)
  _assert_same(decode, decoder, _encode(picture, kind, **options))


@pytest.mark.parametrize('mode', ['RGBA', 'LA'])
def test_transparent_pixels_are_white(decode, decoder, mode):
  picture = _picture(mode)
  picture.putalpha(Image.linear_gradient('L').resize(picture.size))
  _assert_same(decode, decoder, _encode(picture, 'PNG'))


def test_a_transparent_colour_is_white(decode, decoder):
  picture = _picture('P')
  data = _encode(picture, 'PNG', transparency=picture.getpixel((0, 0)))
  assert (decode(data).numpy()[0, 0] == 255).all()
  _assert_same(decode, decoder, data)


def test_the_first_frame_of_an_animation(decode, decoder):
  data = _encode(
    _picture('P'),
    'GIF',
    save_all=True,
    append_images=[Image.new('RGB', _picture().size, 'blue')],
  )
  _assert_same(decode, decoder, data)


@pytest.mark.parametrize(
  'data, message',
  [
    (b'', 'kind that is read'),
    (b'RIFF\0\0\0\0WEBP', 'kind that is read'),
    (testing.jpeg()[:100], 'JPEG|header'),
    (testing.jpeg()[:-300], 'JPEG'),
    (b'\x89PNG\r\n', 'PNG'),
    (b'BM', 'bmp content'),
    (_encode(_picture('P'), 'BMP'), 'a BMP with a table of colours'),
  ],
)
def test_what_is_no_image_is_refused(decode, data, message):
  with pytest.raises(tf.errors.InvalidArgumentError, match=message):
    decode(data)


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
