# SPDX-License-Identifier: Apache-2.0
"""Tests for scripts/setup.sh: what it refuses before it installs anything."""

import os
import shutil
import subprocess
import sys

import pytest

_SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'setup.sh')


@pytest.fixture
def setup(tmp_path):
  """Returns a function that runs setup.sh in an empty project, its `root`."""
  scripts = tmp_path / 'project' / 'scripts'
  scripts.mkdir(parents=True)
  shutil.copy(_SOURCE, scripts)
  # Nothing of these is to be reached.
  venv = tmp_path / 'project' / '.venv' / 'bin'
  venv.mkdir(parents=True)
  python = venv / 'python3'
  python.write_text('#!/bin/sh\nexit 9\n')
  python.chmod(0o755)
  bazel = tmp_path / 'bin' / 'bazel'
  bazel.parent.mkdir()

  def run(*args, version='bazel 4.2.3', **env):
    bazel.write_text(f'#!/bin/sh\necho "{version}"\n')
    bazel.chmod(0o755)
    return subprocess.run(
      [run.root / 'scripts' / 'setup.sh', *args],
      capture_output=True,
      text=True,
      check=False,
      env={
        **os.environ,
        'PATH': f'{bazel.parent}:{os.environ["PATH"]}',
        'PYTHON': '/missing/python3',
        **env,
      },
    )

  run.root = scripts.parent
  return run


@pytest.mark.parametrize(
  'version, is_tried',
  [
    ('bazel no_version', True),
    ('bazel 4.2.3', True),
    ('bazel 6.5.0', True),
    ('bazel 7.6.1', False),
    ('bazel 10.0.0-pre', False),
  ],
)
def test_says_which_bazel_was_not_tried(setup, version, is_tried):
  result = setup(version=version)
  assert (f"'{version}' gets rules_python from" in result.stderr) != is_tried
  # And stops at the next thing that is missing.
  assert result.returncode == 1
  assert 'no Python 3.11 to 3.13 with venv' in result.stderr


def test_a_path_with_a_space_is_told_first(setup):
  spaced = setup.root.rename(setup.root.parent / 'a project')
  setup.root = spaced
  # Of no use there, so of no harm.
  result = setup(version='bazel 8.1.0')
  first, *_, last = result.stderr.splitlines()
  assert first.startswith(f'setup: there is a space in {spaced}, and Bazel')
  assert 'no Python 3.11 to 3.13 with venv' in last
  result = setup('--test')
  assert result.returncode == 1
  (line,) = result.stderr.splitlines()
  assert 'which runs the tests, takes no path with a space' in line


def test_does_without_bazel(setup):
  result = setup('--no-bazel', version='bazel 8.1.0')
  (line,) = result.stderr.splitlines()
  assert 'no Python 3.11 to 3.13 with venv' in line


def test_refuses_what_it_does_not_know(setup):
  result = setup('--tests')
  assert result.returncode == 1 and 'unknown argument: --tests' in result.stderr
  result = setup(IM2TXT_TENSORFLOW='tpu')
  assert result.returncode == 1 and 'IM2TXT_TENSORFLOW=tpu' in result.stderr


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
