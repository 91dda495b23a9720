# SPDX-License-Identifier: Apache-2.0
"""Hyperparameters: defaults of 2016, overridden by JSON file or flag.

`train` saves them as `configuration.json` beside its checkpoints. Every program
that opens these checkpoints reads them from there.
"""

from collections.abc import Mapping
import dataclasses
import os
import sys
from typing import Any
from typing import NamedTuple

from absl import flags

from im2txt.runtime import files
from im2txt.runtime import flag_dataclasses
from im2txt.runtime import storage
from im2txt.runtime.flag_dataclasses import field as _field

FILE_NAME = 'configuration.json'


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """Shape and regularization of the network, and the defaults of the search.

  Each field is a hyperparameter and a flag of that name.
  """

  vocab_size: int = _field(
    12000,
    'Number of word ids: rows of the word embedding and columns of the '
    'softmax. At least the number of words of the vocabulary, with <UNK>.',
  )
  batch_size: int = _field(32, 'Captions per batch.')
  image_height: int = _field(
    299, 'Height in pixels of the images that Inception v3 reads.'
  )
  image_width: int = _field(
    299, 'Width in pixels of the images that Inception v3 reads.'
  )
  initializer_scale: float = _field(
    0.08,
    'Initial weights of the LSTM and the embeddings are drawn uniformly from '
    'minus this to plus this.',
  )
  embedding_size: int = _field(
    512, 'Size of the embedding of words and images.'
  )
  num_lstm_units: int = _field(512, "Size of the LSTM's state.")
  lstm_dropout_keep_prob: float = _field(
    0.7, 'Probability that dropout keeps an input or output of the LSTM.'
  )
  values_per_input_shard: int = _field(
    2300, 'Has no effect. In 2016 it set the size of the shuffle buffer.'
  )
  input_queue_capacity_factor: int = _field(
    2, 'Has no effect. In 2016 it set the size of the input queue.'
  )
  allow_unknown_word: bool = _field(
    True,
    'Whether captions may contain <UNK>, and ids without a word. It does not '
    'affect training and perplexity.',
  )
  beam_size: int = _field(
    3,
    'Captions that the search keeps at each step. A flag of the program '
    'overrides it.',
  )
  length_normalization_factor: float = _field(
    0.0,
    'The score of a caption is divided by its length to this power. A flag '
    'of the program overrides it.',
  )


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
  """How the network is trained.

  Each field is a hyperparameter and a flag of that name.
  """

  num_examples_per_epoch: int = _field(
    586363, 'Captions of the training set, for the staircase schedule.'
  )
  optimizer: str = _field(
    'SGD',
    'Optimizer: SGD, as in 2016, or Adam, AdamW or Momentum. AdamW is another '
    'name of Adam, whose weight decay is decoupled.',
  )
  weight_decay: float = _field(
    0.0,
    'With all optimizers but SGD, each step subtracts this share of each '
    'matrix, times the learning rate.',
  )
  momentum: float = _field(
    0.9, 'With --optimizer=Momentum, the share of the sum that each step keeps.'
  )
  nesterov: bool = _field(
    False, 'With --optimizer=Momentum, whether to look ahead as Nesterov does.'
  )
  accumulate_steps: int = _field(
    1,
    'Batches per step: the gradients of so many batches of --batch_size make '
    'one update. A step then counts as one with a batch of the whole size.',
  )
  label_smoothing: float = _field(
    0.0,
    'Share of the probability of each target word that is spread over all '
    'words. The reported losses remain cross entropies of the words.',
  )
  scheduled_sampling: str = _field(
    'none',
    'Scheduled sampling: none, linear, exponential or inverse_sigmoid. A '
    'growing share of the input words in training is sampled from the model '
    'instead of taken from the caption.',
  )
  scheduled_sampling_start_step: int = _field(
    0, 'Step at which scheduled sampling starts.'
  )
  scheduled_sampling_half_steps: int = _field(
    500000,
    'Steps from the start of scheduled sampling to a share of one half.',
  )
  scheduled_sampling_max: float = _field(
    0.25, 'Largest share of sampled words in scheduled sampling.'
  )
  moving_average_decay: float = _field(
    0.0,
    'Above 0, checkpoints hold moving averages of the weights. Each step '
    'keeps this share of the average.',
  )
  initial_learning_rate: float = _field(
    2.0, 'Learning rate of the decoder at the start of the schedule.'
  )
  learning_rate_schedule: str = _field(
    'staircase', 'Schedule: staircase, as in 2016, or cosine.'
  )
  learning_rate_decay_factor: float = _field(
    0.5,
    'The staircase schedule multiplies the rate by this every '
    '--num_epochs_per_decay epochs. 0 turns decay off.',
  )
  num_epochs_per_decay: float = _field(
    8.0, 'Epochs between decays of the staircase schedule. 0 turns decay off.'
  )
  schedule_start_step: int = _field(0, 'Step at which the schedule starts.')
  warmup_steps: int = _field(
    0, 'Steps in which the rate grows linearly up to the schedule.'
  )
  cosine_decay_steps: int = _field(
    1000000,
    'Steps after which the cosine schedule reaches 1 % of the initial rate, '
    'and stays there.',
  )
  train_inception_learning_rate: float = _field(
    0.0005,
    'Learning rate of Inception v3. It is constant if all of Inception v3 is '
    'trained, and follows the schedule if only its top blocks are.',
  )
  clip_gradients: float = _field(
    5.0, 'Global norm at which gradients are clipped.'
  )
  max_checkpoints_to_keep: int = _field(
    5, 'Checkpoints to keep. Older ones are deleted.'
  )


