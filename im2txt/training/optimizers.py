# SPDX-License-Identifier: Apache-2.0
"""How gradients change the variables: optimizers by name, and averages.

What an optimizer remembers from step to step is not part of a checkpoint, whose
names are those of 2016. `train` saves it in a file of its own beside it.
"""

import tensorflow as tf

# The average forgets faster in the first steps, which start from random values.
_AVERAGE_WARMUP = 10


class Sgd:
  """Stochastic gradient descent, the optimizer of 2016 and of the paper.

  Args:
    named_variables: dict from name to the `tf.Variable`s that are trained.
    weight_decay: not used.
  """

  def __init__(self, named_variables=None, weight_decay=0.0):
    del named_variables, weight_decay

  @property
  def named_slots(self):
    """Dict from name to variable: what is remembered from step to step."""
    return {}

  def apply(self, named_gradients, scale):
    """Changes the variables; to be traced.

    Args:
      named_gradients: list of (name, variable, gradient, learning rate); a
        gradient may be `tf.IndexedSlices`, and a rate is a float32 scalar.
      scale: float32 scalar that multiplies the gradients.
    """
    for _, variable, gradient, learning_rate in named_gradients:
      # No pass over the gradients, which are as large as the variables.
      rate = learning_rate * scale
      if isinstance(gradient, tf.IndexedSlices):
        variable.scatter_sub(
          tf.IndexedSlices(rate * gradient.values, gradient.indices)
        )
      else:
        tf.raw_ops.ResourceApplyGradientDescent(
          var=variable.handle, alpha=rate, delta=gradient
        )


class Adam:
  """Adam (Kingma and Ba 2015), with decoupled weight decay (Loshchilov 2019).

  Args:
    named_variables: dict from name to the `tf.Variable`s that are trained.
    weight_decay: share of a matrix that each step takes away, times the
      learning rate. Biases do not decay.
  """

  _BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8

  def __init__(self, named_variables, weight_decay=0.0):
    self._weight_decay = weight_decay
    self._updates = tf.Variable(0, trainable=False, dtype=tf.int64)
    self._moments = {
      name: tuple(
        tf.Variable(tf.zeros_like(variable), trainable=False) for _ in range(2)
      )
      for name, variable in named_variables.items()
    }

  @property
  def named_slots(self):
    """Dict from name to variable: both moments and the number of updates."""
    slots = {'adam_updates': self._updates}
    for name, (first, second) in self._moments.items():
      slots[f'{name}/Adam'] = first
      slots[f'{name}/Adam_1'] = second
    return slots

  def apply(self, named_gradients, scale):
    """Changes the variables; see `Sgd.apply`."""
    self._updates.assign_add(1)
    count = tf.cast(self._updates, tf.float32)
    for name, variable, gradient, learning_rate in named_gradients:
      if self._weight_decay and variable.shape.rank > 1:
        variable.assign_sub(learning_rate * self._weight_decay * variable)
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


BY_NAME = {'SGD': Sgd, 'Adam': Adam}


def check(config):
  """Raises ValueError if a configuration names no known optimizer."""
  if config.optimizer not in BY_NAME:
    raise ValueError(
      f'--optimizer={config.optimizer:.100} must be one of '
      + ', '.join(BY_NAME)
    )


class MovingAverage:
  """Exponential moving averages of variables (Polyak and Juditsky 1992).

  Args:
    named_variables: dict from name to the `tf.Variable`s that are trained.
    decay: share of the average that a step keeps, below 1.
  """

  def __init__(self, named_variables, decay):
    self._variables = dict(named_variables)
    self._decay = decay
    self._updates = tf.Variable(0, trainable=False, dtype=tf.int64)
    self._averages = {
      name: tf.Variable(variable, trainable=False)
      for name, variable in self._variables.items()
    }

  @property
  def named_averages(self):
    """Dict from the name of a variable to the variable of its average."""
    return dict(self._averages)

  @property
  def named_slots(self):
    """Dict from name to variable: the variables themselves, and the count.

    A checkpoint holds the averages in their place.
    """
    return {
      'average_updates': self._updates,
      **{
        f'{name}/not_averaged': variable
        for name, variable in self._variables.items()
      },
    }

  def update(self):
    """Takes the variables after a step; to be traced."""
    count = tf.cast(self._updates.assign_add(1), tf.float32)
    decay = tf.minimum(self._decay, (1 + count) / (_AVERAGE_WARMUP + count))
    for name, average in self._averages.items():
      average.assign_sub((1 - decay) * (average - self._variables[name]))
