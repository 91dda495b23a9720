# SPDX-License-Identifier: Apache-2.0
"""The rounded network as an ONNX model, for ONNX Runtime.

Only `benchmark` uses it, to compare runtimes. The packages `onnx` and
`onnxruntime` are optional; they are imported when they are needed.
"""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from im2txt.encoders import int8
from im2txt.ops import folded_inception

_OPSET = 17


class _Runtime:
  """See `int8.Runtime`; tensors are names, [batch, channels, height, width].

  Attributes:
    nodes: of the graph so far.
    constants: likewise.
  """

  rounds_last = False

  def __init__(self) -> None:
    import onnx

    self._onnx = onnx
    self.nodes: list[Any] = []
    self.constants: list[Any] = []

  def add(self, operation: str, *inputs: str, **attributes: Any) -> str:
    """Adds an operation; returns the name of its output."""
    name = f'{operation}_{len(self.nodes)}'
    self.nodes.append(
      self._onnx.helper.make_node(
        operation, inputs, [name], name=name, **attributes
      )
    )
    return name

  def _constant(self, value: npt.ArrayLike) -> str:
    name = f'constant_{len(self.constants)}'
    self.constants.append(
      self._onnx.numpy_helper.from_array(np.asarray(value), name)
    )
    return name

  def _dequantized(self, value: np.ndarray, scale: np.ndarray) -> str:
    """Adds integers [out, ...] that are multiplied by `scale`, [out]."""
    return self.add(
      'DequantizeLinear',
      self._constant(value),
      self._constant(scale),
      self._constant(np.zeros(len(scale), value.dtype)),
      axis=0,
    )

  def convolution(
    self, net: str, kernel: int8.Kernel, stride: int, padding: str
  ) -> str:
    weights = kernel.channels_first()
    if kernel.scale is None or kernel.largest is None:
      inputs = self._constant(weights), self._constant(kernel.bias)
    else:
      # ONNX Runtime computes in integers only if the bias is rounded too, to the
      # steps of the sums.
      scale = kernel.scale * np.float32(kernel.largest / int8.OUTPUT_STEPS)
      bias = np.round(kernel.bias / scale).astype(np.int32)
      inputs = (
        self._dequantized(weights, kernel.scale),
        self._dequantized(bias, scale),
      )
    net = self.add(
      'Conv',
      net,
      *inputs,
      kernel_shape=kernel.weights.shape[:2],
      strides=[stride] * 2,
      pads=kernel.pads(padding) * 2,
    )
    return self.add('Relu', net)

  def max_pool(self, net: str) -> str:
    return self.add('MaxPool', net, kernel_shape=[3, 3], strides=[2, 2])

  def average_pool(self, net: str) -> str:
    return self.add('AveragePool', net, kernel_shape=[3, 3], pads=[1] * 4)

  def concat(self, nets: Sequence[str], largest: float | None) -> str:
    return self.add('Concat', *nets, axis=1)

  def rounded(self, net: str, largest: float) -> str:
    scale = self._constant(np.float32(largest / int8.OUTPUT_STEPS))
    zero = self._constant(np.uint8(0))
    net = self.add('QuantizeLinear', net, scale, zero)
    return self.add('DequantizeLinear', net, scale, zero)


def build(
  folded: folded_inception.Folded,
  largest: int8.Largest,
  height: int,
  width: int,
) -> bytes:
  """Returns the network as a serialized ONNX model.

  Args:
    folded: float32 weights, see `folded_inception.fold`.
    largest: of `int8.calibrate`.
    height: of images.
    width: of images.

  Raises:
    ImportError: there is no package onnx.
  """
  import onnx

  runtime = _Runtime()
  net = runtime.add('Transpose', 'images', perm=[0, 3, 1, 2])
  net = int8.build(runtime, net, folded, largest)
  net = runtime.add('Flatten', runtime.add('GlobalAveragePool', net))

  def info(name: str, *shape: int | str) -> Any:
    return onnx.helper.make_tensor_value_info(
      name, onnx.TensorProto.FLOAT, ['batch', *shape]
    )

  model = onnx.helper.make_model(
    onnx.helper.make_graph(
      runtime.nodes,
      'inception_v3',
      [info('images', height, width, 3)],
      [info(net, folded_inception.FEATURE_SIZE)],
      runtime.constants,
    ),
    opset_imports=[onnx.helper.make_opsetid('', _OPSET)],
    # Of that set of operations: a later one is unknown to earlier readers.
    ir_version=8,
  )
  onnx.checker.check_model(model)
  return model.SerializeToString()


def make_encoder(
  folded: folded_inception.Folded,
  largest: int8.Largest,
  height: int,
  width: int,
  threads: int,
) -> Callable[[np.ndarray], np.ndarray]:
  """Returns a function from images to features; see `build`.

  Args:
    threads: number of threads.

  Raises:
    ImportError: there is no package onnx or onnxruntime.
  """
  import onnxruntime

  options = onnxruntime.SessionOptions()
  options.intra_op_num_threads = threads
  session = onnxruntime.InferenceSession(
    build(folded, largest, height, width),
    options,
    providers=['CPUExecutionProvider'],
  )
  return lambda images: session.run(None, {'images': np.asarray(images)})[0]
