# SPDX-License-Identifier: Apache-2.0
"""Processes that share work, and end with their parent."""

import collections
import concurrent.futures
import functools
import gc
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading


class Workers:
  """Processes that do tasks; a context manager."""

  def __init__(self, num_workers):
    """Args: num_workers: int, 0 for one per core."""
    self._num = num_workers or len(os.sched_getaffinity(0))
    # A forked process would inherit TensorFlow's threads half alive.
    self._executor = concurrent.futures.ProcessPoolExecutor(
        self._num, mp_context=multiprocessing.get_context('spawn'),
        initializer=_start_worker)

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._executor.shutdown(wait=True, cancel_futures=True)

  def map(self, function, tasks):
    """Yields function(*task) in order; few tasks are in memory at a time.

    Args:
      function: a function of a module, not a method or a lambda.
      tasks: iterable of tuples.

    Raises:
      ChildProcessError: a process was killed.
    """
    waiting = collections.deque()
    try:
      for task in tasks:
        waiting.append(self._executor.submit(function, *task))
        if len(waiting) > 2 * self._num:
          yield waiting.popleft().result()
      while waiting:
        yield waiting.popleft().result()
    except concurrent.futures.BrokenExecutor as error:
      raise ChildProcessError(
          'A worker process was killed, perhaps for want of memory: run the '
          f'same command again with --num_workers below {self._num}.'
      ) from error


def _start_worker():
  """Makes a worker end with its parent, and only then."""
  # An interrupt from the keyboard reaches every process; the parent decides.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  parent = multiprocessing.parent_process()

  def exit_with_parent():
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)  # pylint: disable=protected-access

  threading.Thread(target=exit_with_parent, daemon=True).start()


@functools.lru_cache(maxsize=None)
def worker_tensorflow():
  """Returns TensorFlow, set up for one of many processes."""
  # To look through all that TensorFlow makes, again and again, for what can be
  # collected takes a fifth of the time of its import. None of it can.
  gc.disable()
  import tensorflow as tf  # pylint: disable=g-import-not-at-top
  gc.freeze()
  gc.enable()
  tf.config.set_visible_devices([], 'GPU')
  tf.config.threading.set_inter_op_parallelism_threads(1)
  tf.config.threading.set_intra_op_parallelism_threads(1)
  return tf
