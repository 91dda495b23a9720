# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: every vintage of im2txt's in, the name-based V2 format out.

Of a directory the newest checkpoint is taken that is whole: all its values are
read first, and with them their checksums. What is written is on the disk before
the state file names it, and only then older ones are deleted.
"""

import contextlib
import glob
import os
import re

from absl import logging
from google.protobuf import text_format
import numpy as np
import tensorflow as tf

from im2txt.checkpoints import reader as checkpoint_reader
from im2txt.runtime import files
from im2txt.runtime import quiet_tensorflow

PREFIX = 'model.ckpt'
# Names the newest checkpoint, and those that may be deleted for newer ones.
STATE_FILE = 'checkpoint'
# Beside a checkpoint: what training goes on from and nobody else needs.
TRAINING_STATE = 'training_state'
# Added to the names of the files of a damaged one, so that nothing takes it.
_DAMAGED = '.damaged'

# What TensorFlow 1.x called the LSTM's variables over the years.
_LSTM = 'lstm/basic_lstm_cell/'
_OLD_NAMES = {
  _LSTM + 'kernel': (_LSTM + 'weights', 'lstm/BasicLSTMCell/Linear/Matrix'),
  _LSTM + 'bias': (_LSTM + 'biases', 'lstm/BasicLSTMCell/Linear/Bias'),
}
# Of the moving averages that some trainings kept beside the variables.
_AVERAGE = '/ExponentialMovingAverage'
# Present in Inception's own checkpoint and of no use to a captioner.
_INCEPTION_HEADS = ('InceptionV3/Logits/', 'InceptionV3/AuxLogits/')

_GIT_LFS_HEADER = b'version https://git-lfs'

_READ_ERRORS = (OSError, ValueError)

# TensorFlow's interface has no name for the message in a state file.
_CheckpointState = type(
  tf.compat.v1.train.generate_checkpoint_state_proto('.', 'any', ['any'])
)


class CheckpointError(ValueError):
  """A checkpoint that cannot be used; the message is for the user."""


class NoCheckpointYetError(CheckpointError):
  """A directory that exists not, or has no checkpoint (yet)."""


def resolve(path):
  """Returns the checkpoint prefix (V2) or file (V1) that a user means.

  Args:
    path: a directory (see `newest_whole`), a prefix (`model.ckpt-100`), a V1
      file, or by mistake a prefix's `.index`, `.meta` or
      `.data-00000-of-00001` file.

  Raises:
    NoCheckpointYetError: a directory without a checkpoint.
    CheckpointError: there is nothing of that name, or in a directory nothing
      whole.
  """
  if os.path.isdir(path):
    return newest_whole(path)[0]
  match = re.fullmatch(r'(.+)\.(index|meta|data-\d{5}-of-\d{5})', path)
  prefix = match.group(1) if match else path
  if _exists(prefix):
    return prefix
  if glob.glob(glob.escape(prefix) + '.data-*'):
    raise CheckpointError(
      f'checkpoint {prefix}: {fault(prefix)}; copy it beside the .data file'
    )
  raise CheckpointError(
    f'no checkpoint at {path}: neither a directory with checkpoints, nor is '
    f'there a file {prefix}.index'
  )


def split_paths(paths):
  """Splits paths of checkpoints at commas, unless it is one that has commas.

  Args:
    paths: str, what `resolve` takes, separated by commas.

  Returns:
    list of str, one or more.
  """
  if os.path.isdir(paths) or _exists(paths):
    return [paths]
  return list(filter(None, paths.split(','))) or [paths]


def newest_whole(directory, training_state=False):
  """Returns the checkpoint of a directory that the state file names, if whole.

  If it is damaged, or there is no state file, it is the whole one of the
  highest step. One line is logged of what is passed over.

  Args:
    directory: str.
    training_state: whether the training state beside a checkpoint, if there is
      one, must be whole too.

  Returns:
    (the prefix, list of the prefixes that were passed over).

  Raises:
    NoCheckpointYetError: there has never been one.
    CheckpointError: none is whole.
  """
  state = _read_state(directory)
  if state == []:
    logging.warning(
      '%s is damaged: taken as missing', os.path.join(directory, STATE_FILE)
    )
  faults, remedy = {}, ''
  for prefix in _candidates(directory, state or []):
    wrong = fault(prefix)
    if not wrong and training_state and _files(training_state_prefix(prefix)):
      wrong = fault(training_state_prefix(prefix))
      remedy = remedy or (
        f'remove {training_state_prefix(prefix)}.* to go on '
        'from the weights alone, '
      )
    if not wrong:
      if faults:
        logging.warning(
          '%s: using %s instead', '; '.join(faults.values()), prefix
        )
      return prefix, list(faults)
    faults[prefix] = wrong
  if (
    state is None
    and not faults
    and not glob.glob(os.path.join(glob.escape(directory), '*' + _DAMAGED))
  ):
    raise NoCheckpointYetError(f'no checkpoint in directory {directory}')
  reasons = list(faults.values())[:3] or [
    'there was one, as other files in it tell'
  ]
  raise CheckpointError(
    f'no whole checkpoint in directory {directory} ({"; ".join(reasons)}); '
    f'{remedy}copy a whole one into it, or give another directory'
  )


def _exists(prefix):
  """Returns whether there is a checkpoint, whole or not."""
  return os.path.exists(prefix + '.index') or os.path.isfile(prefix)


def _files(prefix):
  """Returns the paths of a checkpoint's files, the data before the index."""
  paths = sorted(glob.glob(glob.escape(prefix) + '.*'))
  return ([prefix] if os.path.isfile(prefix) else []) + [
    path for path in paths if not path.endswith(_DAMAGED)
  ]


