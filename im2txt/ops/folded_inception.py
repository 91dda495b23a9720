# SPDX-License-Identifier: Apache-2.0
"""Inception v3 with its batch norm folded into the convolutions.

The network of `image_embedding`, written as a table over tensors: no tf-slim to
import, no variables to make and fill, and each convolution is one fused kernel
of weights, bias and ReLU. It can be cut before any block: what comes before the
cut can be computed once and kept, and what comes after it can be trained.
"""

import numpy as np
import tensorflow as tf

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

# Layers in order, up to the first block. Kernels' sizes come from the weights.
_STEM = (
  'Conv2d_1a_3x3',
  'Conv2d_2a_3x3',
  'Conv2d_2b_3x3',
  _MAX_POOL,
  'Conv2d_3b_1x1',
  'Conv2d_4a_3x3',
  _MAX_POOL,
)

_FACTORIZED_7X7 = (
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

# Block -> its branches, concatenated. A tuple inside a branch forks: its layers
# read the same input and are concatenated.
_BLOCKS = {
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


def _convolutions(prefix, layers):
  """Yields the full names of the convolutions among (forked) layers."""
  for layer in layers:
    if isinstance(layer, tuple):
      yield from _convolutions(prefix, layer)
    elif layer not in (_MAX_POOL, _AVERAGE_POOL):
      yield prefix + layer


def _branches(block):
  """Yields (prefix of its layers' names, layers) of each branch of a block."""
  for i, layers in enumerate(_BLOCKS[block]):
    yield f'{_SCOPE}{block}/Branch_{i}/', layers


def blocks_from(block):
  """Returns the names of a block and of those after it; None: of all."""
  return BLOCKS[BLOCKS.index(block) :] if block else BLOCKS


def convolutions(block=None):
  """Returns the full names of the convolutions, a list of str in order.

  Args:
    block: one of BLOCKS: those from there on; None: all 94.
  """
  names = [] if block else list(_convolutions(_SCOPE, _STEM))
  for later in blocks_from(block):
    for prefix, layers in _branches(later):
      names += _convolutions(prefix, layers)
  return names


def variables():
  """Returns the checkpoint names of all that features depend on, a list."""
  return [f'{name}/{part}' for name in convolutions() for part in _PARTS]


def fold(get, dtype=tf.float32, block=None):
  """Folds batch norm into the weights of the convolutions.

  Args:
    get: callable from a variable's checkpoint name to its value, an array; or
      a tensor, through which gradients flow.
    dtype: of the result: tf.float32, or tf.bfloat16 to compute in that.
    block: see `convolutions`.

  Returns:
    dict from a convolution's name to (weights [height, width, in, out],
    bias [out]), tensors of `dtype`.

  Raises:
    Whatever `get` raises for a name that is missing.
  """
  folded = {}
  for name in convolutions(block):
    weights, beta, mean, variance = (get(f'{name}/{part}') for part in _PARTS)
    scale = 1.0 / np.sqrt(np.asarray(variance, np.float64) + _EPSILON)
    bias = tf.cast(beta, tf.float64) - np.asarray(mean) * scale
    folded[name] = (
      tf.cast(weights * scale.astype(np.float32), dtype),
      tf.cast(tf.cast(bias, tf.float32), dtype),
    )
  return folded


def encode(images, folded, until=None):
  """Runs Inception v3 up to its pooled features, in the dtype of the weights.

  Args:
    images: float32 [batch, height, width, 3] in [-1, 1].
    folded: what `fold` returns, of all blocks.
    until: one of BLOCKS, before which to stop; None: run all.

  Returns:
    float32 [batch, 2048]; or, with `until`, the input of that block, [batch,
    rows, columns, channels] in the dtype of the weights.
  """
  net = tf.cast(images, next(iter(folded.values()))[0].dtype)
  for layer in _STEM:
    net = _run(_SCOPE, layer, net, folded)
  blocks = BLOCKS[: BLOCKS.index(until)] if until else BLOCKS
  net = _run_blocks(blocks, net, folded)
  return net if until else _pool(net)


def encode_from(block, net, folded):
  """Goes on from where `encode` stopped.

  Args:
    block: the one before which it stopped.
    net: [batch, rows, columns, channels], what it returned.
    folded: what `fold` returns, of `block` and those after it at least.

  Returns:
    float32 [batch, 2048].
  """
  net = tf.cast(net, folded[convolutions(block)[0]][0].dtype)
  return _pool(_run_blocks(blocks_from(block), net, folded))


def _run_blocks(blocks, net, folded):
  for block in blocks:
    outputs = []
    for prefix, layers in _branches(block):
      branch = net
      for layer in layers:
        branch = _run(prefix, layer, branch, folded)
      outputs.append(branch)
    net = tf.concat(outputs, 3)
  return net


def _run(prefix, layer, net, folded):
  """Runs a layer of the tables above, or several that fork."""
  if isinstance(layer, tuple):
    return tf.concat([_run(prefix, fork, net, folded) for fork in layer], 3)
  if layer == _MAX_POOL:
    return tf.nn.max_pool2d(net, 3, strides=2, padding='VALID')
  if layer == _AVERAGE_POOL:
    return tf.nn.avg_pool2d(net, 3, strides=1, padding='SAME')
  weights, bias = folded[prefix + layer]
  # In every part of the network the layers called 1a are those that halve
  # the image, and the stem pads in one layer alone.
  halves = layer.startswith('Conv2d_1a_')
  valid = halves or layer in ('Conv2d_2a_3x3', 'Conv2d_4a_3x3')
  net = tf.nn.conv2d(
    net,
    weights,
    strides=2 if halves else 1,
    padding='VALID' if valid else 'SAME',
  )
  return tf.nn.relu(tf.nn.bias_add(net, bias))


def _pool(net):
  return tf.reduce_mean(tf.cast(net, tf.float32), [1, 2])


def make_encoder(get, precision='float32', until=None):
  """Returns a compiled `encode` with the weights of a checkpoint.

  Args:
    get: see `fold`.
    precision: 'float32', or 'bfloat16' to compute in that: half the time where
      the processor has such instructions, with features good to 2 or 3 digits.
    until: see `encode`.

  Returns:
    Callable, images float32 [batch, height, width, 3] -> what `encode` returns.
  """
  folded = fold(get, tf.as_dtype(precision))
  return tf.function(
    lambda images: encode(images, folded, until),
    autograph=False,
    input_signature=[tf.TensorSpec([None, None, None, 3])],
  )
