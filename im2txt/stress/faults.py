# SPDX-License-Identifier: Apache-2.0
"""Kills, power cuts, full disks, dead workers, damaged shards: what is lost?

  python -m im2txt.stress.faults [--quick] [--only=kills,power,disk]
      [--results=FILE.json] [--output=FILE.md]

A round starts a program on a small data set, disturbs it at a random moment, and
runs the same command again. The output must equal, byte for byte, the output of
an undisturbed run. Finished files must not be made again. If the program could
report the fault, it must have ended with one line that says why. The sections:

  kills    SIGKILL of the program
  power    the disk loses its power, and all unsynced data
  disk     the disk is full, from the beginning or suddenly
  workers  SIGKILL of a worker process
  shards   a shard is truncated, empty or has a wrong checksum
  equal    several workers of train give the parameters that one gives
  cluster  one of several workers is killed, stalls or is told to stop
  fuzz     thousands of damaged files, see `fuzz`

It prints a table of all sections in --results, including earlier runs. Sections
power and disk need Linux, root, loop devices and mkfs.ext4; without them the
table says why they were skipped. The status is 1 if anything was lost.
"""

import argparse
import collections
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import dataclasses
import fnmatch
import hashlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tarfile
import tempfile
import time
from typing import NamedTuple
from typing import Self
import zipfile

import numpy as np

from im2txt import checkpoints
from im2txt.data import journal as journal_lib
from im2txt.data import shards
from im2txt.ops import image_embedding
from im2txt.runtime import files
from im2txt.stress import cluster
from im2txt.stress import disk as disks
from im2txt.stress import fuzz
from im2txt.stress import power_cut
from im2txt.stress import programs
from im2txt.stress import server as servers

# A program that runs longer hangs.
_SECONDS = 600
_DISK_MEGABYTES = 2048
# Faults that come too late are not counted. This many in a row are an error.
_MOST_ATTEMPTS = 20
# Interval of looks at a directory, and the longest wait between two changes.
_LOOK_SECONDS = 0.003
_MOST_WAIT_SECONDS = 0.1


class Row(NamedTuple):
  """A row of the table.

  Attributes:
    section: one of SECTIONS.
    fault: name of the fault.
    rounds: number of rounds.
    lost: rounds in which data were lost, or no error was reported.
    hung: rounds in which a program did not end.
    reads: the line that the user reads, or why there were no rounds.
  """

  section: str
  fault: str
  rounds: int
  lost: int
  hung: int
  reads: str


# From (directory, output of the program) to the paths of finished files.
_Kept = Callable[[str, str], list[str]]


@dataclasses.dataclass
class Stage:
  """A command whose work can be disturbed.

  In its arguments {out} stands for its directory, {in} for the directory of the
  inputs, and {url} for the server of {in}/served.

  Attributes:
    name: name of the stage.
    program: name of the program.
    args: its arguments.
    settings: see `programs.Program`.
    goes_on: regular expression of the lines that say that work goes on.
    kept: returns the finished files, which must not be made again.
    rounds: number of rounds by section.
  """

  name: str
  program: str
  args: list[str]
  settings: dict[str, object] = dataclasses.field(default_factory=dict)
  goes_on: str = 'no such line'
  kept: _Kept = lambda directory, said: []
  rounds: dict[str, int] = dataclasses.field(default_factory=dict)


def _files_like(*patterns: str) -> _Kept:
  """Returns a `Stage.kept` of the files whose names match these patterns."""
  return lambda directory, said: [
    path
    for path in _walk(directory)
    if any(fnmatch.fnmatch(os.path.basename(path), p) for p in patterns)
  ]


def _kept_by_build(directory: str, said: str) -> list[str]:
  """Returns the shards in a build's journal, and finished archives."""
  journal = os.path.join(directory, journal_lib.JOURNAL)
  kept = _files_like('*.zip')(directory, said)
  if os.path.exists(journal):
    with open(journal, encoding='utf-8') as f:
      for line in f:
        # The last line may be cut short.
        with contextlib.suppress(ValueError):
          entry = json.loads(line)
          path = entry.get('file', '')
          # The vocabulary is always written again, with the same content.
          if shards.NAME.fullmatch(os.path.basename(path)):
            kept.append(path)
  return kept


def _kept_by_train(directory: str, said: str) -> list[str]:
  """Returns the feature files, and the checkpoints in the log."""
  return _files_like('features-*.npy')(directory, said) + [
    f'{match}.index'
    for match in re.findall(
      r' saved (\S+/model\.ckpt-\d+)$', said, re.MULTILINE
    )
  ]


