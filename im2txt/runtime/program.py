# SPDX-License-Identifier: Apache-2.0
"""Start-up and error reporting shared by all programs."""

import errno
import os
import signal
import sys

from absl import app
from absl import flags
from absl import logging

from im2txt.runtime import quiet_tensorflow

# How TensorFlow's messages about files end where not the memory is to blame.
_OF_THE_DISK = tuple(
  os.strerror(number)
  for number in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
)

flags.DEFINE_bool(
  'debug', False, 'Show the stack trace of an error, not only its line.'
)


def fail(message):
  """Ends the program with one line on standard error and status 1."""
  print(f'error: {message}', file=sys.stderr)
  sys.exit(1)


def require(flag_values, *names):
  """Ends the program if one of these string flags is empty."""
  for name in names:
    if not getattr(flag_values, name):
      fail(f'--{name} is required (see --help)')


def require_output_directories(flag_values, *names):
  """Checks that the files these flags name can be made, before work starts.

  Raises:
    ValueError: a file's directory does not exist.
  """
  for name in names:
    path = getattr(flag_values, name)
    directory = os.path.dirname(path)
    if directory and not os.path.isdir(directory):
      raise ValueError(
        f'--{name}={path}: there is no directory {directory}; make it first'
      )


def run_resumable(job):
  """Runs `job`; an interrupt from the keyboard ends the program in one line.

  Args:
    job: function without arguments that goes on where it stopped when it is
      run again.
  """
  try:
    job()
  except KeyboardInterrupt:
    print('Interrupted; the same command goes on from here.', file=sys.stderr)
    sys.exit(130)  # As shells report an interrupted command.


def _parse_flags(argv):
  """Parses flags; a wrong one ends the program in one line, --help with 0."""
  try:
    return flags.FLAGS(argv)
  except flags.Error as e:
    fail(f'{e} (see --help)')
  except SystemExit:  # Of --help and the like, which absl ends with 1.
    sys.exit(0)


def _check_boolean_flags(arguments):
  """Refuses `--flag false`, which absl takes for `--flag` and an argument.

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


def _is_out_of_memory(error):
  # Where TensorFlow has not been imported, the error is not its own.
  tf = sys.modules.get('tensorflow')
  return isinstance(error, MemoryError) or bool(
    tf and isinstance(error, tf.errors.ResourceExhaustedError)
  )


def _is_of_the_disk(error):
  """Returns whether TensorFlow could not read or write a file."""
  tf = sys.modules.get('tensorflow')
  return (
    bool(tf)
    and isinstance(error, tf.errors.OpError)
    and any(
      quiet_tensorflow.reason(error).endswith(end) for end in _OF_THE_DISK
    )
  )


class _StandardOutput:
  """Standard output, whose errors say that they are of it."""

  def __init__(self, file):
    self._file = file

  def __getattr__(self, name):
    return getattr(self._file, name)

  def write(self, text):
    return self._do(self._file.write, text)

  def flush(self):
    self._do(self._file.flush)

  def _do(self, function, *args):
    try:
      return function(*args)
    except OSError as error:
      # Python would try to write the rest when it ends, and say so.
      with open(os.devnull, 'wb') as nowhere:
        os.dup2(nowhere.fileno(), self._file.fileno())
      raise OSError(error.errno, error.strerror, 'standard output') from error


def run(main, define_flags=None, takes_argument=False):
  """Runs `main(argv)` under absl; a user's error becomes one line, status 1.

  Args:
    main: raises ValueError or OSError for what the user can put right.
    define_flags: function without arguments that defines the program's flags.
      Here and not when its module is imported, so that the modules of two
      programs can be imported into one process.
    takes_argument: whether there may be arguments that are no flags. Where
      not, one is refused.
  """

  def guarded(argv):
    try:
      _check_boolean_flags(sys.argv[1:])
      if len(argv) > 1 and not takes_argument:
        raise ValueError(
          f'unexpected argument {argv[1]}: write --flag=value, and file '
          'names into a flag, separated by commas'
        )
      status = main(argv)
      sys.stdout.flush()  # While it can still be told that this fails.
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
        f'out of memory ({reason}): give a smaller batch size, or run it '
        'where more memory is free'
      )

  if define_flags:
    define_flags()
  # As in 2016, progress is logged (to standard error) unless told otherwise.
  flags.FLAGS.set_default('verbosity', logging.INFO)
  sys.stdout = _StandardOutput(sys.stdout)
  app.run(guarded, flags_parser=_parse_flags)
