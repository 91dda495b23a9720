# SPDX-License-Identifier: Apache-2.0
"""Programs of im2txt as processes that start at once.

Each program is a process of its own, which can be killed. It is forked from a
process that has loaded TensorFlow and computed nothing, so TensorFlow is loaded
only once.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import importlib
import multiprocessing
import os
import runpy
import signal
import socket
import sys
import time

from im2txt.runtime import cluster

# The libraries of the programs, but no programs, which define the same flags.
_LOADED = [
  'im2txt.show_and_tell_model',
  'im2txt.training.trainer',
  'im2txt.input_pipeline.feature_cache',
  'im2txt.pretrained.caption_model',
  'im2txt.inference_utils.captioner',
  'im2txt.data.mscoco',
]


class Program:
  """A running program.

  Args:
    name: name of the program, such as 'train'.
    args: its arguments.
    log: path of the file for its standard output and error.
    settings: values of constants in this process by dotted name, such as fewer
      bytes per read.
    environment: environment variables of this process.

  Attributes:
    pid: id of the process, and of the session with all its processes.
  """

  def __init__(
    self,
    name: str,
    args: Sequence[str],
    log: str,
    settings: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
  ) -> None:
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(_LOADED)
    self._log = log
    # So that `text` can read it before the process starts.
    with open(log, 'wb'):
      pass
    self._process = context.Process(
      target=_run, args=(name, args, log, settings or {}, environment or {})
    )
    self._process.start()
    assert self._process.pid is not None  # It has started.
    self.pid: int = self._process.pid

  def text(self) -> str:
    """Returns its output so far."""
    with open(self._log, encoding='utf-8', errors='replace') as f:
      return f.read()

  def is_running(self) -> bool:
    """Returns whether its first process runs."""
    return self._process.is_alive()

  def wait(self, seconds: float) -> int | None:
    """Waits for its end and returns its status.

    If it hangs, that is, runs longer than `seconds`, it is killed and the
    status is None.
    """
    self._process.join(seconds)
    hangs = self._process.is_alive()
    # Its worker processes end with it.
    end = time.monotonic() + seconds
    while not hangs and self.processes():
      hangs = time.monotonic() > end
      time.sleep(0.01)
    if hangs:
      self.kill_all()
      self._process.join()
      return None
    return self._process.exitcode

  def kill(self) -> None:
    """Kills its first process."""
    self._process.kill()

  def send(self, number: int) -> None:
    """Sends a signal to its first process."""
    os.kill(self.pid, number)

  def kill_all(self) -> None:
    """Kills all its processes."""
    for pid in [self.pid, *self.processes()]:
      try:
        os.kill(pid, signal.SIGKILL)
      except ProcessLookupError:
        pass

  def processes(self) -> list[int]:
    """Returns the ids of its other processes, ascending."""
    found: list[int] = []
    for name in os.listdir('/proc'):
      if name.isdecimal() and int(name) != self.pid:
        try:
          with open(f'/proc/{name}/stat', encoding='utf-8') as f:
            fields = f.read().rpartition(')')[2].split()
        except OSError:
          continue
        state, session = fields[0], int(fields[3])
        if session == self.pid and state not in 'ZX':
          found.append(int(name))
    return sorted(found)

  def workers(self) -> list[int]:
    """Returns the ids of its worker processes."""
    found: list[int] = []
    for pid in self.processes():
      try:
        with open(f'/proc/{pid}/cmdline', 'rb') as f:
          if b'spawn_main' in f.read():
            found.append(pid)
      except OSError:
        continue
    return found


def start_workers(
  count: int,
  args: Sequence[str],
  logs: str,
  settings: Mapping[str, object] | None = None,
) -> list[Program]:
  """Starts workers of `train` that train together on this machine.

  Args:
    count: number of workers.
    args: their arguments.
    logs: directory of their logs, worker-N.
    settings: see `Program`.
  """
  with contextlib.ExitStack() as stack:
    sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
    for one in sockets:
      one.bind(('127.0.0.1', 0))
    addresses = tuple(f'127.0.0.1:{one.getsockname()[1]}' for one in sockets)
  return [
    Program(
      'train',
      args,
      os.path.join(logs, f'worker-{index}'),
      settings,
      {'TF_CONFIG': cluster.Cluster((), addresses, index).tf_config()},
    )
    for index in range(count)
  ]


def _run(
  name: str,
  args: Sequence[str],
  log: str,
  settings: Mapping[str, object],
  environment: Mapping[str, str],
) -> None:
  """Runs the program, in the process that was forked."""
  os.setsid()
  os.environ.update(environment)
  with open(log, 'ab') as f:
    os.dup2(f.fileno(), 1)
    os.dup2(f.fileno(), 2)
  for target, value in settings.items():
    module, _, constant = target.rpartition('.')
    setattr(importlib.import_module(module), constant, value)
  sys.argv = [name, *args]
  runpy.run_module(f'im2txt.{name}', run_name='__main__', alter_sys=True)