_COCO = [
  f'--{split}_{flag}'
  for split in ('train', 'val')
  for flag in (
    f'captions_file={{in}}/annotations/captions_{split}2014.json',
    f'image_dir={{in}}/{split}2014',
  )
]
_SHARDS = [
  '--train_shards=8',
  '--val_shards=2',
  '--test_shards=2',
  '--num_threads=2',
  '--min_word_count=1',
  '--num_workers=2',
]
_READ = ['--input_file_pattern={in}/data/train-?????-of-00008']
_TRAIN = [
  *_READ,
  '--train_dir={out}/train',
  '--inception_checkpoint_file={in}/inception/inception_v3.ckpt',
  '--embedding_size=6',
  '--num_lstm_units=5',
  '--image_height=75',
  '--image_width=75',
  '--batch_size=4',
  '--optimizer=Adam',
  '--initial_learning_rate=0.01',
  '--random_seed=1',
  '--save_interval_secs=0',
]
_FEATURES = ['--feature_views=1', '--feature_cache_dir={in}/features']
_NEW_FEATURES = ['--feature_views=1', '--feature_cache_dir={out}/features']
_EVALUATE = [
  *_READ,
  '--checkpoint_dir={in}/model/train',
  '--run_once',
  '--eval_dir={out}/eval',
  '--min_global_step=0',
]
_VALIDATE = [
  *_READ,
  '--num_workers=2',
  '--vocab_file={in}/data/word_counts.txt',
]
# So that there are several files of features, and several pieces per download.
_SMALL_FILES: dict[str, object] = {
  'im2txt.input_pipeline.image_features.IMAGES_PER_FILE': 8
}
_SMALL_PIECES: dict[str, object] = {'im2txt.data.download._CHUNK': 1 << 14}
# Workers that train together. SGD, as Adam makes rounding errors steps.
_TOGETHER = [
  *_TRAIN,
  '--batch_size=8',
  '--optimizer=SGD',
  '--initial_learning_rate=0.1',
]
_WORKERS = (2, 4)
# What is trained -> arguments.
_MODES = {
  'from features': _FEATURES,
  'from images': [],
  'Inception v3 too': ['--train_inception'],
}
_EQUAL_STEPS = 4
_CLUSTER_STEPS = 60
# Largest difference of a parameter between one worker and several.
_TOLERANCE = 1e-3
# Workers that lost another end sooner.
_CLUSTER_SECONDS = 60
_TRAINS_ON = r'resuming from \S+'

STAGES = {
  stage.name: stage
  for stage in (
    Stage(
      'build_caption_data',
      'build_caption_data',
      [*_COCO, '--output_dir={out}', *_SHARDS],
      goes_on=r'\d+ of \d+ shards .* are there already\.',
      kept=_kept_by_build,
      rounds={'kills': 8, 'power': 4, 'disk': 3},
    ),
    Stage(
      'build_mscoco_data',
      'build_mscoco_data',
      [
        *_COCO,
        *_SHARDS,
        '--output_dir={out}',
        '--word_counts_output_file={out}/words.txt',
      ],
      goes_on=r'\d+ of \d+ shards .* are there already\.',
      kept=_kept_by_build,
      rounds={'kills': 8, 'power': 3, 'disk': 3},
    ),
    Stage(
      'download_and_preprocess_mscoco',
      'download_and_preprocess_mscoco',
      ['--base_url={url}', '--unpack_images', '{out}', *_SHARDS],
      _SMALL_PIECES,
      r'\S+ is there already.*',
      _kept_by_build,
      {'kills': 10, 'power': 6, 'disk': 3},
    ),
    Stage(
      'train, making the feature cache',
      'train',
      [*_TRAIN, *_NEW_FEATURES, '--number_of_steps=1'],
      _SMALL_FILES,
      r'\S+ going on after .*|nothing to do: .*',
      _kept_by_train,
      {'kills': 8, 'power': 3, 'disk': 3},
    ),
    Stage(
      'train, from features',
      'train',
      [*_TRAIN, *_FEATURES, '--number_of_steps=4'],
      _SMALL_FILES,
      _TRAINS_ON,
      _kept_by_train,
      {'kills': 10, 'power': 4, 'disk': 3},
    ),
    Stage(
      'train, from images',
      'train',
      [*_TRAIN, '--number_of_steps=4'],
      {},
      _TRAINS_ON,
      _kept_by_train,
      {'kills': 8, 'disk': 2},
    ),
    Stage(
      'package_model',
      'package_model',
      [
        '--checkpoint_path={in}/model/train',
        '--vocab_file={in}/data/word_counts.txt',
        '--output_dir={out}/package',
      ],
      rounds={'kills': 6, 'disk': 2},
    ),
    Stage(
      'get_model, with the encoder',
      'get_model',
      ['--package_dir={in}/package', '{out}'],
      _SMALL_PIECES,
      r'\S+ is there already.*',
      _files_like('inception_v3.ckpt.index'),
      {'kills': 6, 'disk': 3},
    ),
    Stage(
      'extend_checkpoint',
      'extend_checkpoint',
      [
        '--checkpoint_path={in}/model/train',
        '--vocab_file={in}/data/word_counts.txt',
        '--new_vocab_file={in}/more_words.txt',
        '--output_dir={out}/new',
      ],
      rounds={'disk': 2},
    ),
    # It writes so little that it fits into the last block of a file.
    Stage('evaluate', 'evaluate', _EVALUATE, rounds={'disk': 0}),
    Stage(
      'make_sample_data',
      'make_sample_data',
      [
        '{out}',
        '--num_train_images=20',
        '--num_val_images=20',
        '--num_workers=2',
      ],
      rounds={'disk': 2},
    ),
  )
}
_WITH_WORKERS = {
  'build_caption_data': STAGES['build_caption_data'],
  'build_mscoco_data': STAGES['build_mscoco_data'],
  'make_sample_data': STAGES['make_sample_data'],
  'validate_data': Stage('validate_data', 'validate_data', _VALIDATE),
}
_READERS = {
  'train, from images': [*_TRAIN, '--number_of_steps=4'],
  'train, making the feature cache': [
    *_TRAIN,
    *_NEW_FEATURES,
    '--number_of_steps=4',
  ],
  'evaluate': _EVALUATE,
  'validate_data': _VALIDATE,
}