class Configs(NamedTuple):
  """All hyperparameters.

  Attributes:
    model: of the network and the search.
    training: of training.
  """

  model: ModelConfig = ModelConfig()
  training: TrainingConfig = TrainingConfig()


_CLASSES = (ModelConfig, TrainingConfig)

Value = bool | int | float | str

# Others must be above zero.
_MAY_BE_ZERO = (
  'num_epochs_per_decay',
  'learning_rate_decay_factor',
  'initial_learning_rate',
  'train_inception_learning_rate',
  'weight_decay',
  'moving_average_decay',
  'warmup_steps',
  'schedule_start_step',
  'momentum',
  'label_smoothing',
  'scheduled_sampling_start_step',
  'length_normalization_factor',
)

_BELOW_ONE = ('moving_average_decay', 'momentum', 'label_smoothing')
_UP_TO_ONE = ('lstm_dropout_keep_prob', 'scheduled_sampling_max')


def _checked(name: str, kind: type, value: Any, source: str) -> Value:
  """Returns `value` as `kind`, or raises a ValueError that names `source`."""
  good = isinstance(value, (int, float) if kind is float else kind)
  # To Python True is an int.
  if not good or isinstance(value, bool) != (kind is bool):
    raise ValueError(
      f'{source}: {name}={value!r:.100} must be of type {kind.__name__}'
    )
  # Optimizers and schedules check their own names.
  if isinstance(value, (bool, str)):
    return value
  if not abs(value) <= sys.float_info.max:
    raise ValueError(f'{source}: {name}={value!r:.100} must be a finite number')
  may_be_zero = name in _MAY_BE_ZERO
  if value < 0 or (value == 0 and not may_be_zero):
    raise ValueError(
      f'{source}: {name}={value!r:.100} must be '
      + ('zero or above' if may_be_zero else 'above zero')
    )
  # Inception v3 cannot read smaller images, and crops have at most 346 pixels.
  if name in ('image_height', 'image_width') and not 75 <= value <= 346:
    raise ValueError(f'{source}: {name}={value} must be from 75 to 346')
  if name in _BELOW_ONE and value >= 1:
    raise ValueError(f'{source}: {name}={value} must be below 1')
  if name in _UP_TO_ONE and value > 1:
    raise ValueError(f'{source}: {name}={value} must be in (0, 1]')
  return kind(value)


