# SPDX-License-Identifier: Apache-2.0
"""Tests of files."""

import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from im2txt.runtime import files
from im2txt.runtime import storage


def test_a_file_has_its_name_once_it_is_whole(tmp_path):
  path = tmp_path / 'a'
  path.write_text('old')
  with files.replacing(path) as temporary:
    with open(temporary, 'w', encoding='utf-8') as f:
      f.write('new')
    assert path.read_text() == 'old'
  assert path.read_text() == 'new'
  assert os.listdir(tmp_path) == ['a']


def test_arrays_are_written_with_their_checksum(tmp_path):
  rng = np.random.default_rng(0)
  for name, save, content in (
    ('a.npy', np.save, [rng.normal(size=[300, 200])]),
    ('b.npy', np.save, [rng.normal(size=[3, 2]).astype(np.float16)]),
    ('c.npz', np.savez, [np.arange(9), np.ones([4, 5])]),
  ):
    path = str(tmp_path / name)
    with files.writing(path) as f:
      save(f, *content)
    assert files.checksum(path) == f.checksum
    found = np.load(path)
    for i, expected in enumerate(content):
      np.testing.assert_array_equal(
        found[f'arr_{i}'] if name == 'c.npz' else found, expected
      )
    os.truncate(path, os.path.getsize(path) - 1)
    assert files.checksum(path) != f.checksum


def test_what_a_full_disk_says(tmp_path):
  """On the device that is always full."""
  path = tmp_path / 'features.npy'
  os.symlink('/dev/full', files.unfinished(str(path)))
  with pytest.raises(OSError) as raised:
    with files.writing(str(path)) as f:
      np.save(f, np.zeros([100, 100]))
  assert raised.value.errno == errno.ENOSPC
  assert str(raised.value) == (f"[Errno 28] No space left on device: '{path}'")
  assert not os.listdir(tmp_path)


def test_finds_what_the_project_ships(tmp_path):
  root = os.path.dirname(
    os.path.dirname(os.path.dirname(os.path.realpath(files.__file__)))
  )
  assert files.shipped('README.md') == f'{root}/data/README.md'
  assert files.data_directory('x') == f'{root}/data/x'
  linked, wheel = (tmp_path / name / 'im2txt' for name in ('links', 'wheel'))
  for package in (linked, wheel):
    (package / 'runtime').mkdir(parents=True)
    (package / '__init__.py').touch()
  # As in Bazel's runfiles, and as in site-packages.
  for module in (files, storage):
    name = os.path.basename(module.__file__)
    os.symlink(module.__file__, linked / 'runtime' / name)
    shutil.copy(module.__file__, wheel / 'runtime' / name)

  def found(package):
    return subprocess.run(
      [
        sys.executable,
        '-c',
        'from im2txt.runtime import files; '
        'print(files.__file__, files.shipped("a"), files.data_directory("b"), '
        'files.pretrained_directory())',
      ],
      cwd=package.parent,
      env={'HOME': '/home/u'},
      capture_output=True,
      text=True,
      check=True,
    ).stdout.split()

  assert found(linked) == [
    f'{linked}/runtime/files.py',
    f'{root}/data/a',
    f'{root}/data/b',
    f'{root}/data/pretrained',
  ]
  assert found(wheel) == [
    f'{wheel}/runtime/files.py',
    f'{wheel}/assets/a',
    '/home/u/b',
    '/home/u/im2txt/pretrained',
  ]


@pytest.mark.parametrize(
  'names, expected',
  [
    ('a,b.jpg', ['a,b.jpg']),
    ('x,y', ['x', 'y']),
    (',x,,', ['x']),
    ('x,a,b.jpg,c*', ['x', 'a,b.jpg', 'c*']),
    ('', []),
    ('x,d,e/f-?,x', ['x', 'd,e/f-?', 'x']),
  ],
)
def test_a_comma_separates_unless_such_a_file_exists(
  tmp_path, monkeypatch, names, expected
):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'd,e').mkdir()
  for name in ('a,b.jpg', 'x', 'd,e/f-1'):
    (tmp_path / name).touch()
  assert files.split_names(names) == expected


def test_sha256(tmp_path):
  (tmp_path / 'a').write_bytes(b'abc')
  # The first example of FIPS 180.
  assert files.sha256(tmp_path / 'a') == (
    'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'
  )


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
      open(temporary, 'w', encoding='utf-8')


