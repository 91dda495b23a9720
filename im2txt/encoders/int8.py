# SPDX-License-Identifier: Apache-2.0
"""Inception v3 in integers of 8 bits, whatever computes them.

Weights are rounded to 255 steps per output channel, by the largest of each.
The outputs of convolutions, which a ReLU made positive, are rounded to 256
steps from zero to the largest value that some images gave: see `calibrate`. The
first convolution has a thirtieth of the work per pixel of the others, and stays
in float32, as do the images.

Outputs that are concatenated get one scale, as else each runtime would have to
round them again.
"""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Generic
from typing import NamedTuple
from typing import Protocol
from typing import TypeVar

import numpy as np
import tensorflow as tf

from im2txt.ops import folded_inception

# Steps of a weight on each side of zero, and of an output.
WEIGHT_STEPS = 127
OUTPUT_STEPS = 255

# The largest output of each convolution, by its name.
Largest = Mapping[str, float]

_Net = TypeVar('_Net')


class Kernel(NamedTuple):
  """The weights of a convolution.

  Attributes:
    name: full name of the convolution.
    weights: [height, width, in, out], int8; or float32 where the convolution is
      not rounded.
    scale: float32 [out], what the weights are multiplied by; None with float32.
    bias: float32 [out].
    largest: what the input was rounded by; None where it was not.
  """

  name: str
  weights: np.ndarray
  scale: np.ndarray | None
  bias: np.ndarray
  largest: float | None

  def channels_first(self) -> np.ndarray:
    """Returns the weights, [out, in, height, width]."""
    return np.ascontiguousarray(self.weights.transpose(3, 2, 0, 1))

  def pads(self, padding: str) -> list[int]:
    """Returns the rows and the columns that are added on each side.

    Args:
      padding: 'SAME' or 'VALID'.
    """
    return [
      size // 2 if padding == 'SAME' else 0 for size in self.weights.shape[:2]
    ]


class Runtime(Protocol[_Net]):
  """What a runtime supplies to compute the network.

  Attributes:
    rounds_last: whether the outputs of the last block are rounded too. Where a
      runtime needs it to compute that block in integers.
  """

  rounds_last: bool

  def convolution(
    self, net: _Net, kernel: Kernel, stride: int, padding: str
  ) -> _Net:
    """See `folded_inception.Layers`, as the next two."""

  def max_pool(self, net: _Net) -> _Net: ...

  def average_pool(self, net: _Net) -> _Net: ...

  def concat(self, nets: Sequence[_Net], largest: float | None) -> _Net:
    """Returns the channels of all.

    Args:
      nets: values.
      largest: what they were rounded by; None if they were not.
    """

  def rounded(self, net: _Net, largest: float) -> _Net:
    """Returns values rounded to `OUTPUT_STEPS` steps from 0 to `largest`."""


class _Recorded:
  """Layers of TensorFlow that keep the largest output of each convolution."""

  def __init__(self, folded: folded_inception.Folded) -> None:
    self._layers = folded_inception.TensorFlowLayers(folded)
    self.largest: dict[str, tf.Tensor] = {}
    self.max_pool = self._layers.max_pool
    self.average_pool = self._layers.average_pool
    self.concat = self._layers.concat

  def convolution(
    self, net: tf.Tensor, name: str, stride: int, padding: str
  ) -> tf.Tensor:
    net = self._layers.convolution(net, name, stride, padding)
    self.largest[name] = tf.reduce_max(net)
    return net


def calibrate(
  folded: folded_inception.Folded, batches: Iterable[tf.Tensor]
) -> tuple[dict[str, float], int]:
  """Finds the largest output of each convolution, in float32.

  Args:
    folded: float32 weights of Inception v3, see `folded_inception.fold`.
    batches: images, float32 [batch, height, width, 3] in [-1, 1].

  Returns:
    (largest output by name of the convolution, number of images).
  """
  names = folded_inception.convolutions()

  @tf.function(
    autograph=False, input_signature=[tf.TensorSpec([None, None, None, 3])]
  )
  def largest_of(images: tf.Tensor) -> tf.Tensor:
    layers = _Recorded(folded)
    folded_inception.walk(layers, images)
    return tf.stack([layers.largest[name] for name in names])

  largest, count = np.zeros(len(names), np.float32), 0
  for images in batches:
    largest = np.maximum(largest, largest_of(images).numpy())
    count += len(images)
  return dict(zip(names, largest.tolist())), count


