# SPDX-License-Identifier: Apache-2.0
"""The rounded network in TensorFlow's graph.

TensorFlow computes it in floating point, so slowly, and rounds as integers
would. TensorFlow Lite's converter makes integers of it.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from im2txt.encoders import int8
from im2txt.ops import folded_inception


class _Runtime:
  """See `int8.Runtime`."""

  # TensorFlow Lite computes a convolution in integers only if its output is
  # rounded.
  rounds_last = True

  def __init__(self) -> None:
    layers = folded_inception.TensorFlowLayers({})
    self.max_pool = layers.max_pool
    self.average_pool = layers.average_pool

  def convolution(
    self, net: tf.Tensor, kernel: int8.Kernel, stride: int, padding: str
  ) -> tf.Tensor:
    weights: np.ndarray | tf.Tensor = kernel.weights
    if kernel.scale is not None:
      largest = kernel.scale * int8.WEIGHT_STEPS
      weights = tf.quantization.fake_quant_with_min_max_vars_per_channel(
        kernel.weights * kernel.scale, -largest, largest, narrow_range=True
      )
    layers = folded_inception.TensorFlowLayers(
      {kernel.name: (weights, kernel.bias)}
    )
    return layers.convolution(net, kernel.name, stride, padding)

  def concat(
    self, nets: Sequence[tf.Tensor], largest: float | None
  ) -> tf.Tensor:
    net = tf.concat(nets, 3)
    # The converter does not see that it is rounded already.
    return net if largest is None else self.rounded(net, largest)

  def rounded(self, net: tf.Tensor, largest: float) -> tf.Tensor:
    return tf.quantization.fake_quant_with_min_max_args(net, 0.0, largest)


def encode(
  images: tf.Tensor, folded: folded_inception.Folded, largest: int8.Largest
) -> tf.Tensor:
  """Runs the rounded Inception v3; to be traced.

  Args:
    images: float32 [batch, height, width, 3] in [-1, 1].
    folded: float32 weights, see `folded_inception.fold`.
    largest: of `int8.calibrate`.

  Returns:
    float32 [batch, 2048].
  """
  return tf.reduce_mean(int8.build(_Runtime(), images, folded, largest), [1, 2])