def replace(
  configs: tuple[ModelConfig, TrainingConfig],
  values: Mapping[str, Any],
  source: str,
) -> Configs:
  """Returns the hyperparameters with some values replaced.

  Args:
    configs: all hyperparameters.
    values: the new values, by name.
    source: where the values come from, for the error: 'flag' or a file.

  Raises:
    ValueError: a name is unknown, or a value has another type or is outside its
      range.
  """
  known = {
    f.name: (i, flag_dataclasses.kind(f))
    for i, c in enumerate(_CLASSES)
    for f in dataclasses.fields(c)
  }
  changes: tuple[dict[str, Any], ...] = ({}, {})
  for name, value in values.items():
    if name not in known:
      raise ValueError(
        f'{source}: unknown hyperparameter {name!r:.100}; known are: '
        + ', '.join(sorted(known))
      )
    index, kind = known[name]
    changes[index][name] = _checked(name, kind, value, source)
  model, training = configs
  return Configs(
    dataclasses.replace(model, **changes[0]),
    dataclasses.replace(training, **changes[1]),
  )


def read_json(path: str) -> dict[str, Any]:
  """Reads {name: value} from a JSON file.

  Raises:
    ValueError: no such file, or not a JSON object.
  """
  try:
    values = files.read_json(path)
  except (OSError, ValueError) as e:
    raise ValueError(f'cannot read hyperparameters from {path}: {e}') from e
  if not isinstance(values, dict):
    raise ValueError(f'{path} must hold a JSON object of hyperparameters')
  return values


def to_values(configs: tuple[ModelConfig, TrainingConfig]) -> dict[str, Value]:
  """Returns hyperparameters by name."""
  values: dict[str, Value] = {}
  for config in configs:
    values.update(dataclasses.asdict(config))
  return values


def save(directory: str, configs: tuple[ModelConfig, TrainingConfig]) -> None:
  """Saves hyperparameters in a directory."""
  files.write_json(os.path.join(directory, FILE_NAME), to_values(configs))


def is_saved(directory: str) -> bool:
  """Returns whether hyperparameters were saved in a directory."""
  return storage.exists(os.path.join(directory, FILE_NAME))


def load(directory: str) -> Configs:
  """Returns the hyperparameters saved in a directory; if none, the defaults.

  Raises:
    ValueError: the file is damaged or holds an unknown hyperparameter.
  """
  configs = Configs()
  if not is_saved(directory):
    return configs
  path = os.path.join(directory, FILE_NAME)
  try:
    return replace(configs, read_json(path), path)
  except ValueError as e:
    raise ValueError(
      f'{e}; copy {path} again from its origin, or remove it and give the '
      'values that are not defaults as flags'
    ) from e


class Given(NamedTuple):
  """Hyperparameters of the command line.

  Attributes:
    file: JSON file of hyperparameters; '' for none.
    values: those given as flags, by name.
  """

  file: str = ''
  values: Mapping[str, Value] = {}


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
  """Defines a flag for each hyperparameter, and --hyperparameters FILE."""
  flags.disclaim_key_flags()  # --help lists them as flags of the program.
  flags.DEFINE_string(
    'hyperparameters',
    '',
    'JSON file of hyperparameters: {"batch_size": 64, ...}. Flags override '
    f'it, and it overrides {FILE_NAME} beside the checkpoints.',
    flag_values=flag_values,
  )
  for config_class in _CLASSES:
    flag_dataclasses.define_flags(
      config_class, unset=True, flag_values=flag_values
    )


def given_by(flag_values: flags.FlagValues) -> Given:
  """Returns the values of the flags of `define_flags`."""
  values = {
    field.name: getattr(flag_values, field.name)
    for config_class in _CLASSES
    for field in dataclasses.fields(config_class)
  }
  return Given(
    flag_values.hyperparameters,
    {name: value for name, value in values.items() if value is not None},
  )


def resolve(
  directory: str, given: Given, defaults: Mapping[str, Value] | None = None
) -> Configs:
  """Returns the hyperparameters of a directory, a JSON file and flags.

  A later one of these overrides an earlier one.

  Args:
    directory: may hold a `configuration.json`.
    given: JSON file and flags.
    defaults: override the defaults of 2016, by name, if there is no
      `configuration.json`.

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
