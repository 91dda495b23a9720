# SPDX-License-Identifier: Apache-2.0
"""Tests of files."""

import json
import os
import subprocess
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


def test_finds_what_the_project_ships_through_links(tmp_path):
  root = os.path.dirname(os.path.dirname(os.path.realpath(files.__file__)))
  assert files.in_project('data', 'README.md') == f'{root}/data/README.md'
  # As in Bazel's runfiles.
  (tmp_path / 'im2txt').mkdir()
  os.symlink(files.__file__, tmp_path / 'im2txt' / 'files.py')
  assert subprocess.run(
      [sys.executable, '-c', 'import im2txt.files; '
       'print(im2txt.files.__file__, im2txt.files.in_project("data"))'],
      cwd=tmp_path, env={}, capture_output=True, text=True, check=True,
      ).stdout.split() == [f'{tmp_path}/im2txt/files.py', f'{root}/data']


def test_sha256(tmp_path):
  (tmp_path / 'a').write_bytes(b'abc')
  # The first example of FIPS 180.
  assert files.sha256(tmp_path / 'a') == (
      'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad')


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
