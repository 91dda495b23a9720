# SPDX-License-Identifier: Apache-2.0
"""Tests of image_formats; Pillow writes the files."""

import io
import struct
import sys
import zlib

import numpy as np
from PIL import Image
import pytest
import tensorflow as tf

from im2txt import testing
from im2txt.data import image_formats


def _encode(image, kind, **options):
  out = io.BytesIO()
  image.save(out, kind, **options)
  return out.getvalue()


def _exif(orientation):
  exif = Image.Exif()
  exif[274] = orientation
  return exif


def _png(width, height):
  """Returns a PNG that claims a size, with hardly any data."""

  def chunk(name, data):
    return (
      struct.pack('>I4s', len(data), name)
      + data
      + struct.pack('>I', zlib.crc32(name + data))
    )

  return (
    b'\x89PNG\r\n\x1a\n'
    + chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0))
    + chunk(b'IDAT', zlib.compress(b''))
    + chunk(b'IEND', b'')
  )


_IMAGE = Image.new('RGB', (30, 20), (10, 200, 30))


@pytest.mark.parametrize('kind', image_formats.READ.split(', '))
@pytest.mark.parametrize('mode', ['RGB', 'L'])
def test_kind_and_size_of_all_that_is_read(kind, mode):
  header = image_formats.read_header(_encode(_IMAGE.convert(mode), kind))
  assert header[:3] == (kind, 30, 20)
  assert header.orientation == 1 and not header.has_alpha
  assert header.first_frame_end is None
  header.check_size()


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WebP'])
def test_orientation(kind):
  for orientation in range(1, 9):
    data = _encode(_IMAGE, kind, exif=_exif(orientation))
    assert image_formats.read_header(data).orientation == orientation
  assert (
    image_formats.read_header(_encode(_IMAGE, kind, exif=_exif(9))).orientation
    == 1
  )


def test_damaged_exif_says_nothing():
  data = _encode(_IMAGE, 'JPEG', exif=_exif(6))
  place = data.index(b'Exif\0\0') + 6
  for junk in (b'XX', b'MM\0*\xff\xff\xff\xff'):
    damaged = data[:place] + junk + data[place + len(junk) :]
    assert image_formats.read_header(damaged)[:3] == ('JPEG', 30, 20)
    assert image_formats.read_header(damaged).orientation == 1


def test_a_thumbnail_does_not_tell_the_size():
  thumbnail = _encode(Image.new('RGB', (7, 5)), 'JPEG')
  data = _encode(_IMAGE, 'JPEG')
  segment = b'Exif\0\0' + thumbnail
  data = (
    data[:2]
    + b'\xff\xe1'
    + struct.pack('>H', len(segment) + 2)
    + segment
    + data[2:]
  )
  assert image_formats.read_header(data)[:3] == ('JPEG', 30, 20)


def test_a_progressive_jpeg_takes_more_memory():
  baseline = image_formats.read_header(_encode(_IMAGE, 'JPEG'))
  progressive = image_formats.read_header(
    _encode(_IMAGE, 'JPEG', progressive=True)
  )
  assert baseline.is_sequential and not progressive.is_sequential
  assert progressive.num_bytes == 3 * baseline.num_bytes


@pytest.mark.parametrize(
  'mode, transparency, has_alpha',
  [
    ('RGBA', None, True),
    ('LA', None, True),
    ('P', 3, True),
    ('RGB', (1, 2, 3), True),
    ('P', None, False),
    ('I;16', None, False),
  ],
)
def test_alpha_of_a_png(mode, transparency, has_alpha):
  image = (
    Image.new('I;16', (30, 20)) if mode == 'I;16' else _IMAGE.convert(mode)
  )
  options = {} if transparency is None else {'transparency': transparency}
  header = image_formats.read_header(_encode(image, 'PNG', **options))
  assert header.has_alpha == has_alpha


def test_the_first_frame_of_a_gif():
  still = _encode(_IMAGE, 'GIF')
  moving = _encode(
    _IMAGE,
    'GIF',
    save_all=True,
    append_images=[Image.new('RGB', (30, 20), 'blue')],
  )
  header = image_formats.read_header(moving)
  frame = image_formats.first_frame(moving, header)
  assert len(frame) < len(moving)
  with Image.open(io.BytesIO(frame)) as image:
    assert image.n_frames == 1
    np.testing.assert_array_equal(image.convert('RGB'), _IMAGE)
  assert (
    image_formats.first_frame(still, image_formats.read_header(still)) == still
  )


