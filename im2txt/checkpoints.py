# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: every vintage of im2txt's in, the name-based V2 format out."""

import glob
import os
import re

import numpy as np
import tensorflow as tf

from im2txt.files import replacing

PREFIX = 'model.ckpt'
# Beside a checkpoint: what training goes on from and nobody else needs.
TRAINING_STATE = 'training_state'

# What TensorFlow 1.x called the LSTM's variables over the years.
_LSTM = 'lstm/basic_lstm_cell/'
_OLD_NAMES = {
    _LSTM + 'kernel': (_LSTM + 'weights', 'lstm/BasicLSTMCell/Linear/Matrix'),
    _LSTM + 'bias': (_LSTM + 'biases', 'lstm/BasicLSTMCell/Linear/Bias'),
}
# Present in Inception's own checkpoint and of no use to a captioner.
_INCEPTION_HEADS = ('InceptionV3/Logits/', 'InceptionV3/AuxLogits/')

_GIT_LFS_HEADER = b'version https://git-lfs'

# What TensorFlow raises for damaged files; IndexError where bytes are missing.
_READ_ERRORS = (tf.errors.OpError, ValueError, RuntimeError, IndexError)


class CheckpointError(ValueError):
  """A checkpoint that cannot be used; the message is for the user."""


class NoCheckpointYetError(CheckpointError):
  """A directory that exists not, or has no checkpoint (yet)."""


def resolve(path):
  """Returns the checkpoint prefix (V2) or file (V1) that a user means.

  Args:
    path: a directory (its latest checkpoint is taken), a prefix
      (`model.ckpt-100`), a V1 file, or by mistake a prefix's `.index`, `.meta`
      or `.data-00000-of-00001` file.

  Raises:
    NoCheckpointYetError: a directory without a checkpoint.
    CheckpointError: there is nothing of that name.
  """
  if os.path.isdir(path):
    latest = tf.train.latest_checkpoint(path) or _newest_prefix(path)
    if not latest:
      raise NoCheckpointYetError(f'no checkpoint in directory {path}')
    return latest
  match = re.fullmatch(r'(.+)\.(index|meta|data-\d{5}-of-\d{5})', path)
  prefix = match.group(1) if match else path
  if os.path.exists(prefix + '.index') or os.path.isfile(prefix):
    return prefix
  if glob.glob(glob.escape(prefix) + '.data-*'):
    raise CheckpointError(
        f'checkpoint {prefix}: the file {prefix}.index is missing; copy it '
        'beside the .data file')
  raise CheckpointError(
      f'no checkpoint at {path}: neither a directory with checkpoints, nor is '
      f'there a file {prefix}.index')


def _newest_prefix(directory):
  """The checkpoint of the highest step, for a directory without state file."""
  found = []
  for path in glob.glob(os.path.join(glob.escape(directory), '*')):
    prefix = path.removesuffix('.index')
    if os.path.basename(prefix).startswith(TRAINING_STATE):
      continue
    step = re.search(r'-(\d+)$', prefix)
    # A V1 file has the name that is the prefix of others.
    if prefix != path or re.fullmatch(
        re.escape(PREFIX) + r'-\d+', os.path.basename(path)):
      found.append((int(step.group(1)) if step else -1, prefix))
  return max(found)[1] if found else None


def _why_unreadable(prefix, error):
  """Says in one line what is wrong with a checkpoint's files."""
  files = [prefix] if os.path.isfile(prefix) else []
  files += sorted(glob.glob(glob.escape(prefix) + '.*'))
  for name in files:
    try:
      with open(name, 'rb') as f:
        start = f.read(len(_GIT_LFS_HEADER))
    except OSError as e:  # Deleted since, perhaps.
      return f'cannot read {name}: {e.strerror}'
    if start == _GIT_LFS_HEADER:
      return (f'{name} is a Git-LFS pointer, not the file itself; run '
              "'git lfs pull' where you cloned it")
    if not start:
      return f'{name} is empty'
  if (os.path.exists(prefix + '.index')
      and not glob.glob(glob.escape(prefix) + '.data-*')):
    return f'the file {prefix}.data-00000-of-00001 is missing'
  reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
  return (f'{prefix} is truncated, damaged or not a TensorFlow checkpoint '
          f'({reason}); copy or download it again')


