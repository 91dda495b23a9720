# SPDX-License-Identifier: Apache-2.0
"""The rounded network on OpenVINO, which computes it in integers.

OpenVINO is an optional package; it is imported when an encoder is made.
"""

from collections.abc import Sequence
import threading
from typing import Any

import numpy as np
import tensorflow as tf

from im2txt.encoders import int8
from im2txt.ops import folded_inception


class _Runtime:
  """See `int8.Runtime`; tensors are [batch, channels, height, width]."""

  rounds_last = False

  def __init__(self, ops: Any) -> None:
    self._ops = ops

  def convolution(
    self, net: Any, kernel: int8.Kernel, stride: int, padding: str
  ) -> Any:
    ops = self._ops
    weights = ops.constant(kernel.channels_first())
    if kernel.scale is not None:
      weights = ops.multiply(
        ops.convert(weights, 'f32'),
        ops.constant(kernel.scale.reshape(-1, 1, 1, 1)),
      )
    pads = kernel.pads(padding)
    net = ops.convolution(net, weights, [stride] * 2, pads, pads, [1, 1])
    bias = ops.constant(kernel.bias.reshape(1, -1, 1, 1))
    return ops.relu(ops.add(net, bias))

  def max_pool(self, net: Any) -> Any:
    return self._ops.max_pool(
      net,
      strides=[2, 2],
      dilations=[1, 1],
      pads_begin=[0, 0],
      pads_end=[0, 0],
      kernel_shape=[3, 3],
    ).output(0)

  def average_pool(self, net: Any) -> Any:
    return self._ops.avg_pool(
      net, [1, 1], [1, 1], [1, 1], [3, 3], exclude_pad=True
    )

  def concat(self, nets: Sequence[Any], largest: float | None) -> Any:
    return self._ops.concat(list(nets), 1)

  def rounded(self, net: Any, largest: float) -> Any:
    low, high = np.float32(0), np.float32(largest)
    return self._ops.fake_quantize(
      net, low, high, low, high, int8.OUTPUT_STEPS + 1
    )


def build(
  folded: folded_inception.Folded,
  largest: int8.Largest,
  height: int,
  width: int,
) -> Any:
  """Returns the network as an `openvino.Model`.

  Args:
    folded: float32 weights, see `folded_inception.fold`.
    largest: of `int8.calibrate`.
    height: of images.
    width: of images.

  Raises:
    ImportError: there is no OpenVINO.
  """
  import openvino
  from openvino import opset13 as ops

  images = ops.parameter([-1, height, width, 3], np.float32, name='images')
  net = ops.transpose(images, np.array([0, 3, 1, 2]))
  net = int8.build(_Runtime(ops), net, folded, largest)
  features = ops.reduce_mean(net, np.array([2, 3]), False)
  return openvino.Model([features], [images], 'inception_v3')


class Encoder:
  """Encodes images; any thread may call it.

  Args:
    folded: see `build`, as the next three.
    threads: number of threads; None for one per processor.

  Raises:
    ImportError: there is no OpenVINO.
  """

  def __init__(
    self,
    folded: folded_inception.Folded,
    largest: int8.Largest,
    height: int,
    width: int,
    threads: int | None = None,
  ) -> None:
    import openvino

    model = build(folded, largest, height, width)
    # What is not rounded stays float32: OpenVINO's default is bfloat16 where
    # the processor has it.
    settings: dict[str, Any] = {'INFERENCE_PRECISION_HINT': 'f32'}
    if threads:
      settings.update(INFERENCE_NUM_THREADS=threads, NUM_STREAMS=1)
    self._compiled = openvino.Core().compile_model(model, 'CPU', settings)
    self._of_thread = threading.local()

  def __call__(self, images: np.ndarray | tf.Tensor) -> tf.Tensor:
    """Returns features, float32 [batch, 2048].

    Args:
      images: float32 [batch, height, width, 3] in [-1, 1].
    """
    request = getattr(self._of_thread, 'request', None)
    if request is None:
      request = self._of_thread.request = self._compiled.create_infer_request()
    # The result is the request's own memory, which the next call writes over.
    return tf.constant(request.infer([np.asarray(images)])[0])
