# SPDX-License-Identifier: Apache-2.0
"""Tests of testing: what a test that is killed leaves behind."""

import os
import select
import subprocess
import sys

import pytest

# A test that has started a program; says so through a pipe.
_TEST = """
import signal, subprocess, sys
from im2txt import testing
pipe = int(sys.argv[1])
program = subprocess.Popen(
  **testing.program(
    'plot',
    code=f'import os, signal; os.write({pipe}, b"!"); signal.pause()',
  ),
  pass_fds=[pipe],
)
signal.pause()
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='Linux only')
def test_a_program_ends_with_the_test_that_started_it():
  ours, theirs = os.pipe()
  test = subprocess.Popen(
    [sys.executable, '-c', _TEST, str(theirs)],
    env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
    pass_fds=[theirs],
  )
  os.close(theirs)
  try:
    assert os.read(ours, 1) == b'!'
    test.kill()
    test.wait()
    # At its end, once the program too has closed its side.
    assert select.select([ours], [], [], 60)[0]
    assert os.read(ours, 1) == b''
  finally:
    test.kill()
    os.close(ours)


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
