# SPDX-License-Identifier: Apache-2.0
"""Kills, power cuts, full disks, dead workers, damaged shards: what is lost?

  python -m im2txt.stress.faults [--quick] [--only=kills,power,disk]
      [--results=FILE.json] [--output=FILE.md]

A round starts a program on a small data set, strikes at a random moment, and
gives the same command again. What comes of it must be, byte for byte, what a
run that nothing disturbed leaves; what was finished before must not be made
again; and where the program could speak, it must have ended with one line that
says why. The sections:

  kills    SIGKILL of the program
  power    its disk loses its power, with all that was not synced
  disk     its disk is full, from the beginning or all at once
  workers  SIGKILL of one of its worker processes
  shards   a shard is truncated, empty or has a wrong checksum
  fuzz     thousands of damaged files, see `fuzz`

Prints a table of all sections that --results holds, those of earlier runs too.
Sections power and disk need Linux, root, loop devices and mkfs.ext4; elsewhere
the table says why they were skipped. Ends with status 1 if anything was lost.
"""

import argparse
import collections
from collections.abc import Callable
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
import zipfile

import numpy as np

from im2txt import checkpoints
from im2txt.data import journal as journal_lib
from im2txt.data import shards
from im2txt.ops import image_embedding
from im2txt.runtime import files
from im2txt.stress import disk as disks
from im2txt.stress import fuzz
from im2txt.stress import power_cut
from im2txt.stress import programs
from im2txt.stress import server as servers

# What takes longer hangs.
_SECONDS = 600
_DISK_MEGABYTES = 2048
# Strikes that come too late are not counted; so many in a row are too many.
_MOST_ATTEMPTS = 20
# The interval in which a directory is looked at, and the longest wait for a
# moment between two of its changes.
_LOOK_SECONDS = 0.003
_MOST_WAIT_SECONDS = 0.1


class Row(NamedTuple):
  """A line of the table.

  Attributes:
    section: str, one of SECTIONS.
    fault: str.
    rounds: int.
    lost: int, rounds of which something was lost, or nothing was said.
    hung: int, rounds in which a program did not end.
    reads: str, the line that the user sees; or why there were no rounds.
  """

  section: str
  fault: str
  rounds: int
  lost: int
  hung: int
  reads: str


@dataclasses.dataclass
class Stage:
  """A command whose work can be disturbed.

  {out} in its arguments is the directory it works in, {in} that of the inputs,
  {url} the server of `in`/served.

  Attributes:
    name: str.
    program: str.
    args: list of str.
    settings: see `programs.Program`.
    goes_on: regular expression of the lines by which it says that it goes on.
    kept: function from (directory, what the program said) to the paths that it
      has finished, and must not make again.
    rounds: dict from section to number of rounds.
  """

  name: str
  program: str
  args: list
  settings: dict = dataclasses.field(default_factory=dict)
  goes_on: str = 'no such line'
  kept: Callable = lambda directory, said: []
  rounds: dict = dataclasses.field(default_factory=dict)


def _files_like(*patterns):
  """Returns a function for `Stage.kept`: those whose names are like these."""
  return lambda directory, said: [
    path
    for path in _walk(directory)
    if any(fnmatch.fnmatch(os.path.basename(path), p) for p in patterns)
  ]


def _kept_by_build(directory, said):
  """What the journal of a build says, and finished archives: `Stage.kept`."""
  journal = os.path.join(directory, journal_lib.JOURNAL)
  kept = _files_like('*.zip')(directory, said)
  if os.path.exists(journal):
    with open(journal, encoding='utf-8') as f:
      for line in f:
        # The last may be cut short.
        with contextlib.suppress(ValueError):
          entry = json.loads(line)
          path = entry.get('file', '')
          # The vocabulary is written each time, and is the same.
          if shards.NAME.fullmatch(os.path.basename(path)):
            kept.append(path)
  return kept


def _kept_by_train(directory, said):
  """The checkpoints that were said to be saved, for `Stage.kept`."""
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
# Several files of features, and of a download several pieces.
_SMALL_FILES = {'im2txt.input_pipeline.image_features.IMAGES_PER_FILE': 8}
_SMALL_PIECES = {'im2txt.data.download._CHUNK': 1 << 14}
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
    # What it writes is so little that it fits into the last block of a file.
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


