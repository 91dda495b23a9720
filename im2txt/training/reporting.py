# SPDX-License-Identifier: Apache-2.0
"""Losses, waiting times, summaries and stop signals of a training run."""

from collections.abc import Iterable
from collections.abc import Iterator
import math
import os
import signal
import time
import types
from typing import TypeVar

import tensorflow as tf

from im2txt import show_and_tell_model

# Share of the smoothed loss that each step keeps.
_SMOOTHING = 0.99

_Batch = TypeVar('_Batch')


class Losses:
  """The losses of the steps, read only when they are needed.

  Reading a loss waits until its step has ended. Until it is read, the next
  batch is prepared at the same time.

  Args:
    train_dir: directory of the checkpoints, for the error message.

  Attributes:
    last: the loss of the last step that was read; NaN before the first.
    smoothed: exponential moving average of the losses, unbiased from its first
      value on; NaN before the first.
  """

  def __init__(self, train_dir: str) -> None:
    self._train_dir = train_dir
    self.last = math.nan
    self.smoothed = math.nan
    self._unread: list[tuple[int, tf.Tensor]] = []
    self._sum = 0.0
    self._weight = 0.0

  def add(self, step: int, loss: tf.Tensor) -> None:
    """Takes the loss of a step, a float32 scalar."""
    self._unread.append((step, loss))

  def read(self) -> None:
    """Reads the losses of all steps up to now.

    Raises:
      ValueError: a loss is not finite.
    """
    for step, loss in self._unread:
      self.last = float(loss)
      if not math.isfinite(self.last):
        raise ValueError(
          f'the loss is {self.last} at step {step}: training diverged; '
          'resume from the last checkpoint in --train_dir='
          f'{self._train_dir} with a lower --initial_learning_rate or '
          '--clip_gradients'
        )
      self._sum = _SMOOTHING * self._sum + (1 - _SMOOTHING) * self.last
      self._weight = _SMOOTHING * self._weight + (1 - _SMOOTHING)
      self.smoothed = self._sum / self._weight
    self._unread.clear()


class TimedBatches(Iterator[_Batch]):
  """Iterates over batches and measures how long training waits for them.

  Attributes:
    seconds: total waiting time.
  """

  def __init__(self, batches: Iterable[_Batch]) -> None:
    self._batches = iter(batches)
    self.seconds = 0.0

  def __next__(self) -> _Batch:
    start = time.time()
    batch = next(self._batches)
    self.seconds += time.time() - start
    return batch


class StopSignal:
  """Records SIGINT and SIGTERM, so that the current step can end.

  Attributes:
    received: number of the signal; None until one comes.
  """

  def __init__(self) -> None:
    self.received: int | None = None
    for number in (signal.SIGINT, signal.SIGTERM):
      signal.signal(number, self._on_signal)

  def _on_signal(
    self, number: int, unused_frame: types.FrameType | None
  ) -> None:
    if self.received:
      # An exception raised inside a call of TensorFlow can crash it.
      os._exit(128 + number)
    self.received = number
    # The signal may have interrupted logging or print, and neither can be
    # entered twice.
    os.write(
      2,
      (
        f'{signal.Signals(number).name}: finishing this step and saving (once '
        'more to quit without saving)\n'
      ).encode(),
    )


def duration(seconds: float) -> str:
  """Formats seconds as 1h02m, 3m20s or 45s."""
  minutes, seconds = divmod(int(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f'{hours}h{minutes:02}m'
  return f'{minutes}m{seconds:02}s' if minutes else f'{seconds}s'


def write_summaries(
  model: show_and_tell_model.ShowAndTellModel, images: tf.Tensor | None
) -> None:
  """Writes histograms of the parameters and, if given, some images.

  Args:
    model: its trained variables are written.
    images: float32 [batch, height, width, 3] in [-1, 1]; None for none.
  """
  for name, variable in model.trained_variables.items():
    tf.summary.histogram('parameters/' + name, variable)
  if images is not None:
    tf.summary.image('images/distorted', (images + 1) / 2, max_outputs=3)
