# SPDX-License-Identifier: Apache-2.0
"""Tests for scripts/count_tests.py, on what Bazel and pytest really write."""

import json
import os
import subprocess
import sys

import pytest

_SCRIPT = os.path.join(os.path.dirname(__file__), 'count_tests.py')

_TESTS = """
import sys
import pytest

def test_good():
  print('==== 7 passed in 1s ====')

@pytest.mark.parametrize('number', [1, 2, 3])
def test_many(number):
  assert number

@pytest.mark.skip(reason='no camera')
def test_skipped():
  pass

{more}
if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v', '-p', 'no:cacheprovider', '-rfEs']))
"""
_BAD = """
def test_bad():
  assert 1 == 2

@pytest.fixture
def broken():
  raise ValueError('broken fixture')

def test_error(broken):
  pass
"""


def _event(label, status, log):
  return json.dumps(
    {
      'id': {'testResult': {'label': label, 'run': 1}},
      'testResult': {
        'status': status,
        'testActionOutput': [
          {'name': 'test.log', 'uri': f'file://{log}'},
          {'name': 'test.xml', 'uri': f'file://{log}.xml'},
        ],
      },
    }
  )


def _pytest_log(directory, name, more=''):
  """Runs the tests above, and returns the path of the log."""
  test = directory / f'{name}_test.py'
  test.write_text(_TESTS.format(more=more))
  log = directory / f'{name} log'
  with open(log, 'wb') as output:
    subprocess.run(
      [sys.executable, str(test)],
      stdout=output,
      stderr=subprocess.STDOUT,
      check=False,
    )
  return log


def _count(directory, *events):
  path = directory / 'events.json'
  path.write_text('\n'.join(['{"id": {"started": {}}}', *events]) + '\n')
  return subprocess.run(
    [sys.executable, _SCRIPT, str(path)],
    capture_output=True,
    check=True,
    text=True,
  ).stdout.splitlines()


def test_adds_up_targets(tmp_path):
  good = _pytest_log(tmp_path, 'good')
  bad = _pytest_log(tmp_path, 'bad', _BAD)
  # As Bazel writes paths: percent-encoded.
  lines = _count(
    tmp_path,
    _event('//a:good', 'PASSED', str(good).replace(' ', '%20')),
    _event('//a:bad', 'FAILED', str(bad).replace(' ', '%20')),
  )
  assert lines[0] == 'SKIPPED 2: no camera'
  assert [line.split(' - ')[0].split('::')[-1] for line in lines[1:-1]] == [
    'test_bad',
    'test_error',
  ]
  assert all(line.startswith('FAILED ') for line in lines[1:-1])
  assert lines[-1] == '8 passed, 2 failed, 2 skipped'


def test_target_without_totals_is_a_failure(tmp_path):
  log = tmp_path / 'log'
  log.write_text('collecting ...\nSegmentation fault\n')
  lines = _count(tmp_path, _event('//a:dead', 'TIMEOUT', log))
  assert lines == [
    f'FAILED //a:dead: ended without a result, see {log}',
    '0 passed, 1 failed, 0 skipped',
  ]


def test_no_target(tmp_path):
  assert _count(tmp_path) == ['0 passed, 0 failed, 0 skipped']


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
