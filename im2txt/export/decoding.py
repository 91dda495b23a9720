# SPDX-License-Identifier: Apache-2.0
"""Decodes image files in the graph, by operations of TensorFlow alone.

The pixels are those of `inference_utils.image_decoder.ImageDecoder`, for the kinds
that TensorFlow reads: JPEG, PNG, GIF (the first frame) and BMP.
"""

from collections.abc import Callable

import tensorflow as tf

from im2txt.ops import image_processing

READ = 'JPEG, PNG, GIF, BMP'

# How a file of each kind begins.
_JPEG, _PNG, _GIF, _BMP = b'\xff\xd8\xff', b'\x89PNG\r\n', b'GIF8', b'BM'
# Of EXIF data: the tag of the orientation, and types of its value.
_ORIENTATION, _SHORT, _LONG = 274, 3, 4

# Takes a place, int32 [...]; returns the number there, int32 [...].
_Reader = Callable[[tf.Tensor], tf.Tensor]


def decode(encoded: tf.Tensor, exif_orientation: bool = True) -> tf.Tensor:
  """Decodes an image; to be traced.

  Args:
    encoded: string scalar, the bytes of a file.
    exif_orientation: whether a JPEG or PNG is turned as its EXIF data say.

  Returns:
    uint8 [height, width, 3], transparent pixels over white.

  Raises:
    tf.errors.InvalidArgumentError: at run time, if the file is of another kind
      or damaged.
  """

  def starts_with(start: bytes) -> tf.Tensor:
    return tf.equal(tf.strings.substr(encoded, 0, len(start)), start)

  def jpeg() -> tf.Tensor:
    image = tf.io.decode_jpeg(encoded, channels=3)
    if not exif_orientation:
      return image
    data = tf.io.decode_raw(encoded, tf.uint8)
    return _turned(image, _orientation(data, _exif_of_jpeg(data)))

  def png() -> tf.Tensor:
    data = tf.io.decode_raw(encoded, tf.uint8)
    # Not always with alpha: asked for it, TensorFlow misreads pixels of 1 bit.
    image = tf.cond(
      _has_alpha(data),
      lambda: _over_white(tf.io.decode_png(encoded, channels=4)),
      lambda: tf.io.decode_png(encoded, channels=3),
    )
    if not exif_orientation:
      return image
    return _turned(image, _orientation(data, _chunk_of_png(data, b'eXIf')))

  def bmp() -> tf.Tensor:
    # TensorFlow takes the numbers of colours for shades of grey.
    known = tf.debugging.Assert(
      ~_has_colour_table(tf.io.decode_raw(encoded, tf.uint8)),
      ['a BMP with a table of colours, which is not read'],
    )
    with tf.control_dependencies([known]):
      return _three_channels(tf.io.decode_bmp(encoded))

  def unknown() -> tf.Tensor:
    refuse = tf.debugging.Assert(
      False, [f'not an image of a kind that is read ({READ})']
    )
    with tf.control_dependencies([refuse]):
      return tf.zeros([0, 0, 3], tf.uint8)

  image = tf.case(
    [
      (starts_with(_JPEG), jpeg),
      (starts_with(_PNG), png),
      (starts_with(_GIF), lambda: tf.io.decode_gif(encoded)[0]),
      (starts_with(_BMP), bmp),
    ],
    default=unknown,
  )
  image.set_shape([None, None, 3])
  return image