def _step(prefix):
  """Returns the step in the name of a checkpoint, -1 if there is none."""
  match = re.search(r'-(\d+)$', prefix)
  return int(match[1]) if match else -1


def _read_state(directory):
  """Returns the prefixes that the state file names, the latest first.

  Returns:
    List of str, empty if the file is damaged; None if there is none. The latest
    is in it twice if it is among those that may be deleted.
  """
  state = _CheckpointState()
  try:
    with open(os.path.join(directory, STATE_FILE), encoding='utf-8') as f:
      text_format.Parse(f.read(), state)
  except FileNotFoundError:
    return None
  except (OSError, ValueError, text_format.ParseError):
    return []
  if not state.model_checkpoint_path:
    return []
  prefixes = []
  for name in (state.model_checkpoint_path, *state.all_model_checkpoint_paths):
    path = os.path.join(directory, name)
    # In a directory that was copied from elsewhere, its own.
    own = os.path.join(directory, os.path.basename(name))
    prefixes.append(path if _exists(path) and not _exists(own) else own)
  return [prefixes[0], *dict.fromkeys(prefixes[1:])]


def _prefixes(directory):
  """Returns the prefixes in a directory, those without an index included."""
  try:
    names = os.listdir(directory)
  except FileNotFoundError:
    return []
  found = set()
  for name in names:
    match = re.fullmatch(r'(.+)\.(index|data-\d{5}-of-\d{5})', name)
    # A V1 file has the name that is the prefix of others.
    prefix = match[1] if match else name
    if not name.startswith(('.', TRAINING_STATE)) and (
      name.endswith('.index')
      or re.fullmatch(re.escape(PREFIX) + r'-\d+', prefix)
    ):
      if f'.{prefix}.tmp.index' not in names or _exists(
        os.path.join(directory, prefix)
      ):  # Else it was just being written.
        found.add(os.path.join(directory, prefix))
  return sorted(found, key=lambda prefix: (_step(prefix), prefix))


def _candidates(directory, state):
  """Returns the prefixes of one training, in the order to try them.

  Args:
    directory: str.
    state: what `_read_state` returns, not None.
  """
  found = sorted(
    {*_prefixes(directory), *filter(_exists, state[1:])},
    key=_step,
    reverse=True,
  )
  first = (state or found)[:1]

  def stem(prefix):
    return re.sub(r'-\d+$', '', os.path.basename(prefix))

  return first + [
    prefix
    for prefix in found
    if prefix not in first and stem(prefix) == stem(first[0])
  ]


def fault(prefix):
  """Returns what is wrong with a checkpoint, a line; None if it is whole."""
  if not _exists(prefix):
    return f'the file {prefix}.index is missing'
  try:
    reader = checkpoint_reader.open_reader(prefix)
    for name in reader.shapes:
      _get(reader, name)
    return None
  except _READ_ERRORS as error:
    return _what_is_wrong(prefix, error)