# Directories -----------------------------------------------------------------


def _walk(directory: str) -> list[str]:
  """Returns the paths of all files below a directory, sorted."""
  return sorted(
    os.path.join(folder, name)
    for folder, _, names in os.walk(directory)
    for name in names
  )


def contents(directory: str) -> dict[str, str]:
  """Returns the digests of the files in a directory by name.

  Files that differ from run to run are left out: locks, TensorBoard's events
  and journals, which contain times. The path of the directory is ignored.
  """
  found = {}
  for path in _walk(directory):
    name = os.path.basename(path)
    if not (
      name.endswith('.lock')
      or name.startswith('events.out.')
      or name == journal_lib.JOURNAL
    ):
      with open(path, 'rb') as f:
        data = f.read().replace(directory.encode(), b'')
      found[os.path.relpath(path, directory)] = hashlib.sha256(data).hexdigest()
  return found


def _difference(found: Mapping[str, str], wanted: Mapping[str, str]) -> str:
  """Describes how two `contents` differ, '' if they are equal."""
  parts = []
  for what, names in (
    ('missing', wanted.keys() - found.keys()),
    ('too many', found.keys() - wanted.keys()),
    (
      'different',
      {
        name
        for name in found.keys() & wanted.keys()
        if found[name] != wanted[name]
      },
    ),
  ):
    if names:
      parts.append(f'{what}: {", ".join(sorted(names))}')
  return '; '.join(parts)


def _state(directory: str) -> set[tuple[str, int]]:
  """Returns the progress in a directory: names, and sizes in powers of two."""
  state: set[tuple[str, int]] = set()
  for path in _walk(directory):
    if not path.endswith('.lock'):
      with contextlib.suppress(OSError):
        state.add((path, os.path.getsize(path).bit_length()))
  return state


def _follow(
  program: programs.Program, directory: str, most: int | None = None
) -> int:
  """Counts the changes in a directory, until there are `most` or the end."""
  changes, state = 0, _state(directory)
  while program.is_running() and changes != most:
    time.sleep(_LOOK_SECONDS)
    with contextlib.suppress(OSError):
      before, state = state, _state(directory)
      changes += state != before
  return changes


# (Time of the last change in ns, size) of each file; None for a missing file.
_Stamps = dict[str, tuple[int, int] | None]


def _stamps(paths: Iterable[str]) -> _Stamps:
  """Returns time and size of files, which show whether they were made again."""
  stamps: _Stamps = {}
  for path in paths:
    stamps[path] = None
    with contextlib.suppress(FileNotFoundError):
      status = os.stat(path)
      stamps[path] = (status.st_mtime_ns, status.st_size)
  return stamps


# Faults ----------------------------------------------------------------------


class Kill:
  """SIGKILL of a program.

  Attributes:
    path: directory in which programs work.
    speaks: whether the program can report the fault.
  """

  speaks = False

  def __init__(self, path: str) -> None:
    self.path = path

  def strike(self, program: programs.Program | None) -> None:
    """Disturbs a program; None if it has not started."""
    if program:
      program.kill()

  def recover(self) -> None:
    """Removes the fault."""


class PowerCut(Kill):
  """A disk that loses its power, and the end of all processes."""

  def __init__(self, disk: disks.Disk) -> None:
    super().__init__(disk.path)
    self._disk = disk

  def strike(self, program: programs.Program | None) -> None:
    self._disk.cut_power()
    if program:
      program.kill_all()

  def recover(self) -> None:
    self._disk.restart()


