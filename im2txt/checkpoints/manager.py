# SPDX-License-Identifier: Apache-2.0
"""Saves checkpoints in the name-based V2 format, and deletes old ones.

What is written is on the disk before the state file names it, and only then
older checkpoints are deleted.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import glob
import os
import re

from absl import logging
from google.protobuf import text_format
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from im2txt.checkpoints import locating
from im2txt.runtime import files
from im2txt.runtime import quiet_tensorflow

# Values by name: what a checkpoint holds.
Values = Mapping[str, tf.Tensor | tf.Variable | npt.NDArray]


def write(prefix: str, named_values: Values) -> None:
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


def _remove_all_of(temporary: str) -> None:
  """Removes the files of an unfinished checkpoint, TensorFlow's own included."""
  for path in glob.glob(glob.escape(temporary) + '.*'):
    os.remove(path)


class CheckpointManager:
  """Saves `train_dir/model.ckpt-N`, the state file, and deletes old ones.

  Args:
    directory: the train directory.
    max_to_keep: checkpoints that stay.
  """

  def __init__(self, directory: str, max_to_keep: int = 5):
    self._directory = directory
    self._max_to_keep = max_to_keep
    state = locating.read_state(directory)
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
      known = [] if state is None else locating.prefixes_in(directory)
    self._kept = [p for p in known if locating.exists(p) and self._is_here(p)]

  def save(
    self, named_variables: Values, training_state: Values | None = None
  ) -> str:
    """Saves variables, among them `global_step`; returns the prefix.

    Args:
      named_variables: dict from name to tensor, variable or array.
      training_state: the same, for a file of its own; empty or None: no file.
    """
    step = int(np.asarray(named_variables['global_step']))
    prefix = os.path.join(self._directory, f'{locating.PREFIX}-{step}')
    # An earlier one of this step never stands beside the new training state,
    # nor the new one beside an earlier training state.
    _remove(prefix)
    if training_state:
      write(locating.training_state_prefix(prefix), training_state)
    write(prefix, named_variables)
    self._kept = [p for p in self._kept if p != prefix] + [prefix]
    stale = self._kept[: -self._max_to_keep]
    self._kept = self._kept[-self._max_to_keep :]
    # The state file names the new one before an old one goes.
    self._write_state(prefix)
    for old in stale:
      _remove(old)
    return prefix

  def _is_here(self, prefix: str) -> bool:
    return prefix == os.path.join(self._directory, os.path.basename(prefix))

  def take_over(self, prefix: str | None, damaged: Sequence[str]) -> None:
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
      for path in locating.files_of(other) + locating.files_of(
        locating.training_state_prefix(other)
      ):
        os.rename(path, path + locating.DAMAGED)
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

  def _write_state(self, latest: str) -> None:
    """Writes the `checkpoint` file that TensorFlow's tools read."""
    # Paths relative to the directory, so that it can be moved or copied.
    state = locating.CheckpointState(
      model_checkpoint_path=os.path.basename(latest),
      all_model_checkpoint_paths=map(os.path.basename, self._kept),
    )
    with files.replacing(
      os.path.join(self._directory, locating.STATE_FILE)
    ) as path:
      with open(path, 'w', encoding='utf-8') as f:
        f.write(text_format.MessageToString(state))


def _remove(prefix: str) -> None:
  """Removes a checkpoint, if there is one, and its training state."""
  for stem in (prefix, locating.training_state_prefix(prefix)):
    # The index first: data without index is rubbish, index without data a
    # broken checkpoint.
    for path in reversed(locating.files_of(stem)):
      os.remove(path)


def remove_leftovers(directory: str) -> None:
  """Removes what interrupted saves left; logs one line if there was anything.

  Args:
    directory: str, in which nobody else is saving.
  """
  state = locating.read_state(directory)
  names = sorted(os.listdir(directory))
  part = rf'({re.escape(locating.PREFIX)}|{locating.TRAINING_STATE})-\d+'

  def is_alone(name: str) -> bool:
    """Whether it belongs to a checkpoint that was not, or no longer, whole."""
    stem = re.match(part + r'(?=\.(index|data-\d{5}-of-\d{5})$)', name)
    if not stem:
      return False
    checkpoint = os.path.join(
      directory, stem[0].replace(locating.TRAINING_STATE, locating.PREFIX)
    )
    if locating.exists(checkpoint):
      return False
    return (
      not locating.files_of(checkpoint)
      or f'.{os.path.basename(checkpoint)}.tmp.index' in names
      # One that the state file names has lost its index, which may be found.
      or bool(state and checkpoint not in state)
    )

  leftovers = [
    os.path.join(directory, name)
    for name in names
    if re.fullmatch(
      rf'\.({part}|{locating.STATE_FILE}|\w+\.json)\.tmp(\..+)?'
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
