# SPDX-License-Identifier: Apache-2.0
"""Workers that train together: do they train as one, and what if one is lost?

Every worker is a process on this machine.
"""

from collections.abc import Sequence
import re
import signal
import time
from typing import NamedTuple

import numpy as np

from im2txt import checkpoints
from im2txt.stress import programs

# Of the logged losses.
_STEP = re.compile(r'global step (\d+): loss = (\S+)')
# The fault comes after this step.
_DISTURBED_STEP = 3
_LOOK_SECONDS = 0.02


class Fault(NamedTuple):
  """What happens to one of the workers.

  Attributes:
    name: for people.
    victim: index of the worker.
    number: the signal that it gets.
  """

  name: str
  victim: int
  number: int


FAULTS = (
  Fault('a worker is killed', 1, signal.SIGKILL),
  Fault('the chief is killed', 0, signal.SIGKILL),
  Fault('a worker stalls', 1, signal.SIGSTOP),
  Fault('the chief stalls', 0, signal.SIGSTOP),
  Fault('a worker gets SIGTERM', 1, signal.SIGTERM),
  Fault('the chief gets SIGTERM', 0, signal.SIGTERM),
)


class Outcome(NamedTuple):
  """How workers ended after a fault.

  Attributes:
    statuses: exit statuses of the workers that were not disturbed, and of the
      victim of a SIGTERM; None of one that hung.
    seconds: from the fault to the end of the last of these.
    texts: their output.
  """

  statuses: list[int | None]
  seconds: float
  texts: list[str]


def losses(text: str) -> dict[int, float]:
  """Returns the logged losses by step."""
  return {int(step): float(loss) for step, loss in _STEP.findall(text)}


def disturb(
  workers: Sequence[programs.Program],
  fault: Fault,
  seconds: float,
  start_seconds: float,
) -> Outcome:
  """Disturbs workers while they train.

  Args:
    workers: the first is the chief.
    fault: what happens.
    seconds: a worker that runs longer after the fault hangs.
    start_seconds: until the workers train.

  Raises:
    RuntimeError: a worker ended before the fault.
  """
  end = time.monotonic() + start_seconds
  while max(losses(workers[0].text()), default=0) < _DISTURBED_STEP:
    ended = [worker for worker in workers if not worker.is_running()]
    if ended or time.monotonic() > end:
      raise RuntimeError(
        f'no step to disturb: {(ended or workers)[0].text()[-2000:]}'
      )
    time.sleep(_LOOK_SECONDS)
  start = time.monotonic()
  victim = workers[fault.victim]
  victim.send(fault.number)
  ending = [
    worker
    for worker in workers
    if worker is not victim or fault.number == signal.SIGTERM
  ]
  statuses = [worker.wait(seconds) for worker in ending]
  taken = time.monotonic() - start
  victim.kill_all()
  victim.wait(seconds)
  return Outcome(statuses, taken, [worker.text() for worker in ending])


def judge(fault: Fault, outcome: Outcome) -> tuple[str, str]:
  """Returns (what the user reads, what is wrong with it).

  Args:
    fault: what happened.
    outcome: how the workers ended.
  """
  if fault.number == signal.SIGTERM:
    wanted = 128 + signal.SIGTERM
    chief = outcome.texts[0]
    line = f'all end with status {wanted}'
    if set(outcome.statuses) != {wanted}:
      return line, f'statuses {outcome.statuses}: {chief[-1000:]}'
    saved = re.findall(r'saved \S+-(\d+)\n', chief)
    if int(saved[-1]) != max(losses(chief)):
      return line, f'the last step was not saved: {chief[-1000:]}'
    return line, ''
  line = ''
  for status, text in zip(outcome.statuses, outcome.texts):
    lines = [line for line in text.splitlines() if line.startswith('error: ')]
    line = (lines or [''])[0]
    if (
      status != 1
      or len(lines) != 1
      or 'Traceback' in text
      or f'lost worker {fault.victim}' not in line
    ):
      return line, f'status {status}: {text[-1000:]}'
  return line, ''


def largest_difference(prefix: str, other: str) -> float:
  """Returns the largest difference of any variable of two checkpoints.

  Variables with large values count by their relative difference.
  """
  one, two = (checkpoints.Checkpoint(path) for path in (prefix, other))
  if set(one.shapes) != set(two.shapes):
    raise ValueError(f'{prefix} and {other} have other variables')
  return max(
    float(
      np.max(
        np.abs(one.get(name).astype(np.float64) - two.get(name))
        / np.maximum(np.abs(two.get(name)), 1)
      )
    )
    for name in one.shapes
  )