@pytest.mark.parametrize(
  'data, kind',
  [
    (b'\0\0\0\x18ftypheic\0\0\0\0mif1heic', 'HEIC image'),
    (b'\0\0\0\x18ftypmp42\0\0\0\0isommp42', 'video'),
    (b'\xff\x0a\1\2', 'JPEG XL image'),
    (b'%PDF-1.7', 'PDF document'),
    (b'\n<!DOCTYPE html>', 'web page'),
    (b'<?xml version="1.0"?><svg>', 'SVG drawing'),
  ],
)
def test_what_is_not_read_is_named_with_what_to_do(data, kind):
  with pytest.raises(ValueError, match=f'{kind}.*JPEG'):
    image_formats.read_header(data)


@pytest.mark.parametrize('data', [b'text', b'\xff\xd8', b'\0' * 50])
def test_of_what_is_not_known_all_that_is_read_is_said(data):
  with pytest.raises(ValueError, match='JPEG, PNG, GIF, BMP, WebP, TIFF, AVIF'):
    image_formats.read_header(data)


@pytest.mark.parametrize('kind', image_formats.READ.split(', '))
def test_a_file_that_is_cut_anywhere_is_damaged_or_has_a_header(kind):
  data = _encode(_IMAGE, kind)
  for length in range(12, len(data), 7):
    try:
      header = image_formats.read_header(data[:length])
    except ValueError as e:
      assert 'damaged' in str(e) or 'not read' in str(e) or 'is read' in str(e)
    else:
      assert header[:3] == (kind, 30, 20)


def test_a_jpeg_of_several_scans_needs_an_end(capfd):
  noise = Image.fromarray(
    np.random.default_rng(0).integers(0, 256, [20, 30, 3], np.uint8)
  )
  data = _encode(noise, 'JPEG', progressive=True)
  assert image_formats.read_header(data).kind == 'JPEG'
  assert image_formats.read_header(data + b'harmless').kind == 'JPEG'
  for length in (len(data) - 1, len(data) - 2, len(data) - 300):
    with pytest.raises(ValueError, match='damaged JPEG .*: its end is missing'):
      image_formats.read_header(data[:length])
    # TensorFlow refuses just these files, but libjpeg prints a line first.
    with pytest.raises(tf.errors.InvalidArgumentError):
      tf.io.decode_jpeg(data[:length])
    assert 'Improper call to JPEG library' in capfd.readouterr().err
  # Whether TensorFlow takes a sequential image without its end depends on bits.
  data = _encode(noise, 'JPEG')
  assert image_formats.read_header(data[:-2]).kind == 'JPEG'


def test_what_claims_to_be_huge_is_refused():
  image_formats.check_for_decode_jpeg(_png(13500, 13500))
  for width, height in ((15000, 15000), (2**31 - 1, 2**31 - 1), (1, 2**30)):
    with pytest.raises(ValueError, match=f'too large, {width} x {height}'):
      image_formats.check_for_decode_jpeg(_png(width, height))
  with pytest.raises(ValueError, match='too large, 20000 x 20001'):
    image_formats.check_for_decode_jpeg(
      testing.claim_size(_encode(_IMAGE, 'JPEG'), 20000, 20001)
    )
  # A frame may be larger than the screen.
  data = bytearray(_encode(_IMAGE, 'GIF'))
  place = data.index(b',\0\0\0\0' + struct.pack('<HH', 30, 20))
  data[place + 5 : place + 9] = struct.pack('<HH', 60000, 60000)
  with pytest.raises(ValueError, match='too large, 60000 x 60000'):
    image_formats.check_for_decode_jpeg(bytes(data))


def test_what_decode_jpeg_does_not_take_is_refused():
  with pytest.raises(ValueError, match='WebP'):
    image_formats.check_for_decode_jpeg(_encode(_IMAGE, 'WebP'))
  moving = _encode(
    _IMAGE,
    'GIF',
    save_all=True,
    append_images=[Image.new('RGB', (30, 20), 'blue')],
  )
  with pytest.raises(ValueError, match='animated'):
    image_formats.check_for_decode_jpeg(moving)


def test_over_white():
  rgba = np.random.default_rng(0).integers(0, 256, [200, 9, 4], np.uint8)
  alpha = rgba[..., 3:] / 255
  np.testing.assert_allclose(
    image_formats.over_white(rgba),
    rgba[..., :3] * alpha + 255 * (1 - alpha),
    atol=0.51,
  )


@pytest.mark.parametrize(
  'kind, mode',
  [
    ('BMP', 'RGB'),
    ('BMP', 'L'),
    ('BMP', 'P'),
    ('TIFF', 'RGB'),
    ('TIFF', '1'),
    ('TIFF', 'LA'),
    ('WebP', 'RGB'),
    ('AVIF', 'RGB'),
  ],
)
def test_decode_with_pillow(kind, mode):
  options = {'WebP': {'lossless': True}, 'AVIF': {'quality': 100}}.get(kind, {})
  image = _IMAGE.convert(mode)
  decoded = image_formats.decode_with_pillow(
    _encode(image, kind, **options), kind
  )
  assert decoded.dtype == np.uint8
  np.testing.assert_allclose(
    decoded.astype(int), np.asarray(image.convert('RGB')), atol=3
  )


