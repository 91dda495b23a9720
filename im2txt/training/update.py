# SPDX-License-Identifier: Apache-2.0
"""One step of training: gradient, clipping by its global norm, update."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from im2txt import configuration
from im2txt import show_and_tell_model
from im2txt.runtime import distribution
from im2txt.training import optimizers

# Of a step, by name: float32 scalars.
Scalars = dict[str, tf.Tensor]

# What is reported of the losses, by name.
_REPORTED = ('total_loss', 'batch_loss', 'smoothing_loss')

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
  scalars = {name: getattr(losses, name) for name in _REPORTED}
  return {name: loss for name, loss in scalars.items() if loss is not None}


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
  # Not before the gradients have come from all replicas: a step that fails has
  # changed nothing.
  with tf.control_dependencies([scale]):
    model.global_step.assign_add(1)


class _Totals(NamedTuple):
  """Sums over the words of batches, from which the means over all words follow.

  The mean over all words of some batches, or of the replicas' shares of one
  batch, is the mean of their means, weighted by their numbers of words. So a
  total is a sum of means times words.

  Attributes:
    gradients: of the trained variables.
    squares: of gradients that are lists of rows, by their index: sums of the
      squares of the rows, see `train_step`.
    words: number of words.
    losses: what is reported, by name.
  """

  gradients: list[tf.Tensor | tf.IndexedSlices]
  squares: dict[int, tf.Tensor]
  words: tf.Tensor
  losses: Scalars

  def over_replicas(self, replicas: distribution.Replicas) -> '_Totals':
    """Returns the totals of all replicas; to be traced in `Replicas.run`."""
    if replicas.count == 1:
      return self
    scalars = [*self.squares.values(), self.words, *self.losses.values()]
    *gradients, summed = replicas.sum(
      [*map(tf.convert_to_tensor, self.gradients), tf.stack(scalars)]
    )
    rest = iter(tf.unstack(summed))
    return _Totals(
      gradients,
      dict(zip(self.squares, rest)),
      next(rest),
      dict(zip(self.losses, rest)),
    )

  def means(self) -> tuple[list[tf.Tensor], tf.Tensor, Scalars]:
    """Returns (gradients, their global norm, losses), means over all words."""
    words = self.words
    gradients = [
      tf.math.divide_no_nan(tf.convert_to_tensor(total), words)
      for total in self.gradients
    ]
    squares = [
      tf.math.divide_no_nan(self.squares[i], words * words)
      if i in self.squares
      else tf.reduce_sum(tf.square(gradient))
      for i, gradient in enumerate(gradients)
    ]
    losses = {
      name: tf.math.divide_no_nan(total, words)
      for name, total in self.losses.items()
    }
    return gradients, tf.sqrt(tf.add_n(squares)), losses


def _totals(variables: Sequence[tf.Variable], losses_fn: LossesFn) -> _Totals:
  """Returns the totals of a batch; to be traced.

  Args:
    variables: the variables to train.
    losses_fn: see `train_step`.
  """
  with tf.GradientTape() as tape:
    losses = losses_fn()
    weighted = losses.words * losses.minimized
  gradients = tape.gradient(weighted, list(variables))
  return _Totals(
    gradients,
    {
      i: tf.reduce_sum(tf.square(gradient.values))
      for i, gradient in enumerate(gradients)
      if isinstance(gradient, tf.IndexedSlices)
    },
    losses.words,
    {name: losses.words * loss for name, loss in _scalars(losses).items()},
  )


class _Sums:
  """Sums of the totals of the batches of a step.

  Args:
    named_variables: the variables to train, by name.
  """

  def __init__(self, named_variables: Mapping[str, tf.Variable]) -> None:
    self._variables = list(named_variables.values())

    def zero() -> tf.Variable:
      return tf.Variable(0.0, trainable=False)

    # Variables cannot be made while a replica is traced.
    self._gradients = [
      tf.Variable(tf.zeros_like(variable), trainable=False)
      for variable in self._variables
    ]
    self._squares = [zero() for _ in self._variables]
    self._words = zero()
    self._losses = {name: zero() for name in _REPORTED}
    # Of the totals that were added.
    self._with_rows: set[int] = set()
    self._reported: set[str] = set()

  def add(self, losses_fn: LossesFn) -> None:
    """Adds the totals of a batch; to be traced."""
    totals = _totals(self._variables, losses_fn)
    self._with_rows.update(totals.squares)
    self._reported.update(totals.losses)
    for total, gradient in zip(self._gradients, totals.gradients):
      if isinstance(gradient, tf.IndexedSlices):
        total.scatter_add(gradient)
      else:
        total.assign_add(gradient)
    for i, square in totals.squares.items():
      self._squares[i].assign_add(square)
    self._words.assign_add(totals.words)
    for name, loss in totals.losses.items():
      self._losses[name].assign_add(loss)

  def take(self) -> _Totals:
    """Returns the sums, and begins anew; to be traced after `add`."""
    totals = _Totals(
      [total.read_value() for total in self._gradients],
      {i: self._squares[i].read_value() for i in sorted(self._with_rows)},
      self._words.read_value(),
      {
        name: total.read_value()
        for name, total in self._losses.items()
        if name in self._reported
      },
    )
    for variable in (
      *self._gradients,
      *self._squares,
      *self._losses.values(),
      self._words,
    ):
      variable.assign(tf.zeros_like(variable))
    return totals


class Update:
  """Updates the model in each step: optimizer and moving average.

  Args:
    model: the model to train.
    config: optimizer, clipping, moving average and batches per step.
    replicas: those that train together.

  Attributes:
    named_slots: the state of optimizer and moving average, by name. It must be
      saved beside a checkpoint for training to resume from it.
  """

  def __init__(
    self,
    model: show_and_tell_model.ShowAndTellModel,
    config: configuration.TrainingConfig,
    replicas: distribution.Replicas | None = None,
  ) -> None:
    variables = model.trained_variables
    self._model = model
    self._replicas = replicas or distribution.Replicas()
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
    """Takes one step on one batch, see `train_step`; to be traced.

    With several replicas it is traced in `Replicas.run`, and `losses_fn` returns
    the losses of a replica's share.
    """
    if self._replicas.count > 1:
      variables = list(self._model.trained_variables.values())
      return self._take_step(
        _totals(variables, losses_fn), learning_rate, inception_rate
      )
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
    return self._take_step(self._sums.take(), learning_rate, inception_rate)

  def _take_step(
    self,
    totals: _Totals,
    learning_rate: tf.Tensor,
    inception_rate: tf.Tensor | None,
  ) -> Scalars:
    """Takes the step that the totals of this replica and of the others give."""
    gradients, global_norm, scalars = totals.over_replicas(
      self._replicas
    ).means()
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
