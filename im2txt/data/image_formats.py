# SPDX-License-Identifier: Apache-2.0
"""Image files by their first bytes: kind, size, orientation, memory to decode.

Nothing is decoded to learn these, so a small file that claims to be a huge
image is refused before it takes any memory. What TensorFlow decodes (JPEG, PNG,
GIF) stays with it; Pillow decodes the other kinds.
"""

import contextlib
import importlib
import io
import math
import re
import struct
from typing import NamedTuple
import warnings

import numpy as np

# Larger files are not read: their bytes stand beside what they are decoded to.
MOST_FILE_BYTES = 200_000_000
# Decoding one image may take so many bytes. With it two threads that decode
# images of one kind stay below 2 GB, the model included.
_MOST_BYTES = 580_000_000
# TensorFlow refuses a JPEG of more bytes than this, decoded.
_MOST_BYTES_OF_JPEG = 2**29 - 1

# Bytes that decoding takes per pixel, as measured.
_BYTES = {
  'JPEG': 3,
  'PNG': 3,
  'GIF': 4,
  'BMP': 14,
  'TIFF': 14,
  'WebP': 24,
  'AVIF': 24,
}
# A JPEG of several scans keeps the coefficients of all three channels.
_BYTES_OF_COEFFICIENTS = 6
# A PNG with alpha is decoded to four channels and then put over white.
_BYTES_OF_ALPHA_PNG = 10

_PILLOW = {
  'BMP': ('BmpImagePlugin', 'BmpImageFile'),
  'TIFF': ('TiffImagePlugin', 'TiffImageFile'),
  'WebP': ('WebPImagePlugin', 'WebPImageFile'),
  'AVIF': ('AvifImagePlugin', 'AvifImageFile'),
}
READ_BY_PILLOW = frozenset(_PILLOW)
# What Pillow raises at damaged files, as Image.open knows it, and in loading.
_DAMAGED = (
  AttributeError,
  EOFError,
  IndexError,
  KeyError,
  OSError,
  OverflowError,
  RuntimeError,
  SyntaxError,
  TypeError,
  ValueError,
  struct.error,
)

# The kinds that are recognized but not read.
_OTHERS = [
  (b'\xff\x0a', 'JPEG XL image'),
  (b'\x00\x00\x00\x0cJXL ', 'JPEG XL image'),
  (b'\x00\x00\x00\x0cjP  ', 'JPEG 2000 image'),
  (b'\xff\x4f\xff\x51', 'JPEG 2000 image'),
  (b'8BPS', 'Photoshop image'),
  (b'\x00\x00\x01\x00', 'Windows icon'),
  (b'FUJIFILMCCD-RAW', 'raw photo'),
  (b'%PDF', 'PDF document'),
  (b'<svg', 'SVG drawing'),
  (b'<html', 'web page'),
  (b'<!DOCTYPE', 'web page'),
  (b'<!doctype', 'web page'),
  (b'PK\x03\x04', 'zip archive'),
  (b'\x1aE\xdf\xa3', 'video'),
  (b'version https://git-lfs', 'Git-LFS pointer (run git lfs pull)'),
]
_HEIC_BRANDS = {
  b'heic',
  b'heix',
  b'heim',
  b'heis',
  b'hevc',
  b'hevx',
  b'mif1',
  b'msf1',
}

READ = 'JPEG, PNG, GIF, BMP, WebP, TIFF, AVIF'
# Of the files in a directory that are taken for images. HEIC is there to be
# refused by name.
SUFFIXES = (
  '.jpg',
  '.jpeg',
  '.jpe',
  '.jfif',
  '.png',
  '.apng',
  '.gif',
  '.bmp',
  '.webp',
  '.tif',
  '.tiff',
  '.avif',
  '.heic',
  '.heif',
)

_ORIENTATION_TAG = 274


