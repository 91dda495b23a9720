# SPDX-License-Identifier: Apache-2.0
"""Decodes image files of any format to what a model takes."""

import contextlib
import threading

import numpy as np
import tensorflow as tf

from im2txt.data import image_formats
from im2txt.ops import image_processing

# Images that take more bytes in memory are decoded one at a time.
_LARGE = 150_000_000


class ImageDecoder:
  """Decodes image files to the size that a model takes.

  Args:
    height: of the result, in pixels.
    width: of the result, in pixels.

  Attributes:
    seen: see `Captioner.seen`.
  """

  def __init__(self, height: int, width: int) -> None:

    @image_processing.on_processor
    def process_decoded(image: tf.Tensor) -> tf.Tensor:
      return image_processing.crop_image(
        image_processing.resize_image(image), height=height, width=width
      )

    @image_processing.on_processor
    def process(encoded: tf.Tensor, orientation: int, ratio: int) -> tf.Tensor:
      image = tf.io.decode_jpeg(encoded, channels=3, ratio=ratio)
      return process_decoded(image_processing.turn(image, orientation))

    # There is one graph for each orientation and ratio.
    self._process = tf.function(process, autograph=False)
    # Trace here once, not in every decoding thread.
    self._process.get_concrete_function(tf.TensorSpec([], tf.string), 1, 1)
    self._process_decoded = tf.function(
      process_decoded,
      autograph=False,
      input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)],
    )
    self._large = threading.Lock()
    right, bottom = (
      0.5 + min(side, resized) / resized / 2
      for side, resized in (
        (width, image_processing.RESIZE_WIDTH),
        (height, image_processing.RESIZE_HEIGHT),
      )
    )
    self.seen = (1 - right, 1 - bottom, right, bottom)

  def decode(
    self, encoded_image: bytes, exif_orientation: bool = True
  ) -> tf.Tensor:
    """Decodes the bytes of an image file. Any thread may call it.

    `image_formats.READ` lists the formats. The first frame of an animation is
    taken, and transparent pixels become white.

    Args:
      encoded_image: bytes of the file.
      exif_orientation: whether to turn the image upright by its EXIF data. The
        program of 2016 did not, neither in training nor for captions.

    Returns:
      float32 [height, width, 3], for `Captioner.encode` and `caption`.

    Raises:
      TypeError: the argument is not bytes, but for example the name of a file.
      ValueError: the format is unknown, the file is damaged, or the image takes
        too much memory.
    """
    if not isinstance(encoded_image, (bytes, bytearray, memoryview)):
      raise TypeError(
        'decode takes the bytes of an image file, not '
        f'{encoded_image!r:.80}: open the file in mode "rb" and pass the '
        'result of read()'
      )
    encoded_image = bytes(encoded_image)
    header = image_formats.read_header(encoded_image)
    ratio = 1
    if not exif_orientation:
      header = header._replace(orientation=1)
    elif header.orientation > 1:
      # Turning the image takes copies of it.
      header = header._replace(bytes_per_pixel=header.bytes_per_pixel + 6)
    whole = header
    while (
      header.is_sequential
      and ratio < 8
      and (header.width * header.height > header.most_pixels)
    ):
      # The image will be resized to far fewer pixels anyway.
      ratio *= 2
      header = header._replace(
        width=-(-whole.width // ratio), height=-(-whole.height // ratio)
      )
    header.check_size()
    with self._large if header.num_bytes > _LARGE else contextlib.nullcontext():
      try:
        return self._decode(encoded_image, header, ratio)
      except tf.errors.InvalidArgumentError as e:
        raise ValueError(
          f'damaged {header.kind} image, or of a rare variant that is not read'
        ) from e
      except (MemoryError, tf.errors.ResourceExhaustedError) as e:
        raise ValueError(
          f'too little memory to decode {whole.width} x {whole.height} '
          'pixels: make the image smaller'
        ) from e

  def process(self, pixels: np.ndarray, orientation: int = 1) -> tf.Tensor:
    """Makes of pixels what a model takes. Any thread may call it.

    Args:
      pixels: uint8 [height, width, 3].
      orientation: from 1, upright, to 8, as in EXIF.

    Returns:
      float32 [height, width, 3], what `Captioner` takes.
    """
    return self._process_decoded(image_processing.turn(pixels, orientation))

  def _decode(
    self, encoded: bytes, header: image_formats.Header, ratio: int
  ) -> tf.Tensor:
    """Decodes an image whose size was checked. A JPEG is scaled by 1/ratio."""
    if header.kind in image_formats.READ_BY_PILLOW:
      image = image_formats.decode_with_pillow(encoded, header.kind)
    elif header.has_alpha:
      # A memoryview does not copy the image, as numpy() would.
      image = image_formats.over_white(
        np.asarray(memoryview(tf.io.decode_png(encoded, channels=4)))
      )
    else:
      frame = image_formats.first_frame(encoded, header)
      return self._process(tf.constant(frame), header.orientation, ratio)
    return self.process(image, header.orientation)
