# SPDX-License-Identifier: Apache-2.0
"""The settings of the search for captions, and their flags."""

from collections.abc import Collection
from collections.abc import Sequence
import dataclasses
import math
from typing import Any

from absl import flags

from im2txt import configuration
from im2txt.runtime import flag_dataclasses

_UNLIMITED = math.inf


def _setting(
  default: Any,
  text: str,
  at_least: float = -_UNLIMITED,
  at_most: float = _UNLIMITED,
  choices: Sequence[str] = (),
  **metadata: Any,
) -> Any:
  """Returns a field of `SearchConfig`.

  Args:
    default: value of the field.
    text: help text of its flag.
    at_least: lower bound of a number.
    at_most: upper bound of a number.
    choices: allowed values of a str.
    **metadata: `configured`, whether the configuration of the model has the
      default; `above`, an exclusive lower bound.
  """
  return dataclasses.field(
    default=default,
    metadata={
      'text': text,
      'at_least': at_least,
      'at_most': at_most,
      'choices': choices,
      **metadata,
    },
  )


def _configured(text: str, **metadata: Any) -> Any:
  return _setting(None, text, configured=True, **metadata)


@dataclasses.dataclass(frozen=True)
class SearchConfig:
  """How captions are searched. The defaults are those of the 2016 program.

  All lengths are in words and include <S> and </S>. A word that a setting
  excludes has probability 0. Other words keep the probabilities of the model,
  so the probability of a caption does not depend on the settings.

  Attributes:
    beam_size: partial captions kept at each step, and largest number of
      captions returned; with `sample`, the number of samples. None takes the
      value of the model's configuration, which is 3 by default.
    max_caption_length: length of the longest caption. A caption that is cut off
      there has no </S>.
    length_normalization_factor: a value x above 0 divides the score of a
      complete caption by length ** x, which favours longer captions. None: see
      `beam_size`; 0 by default.
    allow_unknown_word: whether captions may contain the unknown word, and ids
      without a word. None: see `beam_size`; True by default.
    min_caption_length: length of the shortest caption.
    repeated_words: 'allow'; 'apart', never twice in a row; or 'never', each
      word once per caption.
    allow_repeated_trigram: whether three words in a row may appear again.
    forbidden_words: words that no caption may contain.
    required_words: words that every caption must contain, in any order. If the
      search finds no such caption, it returns those with most of the words.
    beam_groups: above 1, the beam is split into this many groups of equal size.
      Each avoids the words of earlier groups (Vijayakumar et al. 2018, "Diverse
      Beam Search").
    beam_group_penalty: subtracted from the log probability of a word for each
      partial caption of an earlier group that has the word in the same place.
      It affects only the choice of captions.
    sample: whether captions are sampled word by word instead of searched.
    temperature: with `sample`, probabilities are raised to the power of
      1 / temperature. Below 1, likely words become more likely.
    top_k: with `sample`, draw from the k most likely words; 0 for all.
    top_p: with `sample`, draw from the smallest set of most likely words whose
      probabilities sum to at least this.
    sampling_seed: determines the samples.

  Raises:
    ValueError: a value is out of range, or settings exclude each other. The
      message starts with the name of a setting.
  """

  beam_size: int | None = _configured(
    'Captions that the search keeps at each step.', at_least=1
  )
  max_caption_length: int = _setting(
    20,
    'Largest length of a caption in words, including start and end word.',
    at_least=1,
  )
  length_normalization_factor: float | None = _configured(
    'Above 0, divide the score of a caption by its length to this power.'
  )
  allow_unknown_word: bool | None = _configured(
    'Whether a caption may contain <UNK>. The default of this flag, of '
    '--beam_size and of --length_normalization_factor is the value in the '
    'configuration.json beside the checkpoint.'
  )
  min_caption_length: int = _setting(
    0,
    'Smallest length of a caption in words, including start and end word.',
    at_least=0,
  )
  repeated_words: str = _setting(
    'allow',
    'Whether a word may be repeated in a caption: allow; apart (not twice in a '
    'row); or never.',
    choices=('allow', 'apart', 'never'),
  )
  allow_repeated_trigram: bool = _setting(
    True, 'Whether the same three words in a row may appear twice in a caption.'
  )
  forbidden_words: tuple[str, ...] = _setting(
    (), 'Words that no caption may contain, separated by commas.'
  )
  required_words: tuple[str, ...] = _setting(
    (), 'Words that every caption must contain, separated by commas.'
  )
  beam_groups: int = _setting(
    1,
    'Above 1, split the beam into this many groups with different captions.',
    at_least=1,
  )
  beam_group_penalty: float = _setting(
    0.5,
    'Subtracted from the log probability of a word for each caption of an '
    'earlier one of --beam_groups that has the word in the same place.',
    at_least=0,
  )
  sample: bool = _setting(
    False,
    'Sample --beam_size captions at random instead of searching for the most '
    'likely ones.',
  )
  temperature: float = _setting(
    1.0, 'With --sample: below 1, likely words become more likely.', above=0
  )
  top_k: int = _setting(
    0,
    'With --sample: draw from this many most likely words; 0 for all.',
    at_least=0,
  )
  top_p: float = _setting(
    1.0,
    'With --sample: draw from the smallest set of most likely words whose '
    'probabilities sum to at least this.',
    above=0,
    at_most=1,
  )
  sampling_seed: int = _setting(
    0,
    'With --sample: another seed gives other captions.',
    at_least=0,
    at_most=2**63 - 1,
  )

  def __post_init__(self) -> None:
    for field in dataclasses.fields(self):
      _check(field, getattr(self, field.name))
    if self.min_caption_length > self.max_caption_length:
      raise ValueError(
        f'min_caption_length={self.min_caption_length} must not be above '
        f'max_caption_length={self.max_caption_length}'
      )
    if len(self.required_words) > self.max_caption_length - 2 and (
      self.required_words
    ):
      raise ValueError(
        f'required_words={",".join(self.required_words)} are too many for '
        f'max_caption_length={self.max_caption_length}: give fewer words or a '
        'larger length'
      )
    for word in self.required_words:
      if word in self.forbidden_words or self.required_words.count(word) > 1:
        raise ValueError(
          f'required_words={",".join(self.required_words)}: {word!r} must be '
          'given once, and not in forbidden_words too'
        )
    if self.beam_size and self.beam_size % self.beam_groups:
      raise ValueError(
        f'beam_groups={self.beam_groups} must divide beam_size={self.beam_size}'
      )
    if self.sample and (self.required_words or self.beam_groups > 1):
      raise ValueError(
        'sample cannot be used with required_words or beam_groups: leave it out'
      )
    for name, needed in (
      ('temperature', 'sample'),
      ('top_k', 'sample'),
      ('top_p', 'sample'),
      ('sampling_seed', 'sample'),
      ('beam_group_penalty', 'beam_groups'),
    ):
      if self._is_set(name) and not self._is_set(needed):
        raise ValueError(f'{name}={getattr(self, name)} needs {needed}')

  def _is_set(self, name: str) -> bool:
    return getattr(self, name) != _FIELDS[name].default

  @property
  def is_as_in_2016(self) -> bool:
    """Whether the search is that of 2016.

    Forbidden words do not change the search, as they only have probability 0.
    """
    return not any(
      self._is_set(name)
      for name in (
        'min_caption_length',
        'repeated_words',
        'allow_repeated_trigram',
        'required_words',
        'beam_groups',
        'sample',
      )
    )

  def completed(
    self, model_config: configuration.ModelConfig = configuration.ModelConfig()
  ) -> 'SearchConfig':
    """Returns the settings with the model's defaults in the place of None.

    Args:
      model_config: of the model.

    Raises:
      ValueError: see the class.
    """
    return dataclasses.replace(
      self,
      **{
        name: getattr(model_config, name)
        for name, field in _FIELDS.items()
        if field.metadata.get('configured') and getattr(self, name) is None
      },
    )

  def as_dict(self) -> dict[str, Any]:
    """Returns the settings by name, as values of JSON."""
    return {
      name: list(value) if isinstance(value, tuple) else value
      for name, value in dataclasses.asdict(self).items()
    }


