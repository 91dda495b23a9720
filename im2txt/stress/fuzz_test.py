# SPDX-License-Identifier: Apache-2.0
"""Tests of fuzz: a short run of it, and that it sees what it looks for."""

import sys

import pytest

from im2txt.stress import fuzz


@pytest.mark.parametrize('kind, count', [
    ('images', 12), ('checkpoints', 6), ('vocabularies', 12), ('json', 12)])
def test_damaged_input_is_read_or_refused(kind, count):
  outcomes, findings, megabytes = fuzz.run(kind, count, seed=7)
  assert not findings
  assert sum(outcomes.values()) >= count
  assert outcomes['refused'] > 0
  assert 0 < megabytes < 2000


def test_a_child_that_crashes_is_seen():
  with pytest.raises(RuntimeError, match='the child for images does not start'):
    fuzz.run('images', 1, command=[
        sys.executable, '-c', 'import os, signal; '
        'os.kill(os.getpid(), signal.SIGSEGV)'])


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
