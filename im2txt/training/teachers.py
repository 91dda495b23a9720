# SPDX-License-Identifier: Apache-2.0
"""Trained models whose probabilities a new decoder learns from."""

from collections.abc import Sequence

from absl import logging
import numpy as np

from im2txt import checkpoints
from im2txt import show_and_tell_model
from im2txt.text import vocabulary_stamp


def load(
  paths: str,
  model: show_and_tell_model.ShowAndTellModel,
  holders: Sequence[vocabulary_stamp.Source],
) -> list[show_and_tell_model.ShowAndTellModel]:
  """Returns the decoders of trained models.

  They take the features that the model takes, so all must have its Inception.

  Args:
    paths: of checkpoints, see `checkpoints.split_paths`.
    model: the model to train, with the weights of its Inception.
    holders: who else has the vocabulary, see `vocabulary_stamp.check`.

  Raises:
    CheckpointError: a checkpoint is missing, damaged or not of im2txt.
    ValueError: one has another vocabulary or another Inception v3.
  """
  assert model.inception
  found = []
  for path in checkpoints.split_paths(paths):
    trained = checkpoints.load(path)
    size = trained.model_config.vocab_size
    if size != model.config.vocab_size:
      raise ValueError(
        f'--teacher_checkpoints: {trained.prefix} has {size} words, and the '
        f'model --vocab_size={model.config.vocab_size}'
      )
    vocabulary_stamp.check(
      [*holders, trained.vocabulary],
      'give --teacher_checkpoints models of one vocabulary',
    )
    for name, variable in model.inception.named_variables.items():
      if not np.array_equal(trained.checkpoint.get(name), variable.numpy()):
        raise ValueError(
          f'--teacher_checkpoints: {trained.prefix} has another Inception v3 '
          f'than the model ({name} differs): teach from models that were '
          'trained on the same one'
        )
    teacher = show_and_tell_model.ShowAndTellModel(
      trained.model_config, with_inception=False
    )
    trained.checkpoint.restore(teacher.decoder_variables)
    logging.info('taught by %s', trained.prefix)
    found.append(teacher)
  return found
