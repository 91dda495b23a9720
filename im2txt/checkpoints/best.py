# SPDX-License-Identifier: Apache-2.0
"""The best checkpoint by some metric, apart from the last few that train keeps."""

from collections.abc import Mapping
import contextlib
import dataclasses
import glob
import math
import os

from absl import logging
import numpy as np
import tensorflow as tf

from im2txt import checkpoints
from im2txt import configuration
from im2txt.checkpoints import encoder_stamp
from im2txt.runtime import files
from im2txt.text import vocabulary_stamp

# Below the --eval_dir of evaluate.
DIRECTORY = 'best'
FILE_NAME = 'best.json'
_LOWER_IS_BETTER = ('perplexity',)


@dataclasses.dataclass
class Best:
  """What best.json holds, see `BestCheckpoint`.

  Attributes:
    metric: name of the metric.
    value: of the best checkpoint.
    global_step: of the best checkpoint.
    measured_on: see `BestCheckpoint`.
    not_better: steps of the checkpoints that were measured after the best one.
  """

  metric: str
  value: float
  global_step: int
  measured_on: dict[str, object] = dataclasses.field(default_factory=dict)
  not_better: list[int] = dataclasses.field(default_factory=list)

  def count_not_better(self, step: int | None = None) -> int:
    """Returns how many checkpoints in a row were not better than the best.

    Args:
      step: those after this step do not count, as they are of another run.
    """
    return len({n for n in self.not_better if step is None or n <= step})


def read(directory: str) -> Best | None:
  """Returns what best.json holds, None if there is no best yet.

  Raises:
    ValueError: it is damaged.
  """
  path = os.path.join(directory, FILE_NAME)
  if not os.path.exists(path):
    return None
  try:
    best = files.read_fields(path, Best)
    if not math.isfinite(best.value) or best.global_step < 0:
      raise ValueError(f'value {best.value} at step {best.global_step}')
    if not all(
      isinstance(step, int) and step > best.global_step
      for step in best.not_better
    ):
      raise ValueError(f'not_better {best.not_better!r:.100}')
    return best
  except (OSError, ValueError) as error:
    raise ValueError(
      f'cannot read {path} ({error}); delete it to begin anew'
    ) from error


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

  def _read(self) -> Best | None:
    """Returns the `Best` of best.json, None if there is no best yet."""
    best = read(self._directory)
    if best is None:
      return None
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
    step = int(np.asarray(named_variables['global_step']))
    sign = -1 if self.metric in _LOWER_IS_BETTER else 1
    if not math.isfinite(value) or (
      self._best and sign * value <= sign * self._best.value
    ):
      self._count(step)
      return False
    os.makedirs(self._directory, exist_ok=True)
    configuration.save(self._directory, configuration.load(train_dir))
    vocabulary_stamp.copy(train_dir, self._directory)
    encoder_stamp.copy(train_dir, self._directory)
    best = Best(self.metric, float(value), step, dict(self._measured_on))
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

  def count_not_better(self, step: int | None = None) -> int:
    """See `Best.count_not_better`; 0 if there is no best yet."""
    return self._best.count_not_better(step) if self._best else 0

  def _count(self, step: int) -> None:
    """Notes a checkpoint that is not better, if it is later than the best.

    An evaluation that starts again may measure a checkpoint once more.
    """
    best = self._best
    if best and step > best.global_step:
      # Later ones are of a run that was taken back to an earlier step.
      best.not_better = [n for n in best.not_better if n < step] + [step]
      files.write_json(self._path, dataclasses.asdict(best))

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
