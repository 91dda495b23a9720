# SPDX-License-Identifier: Apache-2.0
"""Worker processes that end with their parent."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import functools
import gc
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import traceback
import types
from typing import Any
from typing import Generic
from typing import NamedTuple
from typing import Protocol
from typing import Self
from typing import TypeVar

_T = TypeVar('_T')
_Connection = multiprocessing.connection.Connection


class Pool(Protocol):
  """What does tasks: `Workers`, or workers on other machines.

  Attributes:
    grain: number of small tasks that callers put into one.
  """

  grain: int

  def map(
    self, function: Callable[..., _T], tasks: Iterable[tuple[Any, ...]]
  ) -> Iterator[_T]:
    """Yields function(*task) in order."""


class Workers:
  """Worker processes; a context manager.

  Each process has a connection of its own. If the process is killed, the
  connection ends, so its death is noticed even while it sends a result. With
  `concurrent.futures` all processes share one pipe, and such a death can block
  the others.

  Args:
    num_workers: number of processes, 0 for one per core.
    flag: the flag that gave this number, such as '--num_workers', for messages.
      None if there is none.
  """

  grain = 1

  def __init__(self, num_workers: int, flag: str | None = None) -> None:
    self._num = num_workers or len(os.sched_getaffinity(0))
    self._flag = flag
    self._processes: list[multiprocessing.process.BaseProcess] = []
    self._connections: list[_Connection] = []
    # Connections to processes that wait for a task.
    self._idle: list[_Connection] = []

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    # Each process finishes its task, then ends.
    for connection in self._connections:
      connection.close()
    for process in self._processes:
      process.join()

  def map(
    self, function: Callable[..., _T], tasks: Iterable[tuple[Any, ...]]
  ) -> Iterator[_T]:
    """Yields function(*task) in order; few tasks are in memory at a time.

    Args:
      function: a function of a module, not a method or a lambda.
      tasks: the arguments of each call.

    Raises:
      ChildProcessError: a process was killed.
      Exception: any error of the function.
    """
    waiting, begun, yielded = iter(tasks), 0, 0
    working: dict[_Connection, int] = {}
    results: dict[int, _Result[_T]] = {}
    while True:
      while len(working) < self._num and begun - yielded <= 2 * self._num:
        task = next(waiting, None)
        if task is None:
          break
        connection = self._idle.pop() if self._idle else self._start()
        with self._noticing_death():
          connection.send((function, task))
        working[connection] = begun
        begun += 1
      if yielded in results:
        result = results.pop(yielded)
        if isinstance(result, _Failure):
          raise result.error
        yield result.value
        yielded += 1
      elif not working:
        return
      else:
        ready = multiprocessing.connection.wait(list(working))
        for connection in [c for c in working if c in ready]:
          with self._noticing_death():
            results[working.pop(connection)] = connection.recv()
          self._idle.append(connection)

  def _start(self) -> _Connection:
    """Starts a process; returns the connection to it."""
    # A forked process would inherit TensorFlow's locks without its threads.
    context = multiprocessing.get_context('spawn')
    connection, its_end = context.Pipe()
    process = context.Process(target=_work, args=(its_end,))
    process.start()
    its_end.close()
    self._processes.append(process)
    self._connections.append(connection)
    return connection

  @contextlib.contextmanager
  def _noticing_death(self) -> Iterator[None]:
    """Raises ChildProcessError if a connection ends."""
    try:
      yield
    except (EOFError, OSError) as error:
      if self._num == 1:
        remedy = 'run the same command again when more memory is free'
      elif self._flag:
        remedy = (
          f'run the same command again with {self._flag} below {self._num}'
        )
      else:
        remedy = f'try again with fewer than {self._num} worker processes'
      raise ChildProcessError(
        f'a worker process was killed, perhaps for want of memory: {remedy}'
      ) from error


class _Success(NamedTuple, Generic[_T]):
  """The value that a task returned."""

  value: _T


class _Failure(NamedTuple):
  """The exception that a task raised."""

  error: Exception


_Result = _Success[_T] | _Failure


def _work(connection: _Connection) -> None:
  """Runs tasks until the connection ends, in the worker process."""
  _end_with_parent()
  # The parent may also close the connection during a task.
  with contextlib.suppress(EOFError, ConnectionError):
    while True:
      function, task = connection.recv()
      try:
        result: _Result[object] = _Success(function(*task))
      except Exception as error:
        portable = _portable(error)
        portable.add_note(f'In a worker process:\n{traceback.format_exc()}')
        result = _Failure(portable)
      connection.send(result)


def _portable(error: Exception) -> Exception:
  """Returns the error, or one of Python's own kinds in its place.

  Errors of other kinds cannot always be sent to another process.
  """
  if type(error).__module__ == 'builtins':
    return error
  for kind in (ValueError, OSError):  # Errors that users can put right.
    if isinstance(error, kind):
      return kind(str(error))
  return RuntimeError(f'{type(error).__name__}: {error}')


def _end_with_parent() -> None:
  """Makes a worker end with its parent, and only then."""
  # An interrupt from the keyboard reaches every process. The parent decides.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  parent = multiprocessing.parent_process()
  assert parent is not None  # A worker is never the main process.
  sentinel = parent.sentinel

  def exit_with_parent() -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)

  threading.Thread(target=exit_with_parent, daemon=True).start()


@functools.cache
def worker_tensorflow() -> types.ModuleType:
  """Returns TensorFlow, set up for one of many processes."""
  # Garbage collection takes a fifth of TensorFlow's import time, and frees
  # nothing of it.
  gc.disable()
  import tensorflow as tf

  gc.freeze()
  gc.enable()
  # A worker of Beam may be a process in which TensorFlow has begun.
  with contextlib.suppress(RuntimeError):
    tf.config.set_visible_devices([], 'GPU')
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.threading.set_intra_op_parallelism_threads(1)
  return tf