@pytest.fixture(name='calls')
def fixture_calls(monkeypatch):
  """The syncs and renames, in their order, by the names of the files."""
  calls = []
  fsync, replace = os.fsync, os.replace

  def name_of(descriptor):
    return os.path.basename(os.readlink(f'/proc/self/fd/{descriptor}'))

  monkeypatch.setattr(
    os,
    'fsync',
    lambda descriptor: (
      calls.append(f'sync {name_of(descriptor)}'),
      fsync(descriptor),
    )[1],
  )
  monkeypatch.setattr(
    os,
    'replace',
    lambda old, new: (
      calls.append(f'{os.path.basename(old)} to {os.path.basename(new)}'),
      replace(old, new),
    )[1],
  )
  return calls


def test_content_is_on_the_disk_before_its_name_and_then_that(tmp_path, calls):
  directory = tmp_path / 'directory'
  directory.mkdir()
  files.write_json(str(directory / 'a'), 1)
  assert calls == ['sync .a.tmp', '.a.tmp to a', 'sync directory']
  calls.clear()
  for name in 'xy':
    (directory / name).touch()
  files.rename(
    *((str(directory / name), str(directory / (name * 2))) for name in 'xy')
  )
  assert calls == ['sync x', 'sync y', 'x to xx', 'y to yy', 'sync directory']


def test_a_name_without_a_directory(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  files.write_json('a', 1)
  assert os.listdir() == ['a']


def test_a_disk_that_fails_is_an_error_that_names_the_file(
  tmp_path, monkeypatch
):
  (tmp_path / 'a').write_text('old')

  def fail(_):
    raise OSError(error, os.strerror(error))

  monkeypatch.setattr(os, 'fsync', fail)
  error = errno.EIO
  with pytest.raises(OSError, match=r"Input/output error: '.*/a'"):
    files.write_json(str(tmp_path / 'a'), 1)
  assert (tmp_path / 'a').read_text() == 'old'
  with pytest.raises(OSError, match='Input/output'):
    files.sync(str(tmp_path))
  # As a file system does that has no such call for directories.
  error = errno.EINVAL
  files.sync(str(tmp_path))
  with pytest.raises(OSError, match='Invalid argument'):
    files.sync(str(tmp_path / 'a'))


def test_all_below_a_directory_at_once(tmp_path):
  files.sync_tree(str(tmp_path))
  with pytest.raises(FileNotFoundError):
    files.sync_tree(str(tmp_path / 'missing'))


def test_json(tmp_path):
  files.write_json(tmp_path / 'a', {'a': 'ü'})
  text = (tmp_path / 'a').read_text(encoding='utf-8')
  assert json.loads(text) == {'a': 'ü'}
  assert 'ü' in text and text.endswith('\n')
  assert files.read_json(tmp_path / 'a') == {'a': 'ü'}
  (tmp_path / 'a').write_text('\ufeff' + text, encoding='utf-8')
  assert files.read_json(tmp_path / 'a') == {'a': 'ü'}


@dataclasses.dataclass
class _Fields:
  word: str
  number: int = 3


def test_fields(tmp_path):
  path = tmp_path / 'a'
  files.write_json(path, {'word': 'a', 'number': 4})
  assert files.read_fields(path, _Fields) == _Fields('a', 4)
  files.write_json(path, {'word': 'a'})
  assert files.read_fields(path, _Fields) == _Fields('a')


@pytest.mark.parametrize(
  'content, part',
  [
    (b'', 'Expecting value'),
    (b'\0' * 20, 'Expecting value'),
    (b'\xff{}', 'utf-8'),
    (b'[' * 100000, 'nested'),
    (b'[]', 'object'),
    (b'{"word": NaN}', 'NaN is not a JSON number'),
    (b'{"word": -Infinity}', '-Infinity is not a JSON number'),
    (b'{}', 'word'),
    (b'{"word": 1}', 'word is not of type str'),
    (b'{"word": "a", "number": true}', 'number is not of type int'),
    (b'{"word": "a", "other": 1}', 'other'),
  ],
)
def test_what_is_not_such_a_file_is_one_kind_of_error(tmp_path, content, part):
  (tmp_path / 'a').write_bytes(content)
  with pytest.raises(ValueError, match=part):
    files.read_fields(tmp_path / 'a', _Fields)


def test_naming_tells_which_file_an_error_is_of():
  with pytest.raises(OSError, match=r'No space left.*: .a\.txt') as raised:
    with files.naming('a.txt'):
      with open('/dev/full', 'wb') as f:
        f.write(b'x')
  assert raised.value.errno == errno.ENOSPC
  # Others are as they were.
  for error in (
    OSError('of no file'),
    FileNotFoundError(2, 'gone', 'b.txt'),
    ValueError('x'),
  ):
    with pytest.raises(type(error)) as raised:
      with files.naming('a.txt'):
        raise error
    assert raised.value is error


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