def _walk(directory):
  """Returns the paths of all files below a directory, sorted."""
  return sorted(
    os.path.join(folder, name)
    for folder, _, names in os.walk(directory)
    for name in names
  )


def contents(directory):
  """Returns what a program left in a directory, a dict from name to digest.

  What has another content each time is left out: locks, events for TensorBoard
  and the times in a journal. The directory may be another too.
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


def _difference(found, wanted):
  """Says in a few words how two `contents` differ; '' if they do not."""
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


def _state(directory):
  """Returns what tells that work goes on: names, and sizes in powers of two."""
  state = set()
  for path in _walk(directory):
    if not path.endswith('.lock'):
      with contextlib.suppress(OSError):
        state.add((path, os.path.getsize(path).bit_length()))
  return state


def _follow(program, directory, most=None):
  """Counts the changes in a directory until there are so many, or the end."""
  changes, state = 0, _state(directory)
  while program.is_running() and changes != most:
    time.sleep(_LOOK_SECONDS)
    with contextlib.suppress(OSError):
      before, state = state, _state(directory)
      changes += state != before
  return changes


def _stamps(paths):
  """Returns what tells that files were not made again; None for no file."""
  stamps = {}
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
    path: str, where programs work.
    speaks: whether the program can say what is wrong.
  """

  speaks = False

  def __init__(self, path):
    self.path = path

  def strike(self, program):
    program.kill()

  def recover(self):
    pass


class PowerCut(Kill):
  """A disk without power; nothing that runs survives it."""

  def __init__(self, disk):
    super().__init__(disk.path)
    self._disk = disk

  def strike(self, program):
    self._disk.cut_power()
    program.kill_all()

  def recover(self):
    self._disk.restart()


class FullDisk(Kill):
  """A disk without room; the program goes on until it writes."""

  speaks = True

  def __init__(self, disk):
    super().__init__(disk.path)
    self._disk = disk

  def strike(self, program):
    self._disk.fill()

  def recover(self):
    self._disk.free()


class DeadWorker(Kill):
  """SIGKILL of one of the processes that work for a program."""

  speaks = True

  def __init__(self, path, rng):
    super().__init__(path)
    self._rng = rng

  def strike(self, program):
    workers = program.workers()
    if workers:
      with contextlib.suppress(ProcessLookupError):
        os.kill(self._rng.choice(workers), signal.SIGKILL)


