# SPDX-License-Identifier: Apache-2.0
"""Work on many machines, by Apache Beam in the place of worker processes.

`BeamWorkers` does what `workers.Workers` does: it calls a function for each of
many tasks, and yields the results in order. The tasks and the results are JSON
files of a directory that all machines reach, so a pipeline holds only their
names. Programs give both the same tasks, so both write the same files.

Apache Beam is imported only when it is asked for.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import dataclasses
import importlib
import importlib.util
import json
import logging as python_logging
import os
import re
import secrets
import shlex
import threading
from typing import Any
from typing import Self
from typing import TypeVar

from absl import logging

from im2txt.runtime import files
from im2txt.runtime import storage
from im2txt.runtime import workers
from im2txt.runtime.flag_dataclasses import field

LOCAL = 'local'
_THIS_MACHINE, _CLOUD = 'DirectRunner', 'DataflowRunner'
_NAMES = (
  LOCAL,
  _THIS_MACHINE,
  'FlinkRunner',
  'SparkRunner',
  _CLOUD,
  'PortableRunner',
)

# A hidden directory, so that no pattern of files matches what is in it.
_DIRECTORY = '.beam-'
# Beam logs each step of each worker at level INFO.
_LOG_LEVEL = '--default_sdk_harness_log_level=WARNING'
# Seconds between two looks at the results.
_FIRST_WAIT, _LONGEST_WAIT = 0.05, 5.0
_TRIES = 3

# Errors that a task may raise, the first that fits.
_ERRORS = {'ValueError': ValueError, 'OSError': OSError, 'other': RuntimeError}

_IN_A_JAVA_TRACE = re.compile(r'at \S+\(|\.\.\. \d+ more$')

_T = TypeVar('_T')


@dataclasses.dataclass(frozen=True)
class RunnerOptions:
  """Where work is done. Each field is a flag."""

  runner: str = field(
    LOCAL,
    f'Where the work is done: {", ".join(_NAMES)}, or another runner by its '
    'module and class. local: in processes of this machine. The others are '
    'runners of Apache Beam, which is an extra (see docs/beam.md).',
  )
  beam_options: str = field(
    '',
    'Options of Apache Beam for --runner, separated by spaces, such as '
    '"--direct_num_workers=2 --direct_running_mode=multi_processing".',
  )
  beam_dir: str = field(
    '',
    'Directory for the tasks of --runner, which all its workers reach. The '
    'default is the directory of the output.',
  )

  @property
  def is_local(self) -> bool:
    """Whether the work is done on this machine, without Beam."""
    return self.runner == LOCAL

  def check_runner(self, directory: str) -> None:
    """Checks all that can be checked before any work.

    Args:
      directory: where the work leaves its files; '' if it has no such place.

    Raises:
      ValueError: Beam is missing, or the options do not fit each other.
    """
    if self.is_local:
      if self.beam_options:
        raise ValueError(
          f'--beam_options={self.beam_options} needs a --runner of Apache '
          f'Beam: give one, such as --runner=DirectRunner'
        )
      return
    if self.runner not in _NAMES and not (
      _is_class(self.runner)
      and all(part.isidentifier() for part in self.runner.split('.'))
    ):
      raise ValueError(
        f'--runner={self.runner} is none of {", ".join(_NAMES)}: give one of '
        'them, or the module and class of a runner, such as package.module.Name'
      )
    if not importlib.util.find_spec('apache_beam'):
      raise ValueError(
        f'--runner={self.runner} needs Apache Beam, which is not installed: '
        'run .venv/bin/pip install --no-deps -r requirements-beam.txt, or leave '
        'out --runner'
      )
    if _is_class(self.runner):
      module, _, name = self.runner.rpartition('.')
      try:
        with _without_warnings():
          getattr(importlib.import_module(module), name)
      except (ImportError, AttributeError) as error:
        raise ValueError(
          f'--runner={self.runner} cannot be imported ({error}): install its '
          'package, or give another runner'
        ) from error
    try:
      shlex.split(self.beam_options)
    except ValueError as error:
      raise ValueError(
        f'--beam_options={self.beam_options} cannot be split at its spaces '
        f'({error}): close the quotes'
      ) from error
    directory = self.beam_dir or directory
    if not directory and self.runner != _THIS_MACHINE:
      raise ValueError(
        f'--runner={self.runner} needs --beam_dir: give a directory that its '
        'workers reach'
      )
    if self.runner == _CLOUD and not storage.is_remote(directory):
      raise ValueError(
        f'--runner={_CLOUD} cannot write into {directory}, which is of this '
        'machine: give a directory that its workers reach, such as gs://'
      )

  def workers(
    self, directory: str, num_workers: int = 0, flag: str | None = None
  ) -> contextlib.AbstractContextManager[workers.Pool]:
    """Returns what does the work, a context manager.

    Args:
      directory: an existing directory, where Beam's workers keep their tasks
        unless `beam_dir` is given.
      num_workers: processes of this machine, see `workers.Workers`.
      flag: the flag that gave their number.
    """
    if self.is_local:
      return workers.Workers(num_workers, flag)
    return BeamWorkers(
      self.runner,
      shlex.split(self.beam_options),
      storage.absolute(self.beam_dir or directory),
    )


class BeamWorkers:
  """Workers of Apache Beam; a context manager.

  Args:
    runner: name of a runner of Beam.
    options: options of Beam.
    directory: an existing directory that all workers reach.
  """

  # Starting a task costs some files and messages.
  grain = 20

  def __init__(self, runner: str, options: list[str], directory: str) -> None:
    self._runner = runner
    self._options = options
    # A pipeline that was left behind writes elsewhere.
    self._directory = os.path.join(directory, _DIRECTORY + secrets.token_hex(8))
    self._num_stages = 0

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    if storage.exists(self._directory):
      storage.remove_tree(self._directory)

  def map(
    self, function: Callable[..., _T], tasks: Iterable[tuple[Any, ...]]
  ) -> Iterator[_T]:
    """Yields function(*task) in order, each when its turn is done.

    Args:
      function: a function of a module of im2txt.
      tasks: the arguments of each call: what JSON can hold. The function gets
        lists in the place of tuples, and so does the caller.

    Raises:
      OSError: the pipeline failed.
      Exception: any error of the function.
    """
    directory = os.path.join(self._directory, f'{self._num_stages:02d}')
    self._num_stages += 1
    storage.makedirs(directory)
    names: list[str] = []
    for task in tasks:
      names.append(os.path.join(directory, f'{len(names):08d}'))
      _save(names[-1], {'function': _name(function), 'arguments': task})
    if not names:
      return
    pipeline = _Pipeline(function.__name__, self._runner, self._options, names)
    try:
      wait = _FIRST_WAIT
      for name in names:
        while pipeline.is_running and not storage.exists(_result(name)):
          pipeline.join(wait)
          wait = min(2 * wait, _LONGEST_WAIT)
        yield self._result(name, pipeline)
    finally:
      pipeline.cancel()

  def _result(self, name: str, pipeline: '_Pipeline') -> Any:
    """Returns the result of a task that is done, or of a pipeline that ended.

    Raises:
      OSError: the pipeline failed before.
      Exception: the error of the task.
    """
    try:
      result = files.read_json(_result(name))
    except FileNotFoundError:
      error = pipeline.error
      raise OSError(
        f'--runner={self._runner} failed ({_in_a_line(error)}): mend that and '
        'run the same command again, which goes on from here'
      ) from error
    if 'error' in result:
      raise _ERRORS[result['error']](result['text'])
    return result['value']


class _Pipeline:
  """A pipeline of Beam that runs in the background.

  Args:
    title: what its tasks do.
    runner: name of the runner.
    options: options of Beam.
    names: the files of the tasks.

  Attributes:
    error: what it failed of; None until then.
  """

  def __init__(
    self, title: str, runner: str, options: list[str], names: list[str]
  ) -> None:
    self.error: BaseException | None = None
    self._result: Any = None
    self._is_cancelled = False
    python_logging.getLogger('apache_beam').setLevel(python_logging.WARNING)
    # A daemon does not keep an interrupted program from ending.
    self._thread = threading.Thread(
      target=self._run, args=(title, runner, options, names), daemon=True
    )
    self._thread.start()

  @property
  def is_running(self) -> bool:
    return self._thread.is_alive()

  def join(self, seconds: float) -> None:
    """Waits for the end, but not longer."""
    self._thread.join(seconds)

  def cancel(self) -> None:
    """Ends the pipeline if its caller wants no more results."""
    if self.is_running:
      self._is_cancelled = True
      if self._result:
        self._result.cancel()
      else:
        self._thread.join(_LONGEST_WAIT)

  def _run(
    self, title: str, runner: str, options: list[str], names: list[str]
  ) -> None:
    try:
      with _without_warnings():
        import apache_beam as beam
        from apache_beam.options import pipeline_options

      pipeline = beam.Pipeline(
        runner,
        pipeline_options.PipelineOptions(
          [_LOG_LEVEL, *options], job_name=f'im2txt-{title.strip("_")}'
        ),
      )
      if _is_class(runner):
        # Reshuffle needs the time of an element, which runners of others need
        # not know. A group per task does the same, if less evenly where groups
        # are shared out by hash.
        spread = (
          beam.Create(list(enumerate(names)))
          | beam.GroupByKey()
          | beam.FlatMapTuple(lambda _, names_of_one: names_of_one)
        )
      else:
        spread = beam.Create(names) | beam.Reshuffle()
      # Spread, or one worker would get all of them.
      _ = pipeline | 'Tasks' >> spread | title >> beam.Map(_work)
      self._result = pipeline.run()
      state = self._result.wait_until_finish()
      if state != 'DONE':
        raise RuntimeError(f'the pipeline ended as {state}')
    except BaseException as error:  # It is raised where it is awaited.
      self.error = error
      if self._is_cancelled:
        logging.info('cancelled: %s', _in_a_line(error))


def _is_class(runner: str) -> bool:
  """Returns whether a runner is named by its module and class."""
  return '.' in runner


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
  """Hides that Beam warns of parts for other stores that are not installed."""
  python_logging.disable(python_logging.WARNING)
  try:
    yield
  finally:
    python_logging.disable(python_logging.NOTSET)


def _work(name: str) -> None:
  """Does a task, in a worker of Beam."""
  task = files.read_json(name)
  function = _function(task['function'])
  for left in reversed(range(_TRIES)):
    try:
      result = {'value': function(*task['arguments'])}
      break
    except Exception as error:
      # A store may fail for a moment.
      if not left or not isinstance(error, OSError):
        kind = next(
          (name for name, kind in _ERRORS.items() if isinstance(error, kind)),
          'other',
        )
        result = {'error': kind, 'text': str(error) or type(error).__name__}
        logging.exception('a task failed')
        break
  _save(_result(name), result)


def _name(function: Callable[..., object]) -> str:
  return f'{function.__module__}:{function.__name__}'


def _function(name: str) -> Callable[..., object]:
  """Returns a function of im2txt by `_name`."""
  module, _, function = name.partition(':')
  if not module.startswith('im2txt.'):
    raise ValueError(f'{name} is no function of im2txt')
  return getattr(importlib.import_module(module), function)


def _result(name: str) -> str:
  return f'{name}.result'


def _save(path: str, value: object) -> None:
  with files.replacing(path) as temporary:
    with open(temporary, 'w', encoding='utf-8') as f:
      # In ASCII, which has a form for names that are not UTF-8.
      json.dump(value, f)


def _in_a_line(error: BaseException | None) -> str:
  """Returns the last line of an error but for traces.

  Python puts the trace before the line, Java after it.
  """
  lines = [line.strip() for line in str(error).split('\n') if line.strip()]
  lines = [line for line in lines if not _IN_A_JAVA_TRACE.match(line)]
  return lines[-1] if lines else type(error).__name__
