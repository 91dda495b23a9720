# SPDX-License-Identifier: Apache-2.0
"""From encoded image bytes to the tensor that Inception v3 reads.

The arithmetic is that of 2016 to the bit: TensorFlow's default (fast) JPEG
decoder, then TF1's bilinear resize, which has neither half-pixel centers nor
antialiasing. Any other decoder or resize moves the captions.
"""

import tensorflow as tf

# Images are resized to this square before the crop to the network's size.
RESIZE_HEIGHT = 346
RESIZE_WIDTH = 346


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
      image, max_delta=32.0 / 255.0, seed=seeds[1])

  def contrast(x):
    return tf.image.stateless_random_contrast(
        x, lower=0.5, upper=1.5, seed=seeds[2])

  def saturation_and_hue(x):
    x = tf.image.stateless_random_saturation(
        x, lower=0.5, upper=1.5, seed=seeds[3])
    return tf.image.stateless_random_hue(x, max_delta=0.032, seed=seeds[4])

  image = tf.cond(
      tf.equal(tf.math.floormod(ordering, 2), 0),
      lambda: contrast(saturation_and_hue(image)),
      lambda: saturation_and_hue(contrast(image)))
  return tf.clip_by_value(image, 0.0, 1.0)


def process_image(encoded_image,
                  is_training=False,
                  height=299,
                  width=299,
                  resize_height=RESIZE_HEIGHT,
                  resize_width=RESIZE_WIDTH,
                  ordering=0,
                  seed=None):
  """Decodes one image, resizes and crops it; distorts it for training.

  Args:
    encoded_image: string scalar, the bytes of a JPEG (grey, RGB or CMYK), PNG
      or still GIF file.
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
  if bool(resize_height) != bool(resize_width):
    raise ValueError(
        f'resize_height={resize_height} and resize_width={resize_width}: set '
        'both, or neither')
  image = tf.io.decode_jpeg(encoded_image, channels=3)
  image = tf.image.convert_image_dtype(image, tf.float32)
  if resize_height:
    image = tf.compat.v1.image.resize(
        image, [resize_height, resize_width],
        method=tf.image.ResizeMethod.BILINEAR)
  if is_training:
    if seed is None:
      seed = tf.random.uniform([2], maxval=tf.int32.max, dtype=tf.int32)
    crop_seed, seed = tf.unstack(tf.random.split(seed))
    image = tf.image.stateless_random_crop(
        image, [height, width, 3], crop_seed)
    image = distort_image(image, ordering, seed)
  else:
    image = tf.image.resize_with_crop_or_pad(image, height, width)
  image.set_shape([height, width, 3])
  return (image - 0.5) * 2.0
