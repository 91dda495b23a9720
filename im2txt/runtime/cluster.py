# SPDX-License-Identifier: Apache-2.0
"""The processes that train together, as TF_CONFIG or Slurm describe them."""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import json
import re
from typing import Any

# Jobs of TF_CONFIG whose tasks train, in order. The first task is the chief.
_JOBS = ('chief', 'worker')
# Names of tasks in TensorFlow's errors.
_TASK = re.compile(r'/job:(\w+)(?:/replica:\d+)?/task:(\d+)')
# Slurm's node lists: node[01-03,7],login. A range may stand in brackets only.
_NODES = re.compile(r'(?:[^,\[\]]|\[[^\[\]]*\])+')


@dataclasses.dataclass(frozen=True)
class Cluster:
  """The processes that train together.

  Attributes:
    chiefs: addresses, HOST:PORT, of the tasks of job `chief`: none or one.
    workers: addresses of the tasks of job `worker`.
    index: of this process among both.
  """

  chiefs: tuple[str, ...]
  workers: tuple[str, ...]
  index: int

  @property
  def addresses(self) -> tuple[str, ...]:
    """Addresses of all processes. The first is the chief, who writes."""
    return self.chiefs + self.workers

  def describe(self, index: int) -> str:
    """Returns a name for a process, for people."""
    role = ' (the chief)' if index == 0 else ''
    return f'worker {index}{role} at {self.addresses[index]}'

  def named_in(self, message: str) -> int | None:
    """Returns the other process that an error of TensorFlow names, or None."""
    for job, task in _TASK.findall(message):
      index = int(task) + (len(self.chiefs) if job == 'worker' else 0)
      if index != self.index and index < len(self.addresses):
        return index
    return None

  def tf_config(self) -> str:
    """Returns the TF_CONFIG of this process."""
    cluster = {
      job: addresses
      for job, addresses in zip(_JOBS, (self.chiefs, self.workers))
      if addresses
    }
    is_worker = self.index >= len(self.chiefs)
    task = {
      'type': _JOBS[is_worker],
      'index': self.index - len(self.chiefs) * is_worker,
    }
    return json.dumps({'cluster': cluster, 'task': task})


def from_tf_config(text: str) -> Cluster:
  """Reads TF_CONFIG.

  Args:
    text: a JSON object.

  Raises:
    ValueError: it is damaged, or names jobs that do not train.

  >>> from_tf_config(
  ...   '{"cluster": {"worker": ["a:1", "b:1"]},'
  ...   ' "task": {"type": "worker", "index": 1}}'
  ... ).describe(1)
  'worker 1 at b:1'
  """
  try:
    value: Any = json.loads(text)
    jobs, task = value['cluster'], value['task']
    chiefs, workers = (tuple(jobs.get(job, ())) for job in _JOBS)
    job, index = task['type'], int(task['index'])
    if not all(isinstance(a, str) for a in chiefs + workers):
      raise ValueError('addresses must be strings')
  except (ValueError, LookupError, TypeError, AttributeError) as error:
    raise ValueError(
      f'TF_CONFIG={text!r:.200} is damaged ({error!r}): give {{"cluster": '
      '{"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": N}}'
    ) from error
  for name in (*jobs, job):
    if name not in _JOBS:
      raise ValueError(
        f'TF_CONFIG names a job {name!r:.100}: only the jobs chief and worker '
        'train'
      )
  first = len(chiefs) if job == 'worker' else 0
  count = len(workers) if job == 'worker' else len(chiefs)
  if len(chiefs) > 1 or not 0 <= index < count:
    raise ValueError(
      f'TF_CONFIG has {len(chiefs)} chief and {len(workers)} worker '
      f'address(es), and this process is {job} {index}: give at most one '
      'chief, and each process an index of an address'
    )
  return Cluster(chiefs, workers, first + index)


def from_slurm(environ: Mapping[str, str], port: int) -> Cluster:
  """Returns the cluster of a job step of Slurm, as `srun` describes it.

  The tasks are in the order of the nodes, however `srun --distribution` numbers
  them.

  Args:
    environ: environment variables of a task of the step.
    port: of the first task on each node; the next tasks have the next ports.

  Raises:
    ValueError: this process was not started by srun.

  >>> from_slurm(
  ...   {'SLURM_STEP_NODELIST': 'n[1-2]', 'SLURM_STEP_TASKS_PER_NODE': '2,1',
  ...    'SLURM_NODEID': '1', 'SLURM_LOCALID': '0'}, 9000).addresses
  ('n1:9000', 'n1:9001', 'n2:9000')
  """
  try:
    nodes = _expand(environ['SLURM_STEP_NODELIST'])
    counts = _tasks_per_node(environ['SLURM_STEP_TASKS_PER_NODE'])
    node, task = (int(environ[f'SLURM_{x}ID']) for x in ('NODE', 'LOCAL'))
    if (
      len(nodes) != len(counts)
      or not 0 <= node < len(nodes)
      or not 0 <= task < counts[node]
    ):
      raise ValueError(
        f'{len(nodes)} nodes, tasks per node {counts}, task {task} of node '
        f'{node}'
      )
  except (KeyError, ValueError) as error:
    raise ValueError(
      f'cannot tell the workers from the variables of Slurm ({error!r}): start '
      'the program by srun, or give TF_CONFIG'
    ) from error
  return Cluster(
    (),
    tuple(
      f'{name}:{port + number}'
      for name, count in zip(nodes, counts)
      for number in range(count)
    ),
    sum(counts[:node]) + task,
  )


def from_environment(
  environ: Mapping[str, str], slurm_port: int
) -> Cluster | None:
  """Returns the cluster of TF_CONFIG, else of Slurm; None without either.

  Args:
    environ: environment variables.
    slurm_port: see `from_slurm`.

  Raises:
    ValueError: see `from_tf_config` and `from_slurm`.
  """
  if environ.get('TF_CONFIG'):
    return from_tf_config(environ['TF_CONFIG'])
  if 'SLURM_STEP_NODELIST' in environ:
    return from_slurm(environ, slurm_port)
  return None


def _expand(nodes: str) -> list[str]:
  """Expands a node list of Slurm.

  >>> _expand('a[08-10,2]b,c')
  ['a08b', 'a09b', 'a10b', 'a2b', 'c']
  """
  result: list[str] = []
  for part in _NODES.findall(nodes):
    names: Sequence[str] = ['']
    for text, numbers in re.findall(r'([^\[\]]+)|\[([^\[\]]*)\]', part):
      ends = [text] if text else _numbers(numbers)
      names = [name + end for name in names for end in ends]
    result.extend(names)
  return result


def _numbers(ranges: str) -> list[str]:
  """Expands '08-10,2'; numbers keep their leading zeros."""
  result: list[str] = []
  for part in ranges.split(','):
    first, _, last = part.partition('-')
    result.extend(
      f'{number:0{len(first)}}'
      for number in range(int(first), int(last or first) + 1)
    )
  return result


def _tasks_per_node(counts: str) -> list[int]:
  """Expands Slurm's short form.

  >>> _tasks_per_node('2(x3),1')
  [2, 2, 2, 1]
  """
  result: list[int] = []
  for part in counts.split(','):
    match = re.fullmatch(r'(\d+)(?:\(x(\d+)\))?', part)
    if not match:
      raise ValueError(f'tasks per node {counts!r:.100}')
    result.extend([int(match[1])] * int(match[2] or 1))
  return result
