# SPDX-License-Identifier: Apache-2.0
"""How gradients change the variables: optimizers by name, and averages.

A checkpoint has only the variables of 2016. The state of an optimizer, its
slots, is saved in a separate file beside it.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import NamedTuple
from typing import Protocol

import tensorflow as tf

from im2txt import configuration

# The average forgets faster in the first steps, which start from random values.
_AVERAGE_WARMUP = 10


class Change(NamedTuple):
  """The input of an optimizer for one variable.

  Attributes:
    name: of the variable, as in a checkpoint.
    variable: the `tf.Variable` to change.
    gradient: a tensor of the variable's shape, or `tf.IndexedSlices`.
    learning_rate: float32 scalar.
  """

  name: str
  variable: tf.Variable
  gradient: tf.Tensor | tf.IndexedSlices
  learning_rate: tf.Tensor


class Optimizer(Protocol):
  """What a training step needs of an optimizer."""

  @property
  def named_slots(self) -> dict[str, tf.Variable]:
    """The optimizer's state, by name."""

  def apply(self, changes: Sequence[Change], scale: tf.Tensor) -> None:
    """Changes the variables; to be traced.

    Args:
      changes: one per variable.
      scale: float32 scalar that multiplies the gradients.
    """


class Sgd:
  """Stochastic gradient descent, the optimizer of 2016 and of the paper."""

  @property
  def named_slots(self) -> dict[str, tf.Variable]:
    """Empty: this optimizer has no state."""
    return {}

  def apply(self, changes: Sequence[Change], scale: tf.Tensor) -> None:
    """Changes the variables; see `Optimizer.apply`."""
    for _, variable, gradient, learning_rate in changes:
      # Scaling the rate saves a pass over the gradients.
      rate = learning_rate * scale
      if isinstance(gradient, tf.IndexedSlices):
        variable.scatter_sub(
          tf.IndexedSlices(rate * gradient.values, gradient.indices)
        )
      else:
        tf.raw_ops.ResourceApplyGradientDescent(
          var=variable.handle, alpha=rate, delta=gradient
        )


def _decay(
  variable: tf.Variable, learning_rate: tf.Tensor, weight_decay: float
) -> None:
  """Subtracts the share that decays in a step; to be traced.

  It does not go through the gradient, so neither moments nor clipping see it
  (Loshchilov and Hutter 2019). Biases do not decay.

  Args:
    variable: what decays.
    learning_rate: float32 scalar.
    weight_decay: the share, times the learning rate.
  """
  if weight_decay and variable.shape.rank > 1:
    variable.assign_sub(learning_rate * weight_decay * variable)


class Momentum:
  """Gradient descent along a decaying sum of gradients (Polyak 1964).

  As `tf.compat.v1.train.MomentumOptimizer`: the learning rate multiplies the
  sum, not the gradients in it.

  Args:
    named_variables: the variables to train, by name.
    momentum: share of the sum that each step keeps.
    nesterov: whether to look ahead (Nesterov 1983; Sutskever et al. 2013).
    weight_decay: see `_decay`.
  """

  def __init__(
    self,
    named_variables: Mapping[str, tf.Variable],
    momentum: float,
    nesterov: bool = False,
    weight_decay: float = 0.0,
  ) -> None:
    self._momentum = momentum
    self._nesterov = nesterov
    self._weight_decay = weight_decay
    self._sums = {
      name: tf.Variable(tf.zeros_like(variable), trainable=False)
      for name, variable in named_variables.items()
    }

  @property
  def named_slots(self) -> dict[str, tf.Variable]:
    """The sum of each variable."""
    return {f'{name}/Momentum': total for name, total in self._sums.items()}

  def apply(self, changes: Sequence[Change], scale: tf.Tensor) -> None:
    """Changes the variables; see `Optimizer.apply`."""
    for name, variable, gradient, learning_rate in changes:
      _decay(variable, learning_rate, self._weight_decay)
      tf.raw_ops.ResourceApplyMomentum(
        var=variable.handle,
        accum=self._sums[name].handle,
        lr=learning_rate,
        grad=scale * tf.convert_to_tensor(gradient),
        momentum=self._momentum,
        use_nesterov=self._nesterov,
      )


