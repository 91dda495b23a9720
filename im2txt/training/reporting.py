# SPDX-License-Identifier: Apache-2.0
"""What training reports while it runs: losses, rates, summaries, signals."""

import math
import os
import signal
import time

import tensorflow as tf

# The smoothed loss forgets at this rate per step.
_SMOOTHING = 0.99


class Losses:
  """The losses of the steps, read when they are needed.

  Reading one waits for its step; left alone, the next can be prepared.

  Args:
    train_dir: directory of the checkpoints, for the error message.

  Attributes:
    last: float, the loss of the last step that was read, or None.
    smoothed: float, exponential moving average, unbiased from its first value
      on.
  """

  def __init__(self, train_dir):
    self._train_dir = train_dir
    self.last = None
    self.smoothed = None
    self._unread = []
    self._sum = 0.0
    self._weight = 0.0

  def add(self, step, loss):
    """Takes the loss of a step, a scalar tensor."""
    self._unread.append((step, loss))

  def read(self):
    """Reads the losses of all steps up to now.

    Raises:
      ValueError: one is not finite.
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


class Waiting:
  """Iterates over batches and adds up the seconds that it waits for them."""

  def __init__(self, batches):
    self._batches = iter(batches)
    self.seconds = 0.0

  def __iter__(self):
    return self

  def __next__(self):
    start = time.time()
    batch = next(self._batches)
    self.seconds += time.time() - start
    return batch


class StopSignal:
  """Remembers SIGINT and SIGTERM until the step under way is done."""

  def __init__(self):
    self.received = None
    for number in (signal.SIGINT, signal.SIGTERM):
      signal.signal(number, self._on_signal)

  def _on_signal(self, number, unused_frame):
    if self.received:
      # At once: an exception out of the midst of TensorFlow's own calls can
      # crash it.
      os._exit(128 + number)
    self.received = number
    # Not through logging or print: the signal may have come in the midst of
    # one, and neither can be entered twice.
    os.write(
      2,
      (
        f'{signal.Signals(number).name}: finishing this step and saving (once '
        'more to leave without)\n'
      ).encode(),
    )


def duration(seconds):
  """Formats seconds as 1h02m, 3m20s or 45s."""
  minutes, seconds = divmod(int(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f'{hours}h{minutes:02}m'
  return f'{minutes}m{seconds:02}s' if minutes else f'{seconds}s'


def write_summaries(model, images):
  """Writes parameter histograms and, if there are any, sample images."""
  for name, variable in model.trained_variables.items():
    tf.summary.histogram('parameters/' + name, variable)
  if images is not None:
    tf.summary.image('images/distorted', (images + 1) / 2, max_outputs=3)
