# SPDX-License-Identifier: Apache-2.0
"""Stops training once the checkpoints no longer get better.

Training does not measure itself. `evaluate --best_metric`, another process,
notes in its best.json which checkpoint was the best and which later ones were
not better. Training reads this file whenever it has saved a checkpoint.
"""

import os

from absl import logging

from im2txt.checkpoints import best as best_checkpoint


class EarlyStopping:
  """Reads what evaluate has found.

  Args:
    patience: checkpoints in a row that need not be better; 0 never stops.
    eval_dir: the --eval_dir of evaluate.
  """

  def __init__(self, patience: int, eval_dir: str) -> None:
    self._patience = patience
    self._directory = os.path.join(eval_dir, best_checkpoint.DIRECTORY)

  def is_due(self, step: int) -> bool:
    """Returns whether to stop, and logs why.

    Args:
      step: of training.
    """
    if not self._patience:
      return False
    try:
      best = best_checkpoint.read(self._directory)
    except ValueError as error:
      logging.warning('no early stopping for now: %s', error)
      return False
    if best is None:
      logging.log_first_n(
        logging.INFO,
        'no early stopping for now: evaluate --best_metric has kept no '
        'checkpoint in %s',
        1,
        self._directory,
      )
      return False
    count = best.count_not_better(step)
    if count < self._patience:
      return False
    logging.info(
      'early stopping at step %d: none of the %d checkpoint(s) evaluated since '
      'step %d is better than its %s of %.4f; the best checkpoint is in %s, and '
      'a higher --early_stopping_patience goes on',
      step,
      count,
      best.global_step,
      best.metric,
      best.value,
      self._directory,
    )
    return True