class Header(NamedTuple):
  """What the first bytes of an image file say.

  Attributes:
    kind: str, one of `READ`.
    width: pixels as stored, before any turn; of the first frame.
    height: likewise.
    bytes_per_pixel: that decoding takes.
    orientation: int from 1, upright, to 8, as in EXIF.
    has_alpha: whether a PNG has transparent pixels, perhaps.
    is_sequential: whether a JPEG can be decoded at a smaller size in
      accordingly less memory.
    first_frame_end: of a GIF of several frames, bytes up to the end of the
      first; None of another file.
  """

  kind: str
  width: int
  height: int
  bytes_per_pixel: int
  orientation: int = 1
  has_alpha: bool = False
  is_sequential: bool = False
  first_frame_end: int | None = None

  @property
  def num_bytes(self):
    """Bytes that decoding takes."""
    return self.width * self.height * self.bytes_per_pixel

  @property
  def most_pixels(self):
    """Pixels of the largest image of this kind that is decoded."""
    most = _MOST_BYTES // self.bytes_per_pixel
    return min(most, _MOST_BYTES_OF_JPEG // 3) if self.kind == 'JPEG' else most

  def check_size(self):
    """Raises ValueError if the image is too large to be decoded."""
    if self.width * self.height > self.most_pixels:
      side = math.isqrt(self.most_pixels)
      raise ValueError(
        f'too large, {self.width} x {self.height} pixels: make it smaller, '
        f'at most {side} x {side} for this kind of {self.kind}'
      )


def kind_of(data):
  """Returns what the first bytes of a file are of: str, None if unknown.

  >>> kind_of(b'GIF89a')
  'GIF'
  >>> kind_of(b'%PDF-1.4')
  'PDF document'
  """
  for start, kind in (
    (b'\xff\xd8\xff', 'JPEG'),
    (b'\x89PNG\r\n', 'PNG'),
    (b'GIF8', 'GIF'),
    (b'II*\0', 'TIFF'),
    (b'MM\0*', 'TIFF'),
    (b'BM', 'BMP'),
  ):
    if data.startswith(start):
      return kind
  if data[:4] == b'RIFF' and data[8:12] == b'WEBP':
    return 'WebP'
  if data[4:8] == b'ftyp':
    length = int.from_bytes(data[:4], 'big')
    brands = {data[i : i + 4] for i in range(8, min(length, 128), 4)}
    if brands & {b'avif', b'avis'}:
      return 'AVIF'
    return 'HEIC image' if brands & _HEIC_BRANDS else 'video'
  text = data[:256].lstrip()
  if text.startswith(b'<?xml') and b'<svg' in data[:2048]:
    return 'SVG drawing'
  return next(
    (
      kind
      for start, kind in _OTHERS
      if data.startswith(start) or text.startswith(start)
    ),
    None,
  )


def read_header(data):
  """Returns the `Header` of an image file.

  Args:
    data: bytes of the file.

  Raises:
    ValueError: the file is empty, of a kind that is not read, or its header
      is damaged.
  """
  if not data:
    raise ValueError('the file is empty')
  kind = kind_of(data)
  if kind is None:
    raise ValueError(f'not an image of a kind that is read ({READ})')
  if kind not in _BYTES:
    raise ValueError(f'{kind}: this kind is not read; convert images to JPEG')
  read = {'JPEG': _jpeg_header, 'PNG': _png_header, 'GIF': _gif_header}.get(
    kind, _pillow_header
  )
  try:
    return read(data)
  except (IndexError, struct.error) as e:
    raise ValueError(f'damaged {kind} image: it ends in its header') from e


def check_for_decode_jpeg(data):
  """Checks that `tf.io.decode_jpeg` may be given the bytes of an image file.

  Args:
    data: bytes of the file.

  Raises:
    ValueError: it would refuse them, or take too much memory first.
  """
  header = read_header(data)
  if header.kind in READ_BY_PILLOW:
    raise ValueError(f'not a JPEG file but {header.kind}')
  if header.first_frame_end is not None:
    # All frames would be decoded before it refuses them.
    raise ValueError('an animated GIF')
  header.check_size()


def first_frame(data, header):
  """Returns the bytes of a file without further frames of an animated GIF."""
  if header.first_frame_end is None:
    return data
  return data[: header.first_frame_end] + b';'


def decode_with_pillow(data, kind):
  """Decodes an image that TensorFlow does not read.

  Args:
    data: bytes of the file; its size has been checked.
    kind: of `read_header`.

  Returns:
    uint8 [height, width, 3], the first frame over white, not turned.

  Raises:
    ValueError: it is damaged or has pixels that are not read.
  """
  with _opened(data, kind) as image:
    try:
      image.load()
      return _pixels(image)
    except _DAMAGED as e:
      raise ValueError(
        f'damaged {kind} image, or of a variant that is not '
        f'read ({_reason(e)}): convert it to JPEG'
      ) from e


def _reason(error):
  """Returns what Pillow says, less the address of the bytes in memory."""
  return re.sub(r' <_io\.BytesIO object at \w+>', '', str(error))


def thumbnail(data, longest_side):
  """Decodes an image of any kind with Pillow, small, to be looked at.

  Other decoders give other pixels, so no model is given these.

  Args:
    data: bytes of the file.
    longest_side: pixels of the result at most.

  Returns:
    uint8 [height, width, 3], the first frame over white, upright.

  Raises:
    ValueError: the bytes are no image that is read, damaged or too large.
  """
  from PIL import Image

  header = read_header(data)
  header.check_size()
  turns = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
  }
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # Of large images and damaged EXIF data.
      with Image.open(io.BytesIO(data)) as image:
        if _is_of_16_bits(image):
          image = Image.fromarray(_pixels(image))
        image.thumbnail((longest_side, longest_side))
        if header.orientation in turns:
          image = image.transpose(turns[header.orientation])
        return _pixels(image)
  except (*_DAMAGED, MemoryError, Image.DecompressionBombError) as e:
    raise ValueError(
      f'damaged {header.kind} image, or of a variant that is '
      f'not read ({_reason(e)})'
    ) from e


def _is_of_16_bits(image):
  return image.mode.startswith('I;16')


