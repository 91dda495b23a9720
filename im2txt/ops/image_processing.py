# SPDX-License-Identifier: Apache-2.0
"""From encoded image bytes to the tensor that Inception v3 reads.

The arithmetic is that of 2016 to the bit: TensorFlow's default (fast) JPEG
decoder, then TF1's bilinear resize, which has neither half-pixel centers nor
antialiasing. Any other decoder or resize moves the captions.
"""

import tensorflow as tf

from im2txt.data import image_formats

# Images are resized to this square before the crop to the network's size.
RESIZE_HEIGHT = 346
RESIZE_WIDTH = 346

# Above this many pixels an image is resized as integers, which takes a fifth of
# the memory, and of the time a third. Rounding makes a difference of 1e-7.
_MOST_PIXELS_AS_FLOATS = 16_000_000


def distort_image(image, ordering, seed):
  """Randomly flips an image and changes its colours.

  Args:
    image: float32 [height, width, 3] in [0, 1].
    ordering: int scalar (Python or tensor). Even: brightness, saturation,
      hue, contrast; odd: brightness, contrast, saturation, hue. In 2016 this
      was the number of the preprocessing thread.
    seed: int32 [2]; the same seed gives the same distortion.

  Returns:
    float32 [height, width, 3] in [0, 1].
  """
  seeds = tf.unstack(tf.random.split(seed, 5))
  image = tf.image.stateless_random_flip_left_right(image, seeds[0])
  image = tf.image.stateless_random_brightness(
    image, max_delta=32.0 / 255.0, seed=seeds[1]
  )

  def contrast(x):
    return tf.image.stateless_random_contrast(
      x, lower=0.5, upper=1.5, seed=seeds[2]
    )

  def saturation_and_hue(x):
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


def turn(image, orientation):
  """Turns an image as it was stored into the one to look at.

  Args:
    image: [height, width, channels].
    orientation: int from 1 (upright) to 8, as in EXIF.

  Returns:
    The image upright; from orientation 5 on, height and width change places.
  """
  if orientation >= 5:
    image = tf.transpose(image, [1, 0, 2])
  axes = {2: [1], 3: [0, 1], 4: [0], 6: [1], 7: [0, 1], 8: [0]}
  if orientation in axes:
    image = tf.reverse(image, axes[orientation])
  return image


def check_size(encoded_image):
  """Checks in a graph that an image may be decoded.

  Args:
    encoded_image: string scalar, the bytes of a file.

  Returns:
    The same string scalar.

  Raises:
    tf.errors.InvalidArgumentError: when run, for what
      `image_formats.check_for_decode_jpeg` refuses.
  """

  def check(encoded):
    image_formats.check_for_decode_jpeg(encoded)
    return encoded

  result = tf.numpy_function(check, [encoded_image], tf.string, stateful=False)
  result.set_shape([])
  return result


def resize_image(image, resize_height=RESIZE_HEIGHT, resize_width=RESIZE_WIDTH):
  """Resizes a decoded image.

  Args:
    image: uint8 [height, width, 3].
    resize_height: pixels of the result; with `resize_width` 0, no resize.
    resize_width: pixels of the result.

  Returns:
    float32 [resize_height, resize_width, 3] in [0, 1].

  Raises:
    ValueError: only one of `resize_height`, `resize_width` is zero.
  """
  if bool(resize_height) != bool(resize_width):
    raise ValueError(
      f'resize_height={resize_height} and resize_width={resize_width}: set '
      'both, or neither'
    )
  if not resize_height:
    return tf.image.convert_image_dtype(image, tf.float32)

  def resize(pixels):
    return tf.compat.v1.image.resize(
      pixels,
      [resize_height, resize_width],
      method=tf.image.ResizeMethod.BILINEAR,
    )

  return tf.cond(
    tf.size(image, tf.int64) > 3 * _MOST_PIXELS_AS_FLOATS,
    lambda: tf.cast(resize(image), tf.float32) / 255.0,
    lambda: resize(tf.image.convert_image_dtype(image, tf.float32)),
  )


def crop_image(
  image, is_training=False, height=299, width=299, ordering=0, seed=None
):
  """Crops a resized image to the network's size; distorts it for training.

  Args:
    image: what `resize_image` returns.
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
  encoded_image,
  is_training=False,
  height=299,
  width=299,
  resize_height=RESIZE_HEIGHT,
  resize_width=RESIZE_WIDTH,
  ordering=0,
  seed=None,
):
  """Decodes one image, resizes and crops it; distorts it for training.

  Args:
    encoded_image: string scalar, the bytes of a JPEG (grey, RGB or CMYK), PNG
      or still GIF file, after `check_size` where they come from anywhere.
    is_training: bool. False: central crop, no distortion. True: random crop,
      flip and colour changes.
    height: pixels of the result.
    width: pixels of the result.
    resize_height: pixels before the crop; with `resize_width` 0, no resize.
    resize_width: pixels before the crop.
    ordering: see `distort_image`; only used for training.
    seed: int32 [2] that determines crop and distortion; None: another each
      time.

  Returns:
    float32 [height, width, 3] in [-1, 1].

  Raises:
    ValueError: only one of `resize_height`, `resize_width` is zero.
    tf.errors.InvalidArgumentError: the bytes cannot be decoded.
  """
  image = tf.io.decode_jpeg(encoded_image, channels=3)
  image = resize_image(image, resize_height, resize_width)
  return crop_image(image, is_training, height, width, ordering, seed)