def _over_white(image: tf.Tensor) -> tf.Tensor:
  """Does in the graph what `image_formats.over_white` does."""
  color, alpha = tf.split(tf.cast(image, tf.int32), [3, 1], axis=2)
  return tf.cast((color * alpha + 255 * (255 - alpha) + 127) // 255, tf.uint8)


def _three_channels(image: tf.Tensor) -> tf.Tensor:
  """Returns uint8 [height, width, 3] of one channel, three or four."""
  return tf.cond(
    tf.shape(image)[2] < 3,
    lambda: tf.tile(image[:, :, :1], [1, 1, 3]),
    lambda: image[:, :, :3],
  )


def _has_colour_table(data: tf.Tensor) -> tf.Tensor:
  """Returns whether the pixels of a BMP are numbers of colours, bool scalar.

  A table of all shades of grey in order does not count.

  Args:
    data: uint8 [bytes].
  """
  byte, four = _reader(data, 1, False), _reader(data, 4, False)
  start, colours = 14 + four(14), four(46)
  colours = tf.where((colours > 0) & (colours < 256), colours, 256)
  table = byte(start + tf.range(4 * colours))
  table = tf.reshape(table, [-1, 4])[:, :3]
  is_grey = tf.reduce_all(table == tf.range(colours)[:, tf.newaxis])
  return (_reader(data, 2, False)(28) <= 8) & ~is_grey


def _turned(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
  """Turns an image upright; see `image_processing.turn`.

  Args:
    image: uint8 [height, width, 3].
    orientation: int32 scalar, from 1 to 8.
  """

  def turn(number: int) -> Callable[[], tf.Tensor]:
    return lambda: image_processing.turn(image, number)

  return tf.switch_case(orientation - 1, [turn(n) for n in range(1, 9)])


def _reader(
  data: tf.Tensor, size: int, big_endian: bool | tf.Tensor
) -> _Reader:
  """Returns a function that reads whole numbers.

  Behind the end it reads what stands at the end. Numbers of four bytes that
  int32 cannot hold become others; no file is so large.

  Args:
    data: uint8 [bytes].
    size: bytes of a number.
    big_endian: whether the first byte counts most.
  """

  def read(place: tf.Tensor) -> tf.Tensor:
    places = tf.expand_dims(place, -1) + tf.range(size)
    numbers = tf.cast(
      tf.gather(data, tf.clip_by_value(places, 0, tf.size(data) - 1)), tf.int32
    )
    shifts = 8 * tf.range(size)
    shifts = tf.where(big_endian, shifts[::-1], shifts)
    return tf.reduce_sum(tf.bitwise.left_shift(numbers, shifts), axis=-1)

  return read


def _exif_of_jpeg(data: tf.Tensor) -> tf.Tensor:
  """Returns where the EXIF data of a JPEG start, int32 scalar; 0 without any.

  It goes through the segments as `image_formats.read_header` does.
  """
  size = tf.size(data)
  byte = _reader(data, 1, True)
  two, four = _reader(data, 2, True), _reader(data, 4, True)

  def step(place: tf.Tensor, found: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    marker = byte(place + 1)
    # Stray bytes, or a fill byte before a marker.
    is_stray = (byte(place) != 0xFF) | (marker == 0xFF)
    is_alone = (marker <= 0x01) | ((marker >= 0xD0) & (marker <= 0xD8))
    is_exif = (
      ~is_stray
      & (marker == 0xE1)
      & (four(place + 4) == int.from_bytes(b'Exif', 'big'))
      & (two(place + 8) == 0)
    )
    is_last = ~is_stray & ((marker == 0xD9) | (marker == 0xDA))
    length = tf.where(
      is_stray,
      1,
      tf.where(is_alone, 2, 2 + tf.maximum(two(place + 2), 2)),
    )
    return (
      tf.where(is_last, size, place + length),
      tf.where(is_exif, place + 10, found),
    )

  _, found = tf.while_loop(
    lambda place, _: place + 1 < size, step, (tf.constant(2), tf.constant(0))
  )
  return found


def _chunk_of_png(data: tf.Tensor, name: bytes) -> tf.Tensor:
  """Returns where a chunk of a PNG starts, int32 scalar; 0 without it.

  Args:
    data: uint8 [bytes].
    name: of the chunk, four bytes.
  """
  size = tf.size(data)
  four = _reader(data, 4, True)

  def step(place: tf.Tensor, found: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    is_wanted = four(place + 4) == int.from_bytes(name, 'big')
    length = four(place)
    # What claims to go on behind the end is the last.
    is_within = (length >= 0) & (length <= size - place)
    return (
      tf.where(is_within, place + 12 + length, size),
      tf.where(is_wanted, place + 8, found),
    )

  _, found = tf.while_loop(
    lambda place, _: place + 8 <= size, step, (tf.constant(8), tf.constant(0))
  )
  return found


def _has_alpha(data: tf.Tensor) -> tf.Tensor:
  """Returns whether a PNG may have transparent pixels, bool scalar."""
  color_type = _reader(data, 1, True)(25)
  return (
    (color_type == 4) | (color_type == 6) | (_chunk_of_png(data, b'tRNS') > 0)
  )


def _orientation(data: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
  """Returns the orientation of an image file, int32 scalar from 1 to 8.

  Args:
    data: uint8 [bytes], the file.
    start: int32 scalar, where its EXIF data start; 0 if it has none.
  """

  def read() -> tf.Tensor:
    byte = _reader(data, 1, True)
    big_endian = tf.equal(byte(start), ord('M'))
    two, four = (_reader(data, size, big_endian) for size in (2, 4))
    directory = start + four(start + 4)
    entries = directory + 2 + 12 * tf.range(two(directory))
    kind = two(entries + 2)
    value = tf.where(
      kind == _SHORT,
      two(entries + 8),
      tf.where(kind == _LONG, four(entries + 8), 1),
    )
    is_wanted = (
      (two(entries) == _ORIENTATION)
      & (four(entries + 4) == 1)
      & (entries + 12 <= tf.size(data))
    )
    # The last one, or upright.
    value = tf.concat([[1], tf.boolean_mask(value, is_wanted)], axis=0)[-1]
    return tf.where((value >= 1) & (value <= 8), value, 1)

  return tf.cond(start > 0, read, lambda: tf.constant(1))
