# SPDX-License-Identifier: Apache-2.0
"""Keeps what is TensorFlow's own business out of what users read.

Loading TensorFlow's libraries prints lines about instructions and plugins,
before any of its settings is heeded, TF_CPP_MIN_LOG_LEVEL too. So they are
taken out of the standard error of the process while TensorFlow is imported.
"""

import contextlib
import importlib.abc
import importlib.machinery
import os
import re
import subprocess
import sys

# Names of functions and operations in its errors, which nobody here has given.
_NAMES = re.compile(r'\{\{.*?\}\} *| *\[Op:.*')

_LEVEL = 'TF_CPP_MIN_LOG_LEVEL'

# Extended regular expressions, of remarks that ask nothing of the user.
_REMARKS = (
  r'^WARNING: All log messages before absl::InitializeLog\(\) is called are '
  r'written to STDERR$',
  r' port\.cc:[0-9]+\] oneDNN custom operations are on\.',
  r' cpu_feature_guard\.cc:[0-9]+\] This TensorFlow binary is optimized ',
  r'^To enable the following instructions: ',
  # In TensorFlow with CUDA two libraries bring the same plugins.
  r'\] Unable to register cu[A-Z]+ (factory|plugin)',
  r'\] computation placer already registered',
  r'\] Could not find cuda drivers on your machine',
  r'\] TF-TRT Warning: ',
)


def reason(error):
  """Returns what an error says, a line, without TensorFlow's names for things.

  >>> reason(ValueError('{{function_node f}} bad record [Op:Next] name: '))
  'bad record'
  """
  line = getattr(error, 'message', str(error)).split('\n', maxsplit=1)[0]
  return _NAMES.sub('', line)


@contextlib.contextmanager
def without_remarks():
  """Leaves remarks out of what is written to standard error in its context.

  All else appears as it is written, from whatever thread, also if the process
  ends there. In the context TensorFlow's own level of logging is that of
  errors.
  """
  os.environ[_LEVEL] = '2'
  try:
    with _filtered_standard_error():
      yield
  finally:
    # Processes that this one starts decide anew.
    os.environ.pop(_LEVEL, None)


@contextlib.contextmanager
def _filtered_standard_error():
  try:
    stderr = os.dup(2)
  except OSError:
    stderr = None  # The process has none.
  process = None if stderr is None else _start_filter(stderr)
  if process:
    os.dup2(process.stdin.fileno(), 2)
    process.stdin.close()
  try:
    yield
  finally:
    if process:
      if sys.stderr:
        sys.stderr.flush()
      os.dup2(stderr, 2)
      # So that what was written comes before all that follows. A process that
      # was started meanwhile may keep the pipe open.
      with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    if stderr is not None:
      os.close(stderr)


def _start_filter(stderr):
  """Returns a process that writes to `stderr` what it reads, less remarks.

  It is another process since this one may be aborted by a library that it
  loads, and all its threads wait for that. An interrupt from the keyboard does
  not reach its group, so that it passes on what is written then, too.
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
    return None  # Without grep TensorFlow may say what it likes.


class _Finder(importlib.abc.MetaPathFinder):
  """Finds TensorFlow, to be loaded without remarks."""

  def find_spec(self, fullname, path, target=None):
    if fullname != 'tensorflow':
      return None
    spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
    if spec and spec.loader:
      load = spec.loader.exec_module

      def exec_module(module):
        with without_remarks():
          load(module)

      spec.loader.exec_module = exec_module
    return spec


def install():
  """Makes a later import of TensorFlow quiet.

  Who sets TF_CPP_MIN_LOG_LEVEL wants to see what that leaves: then nothing is
  done.
  """
  if _LEVEL not in os.environ and 'tensorflow' not in sys.modules:
    sys.meta_path.insert(0, _Finder())
