# SPDX-License-Identifier: Apache-2.0
"""Medians of times, rates of the machine, time and memory of processes."""

import json
import statistics
import subprocess
import sys
import time

import tensorflow as tf


def median_seconds(fn, repeats):
  """Returns the median time of a call of `fn`, after two that do not count."""
  times = []
  for i in range(repeats + 2):
    start = time.perf_counter()
    fn()
    if i > 1:
      times.append(time.perf_counter() - start)
  return statistics.median(times)


def matmul_rate(dtype, repeats, size=2048):
  """Returns the floating-point operations a second of matrix products."""
  a = tf.cast(tf.random.normal([size, size]), dtype)
  product = tf.function(lambda: tf.reduce_sum(tf.matmul(a, a)))
  return 2 * size**3 / median_seconds(lambda: product().numpy(), repeats)


# Starts a program and prints how it ended, its time and its peak memory. The
# kernel counts a process's memory from its fork on, so one forked from here
# would seem as large as this one.
_LAUNCHER = """
import json, os, subprocess, sys, time
start = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=sys.stderr)
_, status, usage = os.wait4(process.pid, 0)
print(json.dumps([os.waitstatus_to_exitcode(status),
                  time.perf_counter() - start, usage.ru_maxrss * 1024]))
"""


def run_process(command):
  """Runs a command to its end.

  Returns:
    (seconds, peak resident memory in bytes, what it wrote: str).

  Raises:
    ValueError: it failed.
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


def median_process(command, repeats=3):
  """Returns the medians of seconds and memory of `run_process`.

  A first run does not count.
  """
  run_process(command)
  seconds, memory, _ = zip(*(run_process(command) for _ in range(repeats)))
  return statistics.median(seconds), statistics.median(memory)