class Checkpoint:
  """An open checkpoint, whatever its vintage, under today's names.

  Args:
    path: see `resolve`.

  Attributes:
    prefix: the resolved path.
    shapes: dict from today's variable name to its shape (a list).

  Raises:
    CheckpointError: missing, truncated, or not a checkpoint.
  """

  def __init__(self, path):
    self.prefix = resolve(path)
    try:
      self._reader = tf.train.load_checkpoint(self.prefix)
    except _READ_ERRORS as e:
      raise CheckpointError(_why_unreadable(self.prefix, e)) from e
    stored = self._reader.get_variable_to_shape_map()
    self._stored_name = {}
    self.shapes = {}
    todays = {old: new for new, olds in _OLD_NAMES.items() for old in olds}
    for name, shape in stored.items():
      new = todays.get(name, name)
      self._stored_name[new] = name
      self.shapes[new] = shape

  @property
  def global_step(self):
    """The training step, an int; 0 in a checkpoint without one."""
    if 'global_step' not in self.shapes:
      return 0
    return int(self.get('global_step'))

  def get(self, name):
    """Returns a variable's value, a NumPy array, by its name of today.

    Raises:
      CheckpointError: no such variable, or its bytes are damaged.
    """
    if name not in self._stored_name:
      raise CheckpointError(f'checkpoint {self.prefix} has no variable {name}')
    try:
      return self._reader.get_tensor(self._stored_name[name])
    except _READ_ERRORS as e:
      raise CheckpointError(_why_unreadable(self.prefix, e)) from e

  def model_sizes(self):
    """Returns vocab_size, embedding_size, num_lstm_units as stored.

    Raises:
      CheckpointError: not an im2txt checkpoint.
    """
    for name in ('seq_embedding/map', _LSTM + 'bias'):
      if name not in self.shapes:
        raise CheckpointError(
            f'checkpoint {self.prefix} is not of im2txt: it has no variable '
            f'{name}' + (' (it is one of Inception v3 alone: pass it to train '
                         'as --inception_checkpoint_file)'
                         if any(n.startswith('InceptionV3/')
                                for n in self.shapes) else ''))
    vocab_size, embedding_size = self.shapes['seq_embedding/map']
    return {'vocab_size': vocab_size, 'embedding_size': embedding_size,
            'num_lstm_units': self.shapes[_LSTM + 'bias'][0] // 4}

  def values(self, shapes):
    """Returns variables' values, a dict from today's name to array.

    Args:
      shapes: dict from today's name to the shape that it must have, a list.

    Raises:
      CheckpointError: variables missing or of another shape; all are named.
    """
    missing = sorted(set(shapes) - set(self.shapes))
    if missing:
      raise CheckpointError(
          f'checkpoint {self.prefix} lacks {_listed(missing)}')
    wrong = [f'{name} {self.shapes[name]} (the model has {shape})'
             for name, shape in sorted(shapes.items())
             if self.shapes[name] != shape]
    if wrong:
      raise CheckpointError(
          f'checkpoint {self.prefix} has other shapes: {_listed(wrong)}')
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
        {name: v.shape.as_list() for name, v in named_variables.items()})
    for name, variable in named_variables.items():
      variable.assign(values[name].astype(variable.dtype.as_numpy_dtype))
    return sorted(
        n for n in set(self.shapes) - set(named_variables)
        if not n.startswith(_INCEPTION_HEADS))


def _listed(items, most=10):
  """Joins items for an error line: 'N variable(s): a, b, ...'."""
  more = f' and {len(items) - most} more' if len(items) > most else ''
  return f'{len(items)} variable(s): ' + ', '.join(items[:most]) + more


def write(prefix, named_values):
  """Writes one name-based V2 checkpoint.

  TensorFlow writes the data under a temporary name and the index last, so a
  prefix with an index is a whole checkpoint.

  Args:
    prefix: e.g. '/tmp/train/model.ckpt-100'.
    named_values: dict from name to tensor, variable or array.

  Raises:
    OSError: the disk is full, or the directory cannot be written.
  """
  names = sorted(named_values)
  try:
    tf.raw_ops.SaveV2(
        prefix=prefix, tensor_names=names, shape_and_slices=[''] * len(names),
        tensors=[tf.convert_to_tensor(named_values[n]) for n in names])
  except tf.errors.OpError as e:
    raise OSError(f'cannot write checkpoint {prefix}: {e.message}') from e


def training_state_prefix(prefix):
  """Returns the prefix of the training state beside a checkpoint.

  >>> training_state_prefix('train/model.ckpt-100')
  'train/training_state-100'
  """
  directory, name = os.path.split(prefix)
  return os.path.join(
      directory, name.replace(PREFIX, TRAINING_STATE, 1))


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
    state = tf.train.get_checkpoint_state(directory)
    known = list(state.all_model_checkpoint_paths) if state else []
    self._kept = [p for p in known if os.path.exists(p + '.index')]

  def save(self, named_variables, training_state=None):
    """Saves variables, among them `global_step`; returns the prefix.

    Args:
      named_variables: dict from name to tensor, variable or array.
      training_state: the same, for a file of its own; empty or None: no file.
    """
    step = int(np.asarray(named_variables['global_step']))
    prefix = os.path.join(self._directory, f'{PREFIX}-{step}')
    if training_state:
      write(training_state_prefix(prefix), training_state)
    write(prefix, named_variables)
    self._kept = [p for p in self._kept if p != prefix] + [prefix]
    stale = self._kept[:-self._max_to_keep]
    self._kept = self._kept[-self._max_to_keep:]
    # The state file names the new one before an old one goes.
    self._write_state(prefix)
    for old in stale:
      # The index first: data without index is rubbish, index without data a
      # broken checkpoint.
      for stem in (old, training_state_prefix(old)):
        for name in ([stem + '.index']
                     + glob.glob(glob.escape(stem) + '.data-*')):
          if os.path.exists(name):
            os.remove(name)
    return prefix

  def _write_state(self, latest):
    """Writes the `checkpoint` file that TensorFlow's tools read."""
    # Paths relative to the directory, so that it can be moved or copied.
    names = [os.path.basename(p) for p in self._kept]
    lines = [f'model_checkpoint_path: "{os.path.basename(latest)}"']
    lines += [f'all_model_checkpoint_paths: "{name}"' for name in names]
    with replacing(os.path.join(self._directory, 'checkpoint')) as path:
      with open(path, 'w', encoding='utf-8') as f:
        f.write('\n'.join(lines) + '\n')


def load_inception(path, inception):
  """Initializes Inception v3 from its own checkpoint, or one of im2txt.

  Args:
    path: see `resolve`.
    inception: `image_embedding.InceptionV3`.

  Raises:
    CheckpointError: see `Checkpoint`.
  """
  Checkpoint(path).restore(inception.named_variables)