@pytest.mark.parametrize('kind', ['TIFF', 'WebP', 'AVIF'])
def test_transparent_pixels_become_white(kind):
  options = {'WebP': {'lossless': True, 'exact': True}}.get(kind, {})
  data = _encode(Image.new('RGBA', (16, 16), (200, 0, 0, 0)), kind, **options)
  assert image_formats.decode_with_pillow(data, kind).min() > 250


def test_sixteen_bits_keep_their_high_byte():
  values = np.array([[0, 300, 32768, 65535]], np.uint16)
  decoded = image_formats.decode_with_pillow(
    _encode(Image.fromarray(values), 'TIFF'), 'TIFF'
  )
  np.testing.assert_array_equal(decoded[..., 0], values >> 8)


@pytest.mark.parametrize('kind', ['PNG', 'WebP', 'TIFF'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_a_thumbnail_is_upright(kind, orientation):
  corners = np.zeros([20, 40, 3], np.uint8)
  corners[:10, :20], corners[:10, 20:], corners[10:, :20] = (
    [250, 0, 0],
    [0, 250, 0],
    [0, 0, 250],
  )
  # How the file must be stored for this to be seen.
  stored = {
    1: corners,
    2: corners[:, ::-1],
    3: corners[::-1, ::-1],
    4: corners[::-1],
    5: corners.transpose(1, 0, 2),
    6: np.rot90(corners),
    7: corners[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90(corners, -1),
  }[orientation]
  options = {} if kind == 'TIFF' else {'lossless': True}
  found = image_formats.thumbnail(
    _encode(Image.fromarray(stored), kind, exif=_exif(orientation), **options),
    100,
  )
  np.testing.assert_array_equal(found, corners)


def test_a_thumbnail_is_small_and_on_white():
  assert image_formats.thumbnail(_encode(_IMAGE, 'JPEG'), 15).shape == (
    10,
    15,
    3,
  )
  assert (
    image_formats.thumbnail(
      _encode(Image.new('RGBA', (3, 3), (9, 9, 9, 0)), 'PNG'), 9
    )
    == 255
  ).all()


def test_a_thumbnail_of_sixteen_bits_keeps_its_high_byte():
  image = Image.fromarray(np.full([4, 6], 0x4321, np.uint16))
  assert (image_formats.thumbnail(_encode(image, 'PNG'), 9) == 0x43).all()


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'GIF', 'BMP', 'WebP', 'TIFF'])
def test_a_thumbnail_of_any_damage_is_one_kind_of_error(kind):
  noise = np.random.default_rng(0).integers(0, 256, [20, 30, 3], np.uint8)
  data = _encode(Image.fromarray(noise), kind)
  for end in range(0, len(data), max(len(data) // 40, 1)):
    try:
      image_formats.thumbnail(data[:end], 9)
    except ValueError as error:
      assert '\n' not in str(error) and ' at 0x' not in str(error)
  with pytest.raises(ValueError):
    image_formats.thumbnail(data[:40], 9)
  with pytest.raises(ValueError, match='too large, 60000 x 60000'):
    image_formats.thumbnail(_png(60000, 60000), 9)


def test_the_first_frame_of_an_animation():
  for kind, options in (('WebP', {'lossless': True}), ('TIFF', {})):
    data = _encode(
      _IMAGE,
      kind,
      save_all=True,
      append_images=[Image.new('RGB', (30, 20), 'blue')],
      **options,
    )
    np.testing.assert_array_equal(
      image_formats.decode_with_pillow(data, kind), _IMAGE
    )


def test_pillow_turns_a_tiff_itself():
  data = _encode(_IMAGE, 'TIFF', exif=_exif(6))
  assert image_formats.read_header(data).orientation == 1
  assert image_formats.decode_with_pillow(data, 'TIFF').shape == (30, 20, 3)


@pytest.mark.parametrize('kind', ['BMP', 'TIFF', 'WebP', 'AVIF'])
def test_damage_is_told(kind):
  noise = Image.fromarray(
    np.random.default_rng(0).integers(0, 256, [40, 40, 3], np.uint8)
  )
  data = _encode(noise, kind)
  with pytest.raises(ValueError, match=f'damaged {kind}'):
    image_formats.decode_with_pillow(data[: len(data) // 2], kind)


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