class FullDisk(Kill):
  """A full disk; the program goes on until it writes."""

  speaks = True

  def __init__(self, disk: disks.Disk) -> None:
    super().__init__(disk.path)
    self._disk = disk

  def strike(self, program: programs.Program | None) -> None:
    self._disk.fill()

  def recover(self) -> None:
    self._disk.free()


class DeadWorker(Kill):
  """SIGKILL of a worker process of a program."""

  speaks = True

  def __init__(self, path: str, rng: random.Random) -> None:
    super().__init__(path)
    self._rng = rng

  def strike(self, program: programs.Program | None) -> None:
    workers = program.workers() if program else []
    if workers:
      with contextlib.suppress(ProcessLookupError):
        os.kill(self._rng.choice(workers), signal.SIGKILL)


class _Count:
  """Counts rounds for a `Row`, and logs each that went wrong."""

  def __init__(
    self, section: str, fault: str, log: Callable[[str], object]
  ) -> None:
    self._row = Row(section, fault, 0, 0, 0, '')
    self._log = log
    self._lines: collections.Counter[str] = collections.Counter()

  def add(self, problem: str = '', line: str = '', hung: bool = False) -> None:
    """Adds a round.

    Args:
      problem: the loss; '' if there is none.
      line: the line that the user reads; '' if there is none.
      hung: whether a program did not end.
    """
    row = self._row
    self._row = row._replace(
      rounds=row.rounds + 1,
      lost=row.lost + bool(problem and not hung),
      hung=row.hung + hung,
    )
    if line:
      self._lines[line] += 1
    if problem or hung:
      self._log(f'{row.section}: {row.fault}: {problem or "hung"}')

  def row(self) -> Row:
    """Returns the row, with the most frequent line."""
    lines = self._lines.most_common(1)
    return self._row._replace(reads=lines[0][0] if lines else '')


def error_line(text: str) -> tuple[str, str]:
  """Returns (the line with the error, what is wrong with the output).

  Args:
    text: output of a program.
  """
  lines = [line for line in text.splitlines() if line.startswith('error: ')]
  if 'Traceback' in text:
    return (lines or [''])[-1], 'a stack trace: ' + text[-1000:]
  if len(lines) != 1 or text.splitlines()[-1] != lines[0]:
    return (lines or [''])[-1], 'no single line at the end: ' + text[-1000:]
  return lines[0], ''


# The suite -------------------------------------------------------------------


