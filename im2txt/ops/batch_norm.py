# SPDX-License-Identifier: Apache-2.0
"""Batch norm over the images of all replicas.

Replicas that divide a batch normalize by the statistics of the whole batch, so
they train as one process does. Each layer adds its sums over the replicas once
forward and once back.
"""

import tensorflow as tf


def is_divided() -> bool:
  """Returns whether this is traced for one of several replicas."""
  context = tf.distribute.get_replica_context()
  return context is not None and context.num_replicas_in_sync > 1


def over_replicas(
  inputs: tf.Tensor,
  is_training: bool,
  trainable: bool,
  decay: float,
  epsilon: float,
) -> tf.Tensor:
  """In the place of `tf_slim.batch_norm`, with the same variables.

  Args:
    inputs: float32 [images, rows, columns, channels].
    is_training: whether to use the statistics of the batch, and to update the
      averages.
    trainable: whether beta is trained.
    decay: share of the averages that each step keeps.
    epsilon: added to the variance.

  Returns:
    A tensor like `inputs`.
  """
  channels = inputs.shape[-1]
  with tf.compat.v1.variable_scope('BatchNorm'):
    beta, mean, variance = (
      tf.compat.v1.get_variable(
        name,
        [channels],
        initializer=tf.compat.v1.constant_initializer(value),
        trainable=trainable and name == 'beta',
      )
      for name, value in (
        ('beta', 0.0),
        ('moving_mean', 0.0),
        ('moving_variance', 1.0),
      )
    )
  if not is_training:
    return (inputs - mean) * tf.math.rsqrt(variance + epsilon) + beta
  # The average is near the mean, so the squares lose few digits.
  shift = tf.stop_gradient(mean.read_value())
  shifted = inputs - shift
  sums = tf.distribute.get_replica_context().all_reduce(
    tf.distribute.ReduceOp.SUM,
    tf.concat(
      [
        tf.reduce_sum(shifted, axis=[0, 1, 2]),
        tf.reduce_sum(tf.square(shifted), axis=[0, 1, 2]),
        tf.fill([1], tf.cast(tf.size(inputs) / channels, tf.float32)),
      ],
      axis=0,
    ),
  )
  count = sums[-1]
  batch_mean = sums[:channels] / count
  batch_variance = tf.maximum(
    sums[channels:-1] / count - tf.square(batch_mean), 0.0
  )
  # As the fused operation of TensorFlow: the average is of the unbiased one.
  unbiased = batch_variance * count / tf.maximum(count - 1, 1.0)
  for average, value in ((mean, batch_mean + shift), (variance, unbiased)):
    average.assign_sub(
      tf.stop_gradient((1 - decay) * (average.read_value() - value))
    )
  return (shifted - batch_mean) * tf.math.rsqrt(batch_variance + epsilon) + beta