_FIELDS = {field.name: field for field in dataclasses.fields(SearchConfig)}


def _kind(field: dataclasses.Field[Any]) -> type:
  """Returns the type of the values of a field other than None."""
  default = getattr(configuration.ModelConfig, field.name, field.default)
  return type(default)


def _check(field: dataclasses.Field[Any], value: Any) -> None:
  """Raises ValueError if a value of a field is not allowed."""
  name, limits, kind = field.name, field.metadata, _kind(field)
  if value is None and limits.get('configured'):
    return
  shown = (
    f'{name}={",".join(map(str, value))}'
    if (isinstance(value, (list, tuple)))
    else f'{name}={value}'
  )
  # To Python True is an int.
  good = isinstance(value, (int, float) if kind is float else kind) and (
    isinstance(value, bool) == (kind is bool)
  )
  if not good:
    raise ValueError(f'{shown} must be of type {kind.__name__}')
  if kind is tuple and not all(
    isinstance(word, str) and word for word in value
  ):
    raise ValueError(f'{shown} must be words')
  if limits['choices'] and value not in limits['choices']:
    raise ValueError(f'{shown} must be one of {", ".join(limits["choices"])}')
  if kind not in (int, float):
    return
  if not math.isfinite(value):
    raise ValueError(f'{shown} must be a finite number')
  if value < limits['at_least']:
    raise ValueError(f'{shown} must be {limits["at_least"]} or more')
  if value > limits['at_most']:
    raise ValueError(f'{shown} must be {limits["at_most"]} or less')
  if value <= limits.get('above', -_UNLIMITED):
    raise ValueError(f'{shown} must be above {limits["above"]}')


def define_flags(
  without: Collection[str] = (), flag_values: flags.FlagValues = flags.FLAGS
) -> None:
  """Defines a flag for each setting.

  Args:
    without: names of settings that get no flag.
    flag_values: receives the flags.
  """
  flags.disclaim_key_flags()
  for name, field in _FIELDS.items():
    if name not in without:
      default = getattr(configuration.ModelConfig, name, field.default)
      flag_dataclasses.define_flag(
        name,
        _kind(field),
        list(default) if isinstance(default, tuple) else default,
        field.metadata['text'],
        field.metadata['choices'],
        flag_values,
      )


def from_flags(flag_values: flags.FlagValues) -> SearchConfig:
  """Returns the settings given by flags.

  Args:
    flag_values: parsed flags, see `define_flags`.

  Raises:
    ValueError: see `SearchConfig`. The message names the flag.
  """
  values: dict[str, Any] = {}
  for name, field in _FIELDS.items():
    if name not in flag_values:
      continue
    flag = flag_values[name]
    if field.metadata.get('configured') and flag.using_default_value:
      continue
    value: Any = flag.value
    values[name] = tuple(value) if _kind(field) is tuple else value
  try:
    return SearchConfig(**values)
  except ValueError as e:
    raise ValueError(f'--{e}') from e