class Suite:
  """Programs, their inputs, and their output when nothing disturbs them.

  It is a context manager, which removes all files at its end.

  Args:
    seed: seed of the moments.
    log: called with a line for each loss.

  Attributes:
    root: directory of all files.
    rng: source of the moments.
  """

  def __init__(
    self, seed: int = 0, log: Callable[[str], object] = print
  ) -> None:
    self.rng = random.Random(seed)
    self._log = log
    self._wanted: dict[str, tuple[dict[str, str], int]] = {}
    self._by_one: dict[str, tuple[str, str]] = {}
    self._stack = contextlib.ExitStack()

  def __enter__(self) -> Self:
    with contextlib.ExitStack() as stack:
      self.root = stack.enter_context(
        tempfile.TemporaryDirectory(prefix='im2txt_faults_')
      )
      self._in = os.path.join(self.root, 'in')
      served = os.path.join(self._in, 'served')
      os.makedirs(served)
      self._server = stack.enter_context(servers.Server(served))
      self._url = self._server.url
      self._make_sample()
      self._stack = stack.pop_all()
    return self

  def __exit__(self, *_: object) -> None:
    self._stack.close()

  def _start(
    self,
    program: str,
    args: Sequence[str],
    directory: str,
    settings: Mapping[str, object] | None = None,
  ) -> programs.Program:
    """Makes the inputs that the arguments name, and starts a program."""
    self._provide(args, directory)
    values = {'{out}': directory, '{in}': self._in, '{url}': self._url}
    for key, value in values.items():
      args = [arg.replace(key, value) for arg in args]
    return programs.Program(
      program, args, os.path.join(self.root, 'log'), settings
    )

  def _provide(self, args: Sequence[str], directory: str | None = None) -> None:
    """Makes the missing inputs that arguments name, except in `directory`."""
    for name, make in (
      ('data', self._make_data),
      ('inception', self._make_inception),
      ('model', self._make_model),
      ('features', self._make_model),
      ('package', self._make_package),
    ):
      path = os.path.join(self._in, name)
      if (
        not os.path.exists(path)
        and path != directory
        and any(f'{{in}}/{name}' in arg for arg in args)
      ):
        make()

  def _run(
    self,
    program: str,
    args: Sequence[str],
    directory: str = '',
    settings: Mapping[str, object] | None = None,
  ) -> str:
    """Runs a program undisturbed; raises RuntimeError if it fails."""
    process = self._start(program, args, directory, settings)
    if process.wait(_SECONDS):
      raise RuntimeError(f'{program} failed: {process.text()[-2000:]}')
    return process.text()

  def _make_sample(self) -> None:
    """Makes the archives of a data set, and unpacks them."""
    served = os.path.join(self._in, 'served')
    self._run(*self._command(STAGES['make_sample_data'], served))
    for folder in ('zips', 'annotations'):
      for path in _walk(os.path.join(served, folder)):
        if path.endswith('.zip'):
          with zipfile.ZipFile(path) as archive:
            archive.extractall(self._in)

  def _make_data(self) -> None:
    directory = os.path.join(self._in, 'data')
    self._run(*self._command(STAGES['build_caption_data'], directory))
    # For extend_checkpoint.
    words = shutil.copy(
      os.path.join(directory, 'word_counts.txt'),
      os.path.join(self._in, 'more_words.txt'),
    )
    with open(words, 'a', encoding='utf-8') as f:
      f.write('\n<UNK> 1\nzebra 1')

  def _make_inception(self) -> None:
    self._run('stress.faults', ['--inception={in}/served'])
    self._run(
      'get_inception', ['--url={url}/inception.tar.gz', self._in + '/inception']
    )

  def _make_model(self) -> None:
    self._run(
      'train',
      [
        *_TRAIN,
        '--feature_views=1',
        '--number_of_steps=1',
        f'--feature_cache_dir={self._in}/features',
      ],
      os.path.join(self._in, 'model'),
      _SMALL_FILES,
    )

  def _make_package(self) -> None:
    self._run(*self._command(STAGES['package_model'], self._in))

  def _command(
    self, stage: Stage, directory: str
  ) -> tuple[str, list[str], str, dict[str, object]]:
    return stage.program, stage.args, directory, stage.settings

  def _fresh(self, path: str) -> str:
    """Returns an empty directory below a path."""
    directory = os.path.join(path, 'out')
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    return directory

  def _undisturbed(self, stage: Stage) -> tuple[dict[str, str], int]:
    """Returns (`contents` after an undisturbed run, number of changes)."""
    if stage.name not in self._wanted:
      directory = self._fresh(self.root)
      program = self._start(*self._command(stage, directory))
      changes = _follow(program, directory)
      if program.wait(_SECONDS):
        raise RuntimeError(f'{stage.name} failed: {program.text()[-2000:]}')
      self._wanted[stage.name] = contents(directory), changes
    return self._wanted[stage.name]

  def _workers(
    self, args: Sequence[str], directory: str, count: int
  ) -> list[programs.Program]:
    """Starts workers that train together."""
    self._provide(args, directory)
    for key, value in {'{out}': directory, '{in}': self._in}.items():
      args = [arg.replace(key, value) for arg in args]
    return programs.start_workers(count, args, self.root, _SMALL_FILES)

  def _trained_by_one(self, args: Sequence[str], steps: int) -> tuple[str, str]:
    """Returns (checkpoint, output) of one worker that trains to a step."""
    key = ' '.join(args)
    if key not in self._by_one:
      directory = os.path.join(self.root, f'one-{len(self._by_one)}')
      os.mkdir(directory)
      text = self._run('train', args, directory, _SMALL_FILES)
      prefix = os.path.join(directory, 'train', f'model.ckpt-{steps}')
      self._by_one[key] = prefix, text
    return self._by_one[key]

  def equal_training(self, mode: str, args: Sequence[str], count: int) -> Row:
    """Compares the parameters that several workers give with those of one.

    Args:
      mode: what is trained.
      args: its arguments of `train`.
      count: number of workers.
    """
    args = [*_TOGETHER, f'--number_of_steps={_EQUAL_STEPS}', *args]
    wanted, said = self._trained_by_one(args, _EQUAL_STEPS)
    directory = self._fresh(self.root)
    workers = self._workers(args, directory, count)
    statuses = [worker.wait(_SECONDS) for worker in workers]
    row = _Count('equal', f'{count} workers, {mode}', self._log)
    if any(statuses):
      row.add(f'{statuses}: {workers[0].text()[-2000:]}', hung=None in statuses)
      return row.row()
    prefix = os.path.join(directory, 'train', os.path.basename(wanted))
    parameters = cluster.largest_difference(prefix, wanted)
    found, expected = cluster.losses(workers[0].text()), cluster.losses(said)
    by_loss = max(abs(found[step] - expected[step]) for step in expected)
    row.add(
      ''
      if max(parameters, by_loss) < _TOLERANCE
      else f'differ by {parameters}, losses {found}, {expected}',
      f'largest differences: parameters {parameters:.0e}, losses {by_loss:.0e}',
    )
    return row.row()

  def disturbed_cluster(self, fault: cluster.Fault, number: int) -> Row:
    """Disturbs two workers, and runs their command again.

    Args:
      fault: what happens to one of them.
      number: number of rounds.
    """
    args = [*_TOGETHER, *_FEATURES, f'--number_of_steps={_CLUSTER_STEPS}']
    args.append('--save_interval_secs=1')
    wanted, _ = self._trained_by_one(args, _CLUSTER_STEPS)
    count = _Count('cluster', fault.name, self._log)
    for _ in range(number):
      directory = self._fresh(self.root)
      outcome = cluster.disturb(
        self._workers(args, directory, 2), fault, _CLUSTER_SECONDS, _SECONDS
      )
      line, problem = cluster.judge(fault, outcome)
      if None in outcome.statuses:
        count.add(hung=True)
        continue
      again = self._workers(args, directory, 2)
      if any(worker.wait(_SECONDS) for worker in again):
        problem = problem or f'does not go on: {again[0].text()[-2000:]}'
      else:
        difference = cluster.largest_difference(
          os.path.join(directory, 'train', os.path.basename(wanted)), wanted
        )
        if difference > _TOLERANCE:
          problem = problem or f'parameters differ by {difference}'
      count.add(problem, f'{line} (after {outcome.seconds:.0f} s)')
    return count.row()

  def rounds(
    self,
    section: str,
    stage: Stage,
    fault: Kill,
    number: int,
    at_once: bool = False,
  ) -> Row:
    """Disturbs a stage, and runs its command again.

    Args:
      section: one of SECTIONS.
      stage: the stage.
      fault: the fault.
      number: number of rounds.
      at_once: whether the fault comes before the program starts.
    """
    count = _Count(
      section, stage.name + at_once * ', from the beginning', self._log
    )
    for _ in range(number):
      for _ in range(_MOST_ATTEMPTS):
        if self._round(stage, fault, count, at_once):
          break
      else:
        count.add('no fault came in time')
    return count.row()

  def _round(
    self, stage: Stage, fault: Kill, count: _Count, at_once: bool
  ) -> bool:
    """Runs one round; returns False if the fault came too late."""
    wanted, changes = self._undisturbed(stage)
    directory = self._fresh(fault.path)
    if at_once:
      fault.strike(None)
    program = self._start(*self._command(stage, directory))
    if not at_once:
      self._wait_for_moment(program, directory, fault, changes)
      if not program.is_running():
        program.wait(_SECONDS)
        return False
      fault.strike(program)
    status = program.wait(_SECONDS)
    fault.recover()
    said = program.text()
    if status is None:
      count.add(hung=True)
      return True
    line = problem = ''
    if fault.speaks:
      if status == 0:  # All was done before, or by the other workers.
        return False
      line, problem = error_line(said)
      if isinstance(fault, FullDisk) and directory not in line:
        problem = problem or f'names no file: {line}'
    elif status == 0:
      return False
    kept = _stamps(stage.kept(directory, said))
    if None in kept.values():
      problem = problem or 'gone: ' + ', '.join(
        path for path, stamp in kept.items() if stamp is None
      )
    parts = {
      os.path.basename(path)[1 : -len('.part')]: os.path.getsize(path)
      for path in _walk(directory)
      if path.endswith('.part')
    }
    whole = set(map(os.path.getsize, _walk(os.path.join(self._in, 'served'))))
    self._server.starts.clear()
    again = self._start(*self._command(stage, directory))
    status = again.wait(_SECONDS)
    if status is None:
      count.add('hung when it was started again', hung=True)
      return True
    if status:
      problem = problem or f'does not go on: {again.text()[-1000:]}'
    made_again = [
      path for path, stamp in _stamps(kept).items() if stamp != kept[path]
    ]
    if made_again:
      problem = problem or f'made again: {", ".join(made_again)}'
    for name, size in parts.items():
      if size and size not in self._server.starts[name] and size not in whole:
        problem = problem or f'{name}: downloaded again'
    problem = problem or _difference(contents(directory), wanted)
    if not fault.speaks:
      found = re.findall(stage.goes_on, again.text(), re.MULTILINE)
      line = found[-1] if found else ''
    count.add(problem, self._without_paths(line, fault.path))
    return True

  def _wait_for_moment(
    self, program: programs.Program, directory: str, fault: Kill, changes: int
  ) -> None:
    """Waits for a random change of the directory, and a short random time."""
    if isinstance(fault, DeadWorker):
      while program.is_running() and not program.workers():
        time.sleep(_LOOK_SECONDS)
      most = self.rng.uniform(0, 3)
    else:
      _follow(program, directory, self.rng.randint(1, changes))
      # Sometimes no time, because the next change may be the last.
      most = self.rng.choice([0.0, self.rng.uniform(0, _MOST_WAIT_SECONDS)])
    end = time.monotonic() + most
    while program.is_running() and time.monotonic() < end:
      time.sleep(_LOOK_SECONDS)

  def _without_paths(self, line: str, path: str) -> str:
    """Returns a line without the paths and the address of this suite."""
    for place in (os.path.join(path, 'out'), self._in, self.root, self._url):
      line = line.replace(place, 'DIR' if place != self._url else 'URL')
    return line

  def damaged_shard(self, reader: str, damage: str) -> Row:
    """Runs a program on a damaged shard."""
    count = _Count('shards', f'{damage} shard, {reader}', self._log)
    self._provide(_READERS[reader])
    path = os.path.join(self._in, 'data', 'train-00003-of-00008')
    good = path + '.good'
    os.rename(path, good)
    with open(good, 'rb') as f:
      data = f.read()
    # In the middle of the second record.
    length = int.from_bytes(data[:8], 'little')
    middle = length + shards.HEADER_BYTES + shards.FOOTER_BYTES + 1000
    with open(path, 'wb') as f:
      f.write(
        {
          'truncated': data[:middle],
          'empty': b'',
          'CRC-wrong': data[:middle]
          + bytes([data[middle] ^ 1])
          + data[middle + 1 :],
        }[damage]
      )
    try:
      program = self._start(
        reader.split(',')[0], _READERS[reader], self._fresh(self.root)
      )
      status = program.wait(_SECONDS)
    finally:
      os.replace(good, path)
    text = program.text()
    line, problem = error_line(text)
    if reader == 'validate_data':
      line = next(
        (line for line in text.splitlines() if line.startswith('WRONG: ')), ''
      )
      problem = '' if line else text[-1000:]
    if not status or path not in line:
      problem = problem or f'read with status {status}: {text[-1000:]}'
    count.add(problem, self._without_paths(line, self.root), status is None)
    return count.row()


