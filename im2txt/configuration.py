# SPDX-License-Identifier: Apache-2.0
"""Hyperparameters: defaults of 2016, overridden by JSON file or flag.

The two dataclasses are written as `configuration.json` beside the checkpoints
they belong to, and every program that opens these checkpoints reads them back.
"""

import dataclasses
import os
import sys
from typing import NamedTuple

from absl import flags

from im2txt.runtime import files
from im2txt.runtime import flag_dataclasses
from im2txt.runtime.flag_dataclasses import field as _field

FILE_NAME = 'configuration.json'


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """Shape and regularization of the network, and how captions are searched.

  Each field is a hyperparameter and a flag of that name.
  """

  vocab_size: int = _field(
    12000,
    'Rows of the word embedding and of the softmax, at least the words of '
    'the vocabulary with <UNK>.',
  )
  batch_size: int = _field(32, 'Captions per batch.')
  image_height: int = _field(
    299, 'Pixels of the images that Inception v3 reads.'
  )
  image_width: int = _field(
    299, 'Pixels of the images that Inception v3 reads.'
  )
  initializer_scale: float = _field(
    0.08,
    'Initial weights of the LSTM and the embeddings are uniform between '
    'minus and plus this.',
  )
  embedding_size: int = _field(
    512, 'Size of the embedding of words and images.'
  )
  num_lstm_units: int = _field(512, "Size of the LSTM's state.")
  lstm_dropout_keep_prob: float = _field(
    0.7, 'Probability that training keeps an input or an output of the LSTM.'
  )
  values_per_input_shard: int = _field(
    2300, 'Sized the shuffle buffer of 2016. Has no effect.'
  )
  input_queue_capacity_factor: int = _field(
    2, 'Sized the input queue of 2016. Has no effect.'
  )
  allow_unknown_word: bool = _field(
    True,
    'Whether the search may choose <UNK>, and ids without a word. Training '
    'and perplexity know them either way.',
  )
  beam_size: int = _field(
    3,
    'Captions that the search keeps at each step, unless the program has '
    'its own flag.',
  )
  length_normalization_factor: float = _field(
    0.0,
    'Exponent of the length that divides the score of a caption, unless the '
    'program has its own flag.',
  )


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
  """How the network is trained.

  Each field is a hyperparameter and a flag of that name.
  """

  num_examples_per_epoch: int = _field(
    586363, 'Captions of the training set, for the staircase schedule.'
  )
  optimizer: str = _field('SGD', 'Optimizer: SGD, as in 2016, or Adam.')
  weight_decay: float = _field(
    0.0,
    "Share of the decoder's matrices that a step of Adam takes away, times "
    'the learning rate.',
  )
  moving_average_decay: float = _field(
    0.0,
    'Above 0, checkpoints hold moving averages of the weights, of which a '
    'step keeps this share.',
  )
  initial_learning_rate: float = _field(
    2.0, 'Learning rate of the decoder at the begin of its schedule.'
  )
  learning_rate_schedule: str = _field(
    'staircase', 'Schedule: staircase, as in 2016, or cosine.'
  )
  learning_rate_decay_factor: float = _field(
    0.5, 'Multiplies the rate every --num_epochs_per_decay epochs (staircase).'
  )
  num_epochs_per_decay: float = _field(
    8.0,
    'Epochs between decays (staircase). 0, or a factor of 0, turns decay off.',
  )
  schedule_start_step: int = _field(0, 'Step at which the schedule begins.')
  warmup_steps: int = _field(
    0, 'Steps in which the rate grows linearly to its first value.'
  )
  cosine_decay_steps: int = _field(
    1000000,
    'Steps after which the cosine schedule reaches a hundredth of the '
    'initial rate, and stays there.',
  )
  train_inception_learning_rate: float = _field(
    0.0005,
    'Learning rate of Inception v3: constant where all of it is trained, by '
    'the schedule where only its top blocks are.',
  )
  clip_gradients: float = _field(
    5.0, 'Global norm at which gradients are clipped.'
  )
  max_checkpoints_to_keep: int = _field(
    5, 'Checkpoints kept. Older ones are deleted.'
  )


_CLASSES = (ModelConfig, TrainingConfig)

# Values that must be above zero for the program to make sense.
_MAY_BE_ZERO = (
  'num_epochs_per_decay',
  'learning_rate_decay_factor',
  'initial_learning_rate',
  'train_inception_learning_rate',
  'weight_decay',
  'moving_average_decay',
  'warmup_steps',
  'schedule_start_step',
  'length_normalization_factor',
)


def _checked(name, kind, value, source):
  """Returns `value` as `kind`, or raises a ValueError that names `source`."""
  good = (
    isinstance(value, (int, float))
    if kind is float
    else (isinstance(value, kind))
  )
  # To Python True is an int.
  if not good or isinstance(value, bool) != (kind is bool):
    raise ValueError(
      f'{source}: {name}={value!r:.100} should be of type {kind.__name__}'
    )
  if kind is str:
    return value  # Whoever looks a name up says which there are.
  if kind is not bool and not abs(value) <= sys.float_info.max:
    raise ValueError(
      f'{source}: {name}={value!r:.100} should be a finite number'
    )
  if kind is not bool and (
    value < 0 or (value == 0 and name not in _MAY_BE_ZERO)
  ):
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
    for i, c in enumerate(_CLASSES)
    for f in dataclasses.fields(c)
  }
  changes = ({}, {})
  for name, value in values.items():
    if name not in known:
      raise ValueError(
        f'{source}: unknown hyperparameter {name!r:.100}; known are: '
        + ', '.join(sorted(known))
      )
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
      'give as flags what is not the default'
    ) from e


class Given(NamedTuple):
  """What the command line says of hyperparameters.

  Attributes:
    file: JSON file of hyperparameters; '' for none.
    values: dict from name to value, those given as flags.
  """

  file: str = ''
  values: dict = {}


def define_flags(flag_values=flags.FLAGS):
  """Defines a flag for each hyperparameter, and --hyperparameters FILE."""
  flags.disclaim_key_flags()  # They are the program's, for its --help.
  flags.DEFINE_string(
    'hyperparameters',
    '',
    'JSON file of hyperparameters: {"batch_size": 64, ...}. Flags win over '
    f'it, and it wins over {FILE_NAME} beside the checkpoints.',
    flag_values=flag_values,
  )
  for config_class in _CLASSES:
    flag_dataclasses.define_flags(
      config_class, unset=True, flag_values=flag_values
    )


def given_by(flag_values):
  """Returns what flags of `define_flags` say, a `Given`."""
  values = {
    field.name: getattr(flag_values, field.name)
    for config_class in _CLASSES
    for field in dataclasses.fields(config_class)
  }
  return Given(
    flag_values.hyperparameters,
    {name: value for name, value in values.items() if value is not None},
  )


def resolve(directory, given, defaults=None):
  """Returns the pair from a directory, a JSON file and flags, in that order.

  Args:
    directory: where `configuration.json` may lie.
    given: a `Given`.
    defaults: dict from name to value, in the place of the defaults of 2016
      where there is no `configuration.json`.

  Raises:
    ValueError: see `replace` and `read_json`.
  """
  configs = load(directory)
  if defaults and not is_saved(directory):
    configs = replace(configs, defaults, 'default')
  if given.file:
    configs = replace(
      configs, read_json(given.file), f'--hyperparameters={given.file}'
    )
  return replace(configs, given.values, 'flag')
