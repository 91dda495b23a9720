# SPDX-License-Identifier: Apache-2.0
"""Learning-rate schedules by name. They multiply the initial rate."""

from collections.abc import Callable
import math

from im2txt import configuration

# The cosine schedule ends at this share of the initial learning rate.
_COSINE_FLOOR = 0.01


def staircase(
  config: configuration.TrainingConfig, batch_size: int, step: int
) -> float:
  """The schedule of 2016: decays the rate after a fixed number of epochs.

  Args:
    config: decay factor and epochs per decay.
    batch_size: captions per batch.
    step: counted from `schedule_start_step`.

  Returns:
    The factor of the initial rate.
  """
  batches_per_epoch = config.num_examples_per_epoch / batch_size
  decay_steps = int(batches_per_epoch * config.num_epochs_per_decay)
  if config.learning_rate_decay_factor <= 0 or decay_steps <= 0:
    return 1.0
  return config.learning_rate_decay_factor ** (step // decay_steps)


def cosine(
  config: configuration.TrainingConfig, batch_size: int, step: int
) -> float:
  """Half a cosine, down to 1 % (Loshchilov and Hutter 2017, equation 5).

  Args and returns: as `staircase`.
  """
  del batch_size
  progress = min(step / config.cosine_decay_steps, 1.0)
  return max((1 + math.cos(math.pi * progress)) / 2, _COSINE_FLOOR)


BY_NAME: dict[str, Callable[[configuration.TrainingConfig, int, int], float]]
BY_NAME = {'staircase': staircase, 'cosine': cosine}


def check(config: configuration.TrainingConfig) -> None:
  """Raises ValueError if the schedule of a configuration is not known."""
  if config.learning_rate_schedule not in BY_NAME:
    raise ValueError(
      f'--learning_rate_schedule={config.learning_rate_schedule:.100} must '
      f'be one of {", ".join(BY_NAME)}'
    )


def multiplier(
  config: configuration.TrainingConfig, batch_size: int, step: int
) -> float:
  """Returns the factor of the initial rate at a step, warmup included.

  Args:
    config: names the schedule.
    batch_size: captions per batch.
    step: of training.
  """
  step = max(step - config.schedule_start_step, 0)
  warmup = 1.0
  if step < config.warmup_steps:
    warmup = (step + 1) / config.warmup_steps
  return warmup * BY_NAME[config.learning_rate_schedule](
    config, batch_size, step
  )


def learning_rates(
  config: configuration.TrainingConfig,
  batch_size: int,
  step: int,
  train_inception: bool = False,
  train_inception_from: str | None = None,
) -> tuple[float, float]:
  """Returns the learning rates of the decoder and of Inception.

  Args:
    config: initial rates and schedule.
    batch_size: captions per batch.
    step: of training.
    train_inception: whether Inception v3 is trained. If all of it is, the rate
      is constant, as in 2016.
    train_inception_from: the first block that is trained; None trains all.
  """
  if train_inception and not train_inception_from:
    rate = config.train_inception_learning_rate
    return rate, rate
  factor = multiplier(config, batch_size, step)
  rate = config.initial_learning_rate * factor
  return rate, (
    config.train_inception_learning_rate * factor if train_inception else rate
  )
