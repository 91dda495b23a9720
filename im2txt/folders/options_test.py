# SPDX-License-Identifier: Apache-2.0
"""Tests of options: what does not go together, and what captions depend on."""

import importlib.util
import sys

import pytest

from im2txt.folders import options as options_lib


@pytest.mark.parametrize(
  'given, message',
  [
    ({'input_files': ''}, 'name the images'),
    ({'output_file': 'captions.txt'}, '.jsonl or .csv'),
    ({'output_file': 'none/a.csv'}, '--output_file=none/a.csv'),
    ({'beam_options': '--x=1'}, 'needs a --runner'),
    ({'replace_alt_text': True}, '--replace_alt_text needs --sidecars'),
    ({'word_probabilities': True}, '--word_probabilities needs'),
    (
      {
        'word_probabilities': True,
        'output_format': 'json',
        'output_file': 'a.csv',
      },
      '--word_probabilities needs',
    ),
  ],
)
def test_what_does_not_go_together_is_refused(given, message):
  with pytest.raises(ValueError, match=message):
    options_lib.CaptionOptions(**{'input_files': 'a', **given}).check()


@pytest.mark.parametrize(
  'given',
  [
    {'output_file': 'a.jsonl'},
    {'sidecars': True},
    {'output_format': 'json', 'word_probabilities': True},
  ],
)
def test_beam_prints_captions_only(given, monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: name)
  beam = {'input_files': 'a', 'runner': 'DirectRunner'}
  options_lib.CaptionOptions(**beam).check()
  with pytest.raises(ValueError, match='leave out --output_file, --sidecars'):
    options_lib.CaptionOptions(**beam, **given).check()


@pytest.mark.parametrize(
  'given',
  [
    {'replace_alt_text': True, 'sidecars': True},
    {'output_format': 'json', 'word_probabilities': True},
    {'output_file': 'A.JSONL', 'word_probabilities': True},
  ],
)
def test_what_goes_together_is_not(given):
  options_lib.CaptionOptions(**given).check(['a'])


def test_videos_of_a_directory_need_a_place_for_their_captions():
  def takes_videos(**given):
    return options_lib.CaptionOptions(**given).takes_videos

  assert takes_videos() and takes_videos(output_file='a.csv', sidecars=True)
  assert not takes_videos(sidecars=True)
  assert not takes_videos(runner='DirectRunner')


class _Model:
  fingerprint = 'model'


def test_the_fingerprint_is_of_what_captions_depend_on():
  same = options_lib.CaptionOptions().fingerprint(_Model)
  # Files of captions have it, so it stays.
  assert same == 'bda10c336b692002'
  more = options_lib.CaptionOptions(inference_batch_size=3, input_files='a')
  assert more.fingerprint(_Model) == same
  for other in (
    {'exif_orientation': False},
    {'min_confidence': 0.5},
    {'word_probabilities': True},
    {'seconds_between_frames': 1.0},
  ):
    assert options_lib.CaptionOptions(**other).fingerprint(_Model) != same


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