class _NotFiniteError(ValueError):
  """A variable that holds NaN or infinity."""


def _what_is_wrong(prefix, error):
  """Says in one line what is wrong with a checkpoint's files."""
  if isinstance(error, _NotFiniteError):
    return f'{prefix}: {error}'
  for name in _files(prefix):
    try:
      with open(name, 'rb') as f:
        start = f.read(len(_GIT_LFS_HEADER))
    except OSError as e:  # Deleted since, perhaps.
      return f'cannot read {name}: {e.strerror}'
    if start == _GIT_LFS_HEADER:
      return (
        f'{name} is a Git-LFS pointer, not the file itself; run '
        "'git lfs pull' where you cloned it"
      )
    if not start:
      return f'{name} is empty'
  if os.path.exists(prefix + '.index') and not glob.glob(
    glob.escape(prefix) + '.data-*'
  ):
    return f'the file {prefix}.data-00000-of-00001 is missing'
  if isinstance(error, OSError):
    return f'cannot read {error.filename}: {error.strerror}'
  reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
  return (
    f'{prefix} is truncated, damaged or not a TensorFlow checkpoint ({reason})'
  )


def _unreadable(prefix, error):
  """Returns the CheckpointError for one of _READ_ERRORS."""
  wrong = _what_is_wrong(prefix, error)
  remedy = '; copy or download it again'
  if isinstance(error, _NotFiniteError):
    remedy = '; give an earlier checkpoint'
  elif "'git lfs pull'" in wrong:
    remedy = ''
  return CheckpointError(wrong + remedy)


def _get(reader, name):
  """Returns a value of a `checkpoint_reader`, a NumPy array.

  Args:
    reader: what `checkpoint_reader.open_reader` returns.
    name: str, as stored.

  Raises:
    One of _READ_ERRORS.
  """
  value = reader.get(name)
  if np.issubdtype(value.dtype, np.floating) and not np.isfinite(value).all():
    raise _NotFiniteError(f'{name} holds NaN or infinity: training diverged')
  return value


