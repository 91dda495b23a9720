# SPDX-License-Identifier: Apache-2.0
"""An open checkpoint: every vintage of im2txt's, under today's names."""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Protocol

from absl import logging
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from im2txt import configuration
from im2txt.checkpoints import locating
from im2txt.checkpoints import reader as checkpoint_reader
from im2txt.runtime import storage

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

  def __init__(self, path: str, training_state: bool = False):
    self.prefix, self.passed_over = (
      locating.newest_whole(path, training_state)
      if storage.isdir(path)
      else (locating.resolve(path), [])
    )
    try:
      self._reader = checkpoint_reader.open_reader(self.prefix)
    except locating.READ_ERRORS as e:
      raise locating.unreadable(self.prefix, e) from e
    self._stored_name = self._by_todays_names(self._reader.shapes)
    self.shapes = {
      name: self._reader.shapes[stored]
      for name, stored in self._stored_name.items()
    }

  def _by_todays_names(self, stored_names: Iterable[str]) -> dict[str, str]:
    """Returns a dict from today's names to those in the file.

    A variable that is there under several names is taken by today's, or else by
    the newest. Moving averages of variables are taken only where the variables
    themselves are not there.
    """
    names: dict[str, list[str]] = {}
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
  def global_step(self) -> int:
    """The training step, an int; 0 in a checkpoint without one.

    Raises:
      CheckpointError: it is no number.
    """
    if 'global_step' not in self.shapes:
      return 0
    step = self.get('global_step')
    if step.shape or not np.isrealobj(step):
      raise locating.CheckpointError(
        f'checkpoint {self.prefix} is not of im2txt: its global_step is '
        f'{step.dtype} {list(step.shape)}'
      )
    return int(step)

  def get(self, name: str) -> npt.NDArray:
    """Returns a variable's value, a NumPy array, by its name of today.

    Raises:
      CheckpointError: no such variable, or its bytes are damaged.
    """
    if name not in self._stored_name:
      raise locating.CheckpointError(
        f'checkpoint {self.prefix} has no variable {name}'
      )
    try:
      return locating.get(self._reader, self._stored_name[name])
    except locating.READ_ERRORS as e:
      raise locating.unreadable(self.prefix, e) from e

  def model_sizes(self) -> dict[str, int]:
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
        raise locating.CheckpointError(
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
      raise locating.CheckpointError(
        f'checkpoint {self.prefix} is not of im2txt: these shapes do not '
        'go together: '
        + ', '.join(f'{name} {shape}' for name, shape in zip(names, shapes))
      )
    return {
      'vocab_size': vocab_size,
      'embedding_size': embedding_size,
      'num_lstm_units': units,
    }

  def with_sizes(
    self, config: configuration.ModelConfig
  ) -> configuration.ModelConfig:
    """Returns a configuration with the sizes of `model_sizes`."""
    sizes = self.model_sizes()
    return dataclasses.replace(
      config,
      vocab_size=sizes['vocab_size'],
      embedding_size=sizes['embedding_size'],
      num_lstm_units=sizes['num_lstm_units'],
    )

  def values(
    self, shapes: Mapping[str, Sequence[int]]
  ) -> dict[str, npt.NDArray]:
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
      raise locating.CheckpointError(
        f'checkpoint {self.prefix} lacks {_listed(missing)}'
        + (f'; instead it has {_listed(others)}' if others else '')
      )
    wrong = [
      f'{name} {self.shapes[name]} (the model has {shape})'
      for name, shape in sorted(shapes.items())
      if self.shapes[name] != shape
    ]
    if wrong:
      raise locating.CheckpointError(
        f'checkpoint {self.prefix} has other shapes: {_listed(wrong)}'
      )
    return {name: self.get(name) for name in shapes}

  def restore(self, named_variables: Mapping[str, tf.Variable]) -> list[str]:
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


def _todays_name(name: str) -> str:
  for new, olds in _OLD_NAMES.items():
    if name in olds:
      return new
  return name


def _listed(items: Sequence[str], most: int = 10) -> str:
  """Joins items for an error line: 'N variable(s): a, b, ...'."""
  more = f' and {len(items) - most} more' if len(items) > most else ''
  return f'{len(items)} variable(s): ' + ', '.join(items[:most]) + more


def restore_training_state(
  prefix: str, named_variables: Mapping[str, tf.Variable]
) -> bool:
  """Assigns what was saved beside a checkpoint.

  Args:
    prefix: of the checkpoint.
    named_variables: dict from name to `tf.Variable`.

  Returns:
    Whether all of them were there; if not, none is assigned.

  Raises:
    CheckpointError: the file is damaged, or of another model.
  """
  path = locating.training_state_prefix(prefix)
  if not storage.exists(path + '.index'):
    return False
  state = Checkpoint(path)
  if not set(named_variables) <= set(state.shapes):
    return False
  state.restore(named_variables)
  return True


class HasNamedVariables(Protocol):
  """Such as `image_embedding.InceptionV3`, of a room above this one."""

  @property
  def named_variables(self) -> dict[str, tf.Variable]: ...


def load_inception(path: str, inception: HasNamedVariables) -> None:
  """Initializes Inception v3 from its own checkpoint, or one of im2txt.

  Args:
    path: see `resolve`.
    inception: `image_embedding.InceptionV3`.

  Raises:
    CheckpointError: see `Checkpoint`.
  """
  Checkpoint(path).restore(inception.named_variables)