def quantized(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Rounds the weights of a convolution.

  Args:
    weights: float32 [height, width, in, out].

  Returns:
    (int8 likewise; float32 [out], the scale).
  """
  largest = np.abs(weights).max(axis=(0, 1, 2))
  # A channel of zeros only has any scale.
  scale = np.where(largest > 0, largest, 1).astype(np.float32) / WEIGHT_STEPS
  return np.round(weights / scale).astype(np.int8), scale


class _Groups:
  """Layers that tell which convolutions are concatenated, by their names."""

  def __init__(self) -> None:
    self.groups: list[frozenset[str]] = []

  def convolution(
    self, net: frozenset[str], name: str, stride: int, padding: str
  ) -> frozenset[str]:
    return frozenset([name])

  def max_pool(self, net: frozenset[str]) -> frozenset[str]:
    return net

  def average_pool(self, net: frozenset[str]) -> frozenset[str]:
    return net

  def concat(self, nets: Sequence[frozenset[str]]) -> frozenset[str]:
    group = frozenset[str]().union(*nets)
    # Maxima of pixels pass through, so a group can grow over several blocks.
    group = group.union(*(g for g in self.groups if g & group))
    self.groups = [g for g in self.groups if not g & group] + [group]
    return group


def _groups() -> list[frozenset[str]]:
  """Returns the convolutions whose outputs are concatenated, the last at last."""
  layers = _Groups()
  folded_inception.walk(layers, frozenset[str]())
  return layers.groups


def shared(largest: Largest) -> dict[str, float]:
  """Returns largest outputs that are equal where outputs are concatenated.

  Raises:
    KeyError: one of a convolution is missing.
  """
  found = {name: largest[name] for name in folded_inception.convolutions()}
  for group in _groups():
    found.update(dict.fromkeys(group, max(found[name] for name in group)))
  return found


class _Rounded(NamedTuple, Generic[_Net]):
  """A tensor, and the largest value that it was rounded by, if it was."""

  net: _Net
  largest: float | None


class _Layers(Generic[_Net]):
  """The layers of `folded_inception.walk` on a runtime, rounded.

  Args:
    runtime: computes them.
    folded: float32 weights of Inception v3.
    largest: of `calibrate`.
  """

  def __init__(
    self,
    runtime: Runtime[_Net],
    folded: folded_inception.Folded,
    largest: Largest,
  ) -> None:
    self._runtime = runtime
    self._folded = folded
    self._largest = shared(largest)
    self._last = frozenset() if runtime.rounds_last else _groups()[-1]
    self._first = folded_inception.convolutions()[0]

  def convolution(
    self, net: _Rounded[_Net], name: str, stride: int, padding: str
  ) -> _Rounded[_Net]:
    weights, bias = (np.asarray(value) for value in self._folded[name])
    scale = None
    if name != self._first:
      weights, scale = quantized(weights)
    output = self._runtime.convolution(
      net.net, Kernel(name, weights, scale, bias, net.largest), stride, padding
    )
    if name in self._last:
      return _Rounded(output, None)
    largest = self._largest[name]
    return _Rounded(self._runtime.rounded(output, largest), largest)

  def max_pool(self, net: _Rounded[_Net]) -> _Rounded[_Net]:
    return _Rounded(self._runtime.max_pool(net.net), net.largest)

  def average_pool(self, net: _Rounded[_Net]) -> _Rounded[_Net]:
    assert net.largest is not None
    return _Rounded(
      self._runtime.rounded(self._runtime.average_pool(net.net), net.largest),
      net.largest,
    )

  def concat(self, nets: Sequence[_Rounded[_Net]]) -> _Rounded[_Net]:
    (largest,) = {net.largest for net in nets}
    return _Rounded(
      self._runtime.concat([net.net for net in nets], largest), largest
    )


def build(
  runtime: Runtime[_Net],
  images: _Net,
  folded: folded_inception.Folded,
  largest: Largest,
) -> _Net:
  """Builds the rounded network in a runtime, without its last pooling.

  Args:
    runtime: see `Runtime`.
    images: the input, as the runtime has it.
    folded: float32 weights of Inception v3, see `folded_inception.fold`.
    largest: of `calibrate`.

  Returns:
    The output of the last block.

  Raises:
    KeyError: `largest` lacks a convolution.
  """
  layers = _Layers(runtime, folded, largest)
  return folded_inception.walk(layers, _Rounded(images, None)).net