# The sections ----------------------------------------------------------------


# From a number of rounds to the number of rounds that are run.
_Number = Callable[[int], int]


def _kills(suite: Suite, number: _Number) -> Iterator[Row]:
  for stage in STAGES.values():
    if rounds := number(stage.rounds.get('kills', 0)):
      yield suite.rounds('kills', stage, Kill(suite.root), rounds)


def _power(suite: Suite, number: _Number) -> Iterator[Row]:
  with disks.Disk(suite.root, _DISK_MEGABYTES) as disk:
    for stage in STAGES.values():
      if rounds := number(stage.rounds.get('power', 0)):
        yield suite.rounds('power', stage, PowerCut(disk), rounds)
  count = _Count('power', 'saves of small checkpoints', print)
  with tempfile.TemporaryDirectory(dir=suite.root) as directory:
    try:
      power_cut.cut_savers(directory, number(20), log=lambda line: count.add())
    except power_cut.LostError as error:
      count.add(str(error))
  yield count.row()


def _disk(suite: Suite, number: _Number) -> Iterator[Row]:
  with disks.Disk(suite.root, _DISK_MEGABYTES) as disk:
    for stage in STAGES.values():
      if 'disk' in stage.rounds:
        fault = FullDisk(disk)
        yield suite.rounds('disk', stage, fault, 1, at_once=True)
        if rounds := number(stage.rounds['disk']):
          yield suite.rounds('disk', stage, fault, rounds)


