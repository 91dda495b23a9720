# SPDX-License-Identifier: Apache-2.0
"""Log lines and progress bars for long jobs."""

import datetime
import sys
import time
from typing import Self
from typing import TypedDict

import tqdm

# Seconds between two lines of progress in a log.
_LOG_SECONDS = 10


class _Meter(TypedDict):
  """Arguments of both tqdm's bar and its `format_meter`."""

  total: int | None
  unit: str
  unit_scale: bool
  initial: int


def log(message: str) -> None:
  """Prints one line with the time, at once."""
  print(f'{datetime.datetime.now()}: {message}', flush=True)


class Progress:
  """A progress bar on a terminal, or a line every few seconds in a log.

  Both show the rate and the time left, on standard error.
  """

  def __init__(
    self,
    title: str,
    total: int | None,
    unit: str,
    done: int = 0,
    scale: bool = False,
  ) -> None:
    """Starts the clock.

    Args:
      title: name of the job.
      total: number of all units; None if not known.
      unit: name of the units.
      done: units done in an earlier run, left out of the rate.
      scale: whether to write large numbers with k, M, G.
    """
    self._title = title
    # tqdm writes the unit without a space, which only suits numbers like 1.5M.
    self._line = _Meter(
      total=total,
      unit=unit if scale else f' {unit}',
      unit_scale=scale,
      initial=done,
    )
    self._done = done
    self._start = self._last = time.monotonic()
    self._bar: 'tqdm.tqdm[object] | None' = None
    if sys.stderr.isatty():
      self._bar = tqdm.tqdm(desc=title, dynamic_ncols=True, **self._line)

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    if self._bar:
      self._bar.close()

  def update(self, units: int) -> None:
    """Adds to the number of units done."""
    self._done += units
    if self._bar:
      self._bar.update(units)
      return
    now = time.monotonic()
    if now - self._last >= _LOG_SECONDS:
      self._last = now
      # ncols=0 leaves out the bar itself.
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