class Checkpoint:
  """An open checkpoint, whatever its vintage, under today's names.

  Args:
    path: see `resolve`.
    training_state: see `newest_whole`, for a directory.

  Attributes:
    prefix: the resolved path.
    passed_over: list of the prefixes that were not taken as they are damaged.
    shapes: dict from today's variable name to its shape (a list).

  Raises:
    CheckpointError: missing, truncated, or not a checkpoint.
  """

  def __init__(self, path, training_state=False):
    self.prefix, self.passed_over = (
      newest_whole(path, training_state)
      if os.path.isdir(path)
      else (resolve(path), [])
    )
    try:
      self._reader = checkpoint_reader.open_reader(self.prefix)
    except _READ_ERRORS as e:
      raise _unreadable(self.prefix, e) from e
    self._stored_name = self._by_todays_names(self._reader.shapes)
    self.shapes = {
      name: self._reader.shapes[stored]
      for name, stored in self._stored_name.items()
    }

  def _by_todays_names(self, stored_names):
    """Returns a dict from today's names to those in the file.

    A variable that is there under several names is taken by today's, or else by
    the newest. Moving averages of variables are taken only where the variables
    themselves are not there.
    """
    names = {}
    for name in stored_names:
      candidates = names.setdefault(_todays_name(name), [])
      candidates.append(name)
    chosen = {}
    for name, candidates in names.items():
      known = [name, *_OLD_NAMES.get(name, ())]
      candidates.sort(key=known.index)
      chosen[name] = candidates[0]
      if len(candidates) > 1:
        logging.warning(
          '%s holds %s: %s is taken',
          self.prefix,
          ' and '.join(candidates),
          candidates[0],
        )
    averages = {}
    for name, stored in list(chosen.items()):
      if name.endswith(_AVERAGE):
        variable = _todays_name(name.removesuffix(_AVERAGE))
        if variable not in chosen:
          averages[variable] = stored
          del chosen[name]
    if averages:
      logging.warning(
        '%s holds only moving averages of %s: they are taken',
        self.prefix,
        _listed(sorted(averages)),
      )
    return {**chosen, **averages}

  @property
  def global_step(self):
    """The training step, an int; 0 in a checkpoint without one.

    Raises:
      CheckpointError: it is no number.
    """
    if 'global_step' not in self.shapes:
      return 0
    step = self.get('global_step')
    if step.shape or not np.isrealobj(step):
      raise CheckpointError(
        f'checkpoint {self.prefix} is not of im2txt: its global_step is '
        f'{step.dtype} {list(step.shape)}'
      )
    return int(step)

  def get(self, name):
    """Returns a variable's value, a NumPy array, by its name of today.

    Raises:
      CheckpointError: no such variable, or its bytes are damaged.
    """
    if name not in self._stored_name:
      raise CheckpointError(f'checkpoint {self.prefix} has no variable {name}')
    try:
      return _get(self._reader, self._stored_name[name])
    except _READ_ERRORS as e:
      raise _unreadable(self.prefix, e) from e

  def model_sizes(self):
    """Returns vocab_size, embedding_size, num_lstm_units as stored.

    Raises:
      CheckpointError: not an im2txt checkpoint.
    """
    names = (
      'seq_embedding/map',
      _LSTM + 'bias',
      _LSTM + 'kernel',
      'logits/weights',
    )
    for name in names:
      if name not in self.shapes:
        others = [
          n
          for n in self.shapes
          if not n.startswith('InceptionV3/') and n != 'global_step'
        ]
        hint = ''
        if others:
          hint = f'; instead it has {_listed(sorted(others))}'
        elif self.shapes:
          hint = (
            ' (it is one of Inception v3 alone: pass it to train as '
            '--inception_checkpoint_file)'
          )
        raise CheckpointError(
          f'checkpoint {self.prefix} is not of im2txt: it has no variable '
          f'{name}{hint}'
        )
    shapes = [self.shapes[name] for name in names]
    # Whoever makes a model of these sizes needs no more memory than they took.
    vocab_size, embedding_size = (shapes[0] + [0, 0])[:2]
    units = (shapes[1] + [0])[0] // 4
    fitting = [
      [vocab_size, embedding_size],
      [4 * units],
      [embedding_size + units, 4 * units],
      [units, vocab_size],
    ]
    if shapes != fitting or not (vocab_size and embedding_size and units):
      raise CheckpointError(
        f'checkpoint {self.prefix} is not of im2txt: these shapes do not '
        'go together: '
        + ', '.join(f'{name} {shape}' for name, shape in zip(names, shapes))
      )
    return {
      'vocab_size': vocab_size,
      'embedding_size': embedding_size,
      'num_lstm_units': units,
    }

  def values(self, shapes):
    """Returns variables' values, a dict from today's name to array.

    Args:
      shapes: dict from today's name to the shape that it must have, a list.

    Raises:
      CheckpointError: variables missing or of another shape; all are named.
    """
    missing = sorted(set(shapes) - set(self.shapes))
    if missing:
      others = sorted(
        n
        for n in set(self.shapes) - set(shapes)
        if not n.startswith(_INCEPTION_HEADS)
      )
      raise CheckpointError(
        f'checkpoint {self.prefix} lacks {_listed(missing)}'
        + (f'; instead it has {_listed(others)}' if others else '')
      )
    wrong = [
      f'{name} {self.shapes[name]} (the model has {shape})'
      for name, shape in sorted(shapes.items())
      if self.shapes[name] != shape
    ]
    if wrong:
      raise CheckpointError(
        f'checkpoint {self.prefix} has other shapes: {_listed(wrong)}'
      )
    return {name: self.get(name) for name in shapes}

  def restore(self, named_variables):
    """Assigns every given variable, or none of them.

    Args:
      named_variables: dict from today's name to `tf.Variable`.

    Returns:
      The sorted names that the checkpoint holds and nobody asked for.

    Raises:
      CheckpointError: variables missing or of another shape; all are named.
    """
    values = self.values(
      {name: v.shape.as_list() for name, v in named_variables.items()}
    )
    for name, variable in named_variables.items():
      variable.assign(values[name].astype(variable.dtype.as_numpy_dtype))
    return sorted(
      n
      for n in set(self.shapes) - set(named_variables)
      if not n.startswith(_INCEPTION_HEADS)
    )


