# SPDX-License-Identifier: Apache-2.0
"""Headers of image files: kind, size, orientation, memory to decode.

Headers are read without decoding, so a small file that claims to be a huge
image is refused before it takes any memory. TensorFlow decodes JPEG, PNG and
GIF; Pillow decodes the other kinds.
"""

from collections.abc import Callable
import contextlib
import importlib
import io
import math
import re
import struct
from typing import NamedTuple
from typing import TYPE_CHECKING
import warnings

import numpy as np

if TYPE_CHECKING:
  from PIL import Image as PilImage

# Larger files are not read: their bytes are in memory beside the decoded image.
MOST_FILE_BYTES = 200_000_000
# Decoding one image may take this many bytes. Two threads that decode images of
# one kind then stay below 2 GB, the model included.
MOST_DECODED_BYTES = 580_000_000
# TensorFlow refuses a JPEG that takes more bytes than this when decoded.
_MOST_BYTES_OF_JPEG = 2**29 - 1

# Measured bytes per pixel that decoding takes.
_BYTES = {
  'JPEG': 3,
  'PNG': 3,
  'GIF': 4,
  'BMP': 14,
  'TIFF': 14,
  'WebP': 24,
  'AVIF': 24,
}
# For a JPEG of several scans the decoder keeps the coefficients of all three
# channels.
_BYTES_OF_COEFFICIENTS = 6
# A PNG with alpha is decoded to four channels and then blended with white.
_BYTES_OF_ALPHA_PNG = 10

_PILLOW = {
  'BMP': ('BmpImagePlugin', 'BmpImageFile'),
  'TIFF': ('TiffImagePlugin', 'TiffImageFile'),
  'WebP': ('WebPImagePlugin', 'WebPImageFile'),
  'AVIF': ('AvifImagePlugin', 'AvifImageFile'),
}
READ_BY_PILLOW = frozenset(_PILLOW)
# Errors that Pillow raises for damaged files, when opening and when loading.
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

# Kinds that are recognized but not read.
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
# Suffixes of the files in a directory that are read as images. HEIC is here so
# that it is refused by name.
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
  """The header of an image file.

  Attributes:
    kind: one of `READ`.
    width: pixels as stored, before any turn; of the first frame.
    height: pixels as stored, before any turn; of the first frame.
    bytes_per_pixel: bytes that decoding takes.
    orientation: from 1, upright, to 8, as in EXIF.
    has_alpha: whether a PNG may have transparent pixels.
    is_sequential: whether decoding a JPEG at a smaller size takes less memory.
    first_frame_end: bytes up to the end of the first frame, for a GIF of several
      frames; None for other files.
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
  def num_bytes(self) -> int:
    """Bytes that decoding takes."""
    return self.width * self.height * self.bytes_per_pixel

  @property
  def most_pixels(self) -> int:
    """Pixels of the largest image of this kind that is decoded."""
    most = MOST_DECODED_BYTES // self.bytes_per_pixel
    return min(most, _MOST_BYTES_OF_JPEG // 3) if self.kind == 'JPEG' else most

  def check_size(self) -> None:
    """Raises ValueError if the image is too large to be decoded."""
    if self.width * self.height > self.most_pixels:
      side = math.isqrt(self.most_pixels)
      raise ValueError(
        f'too large, {self.width} x {self.height} pixels: make it at most '
        f'{side} x {side} pixels, for this kind of {self.kind}'
      )


def kind_of(data: bytes) -> str | None:
  """Returns the kind of a file by its first bytes, None if unknown.

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


