# SPDX-License-Identifier: Apache-2.0
"""Tests of the examples for Slurm and Kubernetes."""

import os
import pathlib
import subprocess
import sys

import pytest

from im2txt.runtime import cluster

_SCRIPTS = pathlib.Path(__file__).resolve().parent


def test_every_pod_finds_the_others():
  yaml = pytest.importorskip('yaml', reason='PyYAML is not installed')
  text = (_SCRIPTS / 'kubernetes_train.yaml').read_text()
  service, job = yaml.safe_load_all(text)
  pod = job['spec']['template']['spec']
  (container,) = pod['containers']
  env = {one['name']: one for one in container['env']}
  count = job['spec']['completions']
  assert job['spec']['parallelism'] == count
  assert job['spec']['completionMode'] == 'Indexed'
  name, domain = job['metadata']['name'], service['metadata']['name']
  assert pod['subdomain'] == domain
  assert service['spec']['selector'] == {'job-name': name}
  assert service['spec']['clusterIP'] == 'None'
  port = service['spec']['ports'][0]['port']
  for index in range(count):
    found = cluster.from_tf_config(
      env['TF_CONFIG']['value'].replace('$(INDEX)', str(index))
    )
    assert found.index == index
    # Kubernetes names the pods of an indexed job so.
    assert found.addresses == tuple(
      f'{name}-{i}.{domain}:{port}' for i in range(count)
    )


@pytest.mark.parametrize('status, requeued', [(0, ''), (1, ''), (143, '7\n')])
def test_a_slurm_job_that_was_told_to_stop_queues_again(
  tmp_path, status, requeued
):
  for name, script in {
    'srun': f'echo "$@" > {tmp_path}/srun.txt; exit {status}',
    'scontrol': f'[ "$1" = requeue ] && echo "$2" > {tmp_path}/requeued.txt',
  }.items():
    path = tmp_path / name
    path.write_text(f'#!/bin/sh\n{script}\n')
    path.chmod(0o755)
  (tmp_path / 'requeued.txt').write_text('')
  result = subprocess.run(
    ['bash', _SCRIPTS / 'slurm_train.sbatch', '--train_dir=a b'],
    env={
      **os.environ,
      'PATH': f'{tmp_path}:{os.environ["PATH"]}',
      'SLURM_JOB_ID': '7',
    },
    check=False,
  )
  assert result.returncode == status
  assert (tmp_path / 'requeued.txt').read_text() == requeued
  assert (tmp_path / 'srun.txt').read_text() == (
    '--label --kill-on-bad-exit=0 --wait=120 bazel-bin/im2txt/train '
    '--distribution=multi_worker --train_dir=a b\n'
  )


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
