# SPDX-License-Identifier: Apache-2.0
"""Inception v3 as the image encoder (Szegedy et al. 2015, through tf-slim)."""

import functools

import tensorflow as tf

from im2txt.ops import dropout
from im2txt.ops import folded_inception
from im2txt.ops import slim_bridge

slim = slim_bridge.tf_slim

SCOPE = 'InceptionV3'
# L2 coefficient of the convolution weights when they are trained.
WEIGHT_DECAY = 0.00004
# Of the batch-norm averages.
BATCH_NORM_DECAY = 0.9997
# Of the pooled features, when the whole network is trained.
_DROPOUT_RATE = 0.2


def inception_v3(
  images,
  trainable=True,
  is_training=True,
  stddev=0.1,
  dropout_keep_prob=0.8,
  use_batch_norm=True,
  batch_norm_params=None,
  scope=SCOPE,
):
  """Builds Inception v3 up to its pooled features, as im2txt did in 2016.

  Variables are made the TF1 way (`tf.compat.v1.get_variable`): call this under
  a graph or inside a method decorated with `track_tf1_style_variables`.

  Args:
    images: float32 [batch, height, width, 3] in [-1, 1].
    trainable: whether the variables are trained. A frozen network always runs
      with its batch-norm averages and without dropout.
    is_training: whether the graph is for training.
    stddev: of the truncated normal that initializes convolution weights.
    dropout_keep_prob: of the pooled features, when the network is training.
    use_batch_norm: whether convolutions are batch-normalized.
    batch_norm_params: replaces the default batch-norm arguments.
    scope: variable scope.

  Returns:
    float32 [batch, 2048].
  """
  # Fixed parameters with moving statistics would not mean anything.
  is_inception_training = trainable and is_training
  normalizer_fn = None
  if use_batch_norm:
    normalizer_fn = slim.batch_norm
    if not batch_norm_params:
      batch_norm_params = {
        'is_training': is_inception_training,
        'trainable': trainable,
        'decay': BATCH_NORM_DECAY,
        'epsilon': 0.001,
      }
  else:
    batch_norm_params = None

  with tf.compat.v1.variable_scope(scope, 'InceptionV3', [images]) as var_scope:
    with slim.arg_scope([slim.conv2d], trainable=trainable):
      with slim.arg_scope(
        [slim.conv2d],
        weights_initializer=tf.compat.v1.truncated_normal_initializer(
          stddev=stddev
        ),
        activation_fn=tf.nn.relu,
        normalizer_fn=normalizer_fn,
        normalizer_params=batch_norm_params,
      ):
        net, _ = slim_bridge.inception_v3_base(images, scope=var_scope)
        with tf.compat.v1.variable_scope('logits'):
          net = slim.avg_pool2d(
            net, net.shape[1:3], padding='VALID', scope='pool'
          )
          net = slim.dropout(
            net,
            keep_prob=dropout_keep_prob,
            is_training=is_inception_training,
            scope='dropout',
          )
          net = slim.flatten(net, scope='flatten')
  return net


@functools.cache
def variable_shapes():
  """Returns the shapes of Inception v3's variables.

  Returns:
    dict from each of the 376 checkpoint names to a list of int.
  """
  return {
    name: variable.shape.as_list()
    for name, variable in InceptionV3().named_variables.items()
  }


class InceptionV3(tf.Module):
  """Inception v3 that owns its variables; a callable for eager and tf.function.

  Args:
    trainable: see `inception_v3`.
    height: pixels of the images it is made for.
    width: pixels of the images it is made for.
    trained_from: with `trainable`, one of `folded_inception.BLOCKS`: only this
      block and those after it are trained, with the batch-norm averages as they
      are and without dropout; None: all of it.

  The variables exist as soon as the object does. `named_variables` maps their
  checkpoint names (`InceptionV3/Conv2d_1a_3x3/weights`) to them.
  """

  def __init__(self, trainable=False, height=299, width=299, trained_from=None):
    super().__init__(name='inception_v3')
    self.trainable = trainable
    self.trained_from = trained_from if trainable else None
    # Tracing once makes the variables without computing a convolution.
    self._encode_fn = tf.function(self._encode)
    self._encode_fn.get_concrete_function(
      tf.TensorSpec([1, height, width, 3], tf.float32), False
    )
    self.named_variables = {v.name.split(':')[0]: v for v in self.variables}

  @slim_bridge.track_tf1_style_variables
  def _encode(self, images, is_training):
    # Without tf-slim's dropout, which no seed of a step determines.
    return inception_v3(
      images,
      trainable=self.trainable,
      is_training=is_training,
      dropout_keep_prob=1.0,
    )

  @property
  def trained_blocks(self):
    """Names of the blocks that are trained if `trained_from` is given."""
    if not self.trained_from:
      return ()
    return folded_inception.blocks_from(self.trained_from)

  @property
  def trained_variables(self):
    """Dict from checkpoint name to variable: those that training changes."""
    if not self.trained_from:
      return {
        name: variable
        for name, variable in self.named_variables.items()
        if variable.trainable
      }
    return {
      f'{name}/{part}': self.named_variables[f'{name}/{part}']
      for name in folded_inception.convolutions(self.trained_from)
      for part in ('weights', 'BatchNorm/beta')
    }

  def __call__(self, images, is_training=False, seed=None):
    """Encodes images.

    Args:
      images: float32 [batch, height, width, 3] in [-1, 1].
      is_training: Python bool. With `trainable`, uses the batch's statistics,
        updates the moving averages (once a call) and drops features out; with
        `trained_from`, none of that, but only the blocks from there on pass
        gradients.
      seed: see `dropout.dropout`.

    Returns:
      float32 [batch, 2048].
    """
    if is_training and self.trained_from:
      with tf.init_scope():
        # What is frozen is folded once. So trace this after the variables have
        # their values.
        frozen = folded_inception.fold(
          lambda name: self.named_variables[name].numpy()
        )
      return self.encode_from_block(
        tf.stop_gradient(
          folded_inception.encode(images, frozen, self.trained_from)
        )
      )
    features = self._encode_fn(images, is_training)
    if is_training and self.trainable:
      features = dropout.dropout(
        features, _DROPOUT_RATE, seed, dropout.FEATURES
      )
    return features

  def encode_from_block(self, inputs, dtype=tf.float32):
    """Runs the blocks from `trained_from` on.

    Args:
      inputs: [batch, rows, columns, channels], the input of that block, as
        `folded_inception.encode` returns it.
      dtype: to compute in, tf.float32 or tf.bfloat16.

    Returns:
      float32 [batch, 2048].
    """
    # Only what is trained changes from call to call.
    trained = self.trained_variables
    with tf.init_scope():
      fixed = {
        name: variable.numpy()
        for name, variable in self.named_variables.items()
        if name not in trained
      }
    folded = folded_inception.fold(
      lambda name: trained[name] if name in trained else fixed[name],
      dtype,
      self.trained_from,
    )
    return folded_inception.encode_from(self.trained_from, inputs, folded)

  def regularization_loss(self):
    """Returns the L2 loss of the convolution weights, a float32 scalar.

    WEIGHT_DECAY * sum(w ** 2) / 2 over the convolutions that are trained; zero
    when frozen.
    """
    weights = [
      variable
      for name, variable in self.trained_variables.items()
      if name.endswith('/weights')
    ]
    if not weights:
      return tf.constant(0.0)
    return WEIGHT_DECAY * tf.add_n([tf.nn.l2_loss(v) for v in weights])
