# SPDX-License-Identifier: Apache-2.0
"""One step of training: gradient, clipping by its global norm, update."""

from collections.abc import Callable

import tensorflow as tf

from im2txt import configuration
from im2txt import show_and_tell_model
from im2txt.training import optimizers

# Of a step, by name: float32 scalars.
Scalars = dict[str, tf.Tensor]


def sgd_step(
  model: show_and_tell_model.ShowAndTellModel,
  features_fn: Callable[[], tf.Tensor],
  input_seqs: tf.Tensor,
  target_seqs: tf.Tensor,
  input_mask: tf.Tensor,
  learning_rate: tf.Tensor,
  clip_gradients: float,
) -> Scalars:
  """One step of stochastic gradient descent, as in 2016.

  Args:
    model: the model to train.
    features_fn: returns the features, float32 [batch, 2048]. It is called under
      the gradient tape, so Inception can be trained.
    input_seqs: see `ShowAndTellModel.cross_entropies`, as the next two.
    target_seqs: the words to predict.
    input_mask: marks the words.
    learning_rate: float32 scalar.
    clip_gradients: see `train_step`.

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
  model: show_and_tell_model.ShowAndTellModel,
  optimizer: optimizers.Optimizer,
  losses_fn: Callable[[], tuple[tf.Tensor, tf.Tensor]],
  learning_rate: tf.Tensor,
  clip_gradients: float,
  inception_rate: tf.Tensor | None = None,
) -> Scalars:
  """One step: gradient, clipping by its global norm, update.

  Args:
    model: the model to train.
    optimizer: changes the variables.
    losses_fn: returns (total_loss, batch_loss), float32 scalars. It is called
      under the gradient tape.
    learning_rate: float32 scalar.
    clip_gradients: largest global norm of the gradients.
    inception_rate: float32 scalar, the learning rate of Inception's variables;
      None for that of the others.

  Returns:
    total_loss, batch_loss, and global_norm, the norm of the gradients before
    clipping.
  """
  with tf.GradientTape() as tape:
    total_loss, batch_loss = losses_fn()
  variables = model.trained_variables
  gradients = tape.gradient(total_loss, list(variables.values()))
  # The gradient of the word embedding is a list of rows (IndexedSlices). As in
  # 2016, the norm is taken before the rows of equal words are summed.
  global_norm = tf.linalg.global_norm(gradients)
  # Subtracting makes the scale NaN, not zero, if the norm is infinite.
  scale = clip_gradients / tf.maximum(global_norm, clip_gradients) + (
    global_norm - global_norm
  )
  inception = model.inception.named_variables if model.inception else {}
  if inception_rate is None:
    inception_rate = learning_rate
  optimizer.apply(
    [
      optimizers.Change(
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
  """Updates the model in each step: optimizer and moving average.

  Args:
    model: the model to train.
    config: optimizer, weight decay, clipping and moving average.

  Attributes:
    named_slots: the state of optimizer and moving average, by name. It must be
      saved beside a checkpoint for training to resume from it.
  """

  def __init__(
    self,
    model: show_and_tell_model.ShowAndTellModel,
    config: configuration.TrainingConfig,
  ) -> None:
    variables = model.trained_variables
    self._model = model
    self._clip_gradients = config.clip_gradients
    self._optimizer = optimizers.BY_NAME[config.optimizer](
      variables, config.weight_decay
    )
    self._average: optimizers.MovingAverage | None = None
    self.named_slots = self._optimizer.named_slots
    if config.moving_average_decay:
      self._average = optimizers.MovingAverage(
        variables, config.moving_average_decay
      )
      self.named_slots = {**self.named_slots, **self._average.named_slots}

  def __call__(
    self,
    losses_fn: Callable[[], tuple[tf.Tensor, tf.Tensor]],
    learning_rate: tf.Tensor,
    inception_rate: tf.Tensor | None = None,
  ) -> Scalars:
    """Takes one step, see `train_step`; to be traced."""
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

  def named_variables(self) -> dict[str, tf.Variable]:
    """Returns what a checkpoint holds, by name."""
    averages = self._average.named_averages if self._average else {}
    return {**self._model.named_variables, **averages}