def _workers(suite: Suite, number: _Number) -> Iterator[Row]:
  for stage in _WITH_WORKERS.values():
    yield suite.rounds(
      'workers', stage, DeadWorker(suite.root, suite.rng), number(4)
    )


def _shards(suite: Suite, number: _Number) -> Iterator[Row]:
  del number  # Each once.
  for damage in ('truncated', 'empty', 'CRC-wrong'):
    for reader in _READERS:
      yield suite.damaged_shard(reader, damage)


def _equal(suite: Suite, number: _Number) -> Iterator[Row]:
  del number  # Each once.
  for mode, args in _MODES.items():
    for count in _WORKERS:
      yield suite.equal_training(mode, args, count)


def _cluster(suite: Suite, number: _Number) -> Iterator[Row]:
  for fault in cluster.FAULTS:
    yield suite.disturbed_cluster(fault, number(3))


def _fuzz(number: _Number) -> Iterator[Row]:
  defaults = fuzz._DEFAULTS
  for kind, rounds in zip(fuzz.KINDS, map(number, defaults)):
    outcomes, findings, megabytes = fuzz.run(kind, rounds)
    for finding in findings:
      print(f'fuzz: {finding.name} {finding.outcome}: {finding.detail}')
    hung = outcomes[fuzz.SLOW]
    yield Row(
      'fuzz',
      f'damaged {kind}',
      rounds,
      len(findings) - hung,
      hung,
      f'read in {sum(outcomes.values())} ways: {outcomes[fuzz.FINE]} '
      f'fine, {outcomes[fuzz.REFUSED]} refused in one line; '
      f'{megabytes} MB at most',
    )


