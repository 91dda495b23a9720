# SPDX-License-Identifier: Apache-2.0
"""Programs of im2txt as processes that start at once.

Each is a process of its own, which can be killed. It is forked from one that
has loaded TensorFlow and computed nothing, so what takes seconds is done once.
"""

import importlib
import multiprocessing
import os
import runpy
import signal
import sys
import time

# The libraries of the programs; no program, as two define the same flags.
_LOADED = [
  'im2txt.show_and_tell_model',
  'im2txt.training.trainer',
  'im2txt.input_pipeline.feature_cache',
  'im2txt.pretrained.caption_model',
  'im2txt.inference_utils.captioner',
  'im2txt.data.mscoco',
]


class Program:
  """A program that runs.

  Args:
    name: str, e.g. 'train'.
    args: list of str.
    log: str, the file that takes its standard output and error.
    settings: dict from the dotted names of constants to the values that they
      have in this process, such as fewer bytes per read.

  Attributes:
    pid: int; also the id of its session, in which all its processes are.
  """

  def __init__(self, name, args, log, settings=None):
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(_LOADED)
    self._log = log
    # It is there before the process is.
    with open(log, 'wb'):
      pass
    self._process = context.Process(
      target=_run, args=(name, args, log, settings or {})
    )
    self._process.start()
    self.pid = self._process.pid

  def text(self):
    """Returns what it has written, a str."""
    with open(self._log, encoding='utf-8', errors='replace') as f:
      return f.read()

  def is_running(self):
    return self._process.is_alive()

  def wait(self, seconds):
    """Waits for it to end, and returns its status; None if it hangs.

    What hangs is killed.
    """
    self._process.join(seconds)
    hangs = self._process.is_alive()
    # The processes that it started end with it.
    end = time.monotonic() + seconds
    while not hangs and self.processes():
      hangs = time.monotonic() > end
      time.sleep(0.01)
    if hangs:
      self.kill_all()
      self._process.join()
      return None
    return self._process.exitcode

  def kill(self):
    """Kills its first process."""
    self._process.kill()

  def kill_all(self):
    """Kills all its processes."""
    for pid in [self.pid, *self.processes()]:
      try:
        os.kill(pid, signal.SIGKILL)
      except ProcessLookupError:
        pass

  def processes(self):
    """Returns the ids of its other processes, ascending."""
    found = []
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

  def workers(self):
    """Returns the ids of those of its processes that work for it."""
    found = []
    for pid in self.processes():
      try:
        with open(f'/proc/{pid}/cmdline', 'rb') as f:
          if b'spawn_main' in f.read():
            found.append(pid)
      except OSError:
        continue
    return found


def _run(name, args, log, settings):
  """Becomes the program, in the process that was forked."""
  os.setsid()
  with open(log, 'ab') as f:
    os.dup2(f.fileno(), 1)
    os.dup2(f.fileno(), 2)
  for target, value in settings.items():
    module, _, constant = target.rpartition('.')
    setattr(importlib.import_module(module), constant, value)
  sys.argv = [name, *args]
  runpy.run_module(f'im2txt.{name}', run_name='__main__', alter_sys=True)
