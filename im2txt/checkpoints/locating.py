# SPDX-License-Identifier: Apache-2.0
"""Where checkpoints are, and whether their files are whole.

In a directory the newest checkpoint that is whole is taken: all its values are
read first, and with them their checksums.
"""

from collections.abc import Sequence
import os
import re

from absl import logging
from google.protobuf import text_format
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from im2txt.checkpoints import reader as checkpoint_reader
from im2txt.runtime import storage

PREFIX = 'model.ckpt'
# Names the newest checkpoint, and those that may be deleted for newer ones.
STATE_FILE = 'checkpoint'
# Beside a checkpoint: what training goes on from and nobody else needs.
TRAINING_STATE = 'training_state'
# Added to the names of the files of a damaged one, so that nothing takes it.
DAMAGED = '.damaged'

# What reading a checkpoint raises.
READ_ERRORS = (OSError, ValueError)

_GIT_LFS_HEADER = b'version https://git-lfs'

# TensorFlow's interface has no name for the message in a state file.
CheckpointState = type(
  tf.compat.v1.train.generate_checkpoint_state_proto('.', 'any', ['any'])
)


class CheckpointError(ValueError):
  """A checkpoint that cannot be used; the message is for the user."""


class NoCheckpointYetError(CheckpointError):
  """The directory does not exist, or has no checkpoint yet."""


def resolve(path: str) -> str:
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
  if storage.isdir(path):
    return newest_whole(path)[0]
  match = re.fullmatch(r'(.+)\.(index|meta|data-\d{5}-of-\d{5})', path)
  prefix = match.group(1) if match else path
  if exists(prefix):
    return prefix
  if storage.starting_with(prefix + '.data-'):
    raise CheckpointError(
      f'checkpoint {prefix}: {fault(prefix)}; copy it beside the .data file'
    )
  raise CheckpointError(
    f'no checkpoint at {path}: neither a directory with checkpoints, nor is '
    f'there a file {prefix}.index'
  )


def split_paths(paths: str) -> list[str]:
  """Splits paths of checkpoints at commas, unless it is one that has commas.

  Args:
    paths: str, what `resolve` takes, separated by commas.

  Returns:
    list of str, one or more.
  """
  if storage.isdir(paths) or exists(paths):
    return [paths]
  return list(filter(None, paths.split(','))) or [paths]


def newest_whole(
  directory: str, training_state: bool = False
) -> tuple[str, list[str]]:
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
  state = read_state(directory)
  if state == []:
    logging.warning(
      '%s is damaged: taken as missing', os.path.join(directory, STATE_FILE)
    )
  faults: dict[str, str] = {}
  remedy = ''
  for prefix in _candidates(directory, state or []):
    wrong = fault(prefix)
    if not wrong and training_state and files_of(training_state_prefix(prefix)):
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
    and not storage.matches(os.path.join(directory, '*' + DAMAGED))
  ):
    raise NoCheckpointYetError(f'no checkpoint in directory {directory}')
  reasons = list(faults.values())[:3] or [
    'there was one, as other files in it tell'
  ]
  raise CheckpointError(
    f'no whole checkpoint in directory {directory} ({"; ".join(reasons)}); '
    f'{remedy}copy a whole one into it, or give another directory'
  )


def exists(prefix: str) -> bool:
  """Returns whether there is a checkpoint, whole or not."""
  return storage.exists(prefix + '.index') or storage.isfile(prefix)


def files_of(prefix: str) -> list[str]:
  """Returns the paths of a checkpoint's files, the data before the index."""
  paths = storage.starting_with(prefix + '.')
  return ([prefix] if storage.isfile(prefix) else []) + [
    path for path in paths if not path.endswith(DAMAGED)
  ]


def step_of(prefix: str) -> int:
  """Returns the step in the name of a checkpoint, -1 if there is none."""
  match = re.search(r'-(\d+)$', prefix)
  return int(match[1]) if match else -1


