# SPDX-License-Identifier: Apache-2.0
"""A trained model on the disk: weights, configuration and vocabulary."""

from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import os

import numpy.typing as npt

from im2txt import configuration
from im2txt.checkpoints import checkpoint as checkpoint_lib
from im2txt.checkpoints import encoder_stamp
from im2txt.checkpoints import locating
from im2txt.checkpoints import manager
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


def require_new(output_dir: str) -> None:
  """Checks that a directory is empty but for files of an interrupted `write`.

  Raises:
    ValueError: it is not.
  """
  names = os.listdir(output_dir) if os.path.isdir(output_dir) else []
  own = (
    configuration.FILE_NAME,
    vocabulary_stamp.FILE_NAME,
    encoder_stamp.FILE_NAME,
  )
  # The state file is written last.
  if locating.STATE_FILE in names or not all(
    name in own or name.startswith((f'{locating.PREFIX}-', '.'))
    for name in names
  ):
    raise ValueError(
      f'--output_dir={output_dir} must be empty: give another directory'
    )


def write(
  output_dir: str,
  values: Mapping[str, npt.NDArray],
  configs: configuration.Configs,
  vocabulary: vocabulary_stamp.Stamp | None,
  encoder: encoder_stamp.Stamp | None,
) -> str:
  """Writes a model as a train directory.

  Args:
    output_dir: see `require_new`.
    values: dict from name to array, with `global_step`.
    configs: configuration of the model and of its training.
    vocabulary: of the model; None if not known.
    encoder: what the encoder was trained from; None if not known.

  Returns:
    The prefix of the checkpoint.

  Raises:
    OSError: a file cannot be written.
  """
  os.makedirs(output_dir, exist_ok=True)
  configuration.save(output_dir, configs)
  for stamp_file, stamp in (
    (vocabulary_stamp, vocabulary),
    (encoder_stamp, encoder),
  ):
    if stamp:
      stamp_file.save(output_dir, stamp)
    else:
      stamp_file.remove(output_dir)  # An interrupted run may have left one.
  # The checkpoint is saved last, so its directory is then complete.
  return manager.CheckpointManager(output_dir).save(values)


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
