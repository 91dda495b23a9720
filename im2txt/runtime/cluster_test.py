# SPDX-License-Identifier: Apache-2.0
"""Tests of cluster: TF_CONFIG and Slurm's variables."""

import json
import sys

import pytest

from im2txt.runtime import cluster


def _tf_config(jobs, job, index):
  return json.dumps({'cluster': jobs, 'task': {'type': job, 'index': index}})


def test_the_chief_is_the_first_with_or_without_a_job_of_its_own():
  jobs = {'worker': ['b:1', 'c:1'], 'chief': ['a:1']}
  for job, index, expected in (
    ('chief', 0, 0),
    ('worker', 0, 1),
    ('worker', 1, 2),
  ):
    found = cluster.from_tf_config(_tf_config(jobs, job, index))
    assert found.addresses == ('a:1', 'b:1', 'c:1')
    assert found.index == expected
    assert cluster.from_tf_config(found.tf_config()) == found
  assert found.describe(0) == 'worker 0 (the chief) at a:1'
  del jobs['chief']
  found = cluster.from_tf_config(_tf_config(jobs, 'worker', 0))
  assert found.describe(found.index) == 'worker 0 (the chief) at b:1'
  assert json.loads(found.tf_config())['cluster'] == jobs


@pytest.mark.parametrize(
  'text, part',
  [
    ('{', 'is damaged'),
    ('[]', 'is damaged'),
    ('{"cluster": {"worker": [1]}, "task": {"type": "worker"}}', 'is damaged'),
    (_tf_config({'worker': ['a:1']}, 'worker', 'x'), 'is damaged'),
    (_tf_config({'worker': ['a:1'], 'ps': ['b:1']}, 'worker', 0), "job 'ps'"),
    (_tf_config({'worker': ['a:1']}, 'evaluator', 0), "job 'evaluator'"),
    (_tf_config({'worker': ['a:1']}, 'worker', 1), 'is worker 1: give'),
    (_tf_config({'chief': ['a:1', 'b:1']}, 'chief', 0), 'has 2 chief'),
  ],
)
def test_a_wrong_tf_config_is_told(text, part):
  with pytest.raises(ValueError, match=part):
    cluster.from_tf_config(text)


def test_finds_the_other_worker_in_an_error_of_tensorflow():
  found = cluster.Cluster(('a:1',), ('b:1', 'c:1'), 1)
  for text, index in (
    ('from /job:worker/replica:0/task:0 to /job:worker/replica:0/task:1', 2),
    ('reported from /job:chief/task:0: it', 0),
    ('/job:worker/task:7 and /job:worker/task:0', None),
    ('no task', None),
  ):
    assert found.named_in(text) == index


def test_workers_of_slurm_share_the_ports_of_their_node():
  environ = {
    'SLURM_STEP_NODELIST': 'gpu[009-010],login,x[1,3]y',
    'SLURM_STEP_TASKS_PER_NODE': '2(x2),1(x3)',
    'SLURM_NODEID': '1',
    'SLURM_LOCALID': '1',
  }
  found = cluster.from_environment(environ, 900)
  assert found.addresses == (
    'gpu009:900',
    'gpu009:901',
    'gpu010:900',
    'gpu010:901',
    'login:900',
    'x1y:900',
    'x3y:900',
  )
  assert found.index == 3
  # TF_CONFIG comes first.
  environ['TF_CONFIG'] = _tf_config({'worker': ['a:1']}, 'worker', 0)
  assert cluster.from_environment(environ, 900).addresses == ('a:1',)
  assert cluster.from_environment({}, 900) is None


@pytest.mark.parametrize(
  'counts, places',
  [
    # What `srun --distribution=cyclic` of Slurm 22.05 set in each task, in the
    # order of SLURM_PROCID: (SLURM_NODEID, SLURM_LOCALID).
    ('2(x2)', ['0 0', '1 0', '0 1', '1 1']),
    ('2,1', ['0 0', '1 0', '0 1']),
    # The default.
    ('2(x2)', ['0 0', '0 1', '1 0', '1 1']),
  ],
)
def test_each_task_of_slurm_is_on_its_node(counts, places):
  found = [
    cluster.from_slurm(
      {
        'SLURM_STEP_NODELIST': 'node[01-02]',
        'SLURM_STEP_TASKS_PER_NODE': counts,
        'SLURM_PROCID': str(number),
        'SLURM_NODEID': place.split()[0],
        'SLURM_LOCALID': place.split()[1],
      },
      12321,
    )
    for number, place in enumerate(places)
  ]
  assert [one.addresses[one.index] for one in found] == [
    f'node0{int(node) + 1}:{12321 + int(task)}'
    for node, task in map(str.split, places)
  ]
  assert len({one.addresses for one in found}) == 1
  assert found[0].index == 0


@pytest.mark.parametrize(
  'name, value',
  [
    ('SLURM_NODEID', None),
    ('SLURM_NODEID', '2'),
    ('SLURM_LOCALID', '1'),
    ('SLURM_STEP_TASKS_PER_NODE', '1(y2)'),
    ('SLURM_STEP_TASKS_PER_NODE', '1'),
  ],
)
def test_wrong_variables_of_slurm_are_told(name, value):
  environ = {
    'SLURM_STEP_NODELIST': 'a,b',
    'SLURM_STEP_TASKS_PER_NODE': '1(x2)',
    'SLURM_NODEID': '0',
    'SLURM_LOCALID': '0',
  }
  environ[name] = value
  if value is None:
    del environ[name]
  with pytest.raises(ValueError, match='start the program by srun'):
    cluster.from_slurm(environ, 900)


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