class Adam:
  """Adam (Kingma and Ba 2015) with decoupled weight decay, which is AdamW.

  Args:
    named_variables: the variables to train, by name.
    weight_decay: see `_decay`.
  """

  _BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8

  def __init__(
    self, named_variables: Mapping[str, tf.Variable], weight_decay: float = 0.0
  ) -> None:
    self._weight_decay = weight_decay
    self._updates = tf.Variable(0, trainable=False, dtype=tf.int64)
    self._moments = {
      name: tuple(
        tf.Variable(tf.zeros_like(variable), trainable=False) for _ in range(2)
      )
      for name, variable in named_variables.items()
    }

  @property
  def named_slots(self) -> dict[str, tf.Variable]:
    """Both moments of each variable, and the number of updates."""
    slots = {'adam_updates': self._updates}
    for name, (first, second) in self._moments.items():
      slots[f'{name}/Adam'] = first
      slots[f'{name}/Adam_1'] = second
    return slots

  def apply(self, changes: Sequence[Change], scale: tf.Tensor) -> None:
    """Changes the variables; see `Optimizer.apply`."""
    self._updates.assign_add(1)
    count = tf.cast(self._updates, tf.float32)
    for name, variable, gradient, learning_rate in changes:
      _decay(variable, learning_rate, self._weight_decay)
      first, second = self._moments[name]
      tf.raw_ops.ResourceApplyAdam(
        var=variable.handle,
        m=first.handle,
        v=second.handle,
        beta1_power=self._BETA_1**count,
        beta2_power=self._BETA_2**count,
        lr=learning_rate,
        beta1=self._BETA_1,
        beta2=self._BETA_2,
        epsilon=self._EPSILON,
        grad=scale * tf.convert_to_tensor(gradient),
      )


def _adam(
  named_variables: Mapping[str, tf.Variable],
  config: configuration.TrainingConfig,
) -> Adam:
  return Adam(named_variables, config.weight_decay)


# Each is made from the variables to train, by name, and the configuration.
BY_NAME: dict[
  str,
  Callable[
    [Mapping[str, tf.Variable], configuration.TrainingConfig], Optimizer
  ],
] = {
  'SGD': lambda named_variables, config: Sgd(),
  'Adam': _adam,
  'AdamW': _adam,
  'Momentum': lambda named_variables, config: Momentum(
    named_variables, config.momentum, config.nesterov, config.weight_decay
  ),
}


def check(config: configuration.TrainingConfig) -> None:
  """Raises ValueError if the optimizer of a configuration is not known."""
  if config.optimizer not in BY_NAME:
    raise ValueError(
      f'--optimizer={config.optimizer:.100} must be one of '
      + ', '.join(BY_NAME)
    )


class MovingAverage:
  """Exponential moving averages of variables (Polyak and Juditsky 1992).

  Args:
    named_variables: the variables to average, by name.
    decay: share of the average that each step keeps, below 1.
  """

  def __init__(
    self, named_variables: Mapping[str, tf.Variable], decay: float
  ) -> None:
    self._variables = dict(named_variables)
    self._decay = decay
    self._updates = tf.Variable(0, trainable=False, dtype=tf.int64)
    self._averages = {
      name: tf.Variable(variable, trainable=False)
      for name, variable in self._variables.items()
    }

  @property
  def named_averages(self) -> dict[str, tf.Variable]:
    """The averages, by the name of the variable."""
    return dict(self._averages)

  @property
  def named_slots(self) -> dict[str, tf.Variable]:
    """The variables themselves, and the number of updates.

    A checkpoint holds the averages under the names of the variables.
    """
    return {
      'average_updates': self._updates,
      **{
        f'{name}/not_averaged': variable
        for name, variable in self._variables.items()
      },
    }

  def update(self) -> None:
    """Updates the averages after a step; to be traced."""
    count = tf.cast(self._updates.assign_add(1), tf.float32)
    decay = tf.minimum(self._decay, (1 + count) / (_AVERAGE_WARMUP + count))
    for name, average in self._averages.items():
      average.assign_sub((1 - decay) * (average - self._variables[name]))