class _Count:
  """Counts rounds for a `Row`, and tells of each that went wrong."""

  def __init__(self, section, fault, log):
    self._row = Row(section, fault, 0, 0, 0, '')
    self._log = log
    self._lines = collections.Counter()

  def add(self, problem='', line='', hung=False):
    """Adds a round.

    Args:
      problem: str, what was lost; '' for nothing.
      line: str, what the user reads; '' for nothing.
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

  def row(self):
    """Returns the `Row`, with the line that was read most often."""
    lines = self._lines.most_common(1)
    return self._row._replace(reads=lines[0][0] if lines else '')


def error_line(text):
  """Returns (the line that tells of an error, what is wrong with the text).

  Args:
    text: str, what a program has written.
  """
  lines = [line for line in text.splitlines() if line.startswith('error: ')]
  if 'Traceback' in text:
    return (lines or [''])[-1], 'a stack trace: ' + text[-1000:]
  if len(lines) != 1 or text.splitlines()[-1] != lines[0]:
    return (lines or [''])[-1], 'no single line at the end: ' + text[-1000:]
  return lines[0], ''


# The suite -------------------------------------------------------------------


class Suite:
  """Programs, their inputs, and what they leave where nothing disturbs them.

  A context manager; afterwards all is gone.

  Args:
    seed: int, of the moments.
    log: callable, gets a line of each thing that goes wrong.

  Attributes:
    root: str, a directory for all of it.
    rng: `random.Random`, of the moments.
  """

  def __init__(self, seed=0, log=print):
    self.rng = random.Random(seed)
    self._log = log
    self._wanted = {}
    self._stack = None

  def __enter__(self):
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

  def __exit__(self, *_):
    self._stack.close()

  def _start(self, program, args, directory, settings=None):
    """Starts a program, once the inputs that its arguments name are there."""
    self._provide(args, directory)
    places = {'{out}': directory, '{in}': self._in, '{url}': self._url}
    for key, place in places.items():
      args = [arg.replace(key, place) for arg in args]
    return programs.Program(
      program, args, os.path.join(self.root, 'log'), settings
    )

  def _provide(self, args, directory=None):
    """Makes the inputs that arguments name, unless it is where they go."""
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

  def _run(self, program, args, directory='', settings=None):
    """Runs a program that nothing disturbs; raises RuntimeError if it fails."""
    process = self._start(program, args, directory, settings)
    if process.wait(_SECONDS):
      raise RuntimeError(f'{program} failed: {process.text()[-2000:]}')
    return process.text()

  def _make_sample(self):
    """Makes a data set as a server has it, and unpacks it."""
    served = os.path.join(self._in, 'served')
    self._run(*self._command(STAGES['make_sample_data'], served))
    for folder in ('zips', 'annotations'):
      for path in _walk(os.path.join(served, folder)):
        if path.endswith('.zip'):
          with zipfile.ZipFile(path) as archive:
            archive.extractall(self._in)

  def _make_data(self):
    directory = os.path.join(self._in, 'data')
    self._run(*self._command(STAGES['build_caption_data'], directory))
    # For extend_checkpoint.
    words = shutil.copy(
      os.path.join(directory, 'word_counts.txt'),
      os.path.join(self._in, 'more_words.txt'),
    )
    with open(words, 'a', encoding='utf-8') as f:
      f.write('\n<UNK> 1\nzebra 1')

  def _make_inception(self):
    self._run('stress.faults', ['--inception={in}/served'])
    self._run(
      'get_inception', ['--url={url}/inception.tar.gz', self._in + '/inception']
    )

  def _make_model(self):
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

  def _make_package(self):
    self._run(*self._command(STAGES['package_model'], self._in))

  def _command(self, stage, directory):
    return stage.program, stage.args, directory, stage.settings

  def _fresh(self, path):
    """Returns an empty directory below a path."""
    directory = os.path.join(path, 'out')
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    return directory

  def _undisturbed(self, stage):
    """Returns (`contents` after a run, changes of the directory meanwhile)."""
    if stage.name not in self._wanted:
      directory = self._fresh(self.root)
      program = self._start(*self._command(stage, directory))
      changes = _follow(program, directory)
      if program.wait(_SECONDS):
        raise RuntimeError(f'{stage.name} failed: {program.text()[-2000:]}')
      self._wanted[stage.name] = contents(directory), changes
    return self._wanted[stage.name]

  def rounds(self, section, stage, fault, number, at_once=False):
    """Disturbs a stage, and gives its command again.

    Args:
      section: str, one of SECTIONS.
      stage: a `Stage`.
      fault: a `Kill` or one of its kinds.
      number: int, of rounds.
      at_once: whether to strike before the program starts.

    Returns:
      A `Row`.
    """
    count = _Count(
      section, stage.name + at_once * ', from the beginning', self._log
    )
    for _ in range(number):
      for _ in range(_MOST_ATTEMPTS):
        if self._round(stage, fault, count, at_once):
          break
      else:
        count.add('no strike came in time')
    return count.row()

  def _round(self, stage, fault, count, at_once):
    """Makes one round; returns False if the strike came too late."""
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
      if status == 0:  # All was done, or the worker had nothing left to do.
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
    count.add(problem, self._without_places(line, fault.path))
    return True

  def _wait_for_moment(self, program, directory, fault, changes):
    """Waits for a random one of the changes, and a bit of time."""
    if isinstance(fault, DeadWorker):
      while program.is_running() and not program.workers():
        time.sleep(_LOOK_SECONDS)
      most = self.rng.uniform(0, 3)
    else:
      _follow(program, directory, self.rng.randint(1, changes))
      # At once, where the next change is the last.
      most = self.rng.choice([0, self.rng.uniform(0, _MOST_WAIT_SECONDS)])
    end = time.monotonic() + most
    while program.is_running() and time.monotonic() < end:
      time.sleep(_LOOK_SECONDS)

  def _without_places(self, line, path):
    """Returns a line without the places of this suite."""
    for place in (os.path.join(path, 'out'), self._in, self.root, self._url):
      line = line.replace(place, 'DIR' if place != self._url else 'URL')
    return line

  def damaged_shard(self, reader, damage):
    """Lets a program read a damaged shard; returns a `Row`."""
    count = _Count('shards', f'{damage} shard, {reader}', self._log)
    self._provide(_READERS[reader])
    path = os.path.join(self._in, 'data', 'train-00003-of-00008')
    good = path + '.good'
    os.rename(path, good)
    with open(good, 'rb') as f:
      data = f.read()
    # In the midst of the second record.
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
    count.add(problem, self._without_places(line, self.root), status is None)
    return count.row()


# The sections ----------------------------------------------------------------


def _kills(suite, number):
  for stage in STAGES.values():
    if rounds := number(stage.rounds.get('kills', 0)):
      yield suite.rounds('kills', stage, Kill(suite.root), rounds)


def _power(suite, number):
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


def _disk(suite, number):
  with disks.Disk(suite.root, _DISK_MEGABYTES) as disk:
    for stage in STAGES.values():
      if 'disk' in stage.rounds:
        fault = FullDisk(disk)
        yield suite.rounds('disk', stage, fault, 1, at_once=True)
        if rounds := number(stage.rounds['disk']):
          yield suite.rounds('disk', stage, fault, rounds)


def _workers(suite, number):
  for stage in _WITH_WORKERS.values():
    yield suite.rounds(
      'workers', stage, DeadWorker(suite.root, suite.rng), number(4)
    )


def _shards(suite, number):
  del number  # Each once.
  for damage in ('truncated', 'empty', 'CRC-wrong'):
    for reader in _READERS:
      yield suite.damaged_shard(reader, damage)


def _fuzz(unused_suite, number):
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


_RUN = {
  'kills': _kills,
  'power': _power,
  'disk': _disk,
  'workers': _workers,
  'shards': _shards,
  'fuzz': _fuzz,
}
SECTIONS = tuple(_RUN)


def run(section, suite, quick=False):
  """Returns the `Row`s of a section, a list.

  Args:
    section: str, one of SECTIONS.
    suite: a `Suite`.
    quick: whether a fiftieth of the rounds will do, and one where it is less.
  """
  rows = []
  try:
    for row in _RUN[section](
      suite, lambda rounds: -(-rounds // 50) if quick else rounds
    ):
      rows.append(row)
      print(
        f'{section}: {row.fault}: {row.rounds} rounds, {row.lost} lost, '
        f'{row.hung} hung',
        flush=True,
      )
  except disks.UnavailableError as error:
    rows.append(Row(section, 'all', 0, 0, 0, f'skipped: {error}'))
  return rows


def table(rows):
  """Returns a Markdown table of `Row`s, a str."""
  lines = [
    '| section | fault | rounds | lost | hung | what the user reads |',
    '| --- | --- | --- | --- | --- | --- |',
  ]
  for row in rows:
    # A bar would end the cell.
    lines.append(
      '| ' + ' | '.join(str(cell).replace('|', '\\|') for cell in row) + ' |'
    )
  return '\n'.join(lines)


def _read_results(path):
  """Returns the rows of earlier runs, a dict from section to list of `Row`."""
  if not path or not os.path.exists(path):
    return {}
  return {
    section: [Row(*row) for row in rows]
    for section, rows in files.read_json(path).items()
  }


def _write_inception(directory):
  """Writes an archive of Inception v3, of few different numbers."""
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


def main(argv=None):
  """Runs the program and returns its exit status."""
  parser = argparse.ArgumentParser(
    description='Disturbs programs, and sees what is lost.'
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
    help='one round each, and a fiftieth of the fuzz',
  )
  parser.add_argument(
    '--seed', type=int, default=0, help='of the moments (default: 0)'
  )
  parser.add_argument(
    '--results',
    metavar='FILE',
    help='JSON file of the results of sections; those of this run are added',
  )
  parser.add_argument(
    '--output', metavar='FILE', help='Markdown file for the table, too'
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
      f'--only={args.only}: {unknown[0]!r} is none of ' + ', '.join(SECTIONS)
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