def read_header(data: bytes) -> Header:
  """Returns the header of an image file.

  Args:
    data: content of the file.

  Raises:
    ValueError: the file is empty, of a kind that is not read, has a damaged
      header, or is a JPEG of several scans without an end.
  """
  if not data:
    raise ValueError('the file is empty')
  kind = kind_of(data)
  if kind is None:
    raise ValueError(f'not an image of a kind that is read ({READ})')
  if kind not in _BYTES:
    raise ValueError(f'{kind}: this kind is not read; convert images to JPEG')
  readers: dict[str, Callable[[bytes], Header]] = {
    'JPEG': _jpeg_header,
    'PNG': _png_header,
    'GIF': _gif_header,
  }
  read = readers.get(kind, _pillow_header)
  try:
    return read(data)
  except (IndexError, struct.error) as e:
    raise ValueError(f'damaged {kind} image: it ends in its header') from e


def check_for_decode_jpeg(data: bytes) -> None:
  """Checks that an image file is safe to give to `tf.io.decode_jpeg`.

  Args:
    data: content of the file.

  Raises:
    ValueError: the decoder would refuse the file, or take too much memory first.
  """
  header = read_header(data)
  if header.kind in READ_BY_PILLOW:
    raise ValueError(f'not a JPEG file but {header.kind}')
  if header.first_frame_end is not None:
    # The decoder would decode all frames before it refuses them.
    raise ValueError('an animated GIF')
  header.check_size()


def first_frame(data: bytes, header: Header) -> bytes:
  """Returns the content of a file, of an animated GIF the first frame only."""
  if header.first_frame_end is None:
    return data
  return data[: header.first_frame_end] + b';'


def decode_with_pillow(data: bytes, kind: str) -> np.ndarray:
  """Decodes an image that TensorFlow does not read.

  Args:
    data: content of the file; its size has been checked.
    kind: kind of the file, of `read_header`.

  Returns:
    uint8 [height, width, 3], the first frame over white, not turned.

  Raises:
    ValueError: the image is damaged or has pixels that are not read.
  """
  with _opened(data, kind) as image:
    return pixels_of_pillow(image, kind)


def pixels_of_pillow(image: 'PilImage.Image', kind: str) -> np.ndarray:
  """Decodes a PIL.Image.Image.

  Args:
    image: as `Image.open` leaves it, or any other.
    kind: str, what it is called where it is damaged.

  Returns:
    uint8 [height, width, 3], the first frame over white, not turned.

  Raises:
    ValueError: it is damaged or has pixels that are not read.
  """
  try:
    image.load()
    return _pixels(image)
  except _DAMAGED as e:
    raise ValueError(
      f'damaged {kind} image, or of a variant that is not '
      f'read ({_reason(e)}): convert it to JPEG'
    ) from e


def _reason(error: BaseException) -> str:
  """Returns Pillow's message without the address of the bytes in memory."""
  return re.sub(r' <_io\.BytesIO object at \w+>', '', str(error))


