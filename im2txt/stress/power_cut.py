# SPDX-License-Identifier: Apache-2.0
"""Cuts the power while checkpoints are saved, and checks that none is lost.

  python -m im2txt.stress.power_cut [--rounds=20]

In a round, small checkpoints are saved in quick succession on an ext4 file
system whose power is cut at a random moment. After the restart the newest
checkpoint must be complete, all of one step, and not older than the last save
that was reported. Power cuts of whole programs are in `faults`.

It needs Linux, root, loop devices and mkfs.ext4; without them it says why it
cannot run. The status is 1 if anything was lost.
"""

import argparse
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import os
import queue
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any
from typing import Self

import numpy as np

from im2txt import checkpoints
from im2txt.runtime import files
from im2txt.stress import disk as disks

_ROOT = os.path.dirname(
  os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
)
# Size of a checkpoint: small, but large enough that a power cut often hits the
# middle of a save. And a file like those beside checkpoints.
_FLOATS, _VARIABLES = 1 << 16, 8
_JSON = 'progress.json'
# Longest time that any step here may take.
_SECONDS = 300


class LostError(ValueError):
  """Data were lost; the message says which."""


# The process that saves ------------------------------------------------------


def _values(step: int) -> dict[str, np.ndarray]:
  return {
    f'variable_{i}': np.full([_FLOATS], step, np.float32)
    for i in range(_VARIABLES)
  }


def check(directory: str) -> int:
  """Returns the step of the complete checkpoint of `save_on`, 0 if none.

  Raises:
    LostError: a file is damaged, or the files are not of one step.
  """
  path = os.path.join(directory, _JSON)
  try:
    saved = files.read_json(path)['step'] if os.path.exists(path) else 0
    checkpoint = checkpoints.Checkpoint(directory, training_state=True)
  except checkpoints.NoCheckpointYetError:
    return saved
  except (OSError, ValueError) as error:
    raise LostError(str(error)) from error
  step = checkpoint.global_step
  if checkpoint.passed_over:
    raise LostError(f'damaged: {", ".join(checkpoint.passed_over)}')
  state = checkpoints.Checkpoint(
    checkpoints.training_state_prefix(checkpoint.prefix)
  )
  for part in checkpoint, state:
    for name in part.shapes:
      if not (part.get(name) == step).all():
        raise LostError(f'{part.prefix} has {name} of another step')
  # The file is written after the checkpoint.
  if saved > step:
    raise LostError(f'the checkpoint is of step {step}, {path} of {saved}')
  return saved


def save_on(directory: str, report: Callable[[int], object]) -> None:
  """Saves step after step until the disk fails.

  Args:
    directory: directory, perhaps with the files of an earlier call.
    report: called with each step that was saved.
  """
  step = check(directory)
  manager = checkpoints.CheckpointManager(directory, max_to_keep=3)
  with contextlib.suppress(checkpoints.NoCheckpointYetError):
    manager.take_over(checkpoints.resolve(directory), [])
  with contextlib.suppress(OSError):
    while True:
      step += 1
      manager.save(
        {**_values(step), 'global_step': np.int64(step)}, _values(step)
      )
      files.write_json(os.path.join(directory, _JSON), {'step': step})
      report(step)


def _serve(directory: str) -> None:
  """Carries out the commands on standard input, and reports their results."""
  for line in sys.stdin:
    try:
      if line == 'save\n':
        save_on(directory, lambda step: print('saved', step, flush=True))
        print('failed', flush=True)
      else:
        print('found', check(directory), flush=True)
    except LostError as error:
      print('lost', error, flush=True)


class _Process:
  """A process whose lines are read as they come; a context manager.

  Args:
    command: arguments of `subprocess.Popen`.
  """

  def __init__(self, command: dict[str, Any]) -> None:
    self._process: subprocess.Popen[str] = subprocess.Popen(
      **{
        **command,
        'stdin': subprocess.PIPE,
        'stdout': subprocess.PIPE,
        'stderr': subprocess.STDOUT,
        'text': True,
      }
    )
    self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=self._read, daemon=True).start()

  def _read(self) -> None:
    assert self._process.stdout is not None  # It is a pipe.
    for line in self._process.stdout:
      self._lines.put(line.rstrip('\n'))
    self._lines.put(None)

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    self._process.kill()
    self._process.wait()

  def tell(self, line: str) -> None:
    """Writes a line to its standard input."""
    assert self._process.stdin is not None  # It is a pipe.
    self._process.stdin.write(line + '\n')
    self._process.stdin.flush()

  def read(self, pattern: str) -> Iterator[re.Match[str]]:
    """Yields the matches in its lines, until the process ends."""
    while (line := self._lines.get(timeout=_SECONDS)) is not None:
      if match := re.search(pattern, line):
        yield match


