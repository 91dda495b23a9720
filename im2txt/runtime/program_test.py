# SPDX-License-Identifier: Apache-2.0
"""Tests of program: how every program refuses and ends."""

import os
import subprocess
import sys

import pytest

_PROGRAM = """
import sys
from im2txt.runtime import program
def main(argv):
  if 'bad' in argv:
    raise ValueError('what is bad')
  if 'memory' in argv:
    raise MemoryError
  if 'disk' in argv:
    import tensorflow as tf
    tf.io.write_file('/dev/full', 'x' * 9999)
  if 'key' in argv:
    raise KeyboardInterrupt
  if 'garbage' in argv:
    class Garbage:
      def __init__(self):
        self.itself = self
      def __del__(self, write=print):
        write('collected')
    Garbage()
  print(argv[1:])
program.run(main, takes_argument={})
"""


def run(takes_argument, *arguments):
  return subprocess.run(
    [sys.executable, '-c', _PROGRAM.format(takes_argument), *arguments],
    env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
    capture_output=True,
    text=True,
    check=False,
  )


def test_an_argument_that_is_no_flag_is_refused():
  result = run(False, 'false')
  assert result.returncode == 1 and not result.stdout
  assert 'unexpected argument false' in result.stderr
  assert run(False).stdout == '[]\n'
  assert run(True, 'false').stdout == "['false']\n"


@pytest.mark.parametrize('takes_argument', [False, True])
@pytest.mark.parametrize('value', ['false', 'True', '0'])
def test_a_boolean_flag_takes_no_value_after_a_blank(takes_argument, value):
  result = run(takes_argument, 'x', '--debug', value)
  assert result.returncode == 1 and not result.stdout
  assert f'write --debug={value}' in result.stderr
  # The error came with --debug, so with its trace.
  assert 'ValueError' in result.stderr
  assert run(True, '--', '--debug', value).returncode == 0
  assert run(True, '--stderrthreshold', 'info', value).returncode == 0


@pytest.mark.parametrize('flush', [False, True])
def test_a_full_disk_under_standard_output_is_one_line(flush):
  program = _PROGRAM.replace('argv[1:]', f'argv[1:], flush={flush}')
  with open('/dev/full', 'w', encoding='utf-8') as full:
    result = subprocess.run(
      [sys.executable, '-c', program.format(True)],
      env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
      stdout=full,
      stderr=subprocess.PIPE,
      text=True,
      check=False,
    )
  assert result.returncode == 1
  assert result.stderr == (
    "error: [Errno 28] No space left on device: 'standard output'\n"
  )


def test_too_little_memory_is_one_line():
  result = run(True, 'memory')
  assert result.returncode == 1
  assert result.stderr.startswith('error: out of memory')
  assert result.stderr.count('\n') == 1


def test_a_full_disk_under_tensorflow_is_none_of_memory():
  result = run(True, 'disk')
  assert result.returncode == 1
  line = result.stderr.splitlines()[-1]
  assert line == 'error: /dev/full; No space left on device'
  assert 'Traceback' not in result.stderr


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
    (line,) = result.stderr.splitlines()
    assert line.startswith('error: ') and 'debug' in line and '--help' in line


def test_an_interrupt_is_told_by_the_status():
  result = run(True, 'key')
  assert result.returncode == 130 and not result.stderr


def test_no_garbage_is_collected_at_the_end():
  result = run(True, 'garbage')
  assert (result.returncode, result.stdout) == (0, "['garbage']\n")


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
