# SPDX-License-Identifier: Apache-2.0
"""Averages the weights of models that were trained from one checkpoint."""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses

from absl import logging
import numpy as np
import numpy.typing as npt

from im2txt import configuration
from im2txt.checkpoints import encoder_stamp
from im2txt.checkpoints import locating
from im2txt.checkpoints import trained_model
from im2txt.runtime import storage
from im2txt.runtime.flag_dataclasses import field
from im2txt.text import vocabulary_stamp

_STEP = 'global_step'


@dataclasses.dataclass(frozen=True)
class AveragingOptions:
  """Which models to average. Each field is a flag of that name."""

  checkpoint_path: str = field(
    '',
    'Model checkpoints, separated by commas: file prefixes, or directories (the '
    'latest of each is taken).',
  )
  output_dir: str = field('', 'Directory for the new checkpoint, a train_dir.')


def average(options: AveragingOptions) -> str:
  """Writes a model whose weights are the means of those of several models.

  The source is Wortsman et al. 2022, "Model soups", section 2 ("uniform soup").
  Means are computed in float64, and have the dtype of the first model. The step
  is the highest, an int32 as in 2016.

  Args:
    options: see `AveragingOptions`; both are needed.

  Returns:
    The prefix of the new checkpoint.

  Raises:
    ValueError: there is one model only, the models do not fit each other, or
      the directory has other files.
    CheckpointError: a checkpoint is missing or damaged.
  """
  storage.require_local('output_dir', options.output_dir)
  models = [
    trained_model.load(path)
    for path in locating.split_paths(options.checkpoint_path)
  ]
  trained_model.require_new(options.output_dir)
  prefixes = [model.prefix for model in models]
  if len(set(prefixes)) < 2:
    raise ValueError(
      f'--checkpoint_path={options.checkpoint_path} is one checkpoint: give two '
      'or more, separated by commas'
    )
  stamps = _check_alike(models)
  values = {
    name: _mean([model.checkpoint.get(name) for model in models])
    for name in models[0].checkpoint.shapes
    if name != _STEP
  }
  values[_STEP] = np.array(
    max(model.checkpoint.global_step for model in models), np.int32
  )
  prefix = trained_model.write(
    options.output_dir,
    values,
    configuration.Configs(models[0].model_config, models[0].training_config),
    vocabulary_stamp.first_known([model.vocabulary for model in models]),
    _encoder(stamps, values, prefixes),
  )
  logging.info('the mean of %d checkpoints is in %s', len(models), prefix)
  return prefix


def _check_alike(
  models: Sequence[trained_model.TrainedModel],
) -> list[encoder_stamp.Stamp | None]:
  """Returns the stamps of the encoders that models started from.

  Raises:
    ValueError: the models differ in vocabulary, variables or encoder.
  """
  vocabulary_stamp.check(
    [model.vocabulary for model in models],
    'give --checkpoint_path models of one vocabulary',
  )
  first = models[0]
  stamps = [encoder_stamp.load(model.directory) for model in models]
  started = {
    stamp.base or stamp.fingerprint: model.prefix
    for stamp, model in zip(stamps, models)
    if stamp
  }
  if len(started) > 1:
    raise ValueError(
      f'the encoders of {" and ".join(started.values())} were trained from '
      'other weights: give --checkpoint_path models that were trained from one '
      'checkpoint'
    )
  for model in models[1:]:
    shapes, others = first.checkpoint.shapes, model.checkpoint.shapes
    for name in sorted((shapes.keys() | others.keys()) - {_STEP}):
      if shapes.get(name) != others.get(name):
        raise ValueError(
          f'{name} is {_shown(shapes, name)} in {first.prefix} and '
          f'{_shown(others, name)} in {model.prefix}: give --checkpoint_path '
          'models of one size'
        )
  return stamps


def _shown(shapes: Mapping[str, Sequence[int]], name: str) -> str:
  return str(shapes[name]) if name in shapes else 'missing'


def _mean(arrays: Sequence[npt.NDArray]) -> npt.NDArray:
  """Returns the mean of arrays, in the dtype of the first."""
  total = sum(array.astype(np.float64) for array in arrays)
  return np.asarray(total / len(arrays)).astype(arrays[0].dtype)


def _encoder(
  stamps: Sequence[encoder_stamp.Stamp | None],
  values: Mapping[str, npt.NDArray],
  prefixes: Sequence[str],
) -> encoder_stamp.Stamp | None:
  """Returns the stamp of the encoder that the mean started from, if known."""
  first = stamps[0]
  if not first or not all(stamps):
    return None
  if all(stamp == first for stamp in stamps):
    return first
  encoder = {
    name: value
    for name, value in values.items()
    if name.startswith('InceptionV3/')
  }
  return encoder_stamp.Stamp(
    encoder_stamp.fingerprint(encoder),
    encoder_stamp.FILE,
    'the mean of ' + ', '.join(prefixes),
    base=first.base or first.fingerprint,
  )
