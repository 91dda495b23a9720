# SPDX-License-Identifier: Apache-2.0
"""One step of training: gradient, clipping by its global norm, update."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

import tensorflow as tf

from im2txt import configuration
from im2txt import show_and_tell_model
from im2txt.training import optimizers

# Of a step, by name: float32 scalars.
Scalars = dict[str, tf.Tensor]

# Computes the losses of a batch; to be traced.
LossesFn = Callable[[], show_and_tell_model.Losses]


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
  losses_fn: LossesFn,
  learning_rate: tf.Tensor,
  clip_gradients: float,
  inception_rate: tf.Tensor | None = None,
) -> Scalars:
  """One step: gradient, clipping by its global norm, update.

  Args:
    model: the model to train.
    optimizer: changes the variables.
    losses_fn: returns the losses. It is called under the gradient tape.
    learning_rate: float32 scalar.
    clip_gradients: largest global norm of the gradients.
    inception_rate: float32 scalar, the learning rate of Inception's variables;
      None for that of the others.

  Returns:
    total_loss and batch_loss; smoothing_loss if there is one; and global_norm,
    the norm of the gradients before clipping.
  """
  with tf.GradientTape() as tape:
    losses = losses_fn()
    minimized = losses.minimized
  gradients = tape.gradient(minimized, list(model.trained_variables.values()))
  # The gradient of the word embedding is a list of rows (IndexedSlices). As in
  # 2016, the norm is taken before the rows of equal words are summed.
  global_norm = tf.linalg.global_norm(gradients)
  _apply(
    model,
    optimizer,
    gradients,
    global_norm,
    learning_rate,
    clip_gradients,
    inception_rate,
  )
  return {**_scalars(losses), 'global_norm': global_norm}


def _scalars(losses: show_and_tell_model.Losses) -> Scalars:
  """Returns what is reported of the losses of a step."""
  scalars = {'total_loss': losses.total_loss, 'batch_loss': losses.batch_loss}
  if losses.smoothing_loss is not None:
    scalars['smoothing_loss'] = losses.smoothing_loss
  return scalars


def _apply(
  model: show_and_tell_model.ShowAndTellModel,
  optimizer: optimizers.Optimizer,
  gradients: Sequence[tf.Tensor | tf.IndexedSlices],
  global_norm: tf.Tensor,
  learning_rate: tf.Tensor,
  clip_gradients: float,
  inception_rate: tf.Tensor | None,
) -> None:
  """Clips the gradients of the trained variables, applies and counts them."""
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
      for (name, variable), gradient in zip(
        model.trained_variables.items(), gradients
      )
    ],
    scale,
  )
  model.global_step.assign_add(1)


class _Sums:
  """Sums of gradients and losses over the batches of a step.

  The mean over all words of the batches is the mean of the batches' means,
  weighted by their numbers of words. So a sum is one of means times words.

  Args:
    named_variables: the variables to train, by name.
  """

  def __init__(self, named_variables: Mapping[str, tf.Variable]) -> None:
    self._variables = list(named_variables.values())
    self._gradients = [
      tf.Variable(tf.zeros_like(variable), trainable=False)
      for variable in self._variables
    ]
    # Squares of the gradients that are lists of rows, see `train_step`.
    self._squares = [tf.Variable(0.0, trainable=False) for _ in self._variables]
    self._has_rows = [False] * len(self._variables)
    self._words = tf.Variable(0.0, trainable=False)
    self._losses: dict[str, tf.Variable] = {}

  def add(self, losses_fn: LossesFn) -> None:
    """Adds the gradients and losses of a batch; to be traced."""
    with tf.GradientTape() as tape:
      losses = losses_fn()
      weighted = losses.words * losses.minimized
    for i, gradient in enumerate(tape.gradient(weighted, self._variables)):
      if isinstance(gradient, tf.IndexedSlices):
        self._has_rows[i] = True
        self._squares[i].assign_add(tf.reduce_sum(tf.square(gradient.values)))
        self._gradients[i].scatter_add(gradient)
      else:
        self._gradients[i].assign_add(gradient)
    self._words.assign_add(losses.words)
    for name, loss in _scalars(losses).items():
      if name not in self._losses:
        with tf.init_scope():
          self._losses[name] = tf.Variable(0.0, trainable=False)
      self._losses[name].assign_add(losses.words * loss)

  def take(self) -> tuple[list[tf.Tensor], tf.Tensor, Scalars]:
    """Returns (gradients, their global norm, losses), and begins anew.

    To be traced after `add`.
    """
    words = self._words.read_value()
    gradients = [
      tf.math.divide_no_nan(total, words) for total in self._gradients
    ]
    squares = [
      tf.math.divide_no_nan(square, words * words)
      if has_rows
      else tf.reduce_sum(tf.square(gradient))
      for gradient, square, has_rows in zip(
        gradients, self._squares, self._has_rows
      )
    ]
    scalars = {
      name: tf.math.divide_no_nan(total, words)
      for name, total in self._losses.items()
    }
    for variable in (
      *self._gradients,
      *self._squares,
      *self._losses.values(),
      self._words,
    ):
      variable.assign(tf.zeros_like(variable))
    return gradients, tf.sqrt(tf.add_n(squares)), scalars


class Update:
  """Updates the model in each step: optimizer and moving average.

  Args:
    model: the model to train.
    config: optimizer, clipping, moving average and batches per step.

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
    self._optimizer = optimizers.BY_NAME[config.optimizer](variables, config)
    # Sums of an unfinished step are not saved: a resumed run starts it again.
    self._sums = _Sums(variables) if config.accumulate_steps > 1 else None
    self._average: optimizers.MovingAverage | None = None
    self.named_slots = self._optimizer.named_slots
    if config.moving_average_decay:
      self._average = optimizers.MovingAverage(
        variables, config.moving_average_decay
      )
      self.named_slots = {**self.named_slots, **self._average.named_slots}

  def __call__(
    self,
    losses_fn: LossesFn,
    learning_rate: tf.Tensor,
    inception_rate: tf.Tensor | None = None,
  ) -> Scalars:
    """Takes one step on one batch, see `train_step`; to be traced."""
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

  def add(self, losses_fn: LossesFn) -> None:
    """Adds a batch to a step on several batches; to be traced.

    Args:
      losses_fn: see `train_step`.
    """
    assert self._sums
    self._sums.add(losses_fn)

  def finish(
    self, learning_rate: tf.Tensor, inception_rate: tf.Tensor
  ) -> Scalars:
    """Takes the step on the batches that were added; to be traced after `add`.

    It is the step that one batch of all these captions would give.

    Args and returns: see `train_step`.
    """
    assert self._sums
    gradients, global_norm, scalars = self._sums.take()
    _apply(
      self._model,
      self._optimizer,
      gradients,
      global_norm,
      learning_rate,
      self._clip_gradients,
      inception_rate,
    )
    if self._average:
      self._average.update()
    return {**scalars, 'global_norm': global_norm}

  def named_variables(self) -> dict[str, tf.Variable]:
    """Returns what a checkpoint holds, by name."""
    averages = self._average.named_averages if self._average else {}
    return {**self._model.named_variables, **averages}
