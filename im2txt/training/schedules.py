# SPDX-License-Identifier: Apache-2.0
"""Learning rates: what multiplies the initial rate at each step, by name."""

import math

# Share of the initial learning rate at the end of the cosine schedule.
_COSINE_FLOOR = 0.01


def staircase(config, batch_size, step):
  """The schedule of 2016: the rate is multiplied every so many epochs.

  Args:
    config: a `configuration.TrainingConfig`.
    batch_size: captions per batch.
    step: int, counted from `schedule_start_step`.

  Returns:
    float, what multiplies the initial rate.
  """
  batches_per_epoch = config.num_examples_per_epoch / batch_size
  decay_steps = int(batches_per_epoch * config.num_epochs_per_decay)
  if config.learning_rate_decay_factor <= 0 or decay_steps <= 0:
    return 1.0
  return config.learning_rate_decay_factor ** (step // decay_steps)


def cosine(config, batch_size, step):
  """Half a cosine down to a hundredth (Loshchilov and Hutter 2017, equation 5).

  Args and returns: as `staircase`.
  """
  del batch_size
  progress = min(step / config.cosine_decay_steps, 1.0)
  return max((1 + math.cos(math.pi * progress)) / 2, _COSINE_FLOOR)


BY_NAME = {'staircase': staircase, 'cosine': cosine}


def check(config):
  """Raises ValueError if a configuration names no known schedule."""
  if config.learning_rate_schedule not in BY_NAME:
    raise ValueError(
      f'--learning_rate_schedule={config.learning_rate_schedule:.100} must '
      f'be one of {", ".join(BY_NAME)}'
    )


def multiplier(config, batch_size, step):
  """Returns what multiplies the initial rate at a step, a float.

  Args:
    config: a `configuration.TrainingConfig`.
    batch_size: captions per batch.
    step: int, of training.
  """
  step = max(step - config.schedule_start_step, 0)
  warmup = 1.0
  if step < config.warmup_steps:
    warmup = (step + 1) / config.warmup_steps
  return warmup * BY_NAME[config.learning_rate_schedule](
    config, batch_size, step
  )


def learning_rates(
  config, batch_size, step, train_inception=False, train_inception_from=None
):
  """Returns the learning rates of the decoder and of Inception, two floats.

  Args:
    config: a `configuration.TrainingConfig`.
    batch_size: captions per batch.
    step: int, of training.
    train_inception: whether Inception v3 is trained. All of it is trained at
      one constant rate, as in 2016.
    train_inception_from: the first block that is trained; None: all.
  """
  if train_inception and not train_inception_from:
    rate = config.train_inception_learning_rate
    return rate, rate
  factor = multiplier(config, batch_size, step)
  rate = config.initial_learning_rate * factor
  return rate, (
    config.train_inception_learning_rate * factor if train_inception else rate
  )