def read_state(directory: str) -> list[str] | None:
  """Returns the prefixes that the state file names, the latest first.

  Returns:
    List of str, empty if the file is damaged; None if there is none. The latest
    is in it twice if it is among those that may be deleted.
  """
  state = CheckpointState()
  try:
    with storage.open_text(os.path.join(directory, STATE_FILE)) as f:
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
    prefixes.append(path if exists(path) and not exists(own) else own)
  return [prefixes[0], *dict.fromkeys(prefixes[1:])]


def prefixes_in(directory: str) -> list[str]:
  """Returns the prefixes in a directory, those without an index included."""
  try:
    names = storage.listdir(directory)
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
      if f'.{prefix}.tmp.index' not in names or exists(
        os.path.join(directory, prefix)
      ):  # Else it was just being written.
        found.add(os.path.join(directory, prefix))
  return sorted(found, key=lambda prefix: (step_of(prefix), prefix))


def _candidates(directory: str, state: Sequence[str]) -> list[str]:
  """Returns the prefixes of one training, in the order to try them.

  Args:
    directory: str.
    state: what `read_state` returns, not None.
  """
  found = sorted(
    {*prefixes_in(directory), *filter(exists, state[1:])},
    key=step_of,
    reverse=True,
  )
  first = list(state or found)[:1]

  def stem(prefix: str) -> str:
    return re.sub(r'-\d+$', '', os.path.basename(prefix))

  return first + [
    prefix
    for prefix in found
    if prefix not in first and stem(prefix) == stem(first[0])
  ]


def fault(prefix: str) -> str | None:
  """Returns what is wrong with a checkpoint, a line; None if it is whole."""
  if not exists(prefix):
    return f'the file {prefix}.index is missing'
  try:
    reader = checkpoint_reader.open_reader(prefix)
    for name in reader.shapes:
      get(reader, name)
    return None
  except READ_ERRORS as error:
    return _what_is_wrong(prefix, error)


def training_state_prefix(prefix: str) -> str:
  """Returns the prefix of the training state beside a checkpoint.

  >>> training_state_prefix('train/model.ckpt-100')
  'train/training_state-100'
  """
  directory, name = os.path.split(prefix)
  return os.path.join(directory, name.replace(PREFIX, TRAINING_STATE, 1))


class _NotFiniteError(ValueError):
  """A variable that holds NaN or infinity."""


def _what_is_wrong(prefix: str, error: Exception) -> str:
  """Says in one line what is wrong with a checkpoint's files."""
  if isinstance(error, _NotFiniteError):
    return f'{prefix}: {error}'
  for name in files_of(prefix):
    try:
      with storage.open_read(name) as f:
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
  if storage.exists(prefix + '.index') and not storage.starting_with(
    prefix + '.data-'
  ):
    return f'the file {prefix}.data-00000-of-00001 is missing'
  if isinstance(error, OSError):
    return f'cannot read {error.filename}: {error.strerror}'
  reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
  return (
    f'{prefix} is truncated, damaged or not a TensorFlow checkpoint ({reason})'
  )


def unreadable(prefix: str, error: Exception) -> CheckpointError:
  """Returns the CheckpointError for one of READ_ERRORS."""
  wrong = _what_is_wrong(prefix, error)
  remedy = '; copy or download it again'
  if isinstance(error, _NotFiniteError):
    remedy = '; give an earlier checkpoint'
  elif "'git lfs pull'" in wrong:
    remedy = ''
  return CheckpointError(wrong + remedy)


def get(reader: checkpoint_reader.Reader, name: str) -> npt.NDArray:
  """Returns a value of a `checkpoint_reader`, a NumPy array.

  Args:
    reader: what `checkpoint_reader.open_reader` returns.
    name: str, as stored.

  Raises:
    One of READ_ERRORS.
  """
  value = reader.get(name)
  if np.issubdtype(value.dtype, np.floating) and not np.isfinite(value).all():
    raise _NotFiniteError(f'{name} holds NaN or infinity: training diverged')
  return value
