# SPDX-License-Identifier: Apache-2.0
"""Keeps TensorFlow's internal messages away from users.

Loading TensorFlow's libraries prints lines about instructions and plugins
before any setting takes effect, even TF_CPP_MIN_LOG_LEVEL. So these lines are
filtered out of the process's standard error while TensorFlow is imported.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import importlib.abc
import importlib.machinery
import logging
import os
import re
import subprocess
import sys
import threading
import types

# TensorFlow's own names of functions and operations in its errors.
_NAMES = re.compile(r'\{\{.*?\}\} *| *\[Op:.*')

_SILENCE = threading.Lock()

_LEVEL = 'TF_CPP_MIN_LOG_LEVEL'

# Extended regular expressions of lines that ask nothing of the user.
_REMARKS = (
  r'^WARNING: All log messages before absl::InitializeLog\(\) is called are '
  r'written to STDERR$',
  r' port\.cc:[0-9]+\] oneDNN custom operations are on\.',
  r' cpu_feature_guard\.cc:[0-9]+\] This TensorFlow binary is optimized ',
  r'^To enable the following instructions: ',
  # In TensorFlow with CUDA two libraries register the same plugins.
  r'\] Unable to register cu[A-Z]+ (factory|plugin)',
  r'\] computation placer already registered',
  r'\] Could not find cuda drivers on your machine',
  r'\] TF-TRT Warning: ',
)


def reason(error: BaseException) -> str:
  """Returns the first line of an error, without TensorFlow's internal names.

  >>> reason(ValueError('{{function_node f}} bad record [Op:Next] name: '))
  'bad record'
  """
  line = getattr(error, 'message', str(error)).split('\n', maxsplit=1)[0]
  return _NAMES.sub('', line)


@contextlib.contextmanager
def without_remarks() -> Iterator[None]:
  """Filters TensorFlow's remarks out of standard error in its context.

  All other lines appear when they are written, from any thread, even if the
  process ends there. In the context TensorFlow itself logs errors only.
  """
  os.environ[_LEVEL] = '2'
  try:
    with _filtered_standard_error():
      yield
  finally:
    # Child processes must decide for themselves.
    os.environ.pop(_LEVEL, None)


@contextlib.contextmanager
def _filtered_standard_error() -> Iterator[None]:
  try:
    stderr = os.dup(2)
  except OSError:
    stderr = None  # The process has none.
  process = None if stderr is None else _start_filter(stderr)
  if process and process.stdin:
    os.dup2(process.stdin.fileno(), 2)
    process.stdin.close()
  try:
    yield
  finally:
    if process and stderr is not None:
      if sys.stderr:
        sys.stderr.flush()
      os.dup2(stderr, 2)
      # Filtered lines must come before all that follow. A process that was
      # started meanwhile may keep the pipe open.
      with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    if stderr is not None:
      os.close(stderr)


def _start_filter(stderr: int) -> 'subprocess.Popen[bytes] | None':
  """Returns a process that copies its input to `stderr` without remarks.

  It is a process because a library that is loaded may abort this one, and
  because loading blocks all threads. It has a process group of its own, so an
  interrupt from the keyboard does not end it, and lines written then appear
  too.
  """
  try:
    return subprocess.Popen(
      ['grep', '-a', '-v', '-E', '--line-buffered', '\n'.join(_REMARKS)],
      stdin=subprocess.PIPE,
      stdout=stderr,
      stderr=subprocess.DEVNULL,
      env={**os.environ, 'LC_ALL': 'C'},
      process_group=0,
    )
  except OSError:
    return None  # Without grep nothing is filtered.


@contextlib.contextmanager
def silent_standard_error() -> Iterator[None]:
  """Drops all that is written to standard error in its context.

  For C libraries that print. Only for a process in which no other thread has
  anything to say meanwhile. Threads that use it wait for each other: each puts
  back what it has found.
  """
  with _SILENCE:
    yield from _silent_standard_error()


def _silent_standard_error() -> Iterator[None]:
  if sys.stderr:
    sys.stderr.flush()
  try:
    stderr = os.dup(2)
  except OSError:  # The process has none.
    yield
    return
  try:
    with open(os.devnull, 'wb') as nowhere:
      os.dup2(nowhere.fileno(), 2)
    yield
  finally:
    os.dup2(stderr, 2)
    os.close(stderr)


class _Finder(importlib.abc.MetaPathFinder):
  """Finds TensorFlow and has it loaded without remarks."""

  def find_spec(
    self,
    fullname: str,
    path: Sequence[str] | None,
    target: types.ModuleType | None = None,
  ) -> importlib.machinery.ModuleSpec | None:
    if fullname != 'tensorflow':
      return None
    spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
    if spec and spec.loader:
      load = spec.loader.exec_module

      def exec_module(module: types.ModuleType) -> None:
        with without_remarks():
          load(module)

      setattr(spec.loader, 'exec_module', exec_module)
    return spec


def install() -> None:
  """Makes a later import of TensorFlow quiet.

  Does nothing if TF_CPP_MIN_LOG_LEVEL is set: the user has chosen what to see.
  """
  if _LEVEL not in os.environ and 'tensorflow' not in sys.modules:
    sys.meta_path.insert(0, _Finder())


@contextlib.contextmanager
def without_log_lines() -> Iterator[None]:
  """Leaves out what TensorFlow remarks while it saves or converts a model."""
  disabled = logging.root.manager.disable
  logging.disable(logging.INFO)
  try:
    yield
  finally:
    logging.disable(disabled)
