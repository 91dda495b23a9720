# SPDX-License-Identifier: Apache-2.0
"""Tests of vocabulary_stamp."""

import os
import sys

import pytest

from im2txt.text import vocabulary
from im2txt.text import vocabulary_stamp

_STAMP = vocabulary_stamp.Stamp('12ab', 7, '/data/wörter.txt', 'characters')


def _checked(caplog, *holders):
  """Returns the warnings of a check."""
  caplog.clear()
  vocabulary_stamp.check(list(holders), 'do this')
  return [record.getMessage() for record in caplog.records]


def test_is_read_as_it_was_written(tmp_path):
  assert vocabulary_stamp.load(tmp_path) is None
  vocabulary_stamp.save(tmp_path, _STAMP)
  assert vocabulary_stamp.load(tmp_path) == _STAMP
  assert os.listdir(tmp_path) == ['vocabulary.json']


@pytest.mark.parametrize(
  'content',
  [
    '',
    '{"fingerprint": "1',
    '[1]',
    '{"fingerprint": "1"}',
    '{"x": 1}',
    '{"fingerprint": "1", "words": "2", "file": "a"}',
  ],
)
def test_damage_is_told(tmp_path, content):
  (tmp_path / 'vocabulary.json').write_text(content)
  with pytest.raises(ValueError, match='vocabulary.json is damaged') as error:
    vocabulary_stamp.load(tmp_path)
  assert '\n' not in str(error.value)


def test_words_of_characters_are_printed_without_spaces():
  assert _STAMP.separator == ''
  for tokenizer in ('nltk', 'unicode', 'whitespace'):
    assert vocabulary_stamp.Stamp('12ab', 7, 'x', tokenizer).separator == ' '


def test_who_has_which(tmp_path):
  words = tmp_path / 'words.txt'
  words.write_text('<S> 1\n</S> 1\n')
  vocab = vocabulary.Vocabulary(str(words))
  name, stamp = vocabulary_stamp.of_vocabulary(vocab)
  assert name == f'the vocabulary file {words}'
  assert (stamp.fingerprint, stamp.words, stamp.file) == (
    vocab.fingerprint,
    3,
    str(words),
  )
  (tmp_path / 'a').mkdir()
  vocabulary_stamp.save(tmp_path / 'a', _STAMP)
  assert vocabulary_stamp.of_checkpoint(f'{tmp_path}/a/model.ckpt-5') == (
    f'the checkpoint {tmp_path}/a/model.ckpt-5',
    _STAMP,
  )
  assert vocabulary_stamp.of_shards(
    [f'{tmp_path}/b/val-0', f'{tmp_path}/a/val-0', f'{tmp_path}/a/val-1']
  ) == [
    (f'the shards in {tmp_path}/a', _STAMP),
    (f'the shards in {tmp_path}/b', None),
  ]
  assert vocabulary_stamp.of_shards(['val-0'])[0].name == 'the shards in .'


def test_same_vocabularies_go_together(caplog):
  other = vocabulary_stamp.Stamp('12ab', 7, '/copy')
  assert not _checked(
    caplog,
    vocabulary_stamp.Source('x', _STAMP),
    vocabulary_stamp.Source('y', other),
  )


def test_a_mismatch_names_both_and_what_to_do():
  other = vocabulary_stamp.Stamp('34cd', 9, '/other')
  with pytest.raises(ValueError) as error:
    vocabulary_stamp.check(
      [
        vocabulary_stamp.Source('nobody', None),
        vocabulary_stamp.Source('the shards in /s', _STAMP),
        vocabulary_stamp.Source('the vocabulary file /other', other),
      ],
      'do this',
    )
  assert str(error.value) == (
    'not of one vocabulary: the shards in /s (fingerprint 12ab, 7 words of '
    '/data/wörter.txt) and the vocabulary file /other (fingerprint 34cd, 9 '
    'words): do this'
  )


def test_what_is_not_known_is_one_warning(caplog):
  stamped = vocabulary_stamp.Source('x', _STAMP)
  y, z = (vocabulary_stamp.Source(name, None) for name in 'yz')
  assert _checked(caplog, y, stamped) == [
    'not checked that y and x have the same vocabulary: there is no '
    'vocabulary.json beside y'
  ]
  assert _checked(caplog, stamped, y, z) == [
    'not checked that x and y and z have the same vocabulary: there is no '
    'vocabulary.json beside y and z'
  ]
  # One alone is not compared with anything.
  assert not _checked(caplog, y)


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
