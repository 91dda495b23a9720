# SPDX-License-Identifier: Apache-2.0
"""Tests of search_config."""

import sys

from absl import flags
import pytest

from im2txt import configuration
from im2txt.inference_utils import search_config
from im2txt.inference_utils.search_config import SearchConfig


def _define(**options):
  """Returns FlagValues with the flags of the settings."""
  values = flags.FlagValues()
  search_config.define_flags(flag_values=values, **options)
  return values


def parse(*args, **options):
  values = _define(**options)
  values(['program', *args])
  return search_config.from_flags(values)


def test_the_defaults_are_those_of_2016():
  search = SearchConfig().completed()
  assert search == SearchConfig(3, 20, 0.0, True)
  assert search.is_as_in_2016
  # What --help shows.
  values = _define()
  assert [
    values[name].default
    for name in (
      'beam_size',
      'length_normalization_factor',
      'allow_unknown_word',
    )
  ] == [3, 0.0, True]


def test_what_is_not_given_is_left_to_the_configuration_of_the_model():
  config = configuration.ModelConfig(
    beam_size=5, length_normalization_factor=0.7, allow_unknown_word=False
  )
  assert parse() == SearchConfig()
  assert parse().completed(config) == SearchConfig(5, 20, 0.7, False)
  given = parse(
    '--beam_size=3',
    '--length_normalization_factor=0',
    '--allow_unknown_word',
    '--max_caption_length=9',
  )
  assert given == given.completed(config) == SearchConfig(3, 9, 0.0, True)


def test_each_setting_has_a_flag():
  assert parse(
    '--min_caption_length=5',
    '--repeated_words=apart',
    '--noallow_repeated_trigram',
    '--forbidden_words=red,green',
    '--required_words=dog',
    '--beam_size=4',
    '--beam_groups=2',
    '--beam_group_penalty=1',
  ) == SearchConfig(
    beam_size=4,
    min_caption_length=5,
    repeated_words='apart',
    allow_repeated_trigram=False,
    forbidden_words=('red', 'green'),
    required_words=('dog',),
    beam_groups=2,
    beam_group_penalty=1.0,
  )
  assert parse(
    '--sample',
    '--temperature=0.5',
    '--top_k=4',
    '--top_p=0.9',
    '--sampling_seed=6',
  ) == SearchConfig(
    sample=True, temperature=0.5, top_k=4, top_p=0.9, sampling_seed=6
  )


def test_a_program_may_do_without_some_flags():
  without = ('beam_size', 'sample')
  assert not set(without) & set(_define(without=without))
  assert parse('--top_k=0', without=without) == SearchConfig()


@pytest.mark.parametrize(
  'settings, message',
  [
    ({'beam_size': 0}, 'beam_size=0 must be 1 or more'),
    ({'beam_size': True}, 'beam_size=True must be of type int'),
    ({'max_caption_length': 0}, 'max_caption_length=0 must be 1 or more'),
    ({'max_caption_length': None}, 'must be of type int'),
    ({'length_normalization_factor': float('nan')}, 'a finite number'),
    (
      {'min_caption_length': 21},
      'min_caption_length=21 must not be above max_caption_length=20',
    ),
    ({'repeated_words': 'often'}, 'often must be one of allow, apart, never'),
    ({'forbidden_words': 'dog'}, 'must be of type tuple'),
    ({'required_words': ('',)}, 'must be words'),
    (
      {'required_words': ('a', 'b'), 'max_caption_length': 3},
      'required_words=a,b are too many for max_caption_length=3',
    ),
    (
      {'required_words': ('a',), 'forbidden_words': ('a',)},
      "'a' must be given once, and not in forbidden_words too",
    ),
    ({'required_words': ('a', 'a')}, "'a' must be given once"),
    (
      {'beam_groups': 2, 'beam_size': 3},
      'beam_groups=2 must divide beam_size=3',
    ),
    ({'beam_group_penalty': 1.0}, 'beam_group_penalty=1.0 needs beam_groups'),
    ({'top_k': 3}, 'top_k=3 needs sample'),
    ({'sample': True, 'temperature': 0.0}, 'temperature=0.0 must be above 0'),
    ({'sample': True, 'top_p': 1.5}, 'top_p=1.5 must be 1 or less'),
    ({'sample': True, 'required_words': ('a',)}, 'sample cannot be used with'),
    ({'sample': True, 'sampling_seed': -1}, 'sampling_seed=-1 must be 0'),
  ],
)
def test_wrong_settings_are_refused(settings, message):
  with pytest.raises(ValueError, match=message):
    SearchConfig(**settings)


def test_an_error_names_the_flag():
  with pytest.raises(ValueError, match='^--top_k=3 needs sample$'):
    parse('--top_k=3')
  with pytest.raises(ValueError, match='^--beam_size=0 must be 1 or more$'):
    parse('--beam_size=0')


def test_groups_are_checked_against_the_configuration_too():
  search = SearchConfig(beam_groups=2)
  with pytest.raises(ValueError, match='beam_groups=2 .* beam_size=3'):
    search.completed()
  assert search.completed(configuration.ModelConfig(beam_size=4)).beam_size == 4


def test_only_words_struck_out_leave_the_search_as_it_was():
  assert SearchConfig(
    beam_size=7, allow_unknown_word=False, forbidden_words=('a',)
  ).is_as_in_2016
  for settings in (
    {'min_caption_length': 5},
    {'repeated_words': 'never'},
    {'allow_repeated_trigram': False},
    {'sample': True},
    {'required_words': ('a',)},
    {'beam_groups': 3},
  ):
    assert not SearchConfig(**settings).is_as_in_2016


def test_as_dict_is_what_json_has():
  values = SearchConfig(forbidden_words=('a', 'b')).as_dict()
  assert values['forbidden_words'] == ['a', 'b']
  assert values['max_caption_length'] == 20


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
