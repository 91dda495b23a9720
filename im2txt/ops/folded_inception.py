# SPDX-License-Identifier: Apache-2.0
"""Inception v3 with its batch norm folded into the convolutions.

This is the network of `image_embedding` as a table of layers. It needs neither
tf-slim nor variables, and each convolution is one fused kernel of weights, bias
and ReLU. The network can be cut before any block: the part before the cut can
be computed once and stored, and the part after it can be trained.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Protocol
from typing import TypeVar

import numpy as np
import tensorflow as tf

# Weights and bias of each convolution, by its name.
Folded = Mapping[str, tuple[tf.Tensor, tf.Tensor]]
# Takes the name of a variable in a checkpoint, returns its value. A tensor lets
# gradients pass.
Get = Callable[[str], np.ndarray | tf.Tensor]

# What a runtime hands from layer to layer, such as a tensor.
_Net = TypeVar('_Net')


class Layers(Protocol[_Net]):
  """How a runtime computes the layers; see `walk`."""

  def convolution(
    self, net: _Net, name: str, stride: int, padding: str
  ) -> _Net:
    """Returns a convolution with bias and ReLU.

    Args:
      net: input.
      name: full name of the convolution, as in `convolutions`.
      stride: 1 or 2, in both directions.
      padding: 'VALID', or 'SAME' with zeros. Only with stride 1 it is 'SAME', and
        kernels have odd sizes, so all sides of the image get as much.
    """

  def max_pool(self, net: _Net) -> _Net:
    """Returns the maxima of 3 x 3 pixels, every second, without padding."""

  def average_pool(self, net: _Net) -> _Net:
    """Returns the means of 3 x 3 pixels, of fewer at the edges."""

  def concat(self, nets: Sequence[_Net]) -> _Net:
    """Returns the channels of all, one after the other."""


# A layer, or layers that read the same input. Their outputs are concatenated.
_Layer = str | tuple['_Layer', ...]
_Layers = tuple[_Layer, ...]

FEATURE_SIZE = 2048
_SCOPE = 'InceptionV3/'
_EPSILON = 0.001  # Of the batch norm.
_MAX_POOL = 'MaxPool'
_AVERAGE_POOL = 'AvgPool'
# The variables of a convolution.
_PARTS = (
  'weights',
  'BatchNorm/beta',
  'BatchNorm/moving_mean',
  'BatchNorm/moving_variance',
)

# Layers before the first block, in order. The weights tell the kernel sizes.
_STEM = (
  'Conv2d_1a_3x3',
  'Conv2d_2a_3x3',
  'Conv2d_2b_3x3',
  _MAX_POOL,
  'Conv2d_3b_1x1',
  'Conv2d_4a_3x3',
  _MAX_POOL,
)

_FACTORIZED_7X7: tuple[_Layers, ...] = (
  ('Conv2d_0a_1x1',),
  ('Conv2d_0a_1x1', 'Conv2d_0b_1x7', 'Conv2d_0c_7x1'),
  (
    'Conv2d_0a_1x1',
    'Conv2d_0b_7x1',
    'Conv2d_0c_1x7',
    'Conv2d_0d_7x1',
    'Conv2d_0e_1x7',
  ),
  (_AVERAGE_POOL, 'Conv2d_0b_1x1'),
)

# The branches of each block. Their outputs are concatenated.
_BLOCKS: dict[str, tuple[_Layers, ...]] = {
  'Mixed_5b': (
    ('Conv2d_0a_1x1',),
    ('Conv2d_0a_1x1', 'Conv2d_0b_5x5'),
    ('Conv2d_0a_1x1', 'Conv2d_0b_3x3', 'Conv2d_0c_3x3'),
    (_AVERAGE_POOL, 'Conv2d_0b_1x1'),
  ),
  'Mixed_5c': (
    ('Conv2d_0a_1x1',),
    ('Conv2d_0b_1x1', 'Conv_1_0c_5x5'),
    ('Conv2d_0a_1x1', 'Conv2d_0b_3x3', 'Conv2d_0c_3x3'),
    (_AVERAGE_POOL, 'Conv2d_0b_1x1'),
  ),
  'Mixed_5d': (
    ('Conv2d_0a_1x1',),
    ('Conv2d_0a_1x1', 'Conv2d_0b_5x5'),
    ('Conv2d_0a_1x1', 'Conv2d_0b_3x3', 'Conv2d_0c_3x3'),
    (_AVERAGE_POOL, 'Conv2d_0b_1x1'),
  ),
  'Mixed_6a': (
    ('Conv2d_1a_1x1',),
    ('Conv2d_0a_1x1', 'Conv2d_0b_3x3', 'Conv2d_1a_1x1'),
    (_MAX_POOL,),
  ),
  'Mixed_6b': _FACTORIZED_7X7,
  'Mixed_6c': _FACTORIZED_7X7,
  'Mixed_6d': _FACTORIZED_7X7,
  'Mixed_6e': _FACTORIZED_7X7,
  'Mixed_7a': (
    ('Conv2d_0a_1x1', 'Conv2d_1a_3x3'),
    ('Conv2d_0a_1x1', 'Conv2d_0b_1x7', 'Conv2d_0c_7x1', 'Conv2d_1a_3x3'),
    (_MAX_POOL,),
  ),
  'Mixed_7b': (
    ('Conv2d_0a_1x1',),
    ('Conv2d_0a_1x1', ('Conv2d_0b_1x3', 'Conv2d_0b_3x1')),
    ('Conv2d_0a_1x1', 'Conv2d_0b_3x3', ('Conv2d_0c_1x3', 'Conv2d_0d_3x1')),
    (_AVERAGE_POOL, 'Conv2d_0b_1x1'),
  ),
  'Mixed_7c': (
    ('Conv2d_0a_1x1',),
    ('Conv2d_0a_1x1', ('Conv2d_0b_1x3', 'Conv2d_0c_3x1')),
    ('Conv2d_0a_1x1', 'Conv2d_0b_3x3', ('Conv2d_0c_1x3', 'Conv2d_0d_3x1')),
    (_AVERAGE_POOL, 'Conv2d_0b_1x1'),
  ),
}

BLOCKS = tuple(_BLOCKS)


def _convolutions(prefix: str, layers: _Layers) -> Iterator[str]:
  """Yields the full names of the convolutions among (forked) layers."""
  for layer in layers:
    if isinstance(layer, tuple):
      yield from _convolutions(prefix, layer)
    elif layer not in (_MAX_POOL, _AVERAGE_POOL):
      yield prefix + layer


def _branches(block: str) -> Iterator[tuple[str, _Layers]]:
  """Yields (prefix of the names of the layers, layers) for each branch."""
  for i, layers in enumerate(_BLOCKS[block]):
    yield f'{_SCOPE}{block}/Branch_{i}/', layers


def blocks_from(block: str | None) -> tuple[str, ...]:
  """Returns the names of a block and of those after it; all for None."""
  return BLOCKS[BLOCKS.index(block) :] if block else BLOCKS


def convolutions(block: str | None = None) -> list[str]:
  """Returns the full names of the convolutions, in order.

  Args:
    block: one of BLOCKS, the first block whose convolutions are returned; None
      for all 94 convolutions.
  """
  names = [] if block else list(_convolutions(_SCOPE, _STEM))
  for later in blocks_from(block):
    for prefix, layers in _branches(later):
      names += _convolutions(prefix, layers)
  return names


def variables() -> list[str]:
  """Returns the names of all variables, as in a checkpoint."""
  return [f'{name}/{part}' for name in convolutions() for part in _PARTS]


def fold(
  get: Get, dtype: tf.DType = tf.float32, block: str | None = None
) -> dict[str, tuple[tf.Tensor, tf.Tensor]]:
  """Folds batch norm into the weights of the convolutions.

  Args:
    get: returns the value of a variable.
    dtype: of the result, tf.float32 or tf.bfloat16. Inception is computed in
      it.
    block: see `convolutions`.

  Returns:
    For each convolution, by its name, weights [height, width, in, out] and bias
    [out].

  Raises:
    What `get` raises for a missing name.
  """
  folded: dict[str, tuple[tf.Tensor, tf.Tensor]] = {}
  for name in convolutions(block):
    weights, beta, mean, variance = (get(f'{name}/{part}') for part in _PARTS)
    scale = 1.0 / np.sqrt(np.asarray(variance, np.float64) + _EPSILON)
    bias = tf.cast(beta, tf.float64) - np.asarray(mean) * scale
    folded[name] = (
      tf.cast(weights * scale.astype(np.float32), dtype),
      tf.cast(tf.cast(bias, tf.float32), dtype),
    )
  return folded


def encode(
  images: tf.Tensor,
  folded: Folded,
  until: str | None = None,
  pooled: bool = True,
) -> tf.Tensor:
  """Runs Inception v3 up to its pooled features, in the dtype of the weights.

  Args:
    images: float32 [batch, height, width, 3] in [-1, 1].
    folded: weights of all blocks, see `fold`.
    until: stop before this one of BLOCKS; None runs all.
    pooled: whether the maps of the last block are averaged over the image.

  Returns:
    float32 [batch, 2048]; not pooled, float32 [batch, rows, columns, 2048]. With
    `until`, the input of that block, [batch, rows, columns, channels] in the
    dtype of the weights.
  """
  net = tf.cast(images, next(iter(folded.values()))[0].dtype)
  net = walk(TensorFlowLayers(folded), net, until=until)
  if until:
    return net
  return _pool(net) if pooled else tf.cast(net, tf.float32)


def encode_from(block: str, net: tf.Tensor, folded: Folded) -> tf.Tensor:
  """Runs Inception v3 from a block on.

  Args:
    block: the first block to run.
    net: [batch, rows, columns, channels], what `encode` returned.
    folded: weights of at least `block` and those after it, see `fold`.

  Returns:
    float32 [batch, 2048].
  """
  net = tf.cast(net, folded[convolutions(block)[0]][0].dtype)
  return _pool(walk(TensorFlowLayers(folded), net, first=block))


class TensorFlowLayers:
  """The layers as operations of TensorFlow; see `Layers`.

  Args:
    folded: weights of the convolutions that are run, see `fold`.
  """

  def __init__(self, folded: Folded) -> None:
    self._folded = folded

  def convolution(
    self, net: tf.Tensor, name: str, stride: int, padding: str
  ) -> tf.Tensor:
    weights, bias = self._folded[name]
    net = tf.nn.conv2d(net, weights, strides=stride, padding=padding)
    return tf.nn.relu(tf.nn.bias_add(net, bias))

  def max_pool(self, net: tf.Tensor) -> tf.Tensor:
    return tf.nn.max_pool2d(net, 3, strides=2, padding='VALID')

  def average_pool(self, net: tf.Tensor) -> tf.Tensor:
    return tf.nn.avg_pool2d(net, 3, strides=1, padding='SAME')

  def concat(self, nets: Sequence[tf.Tensor]) -> tf.Tensor:
    return tf.concat(nets, 3)


def walk(
  layers: Layers[_Net],
  net: _Net,
  first: str | None = None,
  until: str | None = None,
) -> _Net:
  """Runs Inception v3 without its last pooling, by the layers of a runtime.

  Args:
    layers: compute it.
    net: the input of the network, or of `first`.
    first: one of BLOCKS, to start before it; None runs the stem too.
    until: one of BLOCKS, to stop before it; None runs all.

  Returns:
    The output of the last layer that was run.
  """
  if not first:
    for layer in _STEM:
      net = _run(layers, _SCOPE, layer, net)
  blocks = blocks_from(first)
  for block in blocks[: blocks.index(until)] if until else blocks:
    outputs = []
    for prefix, branch in _branches(block):
      output = net
      for part in branch:
        output = _run(layers, prefix, part, output)
      outputs.append(output)
    net = layers.concat(outputs)
  return net


def _run(layers: Layers[_Net], prefix: str, layer: _Layer, net: _Net) -> _Net:
  """Runs a layer of the tables above, or several on the same input."""
  if isinstance(layer, tuple):
    return layers.concat([_run(layers, prefix, fork, net) for fork in layer])
  if layer == _MAX_POOL:
    return layers.max_pool(net)
  if layer == _AVERAGE_POOL:
    return layers.average_pool(net)
  # Layers named 1a halve the image. The stem pads in one layer only.
  halves = layer.startswith('Conv2d_1a_')
  valid = halves or layer in ('Conv2d_2a_3x3', 'Conv2d_4a_3x3')
  return layers.convolution(
    net,
    prefix + layer,
    stride=2 if halves else 1,
    padding='VALID' if valid else 'SAME',
  )


def _pool(net: tf.Tensor) -> tf.Tensor:
  return tf.reduce_mean(tf.cast(net, tf.float32), [1, 2])
