# SPDX-License-Identifier: Apache-2.0
"""Tests of program: how every program refuses and ends."""

import os
import subprocess
import sys

import pytest

_PROGRAM = """
import sys
from im2txt import program
def main(argv):
  if 'bad' in argv:
    raise ValueError('what is bad')
  if 'key' in argv:
    raise KeyboardInterrupt
  print(argv[1:])
program.run(main, takes_argument={})
"""


def run(takes_argument, *arguments):
  return subprocess.run(
      [sys.executable, '-c', _PROGRAM.format(takes_argument), *arguments],
      env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
      capture_output=True, text=True, check=False)


def test_an_argument_that_is_no_flag_is_refused():
  result = run(False, '--debug', 'false')
  assert result.returncode == 1 and not result.stdout
  assert 'unexpected argument false' in result.stderr
  assert run(False).stdout == '[]\n'
  assert run(True, 'false').stdout == "['false']\n"


def test_an_error_is_one_line_and_a_trace_with_debug():
  result = run(True, 'bad')
  assert result.returncode == 1 and result.stderr == 'error: what is bad\n'
  assert 'Traceback' in run(True, '--debug', 'bad').stderr


def test_help_is_no_failure_and_a_wrong_flag_one_line():
  for flag, text in ('--help', 'USAGE: '), ('--helpfull', '--[no]debug'):
    result = run(False, flag)
    assert result.returncode == 0 and not result.stderr
    assert text in result.stdout
  for flag in '--debugs', '--debug=perhaps':
    result = run(False, flag)
    assert result.returncode == 1 and not result.stdout
    line, = result.stderr.splitlines()
    assert line.startswith('error: ') and 'debug' in line and '--help' in line


def test_an_interrupt_is_told_by_the_status():
  result = run(True, 'key')
  assert result.returncode == 130 and not result.stderr


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
