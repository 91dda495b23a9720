# SPDX-License-Identifier: Apache-2.0
"""From encoded image bytes to the tensor that Inception v3 reads.

The arithmetic is that of 2016 to the bit: TensorFlow's default (fast) JPEG
decoder, then TF1's bilinear resize, which has neither half-pixel centers nor
antialiasing. Another decoder or resize would change captions.
"""

from collections.abc import Callable
import functools
from typing import ParamSpec
from typing import TypeVar

import tensorflow as tf

from im2txt.data import image_formats

_P = ParamSpec('_P')
_T = TypeVar('_T')

# Images are resized to this square before the crop to the network's size.
RESIZE_HEIGHT = 346
RESIZE_WIDTH = 346


def on_processor(fn: Callable[_P, _T]) -> Callable[_P, _T]:
  """Returns a function that computes on the processor, beside a GPU too.

  A GPU would round otherwise, and is busy with the network.

  Args:
    fn: the function, to be traced or not.
  """

  @functools.wraps(fn)
  def placed(*args: _P.args, **kwargs: _P.kwargs) -> _T:
    with tf.device('CPU:0'):
      return fn(*args, **kwargs)

  return placed


def distort_image(
  image: tf.Tensor, ordering: int | tf.Tensor, seed: tf.Tensor
) -> tf.Tensor:
  """Randomly flips an image and changes its colours.

  Args:
    image: float32 [height, width, 3] in [0, 1].
    ordering: int scalar, the order of the changes. Even: brightness,
      saturation, hue, contrast. Odd: brightness, contrast, saturation, hue. In
      2016 this was the number of the preprocessing thread.
    seed: int32 [2] that determines the distortion.

  Returns:
    float32 [height, width, 3] in [0, 1].
  """
  seeds = tf.unstack(tf.random.split(seed, 5))
  image = tf.image.stateless_random_flip_left_right(image, seeds[0])
  image = tf.image.stateless_random_brightness(
    image, max_delta=32.0 / 255.0, seed=seeds[1]
  )

  def contrast(x: tf.Tensor) -> tf.Tensor:
    return tf.image.stateless_random_contrast(
      x, lower=0.5, upper=1.5, seed=seeds[2]
    )

  def saturation_and_hue(x: tf.Tensor) -> tf.Tensor:
    x = tf.image.stateless_random_saturation(
      x, lower=0.5, upper=1.5, seed=seeds[3]
    )
    return tf.image.stateless_random_hue(x, max_delta=0.032, seed=seeds[4])

  image = tf.cond(
    tf.equal(tf.math.floormod(ordering, 2), 0),
    lambda: contrast(saturation_and_hue(image)),
    lambda: saturation_and_hue(contrast(image)),
  )
  return tf.clip_by_value(image, 0.0, 1.0)


def turn(image: tf.Tensor, orientation: int) -> tf.Tensor:
  """Rotates or flips a stored image so that it is upright.

  Args:
    image: [height, width, channels].
    orientation: from 1 (upright) to 8, as in EXIF.

  Returns:
    The upright image. From orientation 5 on, height and width are swapped.
  """
  if orientation >= 5:
    image = tf.transpose(image, [1, 0, 2])
  axes = {2: [1], 3: [0, 1], 4: [0], 6: [1], 7: [0, 1], 8: [0]}
  if orientation in axes:
    image = tf.reverse(image, axes[orientation])
  return image


def check_size(encoded_image: tf.Tensor) -> tf.Tensor:
  """Checks in a graph that an image may be decoded.

  Args:
    encoded_image: string scalar, the bytes of a file.

  Returns:
    The same string scalar.

  Raises:
    tf.errors.InvalidArgumentError: at run time, if
      `image_formats.check_for_decode_jpeg` refuses the image.
  """

  def check(encoded: bytes) -> bytes:
    image_formats.check_for_decode_jpeg(encoded)
    return encoded

  result = tf.numpy_function(check, [encoded_image], tf.string, stateful=False)
  result.set_shape([])
  return result


def resize_image(
  image: tf.Tensor, most_pixels_as_floats: int = 16_000_000
) -> tf.Tensor:
  """Resizes a decoded image.

  Args:
    image: uint8 [height, width, 3]; or float32 likewise, in [0, 1].
    most_pixels_as_floats: uint8 images with more are resized as integers. This takes
      a fifth of the memory and a third of the time. Rounding makes a difference
      of 1e-7.

  Returns:
    float32 [RESIZE_HEIGHT, RESIZE_WIDTH, 3] in [0, 1].
  """

  def resize(pixels: tf.Tensor) -> tf.Tensor:
    return tf.compat.v1.image.resize(
      pixels,
      [RESIZE_HEIGHT, RESIZE_WIDTH],
      method=tf.image.ResizeMethod.BILINEAR,
    )

  if image.dtype.is_floating:
    return resize(image)
  return tf.cond(
    tf.size(image, tf.int64) > 3 * most_pixels_as_floats,
    lambda: tf.cast(resize(image), tf.float32) / 255.0,
    lambda: resize(tf.image.convert_image_dtype(image, tf.float32)),
  )


def crop_image(
  image: tf.Tensor,
  is_training: bool = False,
  height: int = 299,
  width: int = 299,
  ordering: int | tf.Tensor = 0,
  seed: tf.Tensor | None = None,
) -> tf.Tensor:
  """Crops a resized image to the network's size, and distorts it for training.

  Args:
    image: float32 [RESIZE_HEIGHT, RESIZE_WIDTH, 3] in [0, 1].
    is_training: see `process_image`, as the other arguments.

  Returns:
    float32 [height, width, 3] in [-1, 1].
  """
  if is_training:
    if seed is None:
      seed = tf.random.uniform([2], maxval=tf.int32.max, dtype=tf.int32)
    crop_seed, seed = tf.unstack(tf.random.split(seed))
    image = tf.image.stateless_random_crop(image, [height, width, 3], crop_seed)
    image = distort_image(image, ordering, seed)
  else:
    image = tf.image.resize_with_crop_or_pad(image, height, width)
  image.set_shape([height, width, 3])
  return (image - 0.5) * 2.0


def process_image(
  encoded_image: tf.Tensor,
  is_training: bool = False,
  height: int = 299,
  width: int = 299,
  ordering: int | tf.Tensor = 0,
  seed: tf.Tensor | None = None,
) -> tf.Tensor:
  """Decodes, resizes and crops an image, and distorts it for training.

  Args:
    encoded_image: string scalar, the bytes of a JPEG (grey, RGB or CMYK), PNG
      or still GIF file. Call `check_size` first if they are not trusted.
    is_training: True for a random crop, flip and changes of colour; False for a
      central crop.
    height: of the result, in pixels.
    width: of the result, in pixels.
    ordering: see `distort_image`; only used for training.
    seed: int32 [2] that determines crop and distortion; None for a random one.

  Returns:
    float32 [height, width, 3] in [-1, 1].

  Raises:
    tf.errors.InvalidArgumentError: the bytes cannot be decoded.
  """
  image = resize_image(tf.io.decode_jpeg(encoded_image, channels=3))
  return crop_image(image, is_training, height, width, ordering, seed)
