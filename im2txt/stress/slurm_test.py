# SPDX-License-Identifier: Apache-2.0
"""Tests of slurm: what it reads of a job; scripts/slurm_check.sh runs it."""

import shutil
import sys

import pytest

from im2txt.stress import slurm

# Of Slurm 22.05, shortened.
_LOG = """\
1: I1126 13:38:59.320114 14038 distribution.py:435] this is worker 1 at node02
0: I1126 13:39:11.887106 14035 reporting.py:184] global step 105: loss = 2.0
0: I1126 13:39:11.996411 14035 reporting.py:184] global step 106: loss = 1.9
1: SIGTERM: finishing this step and saving (once more to quit without saving)
0: I1126 13:39:12.163430 14035 trainer.py:355] saved /tmp/tr/model.ckpt-106
srun: error: node01: task 0: Exited with exit code 143
srun: error: node02: task 1: Exited with exit code 143
"""


@pytest.fixture(name='job')
def fixture_job(tmp_path, monkeypatch):
  monkeypatch.setattr(slurm, '_run', lambda *command: '7\n')
  (tmp_path / 'job-7.log').write_text(_LOG)
  return slurm.Job(str(tmp_path), ['--nodes=2'])


def test_a_job_that_was_stopped(job):
  assert job.statuses() == {0: 143, 1: 143}
  assert slurm.stopped(job) == 106
  job.forget()
  assert job.text == '' and job.statuses() == {}


@pytest.mark.parametrize(
  'old, new, part',
  [
    ('task 1: Exited with exit code 143', 'task 1: Killed', 'exit statuses'),
    ('code 143', 'code 1', 'exit statuses'),
    ('ckpt-106', 'ckpt-105', 'what was saved'),
    ('0: I1126 13:39:12.16', '1: I1126 13:39:12.16', 'what was saved'),
    ('saved /tmp/', 'saving /tmp/', 'what was saved'),
  ],
)
def test_a_job_that_was_not_stopped_well(tmp_path, job, old, new, part):
  assert old in _LOG
  (tmp_path / 'job-7.log').write_text(_LOG.replace(old, new))
  with pytest.raises(slurm.FailedError, match=part):
    slurm.stopped(job)


def test_what_is_missing_is_told(monkeypatch, capsys):
  monkeypatch.setattr(slurm.os, 'geteuid', lambda: 0)
  monkeypatch.setattr(shutil, 'which', lambda name: name != 'slurmd' or None)
  assert slurm.main([]) == 1
  assert capsys.readouterr().err == (
    'error: no program slurmd: install the packages of Slurm, munge and '
    'iproute2\n'
  )
  monkeypatch.setattr(slurm.os, 'geteuid', lambda: 1000)
  assert slurm.main([]) == 1
  assert capsys.readouterr().err == (
    'error: a Slurm on this machine needs root: start it as root\n'
  )


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
