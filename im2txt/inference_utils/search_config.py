# SPDX-License-Identifier: Apache-2.0
"""All settings of the search for captions, and the flags that set them."""

import dataclasses
import math

from absl import flags

from im2txt import configuration
from im2txt.runtime import flag_dataclasses

_UNLIMITED = math.inf


def _setting(
  default,
  text,
  at_least=-_UNLIMITED,
  at_most=_UNLIMITED,
  choices=(),
  **metadata,
):
  """Returns a field of `SearchConfig`.

  Args:
    default: its value unless one is given.
    text: str, help of its flag.
    at_least: bound of a number.
    at_most: likewise.
    choices: the values that a str may have.
    **metadata: `configured`, whether the model's configuration has a say;
      `above`, what a number must be above.
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


def _configured(text, **metadata):
  return _setting(None, text, configured=True, **metadata)


@dataclasses.dataclass(frozen=True)
class SearchConfig:
  """How captions are searched. The defaults search as the 2016 program did.

  All lengths are in words, <S> and </S> included. A word that a setting rules
  out has probability 0; other words keep the probabilities that the model
  gives them, so the probability of a caption does not depend on the settings.

  Attributes:
    beam_size: partial captions kept at each step, and captions returned at
      most; of a sample, the captions drawn. None: as the configuration of the
      model says, which is 3 unless the model was trained with another.
    max_caption_length: of the longest caption; the search takes one step less.
      A caption cut there has no </S>.
    length_normalization_factor: x > 0 divides the score of a complete caption
      by length ** x, which favours longer ones. None: see beam_size; 0.
    allow_unknown_word: whether captions may hold the unknown word, and ids
      that have no word. None: see beam_size; True.
    min_caption_length: no caption ends before it has so many words.
    repeated_words: 'allow'; 'apart', never twice in a row; or 'never', each
      word once per caption.
    allow_repeated_trigram: whether three words in a row may appear again.
    forbidden_words: tuple of str, words that no caption may hold.
    required_words: tuple of str, words that every caption must hold, in any
      order. Where the search finds no such caption, it returns those with most
      of the words.
    beam_groups: above 1: the beam is split into so many groups of equal size,
      each of which avoids the words of those before it (Vijayakumar et al.
      2018, "Diverse Beam Search").
    beam_group_penalty: what a word loses in log probability for each partial
      caption of an earlier group that has it in the same place; counts in the
      choice of captions only.
    sample: whether captions are drawn at random, word by word, instead of
      searched.
    temperature: of a sample: probabilities are taken to the power of
      1 / temperature. Below 1 likely words become likelier.
    top_k: of a sample: draw from the k likeliest words; 0: from all.
    top_p: of a sample: draw from the fewest likeliest words whose
      probabilities sum to this share.
    sampling_seed: determines what is drawn.

  Raises:
    ValueError: a value is out of its range, or settings exclude one another.
      The message begins with the name of a setting.
  """

  beam_size: int | None = _configured(
    'Captions kept by the search.', at_least=1
  )
  max_caption_length: int = _setting(
    20, 'Longest caption in words, start and end word included.', at_least=1
  )
  length_normalization_factor: float | None = _configured(
    'Above 0: divide the score of a caption by its length to this power.'
  )
  allow_unknown_word: bool | None = _configured(
    'Whether a caption may hold <UNK>. This, beam_size and '
    'length_normalization_factor are what the configuration.json beside the '
    'checkpoint says unless they are given.'
  )
  min_caption_length: int = _setting(
    0, 'Shortest caption in words, start and end word included.', at_least=0
  )
  repeated_words: str = _setting(
    'allow',
    'Whether a word may be repeated in a caption: allow; apart, not '
    'twice in a row; or never.',
    choices=('allow', 'apart', 'never'),
  )
  allow_repeated_trigram: bool = _setting(
    True, 'Whether the same three words in a row may appear twice in a caption.'
  )
  forbidden_words: tuple[str, ...] = _setting(
    (), 'Words that no caption may hold, separated by commas.'
  )
  required_words: tuple[str, ...] = _setting(
    (), 'Words that every caption must hold, separated by commas.'
  )
  beam_groups: int = _setting(
    1,
    'Above 1: split the beam into so many groups with different captions.',
    at_least=1,
  )
  beam_group_penalty: float = _setting(
    0.5,
    'What a word loses in log probability for each caption of an '
    'earlier one of --beam_groups that has it in the same place.',
    at_least=0,
  )
  sample: bool = _setting(
    False,
    'Draw --beam_size captions at random instead of searching the likeliest.',
  )
  temperature: float = _setting(
    1.0, 'Of --sample: below 1 likely words become likelier.', above=0
  )
  top_k: int = _setting(
    0,
    'Of --sample: draw from so many likeliest words; 0: from all.',
    at_least=0,
  )
  top_p: float = _setting(
    1.0,
    'Of --sample: draw from the fewest likeliest words whose '
    'probabilities sum to this.',
    above=0,
    at_most=1,
  )
  sampling_seed: int = _setting(
    0,
    'Of --sample: another seed draws other captions.',
    at_least=0,
    at_most=2**63 - 1,
  )

  def __post_init__(self):
    for field in dataclasses.fields(self):
      _check(field, getattr(self, field.name))
    if self.min_caption_length > self.max_caption_length:
      raise ValueError(
        f'min_caption_length={self.min_caption_length} is above '
        f'max_caption_length={self.max_caption_length}'
      )
    if len(self.required_words) > self.max_caption_length - 2 and (
      self.required_words
    ):
      raise ValueError(
        f'required_words={",".join(self.required_words)} are too many for '
        f'max_caption_length={self.max_caption_length}'
      )
    for word in self.required_words:
      if word in self.forbidden_words or self.required_words.count(word) > 1:
        raise ValueError(
          f'required_words={",".join(self.required_words)}: {word!r} is '
          'there twice, or forbidden too'
        )
    if self.beam_size and self.beam_size % self.beam_groups:
      raise ValueError(
        f'beam_groups={self.beam_groups} should divide '
        f'beam_size={self.beam_size}'
      )
    if self.sample and (self.required_words or self.beam_groups > 1):
      raise ValueError(
        'sample does not go with required_words and beam_groups: leave it out'
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

  def _is_set(self, name):
    return getattr(self, name) != _FIELDS[name].default

  @property
  def is_as_in_2016(self):
    """Whether only settings are set that leave the search of 2016 as it is.

    A word that must not appear is but a word of probability 0.
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

  def completed(self, model_config=configuration.ModelConfig()):
    """Returns a SearchConfig without None.

    Args:
      model_config: the `configuration.ModelConfig` of the model.

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

  def as_dict(self):
    """Returns {name: value}, as JSON has it."""
    return {
      name: list(value) if isinstance(value, tuple) else value
      for name, value in dataclasses.asdict(self).items()
    }


_FIELDS = {field.name: field for field in dataclasses.fields(SearchConfig)}


def _kind(field):
  """Returns the type of the values of a field, but None."""
  default = getattr(configuration.ModelConfig, field.name, field.default)
  return type(default)


def _check(field, value):
  """Raises ValueError if a field may not have a value."""
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
    raise ValueError(f'{shown} should be of type {kind.__name__}')
  if kind is tuple and not all(
    isinstance(word, str) and word for word in value
  ):
    raise ValueError(f'{shown} should be words')
  if limits['choices'] and value not in limits['choices']:
    raise ValueError(f'{shown} is none of {", ".join(limits["choices"])}')
  if kind not in (int, float):
    return
  if not math.isfinite(value):
    raise ValueError(f'{shown} should be a finite number')
  if value < limits['at_least']:
    raise ValueError(f'{shown} should be {limits["at_least"]} or more')
  if value > limits['at_most']:
    raise ValueError(f'{shown} should be {limits["at_most"]} or less')
  if value <= limits.get('above', -_UNLIMITED):
    raise ValueError(f'{shown} should be above {limits["above"]}')


def define_flags(without=(), flag_values=flags.FLAGS):
  """Defines a flag for each setting, for a program's own --help.

  Args:
    without: names of settings that the program has no flag for.
    flag_values: the `absl.flags.FlagValues` that takes them.
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


def from_flags(flag_values):
  """Returns the SearchConfig that the flags say.

  Args:
    flag_values: `flags.FLAGS` after `define_flags`.

  Raises:
    ValueError: see `SearchConfig`; the line names the flag.
  """
  values = {}
  for name, field in _FIELDS.items():
    if name not in flag_values:
      continue
    flag = flag_values[name]
    if field.metadata.get('configured') and flag.using_default_value:
      continue
    values[name] = tuple(flag.value) if _kind(field) is tuple else flag.value
  try:
    return SearchConfig(**values)
  except ValueError as e:
    raise ValueError(f'--{e}') from e
