# SPDX-License-Identifier: Apache-2.0
"""What a long job tells while it runs: log lines, and how far it is."""

import datetime
import sys
import time

import tqdm

# Seconds between two lines of progress in a log.
_LOG_SECONDS = 10


def log(message):
  """Prints one line with the time, at once."""
  print(f'{datetime.datetime.now()}: {message}', flush=True)


class Progress:
  """A progress bar on a terminal, a line now and then in a log.

  Both show the rate and the time left, on standard error.
  """

  def __init__(self, title, total, unit, done=0, scale=False):
    """Starts the clock.

    Args:
      title: str, what is being done.
      total: int, units in all; None if not known.
      unit: str, name of the units.
      done: int, units done in an earlier run, left out of the rate.
      scale: bool, whether to write large numbers with k, M, G.
    """
    self._title = title
    # tqdm puts the name just after the number, which is right after 1.5M only.
    self._line = dict(
      total=total,
      unit=unit if scale else f' {unit}',
      unit_scale=scale,
      initial=done,
    )
    self._done = done
    self._start = self._last = time.monotonic()
    self._bar = None
    if sys.stderr.isatty():
      self._bar = tqdm.tqdm(desc=title, dynamic_ncols=True, **self._line)

  def __enter__(self):
    return self

  def __exit__(self, *_):
    if self._bar:
      self._bar.close()

  def update(self, units):
    """Counts `units` more."""
    self._done += units
    if self._bar:
      self._bar.update(units)
      return
    now = time.monotonic()
    if now - self._last >= _LOG_SECONDS:
      self._last = now
      # ncols=0 leaves the bar itself away.
      print(
        tqdm.tqdm.format_meter(
          self._done,
          elapsed=now - self._start,
          ncols=0,
          prefix=self._title,
          **self._line,
        ),
        file=sys.stderr,
        flush=True,
      )