def _todays_name(name):
  for new, olds in _OLD_NAMES.items():
    if name in olds:
      return new
  return name


def _listed(items, most=10):
  """Joins items for an error line: 'N variable(s): a, b, ...'."""
  more = f' and {len(items) - most} more' if len(items) > most else ''
  return f'{len(items)} variable(s): ' + ', '.join(items[:most]) + more


def write(prefix, named_values):
  """Writes one name-based V2 checkpoint, in the place of another if need be.

  Its data and index are on the disk before they have their names, the index
  last: a prefix with an index is a whole checkpoint, after a power cut too.

  Args:
    prefix: e.g. '/tmp/train/model.ckpt-100'.
    named_values: dict from name to tensor, variable or array.

  Raises:
    OSError: the disk is full, or the directory cannot be written.
  """
  names = sorted(named_values)
  temporary = files.unfinished(prefix)
  index = temporary + '.index'
  # Of a save that was killed, else some of it would get a name below.
  _remove_all_of(temporary)
  try:
    tf.raw_ops.SaveV2(
      prefix=temporary,
      tensor_names=names,
      shape_and_slices=[''] * len(names),
      tensors=[tf.convert_to_tensor(named_values[n]) for n in names],
    )
    # An index never stands beside the data of another checkpoint.
    with contextlib.suppress(FileNotFoundError):
      os.remove(prefix + '.index')
    files.rename(
      *(
        (path, prefix + path[len(temporary) :])
        for path in (*glob.glob(glob.escape(temporary) + '.data-*'), index)
      )
    )
  except tf.errors.OpError as e:
    raise OSError(
      f'cannot write checkpoint {prefix}: ' + quiet_tensorflow.reason(e)
    ) from e
  finally:
    _remove_all_of(temporary)


def _remove_all_of(temporary):
  """Removes the files of an unfinished checkpoint, TensorFlow's own included."""
  for path in glob.glob(glob.escape(temporary) + '.*'):
    os.remove(path)


def training_state_prefix(prefix):
  """Returns the prefix of the training state beside a checkpoint.

  >>> training_state_prefix('train/model.ckpt-100')
  'train/training_state-100'
  """
  directory, name = os.path.split(prefix)
  return os.path.join(directory, name.replace(PREFIX, TRAINING_STATE, 1))


def restore_training_state(prefix, named_variables):
  """Assigns what was saved beside a checkpoint.

  Args:
    prefix: of the checkpoint.
    named_variables: dict from name to `tf.Variable`.

  Returns:
    Whether all of them were there; if not, none is assigned.

  Raises:
    CheckpointError: the file is damaged, or of another model.
  """
  path = training_state_prefix(prefix)
  if not os.path.exists(path + '.index'):
    return False
  state = Checkpoint(path)
  if not set(named_variables) <= set(state.shapes):
    return False
  state.restore(named_variables)
  return True