def thumbnail(data: bytes, longest_side: int) -> np.ndarray:
  """Decodes an image of any kind with Pillow, small, for people to look at.

  The pixels are not for a model: they differ from those of other decoders.

  Args:
    data: content of the file.
    longest_side: largest width or height of the result in pixels.

  Returns:
    uint8 [height, width, 3], the first frame over white, upright.

  Raises:
    ValueError: the image is of a kind that is not read, damaged or too large.
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
      # Pillow warns of large images and damaged EXIF data.
      warnings.simplefilter('ignore')
      with Image.open(io.BytesIO(data)) as opened:
        image: PilImage.Image = opened
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


def _is_of_16_bits(image: 'PilImage.Image') -> bool:
  return image.mode.startswith('I;16')


def _pixels(image: 'PilImage.Image') -> np.ndarray:
  """Returns the pixels of an image over white, uint8 [height, width, 3].

  Raises:
    ValueError: the pixels have 32 bits.
  """
  if _is_of_16_bits(image):
    # Pillow's own conversion would make most pixels white.
    grey = (np.asarray(image) >> 8).astype(np.uint8)
    return np.repeat(grey[:, :, np.newaxis], 3, axis=2)
  if image.mode in ('I', 'F'):
    raise ValueError('pixels of 32 bits')
  if image.has_transparency_data:
    return over_white(np.asarray(image.convert('RGBA')))
  return np.asarray(image.convert('RGB'))


def over_white(image: np.ndarray) -> np.ndarray:
  """Blends an image with transparent pixels into a white background.

  Args:
    image: uint8 [height, width, 4], red, green, blue and opacity.

  Returns:
    uint8 [height, width, 3].
  """
  result = np.empty([*image.shape[:2], 3], np.uint8)
  # In strips, to save memory.
  for start in range(0, len(image), 64):
    strip = image[start : start + 64].astype(np.uint16)
    alpha = strip[:, :, 3:]
    result[start : start + 64] = (
      strip[:, :, :3] * alpha + 255 * (255 - alpha) + 127
    ) // 255
  return result


def orientation_of(exif: 'PilImage.Exif') -> int:
  """Returns the orientation, 1 to 8, in EXIF data; 1 if there is none."""
  orientation = exif.get(_ORIENTATION_TAG)
  if isinstance(orientation, int) and 1 <= orientation <= 8:
    return orientation
  return 1


def _exif_orientation(exif: bytes) -> int:
  """Returns the orientation in a block of EXIF data, 1 if there is none."""
  from PIL import Image

  values = Image.Exif()
  try:
    values.load(exif)
    return orientation_of(values)
  except _DAMAGED:
    return 1


def _jpeg_header(data: bytes) -> Header:
  """Reads the markers of a JPEG up to its first scan, as libjpeg does."""
  place, orientation = 2, 1
  frame: tuple[int, int, int, int] | None = None
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
      height, width, channels = struct.unpack_from('>HHB', data, place + 3)
      frame = (marker, height, width, channels)
    elif marker == 0xE1 and data[place + 2 : place + 8] == b'Exif\0\0':
      orientation = _exif_orientation(data[place + 2 : place + length])
    elif marker == 0xDA:
      if frame is None:
        raise IndexError
      kind, height, width, channels = frame
      # Progressive, or a scan for each channel.
      sequential = kind in (0xC0, 0xC1) and data[place + 2] == channels
      # libjpeg reads all scans first. If it finds no end, TensorFlow refuses the
      # file, but libjpeg prints a line of its own.
      if not sequential and data.find(b'\xff\xd9', place) < 0:
        raise ValueError('damaged JPEG image: its end is missing')
      return Header(
        'JPEG',
        width,
        height,
        _BYTES['JPEG'] + (0 if sequential else _BYTES_OF_COEFFICIENTS),
        orientation,
        is_sequential=sequential,
      )
    place += max(length, 2)


def _png_header(data: bytes) -> Header:
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


def _gif_header(data: bytes) -> Header:
  """Reads the blocks of a GIF up to the second frame."""
  width, height, packed = struct.unpack_from('<HHB', data, 6)
  place = 13 + _color_table(packed)
  end = None
  # If the blocks break off, the decoder decides about the rest.
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


def _color_table(packed: int) -> int:
  """Returns the size of the color table that a GIF's flags announce."""
  return 3 << ((packed & 7) + 1) if packed & 0x80 else 0


def _pillow_header(data: bytes) -> Header:
  kind = kind_of(data)
  assert kind is not None
  with _opened(data, kind) as image:
    # Pillow turns a TIFF itself.
    orientation = 1 if kind == 'TIFF' else orientation_of(image.getexif())
    return Header(kind, *image.size, _BYTES[kind], orientation)


def _opened(data: bytes, kind: str) -> 'PilImage.Image':
  """Opens an image without decoding it."""
  module, name = _PILLOW[kind]
  # Image.open would load all of Pillow's formats, and would warn of large
  # images.
  plugin = importlib.import_module(f'PIL.{module}')
  try:
    return getattr(plugin, name)(io.BytesIO(data))
  except _DAMAGED as e:
    raise ValueError(f'damaged {kind} image ({_reason(e)})') from e
