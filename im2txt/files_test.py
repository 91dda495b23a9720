# SPDX-License-Identifier: Apache-2.0
"""Tests of files."""

import json
import os
import sys

import pytest

from im2txt import files


def test_a_file_has_its_name_once_it_is_whole(tmp_path):
  path = tmp_path / 'a'
  path.write_text('old')
  with files.replacing(path) as temporary:
    with open(temporary, 'w', encoding='utf-8') as f:
      f.write('new')
    assert path.read_text() == 'old'
  assert path.read_text() == 'new'
  assert os.listdir(tmp_path) == ['a']


def test_what_fails_leaves_nothing(tmp_path):
  path = tmp_path / 'a'
  path.write_text('old')
  with pytest.raises(ValueError, match='on the way'):
    with files.replacing(path) as temporary:
      with open(temporary, 'w', encoding='utf-8') as f:
        f.write('half')
      raise ValueError('on the way')
  assert path.read_text() == 'old'
  assert os.listdir(tmp_path) == ['a']


def test_fails_before_anything_is_written(tmp_path):
  with pytest.raises(FileNotFoundError):
    with files.replacing(tmp_path / 'missing' / 'a') as temporary:
      open(temporary, 'w', encoding='utf-8')  # pylint: disable=consider-using-with


def test_json(tmp_path):
  files.write_json(tmp_path / 'a', {'a': 'ü'})
  text = (tmp_path / 'a').read_text(encoding='utf-8')
  assert json.loads(text) == {'a': 'ü'}
  assert 'ü' in text and text.endswith('\n')


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
