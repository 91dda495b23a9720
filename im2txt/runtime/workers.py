# SPDX-License-Identifier: Apache-2.0
"""Processes that share work, and end with their parent."""

import contextlib
import functools
import gc
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import traceback
from typing import NamedTuple


class Workers:
  """Processes that do tasks; a context manager.

  Each has a connection of its own, whose other end only it has. So the death of
  one is noticed whatever it was doing, in the midst of a result too: with
  `concurrent.futures` all share a pipe, from which nobody can tell then.
  """

  def __init__(self, num_workers):
    """Args: num_workers: int, 0 for one per core."""
    self._num = num_workers or len(os.sched_getaffinity(0))
    self._processes = []
    self._connections = []
    # Those to processes that wait for a task.
    self._idle = []

  def __enter__(self):
    return self

  def __exit__(self, *_):
    # They end with the tasks that they are at.
    for connection in self._connections:
      connection.close()
    for process in self._processes:
      process.join()

  def map(self, function, tasks):
    """Yields function(*task) in order; few tasks are in memory at a time.

    Args:
      function: a function of a module, not a method or a lambda.
      tasks: iterable of tuples.

    Raises:
      ChildProcessError: a process was killed.
      Exception: what the function raises.
    """
    tasks, begun, yielded = iter(tasks), 0, 0
    working, results = {}, {}
    while True:
      while len(working) < self._num and begun - yielded <= 2 * self._num:
        task = next(tasks, None)
        if task is None:
          break
        connection = self._idle.pop() if self._idle else self._start()
        with self._noticing_death():
          connection.send((function, task))
        working[connection] = begun
        begun += 1
      if yielded in results:
        result = results.pop(yielded)
        if result.error:
          raise result.error
        yield result.value
        yielded += 1
      elif not working:
        return
      else:
        for connection in multiprocessing.connection.wait(list(working)):
          with self._noticing_death():
            results[working.pop(connection)] = connection.recv()
          self._idle.append(connection)

  def _start(self):
    """Starts a process; returns the connection to it."""
    # A forked process would inherit TensorFlow's threads half alive.
    context = multiprocessing.get_context('spawn')
    connection, its_end = context.Pipe()
    process = context.Process(target=_work, args=(its_end,))
    process.start()
    its_end.close()
    self._processes.append(process)
    self._connections.append(connection)
    return connection

  @contextlib.contextmanager
  def _noticing_death(self):
    """Raises ChildProcessError where a connection ends."""
    try:
      yield
    except (EOFError, OSError) as error:
      raise ChildProcessError(
        'A worker process was killed, perhaps for want of memory: run the '
        f'same command again with --num_workers below {self._num}.'
      ) from error


class _Result(NamedTuple):
  """What came of a task: a value or an exception."""

  value: object = None
  error: Exception | None = None


def _work(connection):
  """Does tasks until the connection ends; this is the worker."""
  _end_with_parent()
  # The parent may end it in the midst of a task, too.
  with contextlib.suppress(EOFError, ConnectionError):
    while True:
      function, task = connection.recv()
      try:
        result = _Result(value=function(*task))
      except Exception as error:
        result = _Result(error=_portable(error))
        result.error.add_note(f'In a worker process:\n{traceback.format_exc()}')
      connection.send(result)


def _portable(error):
  """Returns the error, or one of Python's own where it is none of these.

  Others may be such that they cannot be sent.
  """
  if type(error).__module__ == 'builtins':
    return error
  for kind in (ValueError, OSError):  # What users can put right.
    if isinstance(error, kind):
      return kind(str(error))
  return RuntimeError(f'{type(error).__name__}: {error}')


def _end_with_parent():
  """Makes a worker end with its parent, and only then."""
  # An interrupt from the keyboard reaches every process; the parent decides.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  parent = multiprocessing.parent_process()

  def exit_with_parent():
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)

  threading.Thread(target=exit_with_parent, daemon=True).start()


@functools.cache
def worker_tensorflow():
  """Returns TensorFlow, set up for one of many processes."""
  # To look through all that TensorFlow makes, again and again, for what can be
  # collected takes a fifth of the time of its import. None of it can.
  gc.disable()
  import tensorflow as tf

  gc.freeze()
  gc.enable()
  tf.config.set_visible_devices([], 'GPU')
  tf.config.threading.set_inter_op_parallelism_threads(1)
  tf.config.threading.set_intra_op_parallelism_threads(1)
  return tf
