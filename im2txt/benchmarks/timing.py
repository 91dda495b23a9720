# SPDX-License-Identifier: Apache-2.0
"""Measures the time of functions, and the time and memory of processes."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import json
import statistics
import subprocess
import sys
import time

import tensorflow as tf


def median_seconds(fn: Callable[[], object], repeats: int) -> float:
  """Returns the median time of a call of `fn`, after two warm-up calls."""
  return alternating_medians({'': fn}, repeats)['']


def alternating_medians(
  fns: Mapping[str, Callable[[], object]], repeats: int
) -> dict[str, float]:
  """Returns the median times of functions that are called in turn, in seconds.

  What slows the machine for a while slows all of them. Each has two warm-up
  calls first.

  Args:
    fns: functions by name.
    repeats: number of measured calls of each.
  """
  times: dict[str, list[float]] = {name: [] for name in fns}
  for fn in fns.values():
    fn()
    fn()
  for _ in range(repeats):
    for name, fn in fns.items():
      start = time.perf_counter()
      fn()
      times[name].append(time.perf_counter() - start)
  return {name: statistics.median(values) for name, values in times.items()}


def matmul_rate(
  dtype: tf.DType, repeats: int, size: int = 2048, products: int = 1
) -> float:
  """Returns the floating-point operations per second of matrix products.

  Args:
    dtype: of the matrices.
    repeats: number of measured calls.
    size: of the matrices, which are square.
    products: number of products per call, one after the other. More of larger
      matrices let the time to start one count less.
  """
  a = tf.cast(tf.random.normal([size, size], stddev=size**-0.5), dtype)

  @tf.function(autograph=False)
  def product() -> tf.Tensor:
    result = a
    for _ in range(products):
      result = tf.matmul(result, a)
    return tf.reduce_sum(result)

  seconds = median_seconds(lambda: product().numpy(), repeats)
  return products * 2 * size**3 / seconds


# Starts a program, and prints its exit status, time and peak memory. Peak
# memory counts from the fork on, so a process forked from here would seem as
# large as this one.
_LAUNCHER = """
import json, os, subprocess, sys, time
start = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=sys.stderr)
_, status, usage = os.wait4(process.pid, 0)
print(json.dumps([os.waitstatus_to_exitcode(status),
                  time.perf_counter() - start, usage.ru_maxrss * 1024]))
"""


def run_process(command: Sequence[str]) -> tuple[float, int, str]:
  """Runs a command to its end.

  Returns:
    (seconds; peak resident memory in bytes; the output).

  Raises:
    ValueError: the command failed.
  """
  launcher = subprocess.run(
    [sys.executable, '-c', _LAUNCHER, *command],
    check=True,
    capture_output=True,
    text=True,
  )
  status, seconds, memory = json.loads(launcher.stdout)
  if status:
    raise ValueError(f'{" ".join(command)} failed: {launcher.stderr[-500:]}')
  return seconds, memory, launcher.stderr


def median_process(
  command: Sequence[str], repeats: int = 3
) -> tuple[float, float]:
  """Returns the medians of seconds and bytes of `run_process`.

  A first run, to warm up, does not count.
  """
  run_process(command)
  seconds, memory, _ = zip(*(run_process(command) for _ in range(repeats)))
  return statistics.median(seconds), statistics.median(memory)
