# SPDX-License-Identifier: Apache-2.0
"""Runs scripts/slurm_train.sbatch on a real Slurm that lives on this machine.

  python -m im2txt.stress.slurm

Needs Linux, root, and the programs of Slurm and munge. Three nodes run here.
Each has a name, an address and ports of its own, in a network that exists only
within namespaces: when this program ends, however it ends, the kernel ends all
that was started and removes the network. The nodes share the disk, processors
and TensorFlow of this machine. A job is stopped by its time limit, preempted,
told to stop and cancelled, and loses a worker and a node. Each time it must end,
save and go on as docs/distributed.md says. It prints a line per check. The
status is 1 if one failed.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import glob
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import NoReturn

from im2txt.data import shards
from im2txt.stress import inputs
from im2txt.text import vocabulary_stamp

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_SCRIPT = _ROOT / 'scripts' / 'slurm_train.sbatch'
_PROGRAMS = ('munged', 'slurmctld', 'slurmd', 'sbatch', 'ip', 'unshare')
NODES = ('node01', 'node02', 'node07')
_CONTROL = 'control'
_NETWORK = '10.99.0'
# What takes longer hangs; training starts within seconds on an idle machine.
_SECONDS = 300
_LOOK_SECONDS = 0.1
_SAVED = re.compile(r'^(\d+): .* saved \S+/model\.ckpt-(\d+)$', re.MULTILINE)
_STEP = re.compile(r'^(\d+): .* global step (\d+): ', re.MULTILINE)
_STOPPED = 143
_SECOND = 'node02:12321'

# cred_expire is also the time that a job which queues again waits. The limits
# are those of Slurm's defaults or shorter.
_CONFIGURATION = """\
ClusterName=im2txt
SlurmctldHost={control}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={path}/munge.socket,cred_expire=5
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SchedulerParameters=bf_interval=1,sched_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
SlurmdTimeout=15
SlurmdParameters=config_overrides
StateSaveLocation={path}/state
SlurmdSpoolDir={path}/spool-%n
SlurmctldPidFile={path}/slurmctld.pid
SlurmdPidFile={path}/slurmd-%n.pid
SlurmctldLogFile={path}/slurmctld.log
SlurmdLogFile={path}/slurmd-%n.log
NodeName={nodes} CPUs=2 RealMemory=2000
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 GraceTime=60
PartitionName=high Nodes=ALL PriorityTier=2
"""

# Prints what `cluster` makes of a task's variables. The task must have its
# address for itself.
_TELL = """
import json, os, socket
from im2txt.runtime import cluster
found = cluster.from_environment(os.environ, 23450)
host, port = found.addresses[found.index].split(':')
server = socket.create_server((host, int(port)))
print(json.dumps([found.index, found.addresses]))
"""


class FailedError(Exception):
  """A check failed."""


def _fail(text: str) -> NoReturn:
  raise FailedError(text)


def _run(*command: str) -> str:
  """Runs a command and returns its output; raises FailedError if it fails."""
  result = subprocess.run(
    command, capture_output=True, text=True, timeout=_SECONDS, check=False
  )
  if result.returncode:
    _fail(f'{" ".join(command)}: {result.stdout[-500:]}{result.stderr[-500:]}')
  return result.stdout


class Slurm:
  """A Slurm whose nodes are network namespaces.

  To be made in namespaces of mounts, processes, names and the network that are
  this program's own.

  Args:
    path: an empty directory.
  """

  def __init__(self, path: str) -> None:
    self.path = path
    os.environ['SLURM_CONF'] = f'{path}/slurm.conf'
    self._make_network()
    self._write(
      'slurm.conf',
      _CONFIGURATION.format(control=_CONTROL, path=path, nodes=','.join(NODES)),
    )
    # That of the machine may have no hierarchy, and none is needed.
    self._write('cgroup.conf', 'CgroupPlugin=cgroup/v1\n')
    self._write('key', os.urandom(512).hex())
    os.chmod(f'{path}/key', 0o400)
    munge = {
      'key-file': 'key',
      'socket': 'munge.socket',
      'pid-file': 'munge.pid',
      'log-file': 'munge.log',
      'seed-file': 'munge.seed',
    }
    _run('munged', '--force', *(f'--{k}={path}/{v}' for k, v in munge.items()))
    os.mkdir(f'{path}/state')
    _run('slurmctld')
    for node in NODES:
      os.mkdir(f'{path}/spool-{node}')
      self._start(node)
    self._wait_until_ready()

  def _write(self, name: str, text: str) -> None:
    with open(os.path.join(self.path, name), 'w', encoding='utf-8') as f:
      f.write(text)

  def _make_network(self) -> None:
    """Makes a bridge, and a network namespace with an address per node."""
    # Where `ip` keeps the names of namespaces.
    _run('mount', '-t', 'tmpfs', 'tmpfs', '/run')
    _run('hostname', _CONTROL)
    hosts = {_CONTROL: f'{_NETWORK}.1'}
    hosts |= {node: f'{_NETWORK}.{i}' for i, node in enumerate(NODES, 11)}
    self._write(
      'hosts',
      '127.0.0.1 localhost\n'
      + ''.join(f'{address} {name}\n' for name, address in hosts.items()),
    )
    _run('mount', '--bind', f'{self.path}/hosts', '/etc/hosts')
    commands = [
      'link set lo up',
      'link add nodes type bridge',
      f'address add {hosts[_CONTROL]}/24 dev nodes',
      'link set nodes up',
    ]
    for node in NODES:
      commands += [
        f'netns add {node}',
        f'link add {node} type veth peer name eth0 netns {node}',
        f'link set {node} master nodes up',
        f'-n {node} link set lo up',
        f'-n {node} address add {hosts[node]}/24 dev eth0',
        f'-n {node} link set eth0 up',
      ]
    for command in commands:
      _run('ip', *command.split())

  def _start(self, node: str) -> None:
    _run(
      *f'ip netns exec {node} unshare --uts sh -c'.split(),
      f'hostname {node} && exec slurmd',
    )

  def _wait_until_ready(self) -> None:
    wait_for(
      lambda: (
        _run('sinfo', '-h', '-N', '-p', 'low', '-o', '%t').split()
        == ['idle'] * len(NODES)
      ),
      'all nodes are idle',
    )

  def cut_power(self, node: str) -> None:
    """Ends a node with all its processes, which tell nobody."""
    _run('ip', 'link', 'set', node, 'down')
    for pid in _run('ip', 'netns', 'pids', node).split():
      with contextlib.suppress(ProcessLookupError):
        os.kill(int(pid), signal.SIGKILL)

  def restore(self, node: str) -> None:
    """Starts a node whose power was cut."""
    _run('ip', 'link', 'set', node, 'up')
    self._start(node)
    self._wait_until_ready()

  def submit(self, *args: str) -> 'Job':
    """Submits a job."""
    return Job(self.path, args)

  def cancel_all(self) -> None:
    """Ends all jobs."""
    _run('scancel', '--user=root')
    wait_for(lambda: not _run('squeue', '-h'), 'all jobs ended')


class Job:
  """A job.

  Args:
    path: directory of its log.
    args: of sbatch.

  Attributes:
    text: its log since `forget` or the beginning.
  """

  def __init__(self, path: str, args: Sequence[str]) -> None:
    log = f'{path}/job-%j.log'
    self._id = _run('sbatch', '--parsable', f'--output={log}', *args).strip()
    self._log = log.replace('%j', self._id)
    self._seen = 0

  @property
  def text(self) -> str:
    if not os.path.exists(self._log):
      return ''
    with open(self._log, encoding='utf-8', errors='replace') as f:
      return f.read()[self._seen :]

  def forget(self) -> None:
    """Leaves out of `text` what is there already."""
    self._seen += len(self.text)

  def shows(self, name: str) -> str:
    """Returns a field of what `scontrol show job` prints."""
    shown = _run('scontrol', 'show', 'job', self._id)
    (value,) = re.findall(rf'\b{name}=(\S*)', shown)
    return value

  def update(self, field: str) -> None:
    """Changes a field, NAME=VALUE."""
    _run('scontrol', 'update', f'JobId={self._id}', field)

  def control(self, *command: str) -> None:
    """Calls scontrol or scancel for this job."""
    _run(*command, self._id)

  def wait_for_step(self) -> int:
    """Waits until it trains and returns the first step of this start."""

    def trains() -> bool:
      if self.shows('JobState') in ('FAILED', 'COMPLETED', 'CANCELLED'):
        _fail(f'the job ended: {self.text[-2000:]}')
      return len(_STEP.findall(self.text)) > 3

    wait_for(trains, 'the job trains', lambda: self.text)
    return int(_STEP.findall(self.text)[0][1])

  def wait_for_state(self, *states: str) -> str:
    """Waits until it is in one of these states, and returns that."""
    wait_for(
      lambda: self.shows('JobState') in states,
      f'the state is {" or ".join(states)}',
      lambda: f'{self.shows("JobState")}: {self.text}',
    )
    return self.shows('JobState')

  def statuses(self) -> dict[int, int]:
    """Returns the exit statuses by task, of those that are not 0."""
    return {
      int(task): int(status)
      for tasks, status in re.findall(
        r'^srun: error: \w+: tasks? (\S+): Exited with exit code (\d+)$',
        self.text,
        re.MULTILINE,
      )
      for task in tasks.split(',')
    }

  def pid(self, task: int) -> int:
    """Returns the id of the process of a task."""
    wanted = {f'SLURM_JOB_ID={self._id}', f'SLURM_PROCID={task}'}
    for path in glob.glob('/proc/[0-9]*/environ'):
      with contextlib.suppress(OSError):
        variables = pathlib.Path(path).read_text('utf-8', 'replace').split('\0')
        process = pathlib.Path(path).parent
        command = (process / 'cmdline').read_text('utf-8').split('\0')
        if wanted <= set(variables) and 'im2txt.train' in command:
          return int(process.name)
    _fail(f'there is no process of task {task}')


def wait_for(
  condition: Callable[[], bool], name: str, text: Callable[[], str] = str
) -> None:
  """Waits until a condition holds.

  Args:
    condition: what is waited for.
    name: its name, for people.
    text: returns what to show if it never holds.
  """
  end = time.monotonic() + _SECONDS
  while not condition():
    if time.monotonic() > end:
      _fail(f'not within {_SECONDS} s: {name}: {text()[-2000:]}')
    time.sleep(_LOOK_SECONDS)


def _same(what: str, found: object, wanted: object, text: str = '') -> None:
  """Fails if something is not as it should be."""
  if found != wanted:
    _fail(f'{what}: {found}, not {wanted} {text[-3000:]}')


def _train(slurm: Slurm, *args: str) -> list[str]:
  """Returns the arguments of sbatch that train a small model, from features.

  Args:
    slurm: where it is trained.
    *args: flags of `train`.
  """
  return [
    str(_SCRIPT),
    f'--input_file_pattern={slurm.path}/train-?????-of-00002',
    f'--feature_cache_dir={slurm.path}/features',
    '--feature_views=1',
    '--random_inception',
    '--embedding_size=6',
    '--num_lstm_units=5',
    '--image_height=75',
    '--image_width=75',
    '--batch_size=4',
    '--random_seed=1',
    *args,
  ]


def _make_inputs(path: str) -> None:
  """Makes two shards, and a script that is what Bazel would build."""
  jpeg = inputs.goods('images')['JPEG'].files['image']
  stamp = vocabulary_stamp.Stamp('12ab', 10, 'word_counts.txt')
  vocabulary_stamp.save(path, stamp)
  for number in range(2):
    with shards.Writer(f'{path}/train-0000{number}-of-00002') as writer:
      for image in range(6):
        words = [1, *range(3, 5 + image % 4), 2]
        record = shards.serialize(
          10 * number + image, jpeg, [str(word) for word in words], words
        )
        writer.write(record)
  train = pathlib.Path(path, 'train.sh')
  train.write_text(
    f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m im2txt.train "$@"\n',
    'utf-8',
  )
  train.chmod(0o755)
  os.environ['IM2TXT_TRAIN'] = str(train)


def _addresses(slurm: Slurm) -> Iterator[str]:
  """Checks addresses of tasks that do not train."""
  del slurm
  for options, wanted in (
    ('--nodes=3', ['node01:23450', 'node02:23450', 'node07:23450']),
    (
      '--nodelist=node02,node07 --ntasks=3',
      ['node02:23450', 'node02:23451', 'node07:23450'],
    ),
    (
      '--nodelist=node01,node07 --ntasks-per-node=2 --distribution=cyclic',
      ['node01:23450', 'node01:23451', 'node07:23450', 'node07:23451'],
    ),
  ):
    told = _run('srun', *options.split(), sys.executable, '-c', _TELL)
    found = sorted(json.loads(line) for line in told.splitlines())
    _same(options, found, [[i, wanted] for i in range(len(wanted))])
    yield f'each task has its own address: srun {options}'


def stopped(job: Job) -> int:
  """Checks that all workers were stopped and the chief has saved.

  Returns:
    The saved step.
  """
  _same(
    'exit statuses', job.statuses(), dict.fromkeys(range(2), _STOPPED), job.text
  )
  saved = _SAVED.findall(job.text)
  last = max(int(step) for _, step in _STEP.findall(job.text))
  _same('what was saved', saved, [('0', str(last))], job.text)
  return last


def _goes_on(job: Job, saved: int) -> None:
  """Checks that a job trains, now or later, from the step after this."""
  _same('first step', job.wait_for_step(), saved + 1, job.text)
  _same(
    'what was read',
    re.findall(r'^(\d+): .*resuming from \S+-(\d+)$', job.text, re.MULTILINE),
    [('0', str(saved))],
  )


def _queued_again(job: Job) -> None:
  """Checks that a job was stopped and went on after it queued again."""
  job.wait_for_state('PENDING')
  saved = stopped(job)
  job.forget()
  _goes_on(job, saved)
  job.forget()


def _disturbed_by_slurm(slurm: Slurm) -> Iterator[str]:
  """Checks a job that Slurm stops, and that loses a worker."""
  args = _train(slurm, f'--train_dir={slurm.path}/train')
  job = slurm.submit('--nodes=2', *args)
  job.wait_for_step()
  workers = re.findall(r'^(\d): .* at (\S+) of 2: connecting', job.text, re.M)
  _same('workers', sorted(workers), [('0', 'node01:12321'), ('1', _SECOND)])
  _same('who logs steps', {task for task, _ in _STEP.findall(job.text)}, {'0'})
  _same('events', len(glob.glob(f'{slurm.path}/train/events.out.*')), 1)
  yield 'two nodes train together, and only the chief writes'

  hours, minutes, _ = job.shows('RunTime').split(':')
  # The signal comes 120 s before the end: soon.
  job.update(f'TimeLimit={int(hours) * 60 + int(minutes) + 2}')
  job.wait_for_state('PENDING')
  job.update('TimeLimit=60')
  _queued_again(job)
  yield 'before its time is over a job saves, queues again and goes on'

  other = slurm.submit('--nodes=3', '--partition=high', '--wrap=true')
  _queued_again(job)
  _same('the other job', other.shows('JobState'), 'COMPLETED')
  yield 'a preempted job saves, lets the other one run, and goes on'

  os.kill(job.pid(1), signal.SIGKILL)
  job.wait_for_state('FAILED')
  _same('exit statuses', job.statuses(), {0: 1}, job.text)
  if f'0: error: lost worker 1 at {_SECOND}: ' not in job.text:
    _fail(f'the lost worker is not named: {job.text[-2000:]}')
  ((_, saved),) = _SAVED.findall(job.text)
  yield 'a job that lost a worker saves, and fails'

  job = slurm.submit('--nodes=2', *args)
  _goes_on(job, int(saved))
  yield 'the same command goes on from there'


def _disturbed_by_people(slurm: Slurm) -> Iterator[str]:
  """Checks a job that is told to stop, and that loses a node."""
  args = _train(slurm, f'--train_dir={slurm.path}/other')
  job = slurm.submit('--nodes=2', *args)
  job.wait_for_step()
  job.control('scancel', '--signal=TERM')
  _queued_again(job)
  yield 'a job that gets SIGTERM saves, queues again and goes on'

  job.control('scontrol', 'requeue')
  _queued_again(job)
  yield 'so does one that scontrol requeues'

  slurm.cut_power('node02')
  job.wait_for_state('PENDING')
  ((_, saved),) = _SAVED.findall(job.text)
  job.forget()
  slurm.restore('node02')
  _goes_on(job, int(saved))
  job.forget()
  yield 'a job that lost a node saves, queues again and goes on'

  job.control('scancel')
  job.wait_for_state('CANCELLED')
  stopped(job)
  _same('jobs in the queue', _run('squeue', '--noheader'), '')
  yield 'a cancelled job saves, and does not queue again'


def _several_tasks(slurm: Slurm) -> Iterator[str]:
  """Checks a job with two tasks per node, which ends by itself."""
  job = slurm.submit(
    '--nodes=2',
    '--ntasks-per-node=2',
    '--distribution=cyclic',
    *_train(
      slurm,
      f'--train_dir={slurm.path}/several',
      '--slurm_port=23450',
      '--number_of_steps=3',
    ),
  )
  state = job.wait_for_state('COMPLETED', 'FAILED', 'CANCELLED')
  _same('state', state, 'COMPLETED', job.text)
  _same(
    'workers',
    sorted(re.findall(r' at (\S+) of 4: connecting', job.text)),
    ['node01:23450', 'node01:23451', 'node02:23450', 'node02:23451'],
  )
  _same('what was saved', _SAVED.findall(job.text), [('0', '3')])
  yield 'two tasks per node, numbered in turn, train to the last step'


_GROUPS = (
  _addresses,
  _several_tasks,
  _disturbed_by_slurm,
  _disturbed_by_people,
)


def _check(path: str) -> int:
  """Starts Slurm and runs all checks; returns the exit status."""
  counts = {'passed': 0, 'failed': 0}

  def tell(result: str, text: str) -> None:
    counts[result] += 1
    print(f'{result}: {text}', flush=True)

  try:
    _make_inputs(path)
    slurm = Slurm(path)
    for group in _GROUPS:
      try:
        for text in group(slurm):
          tell('passed', text)
      except FailedError as error:
        tell('failed', f'{group.__name__}, after what it passed: {error}')
      slurm.cancel_all()
  except FailedError as error:
    tell('failed', str(error))
  print(f'{counts["passed"]} passed, {counts["failed"]} failed')
  return int(counts['failed'] > 0)


def main(args: Sequence[str]) -> int:
  """Runs the program and returns its exit status."""
  if args:
    return _check(args[0])
  if os.geteuid():
    print(
      'error: a Slurm on this machine needs root: start it as root',
      file=sys.stderr,
    )
    return 1
  missing = [name for name in _PROGRAMS if not shutil.which(name)]
  if missing:
    print(
      f'error: no program {", ".join(missing)}: install the packages of '
      'Slurm, munge and iproute2',
      file=sys.stderr,
    )
    return 1
  # SIGTERM, too, removes the directory.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(_STOPPED))
  with tempfile.TemporaryDirectory(prefix='im2txt_slurm_') as path:
    # All that is started is below this process, and is killed with it. It is
    # not of the terminal, whose Ctrl-C is for the process that waits.
    with subprocess.Popen(
      [
        *'unshare --net --mount --uts --pid --fork --kill-child'.split(),
        *('--mount-proc', sys.executable, '-m', 'im2txt.stress.slurm', path),
      ],
      start_new_session=True,
      cwd=_ROOT,
    ) as process:
      try:
        return process.wait()
      except KeyboardInterrupt:
        return 128 + signal.SIGINT
      finally:
        process.kill()


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
