# SPDX-License-Identifier: Apache-2.0
"""Inception v3 as the image encoder (Szegedy et al. 2015, through tf-slim)."""

import functools

import tensorflow as tf

from im2txt.ops import batch_norm
from im2txt.ops import dropout
from im2txt.ops import folded_inception
from im2txt.ops import slim_bridge

slim = slim_bridge.tf_slim

SCOPE = 'InceptionV3'
# L2 coefficient of the convolution weights when they are trained.
WEIGHT_DECAY = 0.00004
# Share of the batch-norm averages that each step keeps.
BATCH_NORM_DECAY = 0.9997
# Share of the features that is dropped when the whole network is trained.
_DROPOUT_RATE = 0.2
# Height and width of the smallest image that the network takes, in pixels.
_SMALLEST = 75
# Of the truncated normal distribution of initial weights.
_STDDEV = 0.1


def inception_v3(
  images: tf.Tensor,
  trainable: bool = True,
  is_training: bool = True,
) -> tf.Tensor:
  """Builds Inception v3 up to its pooled features, as im2txt did in 2016.

  It has no dropout. tf-slim's cannot be determined by a seed, so `InceptionV3`
  adds its own.

  Variables are made the TF1 way (`tf.compat.v1.get_variable`). Call this in a
  graph, or in a method decorated with `track_tf1_style_variables`.

  Args:
    images: float32 [batch, height, width, 3] in [-1, 1].
    trainable: whether the variables are trained. A frozen network always uses
      its batch-norm averages.
    is_training: whether the graph is for training.

  Returns:
    float32 [batch, 2048].
  """
  with tf.compat.v1.variable_scope(SCOPE, values=[images]) as scope:
    with slim.arg_scope(
      [slim.conv2d],
      trainable=trainable,
      weights_initializer=tf.compat.v1.truncated_normal_initializer(
        stddev=_STDDEV
      ),
      activation_fn=tf.nn.relu,
      normalizer_fn=(
        batch_norm.over_replicas if batch_norm.is_divided() else slim.batch_norm
      ),
      normalizer_params={
        # Statistics of frozen weights stay as they are.
        'is_training': trainable and is_training,
        'trainable': trainable,
        'decay': BATCH_NORM_DECAY,
        'epsilon': 0.001,
      },
    ):
      net, _ = slim_bridge.inception_v3_base(images, scope=scope)
      with tf.compat.v1.variable_scope('logits'):
        net = slim.avg_pool2d(
          net, net.shape[1:3], padding='VALID', scope='pool'
        )
        net = slim.flatten(net, scope='flatten')
  return net


@functools.cache
def variable_shapes() -> dict[str, list[int]]:
  """Returns the shapes of the 376 variables, by their names in a checkpoint."""
  return {
    name: variable.shape.as_list()
    for name, variable in InceptionV3().named_variables.items()
  }


class InceptionV3(tf.Module):
  """Inception v3 that owns its variables. It runs eagerly and in tf.function.

  Args:
    trainable: see `inception_v3`.
    trained_from: with `trainable`, one of `folded_inception.BLOCKS`. Only this
      block and those after it are trained, without dropout and with fixed
      batch-norm averages. None trains all.

  Attributes:
    named_variables: all variables, by their names in a checkpoint, such as
      `InceptionV3/Conv2d_1a_3x3/weights`.
    trainable: see above.
    trained_from: see above; None if not `trainable`.
  """

  def __init__(
    self,
    trainable: bool = False,
    trained_from: str | None = None,
  ) -> None:
    super().__init__(name='inception_v3')
    self.trainable = trainable
    self.trained_from = trained_from if trainable else None
    self._encode_fn = tf.function(self._encode, autograph=False)
    # Makes the variables, in half the time of tracing, which runs twice where
    # there are new ones. The smallest image will do.
    self._encode(tf.zeros([1, _SMALLEST, _SMALLEST, 3]), False)
    self.named_variables: dict[str, tf.Variable] = {
      v.name.split(':')[0]: v for v in self.variables
    }

  @slim_bridge.track_tf1_style_variables
  def _encode(self, images: tf.Tensor, is_training: bool) -> tf.Tensor:
    return inception_v3(
      images, trainable=self.trainable, is_training=is_training
    )

  @property
  def trained_blocks(self) -> tuple[str, ...]:
    """Names of the blocks from `trained_from` on; empty without it."""
    if not self.trained_from:
      return ()
    return folded_inception.blocks_from(self.trained_from)

  @property
  def trained_variables(self) -> dict[str, tf.Variable]:
    """The variables that training changes, by their names in a checkpoint."""
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

  def __call__(
    self,
    images: tf.Tensor,
    is_training: bool = False,
    seed: tf.Tensor | None = None,
    places: tf.Tensor | None = None,
  ) -> tf.Tensor:
    """Encodes images.

    Args:
      images: float32 [batch, height, width, 3] in [-1, 1].
      is_training: with `trainable`, use the statistics of the batch, update the
        moving averages once per call, and apply dropout to the features. With
        `trained_from`, do none of this, and stop gradients before that block.
      seed: see `dropout.dropout`.
      places: int64 [batch], the `rows` of `dropout.dropout`.

    Returns:
      float32 [batch, 2048].
    """
    if is_training and self.trained_from:
      with tf.init_scope():
        # The frozen blocks are folded once, when this is traced: the variables
        # must have their values by then.
        frozen = folded_inception.fold(
          lambda name: self.named_variables[name].numpy()
        )
      return self.encode_from_block(
        tf.stop_gradient(
          folded_inception.encode(images, frozen, self.trained_from)
        )
      )
    # Replicas cannot add their sums within a function of its own.
    encode = self._encode if batch_norm.is_divided() else self._encode_fn
    features = encode(images, is_training)
    if is_training and self.trainable:
      features = dropout.dropout(
        features, _DROPOUT_RATE, seed, dropout.FEATURES, places
      )
    return features

  def encode_from_block(
    self, inputs: tf.Tensor, dtype: tf.DType = tf.float32
  ) -> tf.Tensor:
    """Runs the blocks from `trained_from` on.

    Args:
      inputs: [batch, rows, columns, channels], the input of that block, see
        `folded_inception.encode`.
      dtype: of the computation, tf.float32 or tf.bfloat16.

    Returns:
      float32 [batch, 2048].
    """
    if not self.trained_from:
      raise ValueError('encode_from_block needs trained_from')
    # The other variables are constants of the graph.
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

  def regularization_loss(self) -> tf.Tensor:
    """Returns the L2 loss of the weights that are trained, a float32 scalar.

    It is WEIGHT_DECAY * sum(w ** 2) / 2, and zero if Inception is frozen.
    """
    weights = [
      variable
      for name, variable in self.trained_variables.items()
      if name.endswith('/weights')
    ]
    if not weights:
      return tf.constant(0.0)
    return WEIGHT_DECAY * tf.add_n([tf.nn.l2_loss(v) for v in weights])
