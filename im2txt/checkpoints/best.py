# SPDX-License-Identifier: Apache-2.0
"""The best checkpoint by some metric, apart from the last few that train keeps."""

from collections.abc import Mapping
import contextlib
import dataclasses
import glob
import math
import os

from absl import logging
import tensorflow as tf

from im2txt import checkpoints
from im2txt import configuration
from im2txt.checkpoints import encoder_stamp
from im2txt.runtime import files
from im2txt.text import vocabulary_stamp

FILE_NAME = 'best.json'
_LOWER_IS_BETTER = ('perplexity',)


@dataclasses.dataclass
class _Best:
  """What best.json holds, see `BestCheckpoint`."""

  metric: str
  value: float
  global_step: int
  measured_on: dict[str, object] = dataclasses.field(default_factory=dict)


class BestCheckpoint:
  """A directory with the best checkpoint so far.

  It is one as train leaves it, with configuration and state file, and takes
  its place wherever a checkpoint is asked for; and it has a best.json,
  {"metric": "cider", "value": 0.7, "global_step": 1000, "measured_on": ...},
  from which the best is remembered when a program starts again.

  Args:
    directory: str; it is made when there is something to keep.
    metric: name of what values are of.
    measured_on: dict, name of a flag -> value, of what else values depend on:
      those of other images, say, are not comparable.
    defaults: dict as `measured_on`, what a best.json was measured on that is of
      before there was such a flag.

  Attributes:
    metric: str.

  Raises:
    ValueError: the directory's best.json is damaged, or of another metric or
      measured on something else.
  """

  def __init__(
    self,
    directory: str,
    metric: str,
    measured_on: Mapping[str, object],
    defaults: Mapping[str, object] | None = None,
  ):
    self.metric = metric
    self._measured_on = measured_on
    self._defaults = defaults or {}
    self._directory = directory
    self._path = os.path.join(directory, FILE_NAME)
    self._best = self._read()
    if self._best:
      checkpoints.remove_leftovers(directory)
      self._remove_all_but(self._best.global_step)
      self._remove_state_unless_of(self._best.global_step)

  def _read(self) -> _Best | None:
    """Returns the `_Best` of best.json, None if there is no best yet."""
    if not os.path.exists(self._path):
      return None
    try:
      best = files.read_fields(self._path, _Best)
      if not math.isfinite(best.value) or best.global_step < 0:
        raise ValueError(f'value {best.value} at step {best.global_step}')
    except (OSError, ValueError) as error:
      raise ValueError(
        f'cannot read {self._path} ({error}); delete it to begin anew'
      ) from error
    if best.metric != self.metric:
      raise ValueError(
        f'{self._directory} holds the best checkpoint by {best.metric}, not '
        f'by --best_metric={self.metric}: give that, or move the directory '
        'away'
      )
    before = {**self._defaults, **best.measured_on}
    for name, now in self._measured_on.items():
      if before.get(name) != now:
        raise ValueError(
          f'{self._directory} holds the best checkpoint with --{name}='
          f'{before.get(name)!s:.100}, not --{name}={now}: give that, or move '
          'the directory away'
        )
    if fault := checkpoints.fault(self._prefix(best.global_step)):
      logging.warning(
        '%s is of a checkpoint that cannot be used (%s): begun anew',
        self._path,
        fault,
      )
      return None
    logging.info(
      'best so far: %s = %.4f at step %d',
      best.metric,
      best.value,
      best.global_step,
    )
    return best

  def offer(
    self,
    value: float,
    named_variables: Mapping[str, tf.Variable],
    train_dir: str,
  ) -> bool:
    """Keeps a checkpoint if it is the best so far.

    It is written from memory: train may have deleted its file by now.

    Args:
      value: float, of the metric; one that is not finite is never the best.
      named_variables: dict from name to variable, all that a checkpoint holds.
      train_dir: where the checkpoint is from.

    Returns:
      bool, whether it was kept.

    Raises:
      OSError: it cannot be written; the best before is still there.
    """
    sign = -1 if self.metric in _LOWER_IS_BETTER else 1
    if not math.isfinite(value) or (
      self._best and sign * value <= sign * self._best.value
    ):
      return False
    step = int(named_variables['global_step'])
    os.makedirs(self._directory, exist_ok=True)
    configuration.save(self._directory, configuration.load(train_dir))
    vocabulary_stamp.copy(train_dir, self._directory)
    encoder_stamp.copy(train_dir, self._directory)
    best = _Best(self.metric, float(value), step, dict(self._measured_on))
    try:
      # The one before stays until best.json names the new one.
      checkpoints.CheckpointManager(self._directory, max_to_keep=2).save(
        named_variables
      )
      files.write_json(self._path, dataclasses.asdict(best))
    except OSError:
      if not self._best or self._best.global_step != step:
        for path in glob.glob(glob.escape(self._prefix(step)) + '.*'):
          os.remove(path)
      self._remove_state_unless_of(
        self._best.global_step if self._best else None
      )
      raise
    self._best = best
    self._remove_all_but(step)
    return True

  def _prefix(self, step: int) -> str:
    return os.path.join(self._directory, f'{checkpoints.PREFIX}-{step}')

  def _remove_state_unless_of(self, step: int | None) -> None:
    """Removes a state file that names another checkpoint: none is as good."""
    path = os.path.join(self._directory, 'checkpoint')
    with contextlib.suppress(FileNotFoundError):
      with open(path, encoding='utf-8') as f:
        latest = f.readline()
      if f'"{checkpoints.PREFIX}-{step}"' not in latest:
        os.remove(path)

  def _remove_all_but(self, step: int) -> None:
    """Removes other checkpoints, such as the parts of an interrupted one."""
    for path in glob.glob(
      glob.escape(os.path.join(self._directory, checkpoints.PREFIX)) + '-*'
    ):
      if not path.startswith(self._prefix(step) + '.'):
        os.remove(path)
