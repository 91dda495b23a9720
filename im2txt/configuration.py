# SPDX-License-Identifier: Apache-2.0
"""Hyperparameters: defaults of 2016, overridden by JSON file or flag.

The two dataclasses are written as `configuration.json` beside the checkpoints
they belong to, and every program that opens these checkpoints reads them back.
"""

import dataclasses
import math
import os
import sys

from im2txt import files

FILE_NAME = 'configuration.json'

# Share of the initial learning rate at the end of the cosine schedule.
_COSINE_FLOOR = 0.01


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """Shape and regularization of the network, and how captions are searched.

  Attributes:
    vocab_size: rows of the word embedding and of the softmax. Must not be
      smaller than the vocabulary (with <UNK>); may be larger.
    batch_size: captions in one batch.
    image_height: pixels of the images that Inception v3 reads.
    image_width: pixels of the images that Inception v3 reads.
    initializer_scale: the LSTM's and embeddings' weights start uniform in
      [-initializer_scale, initializer_scale].
    embedding_size: of words and images.
    num_lstm_units: size of the LSTM's state.
    lstm_dropout_keep_prob: probability to keep an input or output of the LSTM
      in training.
    values_per_input_shard: sized the shuffle buffer of 2016; has no effect.
    input_queue_capacity_factor: likewise.
    allow_unknown_word: whether the search may choose <UNK>, and ids that the
      vocabulary has no word for. Training and perplexity know them either way.
    beam_size: of the search, unless a flag says otherwise.
    length_normalization_factor: likewise.
  """
  vocab_size: int = 12000
  batch_size: int = 32
  image_height: int = 299
  image_width: int = 299
  initializer_scale: float = 0.08
  embedding_size: int = 512
  num_lstm_units: int = 512
  lstm_dropout_keep_prob: float = 0.7
  values_per_input_shard: int = 2300
  input_queue_capacity_factor: int = 2
  allow_unknown_word: bool = True
  beam_size: int = 3
  length_normalization_factor: float = 0.0


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
  """How the network is trained.

  Attributes:
    num_examples_per_epoch: captions in the training set, for the decay below.
    optimizer: 'SGD', as in 2016, or 'Adam'.
    weight_decay: of Adam: share of the decoder's matrices that a step takes
      away, times the learning rate.
    moving_average_decay: above 0, checkpoints hold moving averages of the
      weights, of which a step keeps this share.
    initial_learning_rate: of the frozen phase, and of the decoder while only
      the top blocks of Inception are trained.
    learning_rate_schedule: 'staircase', as in 2016, or 'cosine'.
    learning_rate_decay_factor: multiplies the rate every
      `num_epochs_per_decay` epochs (staircase).
    num_epochs_per_decay: see above; 0 or a factor of 0 turns decay off.
    schedule_start_step: step at which the schedule begins.
    warmup_steps: the rate grows linearly for so many steps.
    cosine_decay_steps: after so many steps the cosine schedule reaches a
      hundredth of the initial rate, where it stays.
    train_inception_learning_rate: constant rate when all of Inception is
      trained too; rate of its top blocks, by the schedule, when only these are.
    clip_gradients: global norm at which gradients are clipped.
    max_checkpoints_to_keep: older ones are deleted.
  """
  num_examples_per_epoch: int = 586363
  optimizer: str = 'SGD'
  weight_decay: float = 0.0
  moving_average_decay: float = 0.0
  initial_learning_rate: float = 2.0
  learning_rate_schedule: str = 'staircase'
  learning_rate_decay_factor: float = 0.5
  num_epochs_per_decay: float = 8.0
  schedule_start_step: int = 0
  warmup_steps: int = 0
  cosine_decay_steps: int = 1000000
  train_inception_learning_rate: float = 0.0005
  clip_gradients: float = 5.0
  max_checkpoints_to_keep: int = 5

  def learning_rate(self, batch_size, train_inception, step):
    """Returns the learning rate (a float) of a step (an int).

    Args:
      batch_size: captions in one batch.
      train_inception: whether all of Inception is trained too.
      step: int.
    """
    if train_inception:
      return self.train_inception_learning_rate
    return self.initial_learning_rate * self._schedule(batch_size, step)

  def top_blocks_learning_rate(self, batch_size, step):
    """Returns the learning rate of Inception's top blocks, if only these are
    trained, a float; see `learning_rate`."""
    return self.train_inception_learning_rate * self._schedule(batch_size, step)

  def _schedule(self, batch_size, step):
    """Returns what multiplies the initial rate at a step."""
    step = max(step - self.schedule_start_step, 0)
    rate = 1.0
    if step < self.warmup_steps:
      rate *= (step + 1) / self.warmup_steps
    if self.learning_rate_schedule == 'cosine':
      progress = min(step / self.cosine_decay_steps, 1.0)
      return rate * max((1 + math.cos(math.pi * progress)) / 2, _COSINE_FLOOR)
    batches_per_epoch = self.num_examples_per_epoch / batch_size
    decay_steps = int(batches_per_epoch * self.num_epochs_per_decay)
    if self.learning_rate_decay_factor <= 0 or decay_steps <= 0:
      return rate
    return rate * self.learning_rate_decay_factor ** (step // decay_steps)


_CLASSES = (ModelConfig, TrainingConfig)

# What a name may be.
_CHOICES = {
    'optimizer': ('SGD', 'Adam'),
    'learning_rate_schedule': ('staircase', 'cosine'),
}

# Values that must be above zero for the program to make sense.
_MAY_BE_ZERO = ('num_epochs_per_decay', 'learning_rate_decay_factor',
                'initial_learning_rate', 'train_inception_learning_rate',
                'weight_decay', 'moving_average_decay', 'warmup_steps',
                'schedule_start_step',
                'length_normalization_factor')


def _checked(name, kind, value, source):
  """Returns `value` as `kind`, or raises a ValueError that names `source`."""
  good = isinstance(value, (int, float)) if kind is float else (
      isinstance(value, kind))
  # To Python True is an int.
  if not good or isinstance(value, bool) != (kind is bool):
    raise ValueError(
        f'{source}: {name}={value!r:.100} should be of type {kind.__name__}')
  if kind is str:
    if value not in _CHOICES[name]:
      raise ValueError(f'{source}: {name}={value!r:.100} is none of '
                       + ', '.join(_CHOICES[name]))
  elif kind is not bool and not abs(value) <= sys.float_info.max:
    raise ValueError(
        f'{source}: {name}={value!r:.100} should be a finite number')
  elif kind is not bool and (
      value < 0 or (value == 0 and name not in _MAY_BE_ZERO)):
    raise ValueError(f'{source}: {name}={value!r:.100} should be above zero')
  # Inception v3 can read no smaller image, and the crop gives no larger one.
  if name in ('image_height', 'image_width') and not 75 <= value <= 346:
    raise ValueError(f'{source}: {name}={value} should be from 75 to 346')
  if name == 'moving_average_decay' and value >= 1:
    raise ValueError(f'{source}: {name}={value} should be below 1')
  if name == 'lstm_dropout_keep_prob' and value > 1:
    raise ValueError(f'{source}: {name}={value} should be in (0, 1]')
  return kind(value)


def replace(configs, values, source):
  """Returns (ModelConfig, TrainingConfig) with some values replaced.

  Args:
    configs: a (ModelConfig, TrainingConfig) pair.
    values: dict from field name to value.
    source: where the values come from, for the error: '--flag' or a file.

  Raises:
    ValueError: a name that is no hyperparameter, or a value of another type or
      outside its range.
  """
  known = {
      f.name: (i, f.type)
      for i, c in enumerate(_CLASSES) for f in dataclasses.fields(c)}
  changes = ({}, {})
  for name, value in values.items():
    if name not in known:
      raise ValueError(
          f'{source}: unknown hyperparameter {name!r:.100}; known are: '
          + ', '.join(sorted(known)))
    index, kind = known[name]
    changes[index][name] = _checked(name, kind, value, source)
  return tuple(dataclasses.replace(c, **d) for c, d in zip(configs, changes))


def read_json(path):
  """Reads {name: value} from a JSON file.

  Raises:
    ValueError: no such file, or not a JSON object.
  """
  try:
    values = files.read_json(path)
  except (OSError, ValueError) as e:
    raise ValueError(f'cannot read hyperparameters from {path}: {e}') from e
  if not isinstance(values, dict):
    raise ValueError(f'{path}: expected a JSON object of hyperparameters')
  return values


def save(directory, configs):
  """Writes a (ModelConfig, TrainingConfig) pair into a directory."""
  values = {}
  for config in configs:
    values.update(dataclasses.asdict(config))
  files.write_json(os.path.join(directory, FILE_NAME), values)


def is_saved(directory):
  """Returns whether a pair was saved in a directory."""
  return os.path.exists(os.path.join(directory, FILE_NAME))


def load(directory):
  """Returns the pair saved in a directory; the defaults if there is none.

  Raises:
    ValueError: the file is damaged or holds an unknown hyperparameter.
  """
  configs = (ModelConfig(), TrainingConfig())
  if not is_saved(directory):
    return configs
  path = os.path.join(directory, FILE_NAME)
  try:
    return replace(configs, read_json(path), path)
  except ValueError as e:
    raise ValueError(
        f'{e}; copy {path} again from where it was written, or remove it and '
        'give as flags what is not the default') from e


def define_flags(flags):
  """Defines a flag for each hyperparameter, and --hyperparameters FILE.

  Args:
    flags: the `absl.flags` module.
  """
  flags.disclaim_key_flags()  # They are the program's, for its --help.
  flags.DEFINE_string(
      'hyperparameters', '',
      'JSON file of hyperparameters: {"batch_size": 64, ...}.')
  define = {int: flags.DEFINE_integer, float: flags.DEFINE_float,
            str: flags.DEFINE_string, bool: flags.DEFINE_bool}
  for config_class in _CLASSES:
    for field in dataclasses.fields(config_class):
      choices = ''
      if field.name in _CHOICES:
        choices = f', {" or ".join(_CHOICES[field.name])}'
      define[field.type](
          field.name, None,
          f'Hyperparameter{choices}; {field.default} unless set here, in '
          f'--hyperparameters or by {FILE_NAME} beside the checkpoints.')


def from_flags(flag_values, directory, defaults=None):
  """Returns the pair from a directory, a JSON file and flags, in that order.

  Args:
    flag_values: `flags.FLAGS` after `define_flags`.
    directory: where `configuration.json` may lie.
    defaults: dict from name to value, in the place of the defaults of 2016
      where it does not.

  Raises:
    ValueError: see `replace` and `read_json`.
  """
  configs = load(directory)
  if defaults and not is_saved(directory):
    configs = replace(configs, defaults, 'default')
  if flag_values.hyperparameters:
    configs = replace(configs, read_json(flag_values.hyperparameters),
                      f'--hyperparameters={flag_values.hyperparameters}')
  given = {}
  for config_class in _CLASSES:
    for field in dataclasses.fields(config_class):
      value = getattr(flag_values, field.name)
      if value is not None:
        given[field.name] = value
  return replace(configs, given, 'flag')
