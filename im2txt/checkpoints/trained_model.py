# SPDX-License-Identifier: Apache-2.0
"""A trained model on the disk: weights, configuration and vocabulary."""

import dataclasses
import os

from im2txt import configuration
from im2txt.checkpoints import checkpoint as checkpoint_lib
from im2txt.text import vocabulary as vocabulary_lib
from im2txt.text import vocabulary_stamp


@dataclasses.dataclass(frozen=True)
class TrainedModel:
  """A checkpoint and what stands beside it.

  Attributes:
    checkpoint: the weights.
    model_config: of the checkpoint's sizes, whatever the file says.
    training_config: how it was trained.
    vocabulary: the vocabulary of the word ids, if the directory names one.
  """

  checkpoint: checkpoint_lib.Checkpoint
  model_config: configuration.ModelConfig
  training_config: configuration.TrainingConfig
  vocabulary: vocabulary_stamp.Source

  @property
  def prefix(self) -> str:
    """The path of the checkpoint without the endings of its files."""
    return self.checkpoint.prefix

  @property
  def directory(self) -> str:
    return os.path.dirname(self.prefix)

  def check_vocabulary(
    self, vocab: vocabulary_lib.Vocabulary
  ) -> vocabulary_stamp.Stamp:
    """Checks that the model was trained with a vocabulary, as far as is known.

    Returns:
      The stamp of the model, or of the vocabulary if the model has none.

    Raises:
      ValueError: the vocabulary is another, or larger than the model's.
    """
    vocab.check_fits_model(self.model_config.vocab_size)
    given = vocabulary_stamp.of_vocabulary(vocab)
    vocabulary_stamp.check(
      [given, self.vocabulary],
      'give the word_counts.txt that the model was trained with',
    )
    stamp = self.vocabulary.stamp or given.stamp
    assert stamp  # Every vocabulary file has one.
    return stamp


def load(path: str) -> TrainedModel:
  """Opens a trained model; no weight is read yet.

  Args:
    path: a prefix or a directory, see `checkpoints.resolve`.

  Raises:
    CheckpointError: the checkpoint is missing, damaged or not of im2txt.
    ValueError: a file beside it is damaged.
  """
  checkpoint = checkpoint_lib.Checkpoint(path)
  model_config, training_config = configuration.load(
    os.path.dirname(checkpoint.prefix)
  )
  return TrainedModel(
    checkpoint,
    checkpoint.with_sizes(model_config),
    training_config,
    vocabulary_stamp.of_checkpoint(checkpoint.prefix),
  )