class CheckpointManager:
  """Saves `train_dir/model.ckpt-N`, the state file, and deletes old ones.

  Args:
    directory: the train directory.
    max_to_keep: checkpoints that stay.
  """

  def __init__(self, directory, max_to_keep=5):
    self._directory = directory
    self._max_to_keep = max_to_keep
    state = _read_state(directory)
    self._has_damaged_state_file = state == []
    self._has_state_file = state is not None
    self._latest = state[0] if state else None
    if state:
      latest, *known = state
      known = [
        *(p for p in known if p != latest),
        *([latest] if latest in known else []),
      ]
    else:  # Those of a damaged state file are here, without one nobody's.
      known = [] if state is None else _prefixes(directory)
    self._kept = [p for p in known if _exists(p) and self._is_here(p)]

  def save(self, named_variables, training_state=None):
    """Saves variables, among them `global_step`; returns the prefix.

    Args:
      named_variables: dict from name to tensor, variable or array.
      training_state: the same, for a file of its own; empty or None: no file.
    """
    step = int(np.asarray(named_variables['global_step']))
    prefix = os.path.join(self._directory, f'{PREFIX}-{step}')
    # An earlier one of this step never stands beside the new training state,
    # nor the new one beside an earlier training state.
    _remove(prefix)
    if training_state:
      write(training_state_prefix(prefix), training_state)
    write(prefix, named_variables)
    self._kept = [p for p in self._kept if p != prefix] + [prefix]
    stale = self._kept[: -self._max_to_keep]
    self._kept = self._kept[-self._max_to_keep :]
    # The state file names the new one before an old one goes.
    self._write_state(prefix)
    for old in stale:
      _remove(old)
    return prefix

  def _is_here(self, prefix):
    return prefix == os.path.join(self._directory, os.path.basename(prefix))

  def take_over(self, prefix, damaged):
    """Puts a directory in order for a trainer, who must hold its lock.

    Damaged checkpoints get other names, as they may be of some use to the
    user, and the state file names the one that training goes on from, which it
    does not yet after an interruption of its save. What interrupted saves left
    is removed.

    Args:
      prefix: what training goes on from, None if there is none.
      damaged: list of the prefixes that were passed over for it.
    """
    for other in filter(self._is_here, damaged):
      for path in _files(other) + _files(training_state_prefix(other)):
        os.rename(path, path + _DAMAGED)
    if (
      prefix
      and self._is_here(prefix)
      and (damaged or self._has_damaged_state_file or prefix != self._latest)
    ):
      self._kept = [p for p in self._kept if p not in (*damaged, prefix)]
      # Without a state file the user may have put it there: it is not deleted.
      if damaged or self._has_state_file:
        self._kept.append(prefix)
      self._write_state(prefix)
    remove_leftovers(self._directory)

  def _write_state(self, latest):
    """Writes the `checkpoint` file that TensorFlow's tools read."""
    # Paths relative to the directory, so that it can be moved or copied.
    state = _CheckpointState(
      model_checkpoint_path=os.path.basename(latest),
      all_model_checkpoint_paths=map(os.path.basename, self._kept),
    )
    with files.replacing(os.path.join(self._directory, STATE_FILE)) as path:
      with open(path, 'w', encoding='utf-8') as f:
        f.write(text_format.MessageToString(state))


def _remove(prefix):
  """Removes a checkpoint, if there is one, and its training state."""
  for stem in (prefix, training_state_prefix(prefix)):
    # The index first: data without index is rubbish, index without data a
    # broken checkpoint.
    for path in reversed(_files(stem)):
      os.remove(path)


def remove_leftovers(directory):
  """Removes what interrupted saves left; logs one line if there was anything.

  Args:
    directory: str, in which nobody else is saving.
  """
  state = _read_state(directory)
  names = sorted(os.listdir(directory))
  part = rf'({re.escape(PREFIX)}|{TRAINING_STATE})-\d+'

  def is_alone(name):
    """Whether it belongs to a checkpoint that was not, or no longer, whole."""
    stem = re.match(part + r'(?=\.(index|data-\d{5}-of-\d{5})$)', name)
    checkpoint = stem and os.path.join(
      directory, stem[0].replace(TRAINING_STATE, PREFIX)
    )
    return (
      stem
      and not _exists(checkpoint)
      and (
        not _files(checkpoint)
        or f'.{os.path.basename(checkpoint)}.tmp.index' in names
        # One that the state file names has lost its index, which may be found.
        or state
        and checkpoint not in state
      )
    )

  leftovers = [
    os.path.join(directory, name)
    for name in names
    if re.fullmatch(
      rf'\.({part}|{STATE_FILE}|\w+\.json)\.tmp(\..+)?'
      # TensorFlow's own, of versions that did not save under a hidden name.
      rf'|{part}\..+\.tempstate\d+',
      name,
    )
    or is_alone(name)
  ]
  size = 0
  # The hidden ones last: they tell that what they belong to is no more.
  for path in sorted(leftovers, key=lambda p: os.path.basename(p)[0] == '.'):
    size += os.path.getsize(path)
    os.remove(path)
  if leftovers:
    logging.info(
      'removed what interrupted saves left in %s: %d file(s), %.1f MB',
      directory,
      len(leftovers),
      size / 1e6,
    )


def load_inception(path, inception):
  """Initializes Inception v3 from its own checkpoint, or one of im2txt.

  Args:
    path: see `resolve`.
    inception: `image_embedding.InceptionV3`.

  Raises:
    CheckpointError: see `Checkpoint`.
  """
  Checkpoint(path).restore(inception.named_variables)
