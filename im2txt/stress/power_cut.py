# SPDX-License-Identifier: Apache-2.0
"""Cuts the power while checkpoints are saved, and sees what is lost.

  python -m im2txt.stress.power_cut [--rounds=20]

In a round small checkpoints are saved in quick succession on an ext4 file
system of their own, whose power is cut at a random moment. After the restart
the newest checkpoint must be whole, all of one step, and not older than the
last save that was reported. Power cuts of whole programs are in `faults`.

Needs Linux, root, loop devices and mkfs.ext4; elsewhere it says why not. Ends
with status 1 if anything was lost.
"""

import argparse
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

import numpy as np

from im2txt import checkpoints
from im2txt.runtime import files
from im2txt.stress import disk as disks

_ROOT = os.path.dirname(
  os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
)
# Of a small checkpoint, so that much of a save is neither its begin nor its
# end; and a file as those beside checkpoints are.
_FLOATS, _VARIABLES = 1 << 16, 8
_JSON = 'progress.json'
# The longest that anything here may take.
_SECONDS = 300


class LostError(ValueError):
  """Something was lost; the message says what."""


# The process that saves ------------------------------------------------------


def _values(step):
  return {
    f'variable_{i}': np.full([_FLOATS], step, np.float32)
    for i in range(_VARIABLES)
  }


def check(directory):
  """Returns the step that is whole in a directory of `save_on`, 0 if none.

  Raises:
    LostError: something there is damaged, or not of one step.
  """
  path = os.path.join(directory, _JSON)
  try:
    told = files.read_json(path)['step'] if os.path.exists(path) else 0
    checkpoint = checkpoints.Checkpoint(directory, training_state=True)
  except checkpoints.NoCheckpointYetError:
    return told
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
  # It is written after the checkpoint.
  if told > step:
    raise LostError(f'the checkpoint is of step {step}, {path} of {told}')
  return told


def save_on(directory, report):
  """Saves step after step until the disk fails.

  Args:
    directory: str, with what an earlier call left.
    report: callable, told each step that is saved.
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


def _serve(directory):
  """Does for each line of standard input what it says; tells what came of it."""
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
  """A process whose lines are read as they come; a context manager."""

  def __init__(self, command):
    """Args: command: dict, what `subprocess.Popen` takes."""
    self._process = subprocess.Popen(
      **{
        **command,
        'stdin': subprocess.PIPE,
        'stdout': subprocess.PIPE,
        'stderr': subprocess.STDOUT,
        'text': True,
      }
    )
    self._lines = queue.SimpleQueue()
    threading.Thread(target=self._read, daemon=True).start()

  def _read(self):
    for line in self._process.stdout:
      self._lines.put(line.rstrip('\n'))
    self._lines.put(None)

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._process.kill()
    self._process.wait()

  def tell(self, line):
    self._process.stdin.write(line + '\n')
    self._process.stdin.flush()

  def read(self, pattern):
    """Yields the matches of lines, to the end of the process."""
    while (line := self._lines.get(timeout=_SECONDS)) is not None:
      if match := re.search(pattern, line):
        yield match


# The rounds ------------------------------------------------------------------


def _command(*args):
  """Returns what `subprocess.Popen` takes to run a module of im2txt."""
  return {
    'args': [sys.executable, '-m', *args],
    'cwd': _ROOT,
    'env': {**os.environ, 'PYTHONPATH': os.pathsep.join([_ROOT, *sys.path])},
  }


def saver_command(directory):
  """Returns what `subprocess.Popen` takes for the process that saves."""
  return _command('im2txt.stress.power_cut', f'--saver={directory}')


def _cut(disk, saves, rng):
  """Cuts the power after some saves; returns (last one told by then, wait).

  Args:
    disk: `disk.Disk`.
    saves: iterator of the steps saved, as they come.
    rng: `random.Random`.

  Raises:
    LostError: there are not so many saves.
  """
  step, times = None, [time.monotonic()]
  for _ in range(rng.randint(2, 6)):
    step = next(saves, None)
    if step is None:
      raise LostError('the process that saves has ended')
    times.append(time.monotonic())
  # The first is not like the others.
  wait = rng.uniform(0, 1.2) * (times[-1] - times[1]) / (len(times) - 2)
  time.sleep(wait)
  disk.cut_power()
  return step, wait


def cut_savers(directory, rounds, seed=0, command=None, log=print):
  """Cuts the power of a process that saves small checkpoints.

  Args:
    directory: str, for the disk.
    rounds: int, number of power cuts.
    seed: int, of their moments.
    command: function from the directory where to save to what is run there;
      None: `saver_command`.
    log: callable, gets a line per round.

  Raises:
    LostError: the line of the first round that lost something.
    disk.UnavailableError: the power cannot be cut here.
  """
  rng = random.Random(seed)
  with (
    disks.Disk(directory, 64) as disk,
    _Process((command or saver_command)(disk.path)) as saver,
  ):
    lines = saver.read(r'^(saved|failed|found|lost) ?(.*)')

    def saves():
      for match in lines:
        if match[1] == 'lost':
          raise LostError(match[0])
        if match[1] != 'saved':
          return
        yield int(match[2])

    for number in range(1, rounds + 1):
      saver.tell('save')
      told = saves()
      last, wait = _cut(disk, told, rng)
      last = max([last, *told])
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


def main(argv=None):
  """Runs the program and returns its exit status."""
  parser = argparse.ArgumentParser(
    description='Cuts the power while checkpoints are saved.'
  )
  parser.add_argument(
    '--rounds',
    type=int,
    default=20,
    metavar='N',
    help='power cuts (default: 20)',
  )
  parser.add_argument(
    '--seed',
    type=int,
    default=0,
    help='of the moments of the cuts (default: 0)',
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