# The rounds ------------------------------------------------------------------


def _command(*args: str) -> dict[str, Any]:
  """Returns arguments of `subprocess.Popen` to run a module of im2txt."""
  return {
    'args': [sys.executable, '-m', *args],
    'cwd': _ROOT,
    'env': {**os.environ, 'PYTHONPATH': os.pathsep.join([_ROOT, *sys.path])},
  }


def saver_command(directory: str) -> dict[str, Any]:
  """Returns arguments of `subprocess.Popen` for the process that saves."""
  return _command('im2txt.stress.power_cut', f'--saver={directory}')


def _cut(
  disk: disks.Disk, saves: Iterator[int], rng: random.Random
) -> tuple[int, float]:
  """Cuts the power after some saves.

  Args:
    disk: the disk.
    saves: the saved steps, as they come.
    rng: source of the moment.

  Returns:
    (last step that was reported by then, seconds between this report and the
    power cut).

  Raises:
    LostError: the process stopped saving.
  """
  step, times = 0, [time.monotonic()]
  for _ in range(rng.randint(2, 6)):
    saved = next(saves, None)
    if saved is None:
      raise LostError('the process that saves has ended')
    step = saved
    times.append(time.monotonic())
  # The first save takes longer than the others.
  wait = rng.uniform(0, 1.2) * (times[-1] - times[1]) / (len(times) - 2)
  time.sleep(wait)
  disk.cut_power()
  return step, wait


def cut_savers(
  directory: str,
  rounds: int,
  seed: int = 0,
  command: Callable[[str], dict[str, Any]] | None = None,
  log: Callable[[str], object] = print,
) -> None:
  """Cuts the power of a process that saves small checkpoints.

  Args:
    directory: directory for the disk.
    rounds: number of power cuts.
    seed: seed of the moments.
    command: returns the arguments of `subprocess.Popen` for a process that
      saves into a directory; None: `saver_command`.
    log: called with a line per round.

  Raises:
    LostError: a round lost data; the message is its line.
    disk.UnavailableError: the power cannot be cut on this machine.
  """
  rng = random.Random(seed)
  with (
    disks.Disk(directory, 64) as disk,
    _Process((command or saver_command)(disk.path)) as saver,
  ):
    lines = saver.read(r'^(saved|failed|found|lost) ?(.*)')

    def saves() -> Iterator[int]:
      for match in lines:
        if match[1] == 'lost':
          raise LostError(match[0])
        if match[1] != 'saved':
          return
        yield int(match[2])

    for number in range(1, rounds + 1):
      saver.tell('save')
      steps = saves()
      last, wait = _cut(disk, steps, rng)
      last = max([last, *steps])
      disk.restart()
      saver.tell('check')
      answer = next(lines)
      line = (
        f'round {number}: power cut {1000 * wait:.1f} ms after a save, '
        f'step {last} saved; {answer[0]}'
      )
      if answer[1] != 'found' or int(answer[2]) < last:
        raise LostError(line)
      log(line)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the program and returns its exit status."""
  parser = argparse.ArgumentParser(
    description='Cuts the power while checkpoints are saved.'
  )
  parser.add_argument(
    '--rounds',
    type=int,
    default=20,
    metavar='N',
    help='number of power cuts (default: 20)',
  )
  parser.add_argument(
    '--seed',
    type=int,
    default=0,
    help='seed of the moments of the cuts (default: 0)',
  )
  parser.add_argument('--saver', metavar='DIR', help=argparse.SUPPRESS)
  args = parser.parse_args(argv)
  if args.saver:
    _serve(args.saver)
    return 0
  try:
    with tempfile.TemporaryDirectory(prefix='im2txt_power_cut_') as path:
      cut_savers(path, args.rounds, args.seed)
    print(f'{args.rounds} power cuts: nothing lost')
  except LostError as error:
    print(f'LOST: {error}')
    return 1
  except disks.UnavailableError as error:
    print(f'skipped: the power cannot be cut here: {error}')
  return 0


if __name__ == '__main__':
  sys.exit(main())
