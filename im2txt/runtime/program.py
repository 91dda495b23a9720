# SPDX-License-Identifier: Apache-2.0
"""Start-up and error reporting shared by all programs."""

import atexit
from collections.abc import Callable
from collections.abc import Sequence
import errno
import gc
import io
import os
import signal
import sys
from typing import Any
from typing import cast
from typing import NoReturn
from typing import ParamSpec
from typing import TextIO
from typing import TypeVar

from absl import app
from absl import flags
from absl import logging

from im2txt.runtime import quiet_tensorflow
from im2txt.runtime import storage

_P = ParamSpec('_P')
_T = TypeVar('_T')

# TensorFlow's messages about files end like this if the disk is at fault, and
# not the memory.
_OF_THE_DISK = tuple(
  os.strerror(number)
  for number in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
)

flags.DEFINE_bool(
  'debug', False, 'Show the stack trace of an error, not only its message.'
)


def fail(message: object) -> NoReturn:
  """Ends the program with one line on standard error and status 1."""
  print(f'error: {message}', file=sys.stderr)
  sys.exit(1)


def require(flag_values: flags.FlagValues, *names: str) -> None:
  """Ends the program if one of these string flags is empty."""
  for name in names:
    if not getattr(flag_values, name):
      fail(f'--{name} is required (see --help)')


def require_output_directories(
  flag_values: flags.FlagValues, *names: str
) -> None:
  """Checks, before work starts, that these flags name files in directories.

  Raises:
    ValueError: a file's directory does not exist.
  """
  for name in names:
    storage.require_directory_of(name, getattr(flag_values, name))


def write_any_name(as_json: bool) -> None:
  """Lets standard output take names of files, which need not be UTF-8.

  Args:
    as_json: whether they are written in JSON, which must be UTF-8.
  """
  cast(io.TextIOWrapper, sys.stdout).reconfigure(
    errors='backslashreplace' if as_json else 'surrogateescape'
  )


def run_resumable(job: Callable[[], _T]) -> _T:
  """Runs `job`; an interrupt from the keyboard ends the program in one line.

  Args:
    job: function without arguments. When it is run again, it goes on where it
      stopped.

  Returns:
    What the job returns.
  """
  try:
    return job()
  except KeyboardInterrupt:
    print('Interrupted; the same command goes on from here.', file=sys.stderr)
    sys.exit(130)  # As shells report an interrupted command.


def _parse_flags(argv: list[str]) -> list[str]:
  """Parses flags; a wrong flag ends the program with one line."""
  try:
    return flags.FLAGS(argv)
  except flags.Error as e:
    fail(f'{e} (see --help)')
  except SystemExit:  # absl would end --help with status 1.
    sys.exit(0)


def _check_boolean_flags(arguments: Sequence[str]) -> None:
  """Refuses `--flag false`, which absl reads as `--flag` and an argument.

  Raises:
    ValueError: there is one.
  """
  boolean = {
    f'{dashes}{name}'
    for name in flags.FLAGS
    if flags.FLAGS[name].boolean
    for dashes in ('-', '--')
  }
  values = ('true', 'false', 't', 'f', 'yes', 'no', 'y', 'n', '1', '0')
  for name, value in zip(arguments, arguments[1:]):
    if name == '--':
      return
    if name in boolean and value.lower() in values:
      raise ValueError(
        f'{name} {value} would mean {name}=true: write {name}={value}'
      )


def _is_out_of_memory(error: Exception) -> bool:
  # If TensorFlow has not been imported, it has not raised the error.
  tf = sys.modules.get('tensorflow')
  return isinstance(error, MemoryError) or bool(
    tf and isinstance(error, tf.errors.ResourceExhaustedError)
  )


def _is_of_the_disk(error: Exception) -> bool:
  """Returns whether the error is that TensorFlow failed to use a file."""
  tf = sys.modules.get('tensorflow')
  return bool(
    tf
    and isinstance(error, tf.errors.OpError)
    and quiet_tensorflow.reason(error).endswith(_OF_THE_DISK)
  )


class _StandardOutput:
  """Standard output whose errors name it."""

  def __init__(self, file: TextIO) -> None:
    self._file = file

  def __getattr__(self, name: str) -> Any:
    return getattr(self._file, name)

  def write(self, text: str) -> int:
    return self._do(self._file.write, text)

  def flush(self) -> None:
    self._do(self._file.flush)

  def _do(
    self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs
  ) -> _T:
    try:
      return function(*args, **kwargs)
    except OSError as error:
      # At its end Python would try to write the rest, and complain.
      with open(os.devnull, 'wb') as nowhere:
        os.dup2(nowhere.fileno(), self._file.fileno())
      raise OSError(error.errno, error.strerror, 'standard output') from error


def run(
  main: Callable[[list[str]], object],
  define_flags: Callable[[], object] | None = None,
  takes_argument: bool = False,
) -> None:
  """Runs `main(argv)` under absl; a user's error becomes one line, status 1.

  Args:
    main: raises ValueError or OSError for errors that the user can put right.
    define_flags: defines the program's flags. It is called here, not when the
      program's module is imported, so that the modules of two programs can be
      imported into one process.
    takes_argument: whether the program takes arguments that are not flags. If
      not, such an argument is refused.
  """

  def guarded(argv: list[str]) -> object:
    try:
      _check_boolean_flags(sys.argv[1:])
      if len(argv) > 1 and not takes_argument:
        raise ValueError(
          f'unexpected argument {argv[1]}: write --flag=value, and file '
          'names into a flag, separated by commas'
        )
      status = main(argv)
      sys.stdout.flush()  # While an error can still be reported.
      return status
    except (ValueError, OSError) as e:
      if flags.FLAGS.debug:
        raise
      fail(e)
    except KeyboardInterrupt:
      sys.exit(128 + signal.SIGINT)
    except Exception as e:
      if _is_of_the_disk(e) and not flags.FLAGS.debug:
        fail(quiet_tensorflow.reason(e))
      if flags.FLAGS.debug or not _is_out_of_memory(e):
        raise
      reason = quiet_tensorflow.reason(e) or 'MemoryError'
      fail(
        f'out of memory ({reason}): give a smaller batch size, or run the '
        'program where more memory is free'
      )

  # Else Python would look for garbage among all that TensorFlow made before it
  # ends, which takes a second.
  atexit.register(gc.freeze)
  if define_flags:
    define_flags()
  # As in 2016, progress is logged to standard error by default.
  flags.FLAGS.set_default('verbosity', logging.INFO)
  setattr(sys, 'stdout', _StandardOutput(sys.stdout))
  app.run(guarded, flags_parser=_parse_flags)