def _pixels(image):
  """Returns uint8 [height, width, 3] of a PIL.Image.Image, over white.

  Raises:
    ValueError: its pixels are of 32 bits.
  """
  if _is_of_16_bits(image):
    # Pillow's own conversion would make most of them white.
    grey = (np.asarray(image) >> 8).astype(np.uint8)
    return np.repeat(grey[:, :, np.newaxis], 3, axis=2)
  if image.mode in ('I', 'F'):
    raise ValueError('pixels of 32 bits')
  if image.has_transparency_data:
    return over_white(np.asarray(image.convert('RGBA')))
  return np.asarray(image.convert('RGB'))


def over_white(image):
  """Puts an image with transparent pixels on a white ground.

  Args:
    image: uint8 [height, width, 4], red, green, blue and opacity.

  Returns:
    uint8 [height, width, 3].
  """
  result = np.empty([*image.shape[:2], 3], np.uint8)
  # In strips, which take little memory.
  for start in range(0, len(image), 64):
    strip = image[start : start + 64].astype(np.uint16)
    alpha = strip[:, :, 3:]
    result[start : start + 64] = (
      strip[:, :, :3] * alpha + 255 * (255 - alpha) + 127
    ) // 255
  return result


def _valid(orientation):
  return orientation if orientation in range(1, 9) else 1


def _exif_orientation(exif):
  """Returns the orientation that a block of EXIF says, 1 if it says none."""
  from PIL import Image

  values = Image.Exif()
  try:
    values.load(exif)
    return _valid(values.get(_ORIENTATION_TAG))
  except _DAMAGED:
    return 1


def _jpeg_header(data):
  """Reads the markers of a JPEG up to its first scan, as libjpeg does."""
  place, orientation, frame = 2, 1, None
  while True:
    place = data.find(b'\xff', place)
    if place < 0:
      raise IndexError
    while data[place] == 0xFF:
      place += 1
    marker = data[place]
    place += 1
    if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:
      continue  # Nothing follows these.
    if marker == 0xD9:
      raise IndexError
    (length,) = struct.unpack_from('>H', data, place)
    if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
      frame = (marker, *struct.unpack_from('>HHB', data, place + 3))
    elif marker == 0xE1 and data[place + 2 : place + 8] == b'Exif\0\0':
      orientation = _exif_orientation(data[place + 2 : place + length])
    elif marker == 0xDA:
      if frame is None:
        raise IndexError
      kind, height, width, channels = frame
      # Progressive, or a scan for each channel.
      sequential = kind in (0xC0, 0xC1) and data[place + 2] == channels
      return Header(
        'JPEG',
        width,
        height,
        _BYTES['JPEG'] + (0 if sequential else _BYTES_OF_COEFFICIENTS),
        orientation,
        is_sequential=sequential,
      )
    place += max(length, 2)


def _png_header(data):
  """Reads the header of a PNG and looks for chunks of alpha and EXIF."""
  width, height, _, color_type = struct.unpack_from('>IIBB', data, 16)
  has_alpha = color_type in (4, 6)
  orientation = 1
  place = 8
  while place + 8 <= len(data):
    length, name = struct.unpack_from('>I4s', data, place)
    if name == b'tRNS':
      has_alpha = True
    elif name == b'eXIf':
      orientation = _exif_orientation(data[place + 8 : place + 8 + length])
    place += length + 12
  return Header(
    'PNG',
    width,
    height,
    _BYTES_OF_ALPHA_PNG if has_alpha else _BYTES['PNG'],
    orientation,
    has_alpha,
  )


def _gif_header(data):
  """Reads the blocks of a GIF up to the second frame."""
  width, height, packed = struct.unpack_from('<HHB', data, 6)
  place = 13 + _color_table(packed)
  end = None
  # Where the blocks break off, the decoder says what it makes of the rest.
  with contextlib.suppress(IndexError):
    while data[place] in b',!':
      is_frame = data[place] == ord(',')
      if is_frame and end is not None:
        return Header('GIF', width, height, _BYTES['GIF'], first_frame_end=end)
      if is_frame:
        size = struct.unpack_from('<HH', data, place + 5)
        width, height = max(width, size[0]), max(height, size[1])
        place += 11 + _color_table(data[place + 9])
      else:
        place += 2
      while data[place]:
        place += data[place] + 1
      place += 1
      if is_frame:
        end = place
  return Header('GIF', width, height, _BYTES['GIF'])


def _color_table(packed):
  """Returns the bytes of the table that a GIF's flags announce."""
  return 3 << ((packed & 7) + 1) if packed & 0x80 else 0


def _pillow_header(data):
  kind = kind_of(data)
  with _opened(data, kind) as image:
    # Pillow turns a TIFF itself.
    orientation = (
      1 if kind == 'TIFF' else _valid(image.getexif().get(_ORIENTATION_TAG))
    )
    return Header(kind, *image.size, _BYTES[kind], orientation)


def _opened(data, kind):
  """Returns a PIL.Image.Image that is not decoded yet."""
  module, name = _PILLOW[kind]
  # Image.open would load all of Pillow's formats, and warn of large images.
  plugin = importlib.import_module(f'PIL.{module}')
  try:
    return getattr(plugin, name)(io.BytesIO(data))
  except _DAMAGED as e:
    raise ValueError(f'damaged {kind} image ({_reason(e)})') from e
