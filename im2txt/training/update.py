# SPDX-License-Identifier: Apache-2.0
"""One step of training: gradient, clipping by its global norm, update."""

import tensorflow as tf

from im2txt.training import optimizers


def sgd_step(
  model,
  features_fn,
  input_seqs,
  target_seqs,
  input_mask,
  learning_rate,
  clip_gradients,
):
  """One step of stochastic gradient descent, as in 2016.

  Args:
    model: a `ShowAndTellModel`.
    features_fn: callable that returns the float32 [batch, 2048] features; it
      is called under the gradient tape, so Inception can be trained.
    input_seqs: see `ShowAndTellModel.cross_entropies`.
    target_seqs: likewise.
    input_mask: likewise.
    learning_rate: see `train_step`.
    clip_gradients: likewise.

  Returns:
    See `train_step`.
  """
  return train_step(
    model,
    optimizers.Sgd(),
    lambda: model.losses(features_fn(), input_seqs, target_seqs, input_mask),
    learning_rate,
    clip_gradients,
  )


def train_step(
  model,
  optimizer,
  losses_fn,
  learning_rate,
  clip_gradients,
  inception_rate=None,
):
  """One step: gradient, clipping by its global norm, update.

  Args:
    model: a `ShowAndTellModel`.
    optimizer: one of `optimizers.BY_NAME`.
    losses_fn: callable that returns (total_loss, batch_loss), float32 scalars;
      it is called under the gradient tape.
    learning_rate: float32 scalar.
    clip_gradients: float, the global norm.
    inception_rate: float32 scalar, the learning rate of Inception's variables;
      None: that of the others.

  Returns:
    dict of float32 scalars: total_loss, batch_loss and global_norm, the norm
    of the gradients before clipping.
  """
  with tf.GradientTape() as tape:
    total_loss, batch_loss = losses_fn()
  variables = model.trained_variables
  gradients = tape.gradient(total_loss, list(variables.values()))
  # The word embedding's gradient stays a list of rows (IndexedSlices), so that
  # the norm, like that of 2016, is taken before equal words' rows are summed.
  global_norm = tf.linalg.global_norm(gradients)
  # An infinite norm makes it NaN, not zero.
  scale = clip_gradients / tf.maximum(global_norm, clip_gradients) + (
    global_norm - global_norm
  )
  inception = model.inception.named_variables if model.inception else {}
  if inception_rate is None:
    inception_rate = learning_rate
  optimizer.apply(
    [
      (
        name,
        variable,
        gradient,
        inception_rate if name in inception else learning_rate,
      )
      for (name, variable), gradient in zip(variables.items(), gradients)
    ],
    scale,
  )
  model.global_step.assign_add(1)
  return {
    'total_loss': total_loss,
    'batch_loss': batch_loss,
    'global_norm': global_norm,
  }


class Update:
  """What a step does once it knows its losses; and what that remembers.

  Args:
    model: a `ShowAndTellModel`.
    config: a `configuration.TrainingConfig`.

  Attributes:
    named_slots: dict from name to variable: what must be saved beside a
      checkpoint for training to go on from it.
  """

  def __init__(self, model, config):
    variables = model.trained_variables
    self._model = model
    self._clip_gradients = config.clip_gradients
    self._optimizer = optimizers.BY_NAME[config.optimizer](
      variables, config.weight_decay
    )
    self._average = None
    self.named_slots = self._optimizer.named_slots
    if config.moving_average_decay:
      self._average = optimizers.MovingAverage(
        variables, config.moving_average_decay
      )
      self.named_slots = {**self.named_slots, **self._average.named_slots}

  def __call__(self, losses_fn, learning_rate, inception_rate=None):
    """Takes a step, see `train_step`; to be traced."""
    scalars = train_step(
      self._model,
      self._optimizer,
      losses_fn,
      learning_rate,
      self._clip_gradients,
      inception_rate,
    )
    if self._average:
      self._average.update()
    return scalars

  def named_variables(self):
    """Returns what a checkpoint holds, dict from name to variable."""
    averages = self._average.named_averages if self._average else {}
    return {**self._model.named_variables, **averages}
