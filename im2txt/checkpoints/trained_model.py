# SPDX-License-Identifier: Apache-2.0
"""A trained model on the disk: weights, configuration and vocabulary."""

from collections.abc import Iterable
import dataclasses
import os

from im2txt import configuration
from im2txt.checkpoints import checkpoint as checkpoint_lib
from im2txt.checkpoints import locating
from im2txt.runtime import storage
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


def vocabulary_beside(checkpoint_path: str | Iterable[str]) -> str | None:
  """Returns the path of the vocabulary beside checkpoints, None without one.

  Args:
    checkpoint_path: see `split_paths`; or several paths.
  """
  if isinstance(checkpoint_path, str):
    checkpoint_path = locating.split_paths(checkpoint_path)
  for path in checkpoint_path:
    directory = path if storage.isdir(path) else os.path.dirname(path)
    found = os.path.join(directory, vocabulary_lib.FILE_NAME)
    if storage.exists(found):
      return found
  return None


def vocabulary_of(checkpoint_path: str, vocab_file: str) -> str:
  """Returns the path of a vocabulary: the one given, or that beside checkpoints.

  Args:
    checkpoint_path: value of --checkpoint_path.
    vocab_file: value of --vocab_file; '' for none.

  Raises:
    ValueError: there is neither, or no checkpoint.
  """
  found = vocab_file or vocabulary_beside(checkpoint_path)
  if not found:
    # A wrong path has no vocabulary beside it either.
    for path in locating.split_paths(checkpoint_path):
      locating.resolve(path)
    raise ValueError(
      f'--vocab_file is required: there is no {vocabulary_lib.FILE_NAME} beside '
      f'--checkpoint_path={checkpoint_path}'
    )
  return found