_RUN: dict[str, Callable[[Suite, _Number], Iterator[Row]]] = {
  'kills': _kills,
  'power': _power,
  'disk': _disk,
  'workers': _workers,
  'shards': _shards,
  'equal': _equal,
  'cluster': _cluster,
}
SECTIONS = (*_RUN, 'fuzz')


def run(section: str, suite: Suite | None, quick: bool = False) -> list[Row]:
  """Runs a section.

  Args:
    section: one of SECTIONS.
    suite: the suite; section fuzz needs none.
    quick: whether to run only a fiftieth of the rounds, but at least one.
  """
  rows: list[Row] = []

  def number(rounds: int) -> int:
    return -(-rounds // 50) if quick else rounds

  if section == 'fuzz':
    found = _fuzz(number)
  else:
    assert suite is not None
    found = _RUN[section](suite, number)
  try:
    for row in found:
      rows.append(row)
      print(
        f'{section}: {row.fault}: {row.rounds} rounds, {row.lost} lost, '
        f'{row.hung} hung',
        flush=True,
      )
  except disks.UnavailableError as error:
    rows.append(Row(section, 'all', 0, 0, 0, f'skipped: {error}'))
  return rows


def table(rows: Iterable[Row]) -> str:
  """Returns a Markdown table."""
  lines = [
    '| section | fault | rounds | lost | hung | what the user reads |',
    '| --- | --- | --- | --- | --- | --- |',
  ]
  for row in rows:
    # A bar would end a cell.
    lines.append(
      '| ' + ' | '.join(str(cell).replace('|', '\\|') for cell in row) + ' |'
    )
  return '\n'.join(lines)


def _read_results(path: str | None) -> dict[str, list[Row]]:
  """Returns the rows of earlier runs by section."""
  if not path or not os.path.exists(path):
    return {}
  return {
    section: [Row(*row) for row in rows]
    for section, rows in files.read_json(path).items()
  }


def _write_inception(directory: str) -> None:
  """Writes an archive of Inception v3 with few distinct numbers."""
  numbers = np.random.default_rng(0).normal(0, 0.01, 1000).astype(np.float32)
  with tempfile.TemporaryDirectory(dir=directory) as path:
    checkpoints.write(
      f'{path}/inception_v3.ckpt',
      {
        name: np.resize(abs(numbers) if 'variance' in name else numbers, shape)
        for name, shape in image_embedding.variable_shapes().items()
      },
    )
    with tarfile.open(
      os.path.join(directory, 'inception.tar.gz'), 'w:gz', compresslevel=1
    ) as tar:
      for name in sorted(os.listdir(path)):
        tar.add(os.path.join(path, name), arcname=name)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the program and returns its exit status."""
  parser = argparse.ArgumentParser(
    description='Disturbs programs, and checks that nothing is lost.'
  )
  parser.add_argument(
    '--only',
    default=','.join(SECTIONS),
    metavar='SECTIONS',
    help=f'sections, separated by commas (default: {",".join(SECTIONS)})',
  )
  parser.add_argument(
    '--quick',
    action='store_true',
    help='run a fiftieth of the rounds, but at least one each',
  )
  parser.add_argument(
    '--seed', type=int, default=0, help='seed of the moments (default: 0)'
  )
  parser.add_argument(
    '--results',
    metavar='FILE',
    help='JSON file with the results by section; this run adds to it',
  )
  parser.add_argument(
    '--output', metavar='FILE', help='Markdown file to write the table to'
  )
  parser.add_argument('--inception', metavar='DIR', help=argparse.SUPPRESS)
  args = parser.parse_args(argv)
  if args.inception:
    _write_inception(args.inception)
    return 0
  sections = args.only.split(',')
  unknown = [section for section in sections if section not in SECTIONS]
  if unknown:
    parser.error(
      f'--only={args.only}: {unknown[0]!r} must be one of '
      + ', '.join(SECTIONS)
    )
  results = _read_results(args.results)
  with contextlib.ExitStack() as stack:
    suite = None
    for section in sections:
      if section != 'fuzz' and not suite:
        suite = stack.enter_context(Suite(args.seed))
      results[section] = run(section, suite, args.quick)
      if args.results:
        files.write_json(args.results, results)
  rows = [row for section in SECTIONS for row in results.get(section, [])]
  print(table(rows))
  if args.output:
    with files.replacing(args.output) as temporary:
      with open(temporary, 'w', encoding='utf-8') as f:
        f.write(table(rows) + '\n')
  return int(any(row.lost or row.hung for row in rows))


if __name__ == '__main__':
  sys.exit(main())
