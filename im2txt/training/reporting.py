# SPDX-License-Identifier: Apache-2.0
"""Losses, waiting times, summaries and stop signals of a training run."""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import math
import os
import signal
import time
import types
from typing import Any
from typing import TypeVar

from absl import logging
import tensorflow as tf

from im2txt import show_and_tell_model

# Share of the smoothed loss that each step keeps.
_SMOOTHING = 0.99

# What only some steps report -> its tag in TensorBoard.
_OPTIONAL_TAGS = {
  'smoothing_loss': 'losses/smoothing_loss',
  'sampling_probability': 'sampling_probability',
  'greedy_reward': 'greedy_reward',
}

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


class StepLog:
  """Writes how training goes: lines of the log, and scalars for TensorBoard.

  The rate in a line is that of the steps since the line before.

  Args:
    writer: writes TensorBoard events; None to measure and write nothing.
    losses: losses of the steps.
    batches: knows how long training waited for input.
    captions_per_step: captions in the batches of a step.
    last_step: the step at which training ends.
  """

  def __init__(
    self,
    writer: tf.summary.SummaryWriter | None,
    losses: Losses,
    batches: TimedBatches[Any],
    captions_per_step: int,
    last_step: int,
  ) -> None:
    self._writer = writer
    self._losses = losses
    self._batches = batches
    self._captions_per_step = captions_per_step
    self._last_step = last_step
    # There is no rate before `start`.
    self._step, self._time = last_step, time.time()

  def start(self, step: int) -> None:
    """Measures from the end of this step on."""
    self._losses.read()
    self._step, self._time = step, time.time()
    self._batches.seconds = 0.0

  def write(
    self, step: int, scalars: Mapping[str, tf.Tensor], learning_rate: float
  ) -> None:
    """Writes the state of training, and measures from here on.

    Args:
      step: number of the step.
      scalars: what the step returned, see `steps.StepFn`.
      learning_rate: of the step.

    Raises:
      ValueError: see `Losses.read`.
    """
    self._losses.read()
    if self._writer:
      self._write(self._writer, step, scalars, learning_rate)
    self.start(step)

  def _write(
    self,
    writer: tf.summary.SummaryWriter,
    step: int,
    scalars: Mapping[str, tf.Tensor],
    learning_rate: float,
  ) -> None:
    losses = self._losses
    total_loss = float(scalars['total_loss'])
    values: dict[str, Any] = {
      'losses/batch_loss': scalars['batch_loss'],
      'losses/total_loss': total_loss,
      'losses/smoothed_loss': losses.smoothed,
      'learning_rate': learning_rate,
      'global_norm': scalars['global_norm'],
    }
    details = f'smoothed {losses.smoothed:.4f}, '
    if total_loss != losses.last:
      details += f'weight decay {total_loss - losses.last:.4f}, '
    steps = step - self._step
    if steps > 0:
      passed = max(time.time() - self._time, 1e-9)
      seconds = passed / steps
      rate = self._captions_per_step / seconds
      waiting = self._batches.seconds / passed
      left = duration(seconds * (self._last_step - step))
      details += (
        f'{seconds:.3f} sec/step, {rate:.1f} examples/s, {waiting:.0%} waiting '
        f'for input, ETA {left}, '
      )
      values['examples_per_sec'] = rate
      values['waiting_for_input'] = waiting
    logging.info(
      'global step %d: loss = %.4f (%slr %g)',
      step,
      losses.last,
      details,
      learning_rate,
    )
    for name, tag in _OPTIONAL_TAGS.items():
      if name in scalars:
        values[tag] = scalars[name]
    with writer.as_default(step=step):
      for tag, value in values.items():
        tf.summary.scalar(tag, value)


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
