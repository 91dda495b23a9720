# SPDX-License-Identifier: Apache-2.0
"""Tests of beam_workers, in this process by Beam's DirectRunner."""

import importlib.util
import os
import sys
import types

import pytest

from im2txt.runtime import beam_workers
from im2txt.runtime import storage
from im2txt.runtime import workers


def _beam(directory, options=''):
  pytest.importorskip('apache_beam', reason='needs Apache Beam')
  return beam_workers.RunnerOptions('DirectRunner', options).workers(directory)


# Tasks name their function by its module, so these stand in for one of im2txt.
@pytest.fixture(autouse=True)
def functions(monkeypatch):
  for function in (double, fail):
    monkeypatch.setattr(function, '__module__', beam_workers.__name__)
    monkeypatch.setattr(
      beam_workers, function.__name__, function, raising=False
    )


def double(value):
  return [value, value]


def fail(kind, path):
  """Raises an error, and leaves a line for each time that it is called."""
  with open(path, 'a', encoding='utf-8') as f:
    f.write('called\n')
  raise {'value': ValueError, 'disk': OSError, 'key': KeyError}[kind]('sad')


@pytest.mark.parametrize('place', ['local', 'ram'])
def test_results_come_in_order_and_nothing_is_left(place, tmp_path):
  directory = str(tmp_path) if place == 'local' else 'ram://beam_workers'
  storage.makedirs(directory)
  with _beam(directory) as pool:
    assert list(pool.map(double, [(i,) for i in range(30)])) == [
      [i, i] for i in range(30)
    ]
    assert list(pool.map(double, [(('é', None, '\udce4'),)])) == [
      [['é', None, '\udce4']] * 2
    ]
    assert list(pool.map(double, [])) == []
  assert storage.listdir(directory) == []


def test_a_runner_of_others_needs_no_time_of_an_element(tmp_path, monkeypatch):
  """PySparkRunner does not know it, so a Reshuffle fails there."""
  beam = pytest.importorskip('apache_beam', reason='needs Apache Beam')
  found = {beam.Create: [], beam.Reshuffle: [], beam.GroupByKey: []}

  class Visitor(beam.pipeline.PipelineVisitor):
    def enter_composite_transform(self, node):
      found.get(type(node.transform), []).append(node.full_label)

    visit_transform = enter_composite_transform

  class Theirs(beam.runners.DirectRunner):
    def run_pipeline(self, pipeline, options):
      pipeline.visit(Visitor())
      return super().run_pipeline(pipeline, options)

  monkeypatch.setitem(
    sys.modules, 'their_runners', types.SimpleNamespace(Theirs=Theirs)
  )
  options = beam_workers.RunnerOptions('their_runners.Theirs')
  options.check_runner(str(tmp_path))
  with options.workers(str(tmp_path)) as pool:
    assert list(pool.map(double, [(i,) for i in range(30)])) == [
      [i, i] for i in range(30)
    ]
  # A runner replaces Create, which may hold a Reshuffle.
  (create,) = found[beam.Create]
  in_create = tuple(s for s in found[beam.Reshuffle] if s.startswith(create))
  assert [*in_create] == found[beam.Reshuffle]
  assert [s for s in found[beam.GroupByKey] if not s.startswith(in_create)]
  assert os.listdir(tmp_path) == []


def test_the_line_of_an_error_is_in_no_trace():
  of_java = """An error occurred while calling z:collectAndServe.
: org.apache.spark.SparkException: Job aborted: Traceback (most recent call last):
  File "worker.py", line 90, in main
    read()
ModuleNotFoundError: No module named 'im2txt'

\tat org.apache.spark.Runner$$anon$3.read(Runner.scala:765)
\tat java.base/java.lang.Thread.run(Thread.java:840)
\t... 1 more
"""
  assert beam_workers._in_a_line(RuntimeError(of_java)) == (
    "ModuleNotFoundError: No module named 'im2txt'"
  )


@pytest.mark.parametrize(
  'kind, error, calls',
  [('value', ValueError, 1), ('disk', OSError, 3), ('key', RuntimeError, 1)],
)
def test_an_error_of_a_task_is_raised(kind, error, calls, tmp_path):
  """A store may fail for a moment, so an OSError has three tries."""
  log = tmp_path / 'log'
  with _beam(str(tmp_path)) as pool:
    with pytest.raises(error, match='sad'):
      list(pool.map(fail, [(kind, str(log))]))
  assert log.read_text() == 'called\n' * calls
  assert os.listdir(tmp_path) == ['log']


def test_a_pipeline_that_fails_is_told_in_a_line(tmp_path):
  with _beam(str(tmp_path), '--runner=none --direct_num_workers=x') as pool:
    with pytest.raises(OSError, match='--runner=DirectRunner failed') as raised:
      list(pool.map(double, [(1,)]))
  assert '\n' not in str(raised.value)


@pytest.mark.parametrize(
  'options, directory, message',
  [
    (('local', '--x=1'), '/tmp', '--beam_options=--x=1 needs a --runner'),
    (('DirectRunner', '--x="1'), '/tmp', 'close the quotes'),
    (('DataflowRunner', ''), '/tmp', 'cannot write into /tmp, .* such as gs:'),
    (('directrunner', ''), '/tmp', 'directrunner is none of local, DirectRun'),
    (
      ('no..Class', ''),
      '/tmp',
      '--runner=no..Class is none of .*: give one of',
    ),
    (
      ('no.Class', ''),
      '/tmp',
      "no.Class cannot be imported .No module .* 'no'",
    ),
    (
      ('json.Spark', ''),
      '/tmp',
      "imported .* no attribute 'Spark'.: install it",
    ),
    (('json.JSONDecoder', ''), '', 'needs --beam_dir: give a directory that'),
  ],
)
def test_options_are_checked_before_work(
  options, directory, message, monkeypatch
):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda _: True)
  with pytest.raises(ValueError, match=message):
    beam_workers.RunnerOptions(*options).check_runner(directory)


def test_beam_that_is_missing_is_told(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda _: None)
  with pytest.raises(ValueError, match='needs Apache Beam, which is not'):
    beam_workers.RunnerOptions('FlinkRunner').check_runner('/tmp')
  beam_workers.RunnerOptions().check_runner('/tmp')


def test_local_work_is_done_by_processes_of_this_machine(tmp_path):
  pool = beam_workers.RunnerOptions().workers(str(tmp_path), 1)
  assert isinstance(pool, workers.Workers)


def test_no_function_of_other_modules_is_called():
  with pytest.raises(ValueError, match='os:remove is no function of im2txt'):
    beam_workers._function('os:remove')


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
