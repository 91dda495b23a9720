# SPDX-License-Identifier: Apache-2.0
"""Tests of storage, on ram:// of TensorFlow and on a store that Beam opens."""

import errno
import functools
import os
import shutil
import sys

import numpy as np
import pytest

from im2txt.runtime import files
from im2txt.runtime import locks
from im2txt.runtime import numpy_files
from im2txt.runtime import storage


def test_what_exists_is_no_pattern(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for name in (
    'x[1].jpg',
    'x1.jpg',
    'x2.jpg',
    'a [1]/b1',
    'a [1]/b2',
    'a 1/b1',
    'a [1]/in/b1',
  ):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
  for name, expected in {
    'x[1].jpg': ['x[1].jpg'],
    'x[2].jpg': ['x2.jpg'],
    'x?.jpg': ['x1.jpg', 'x2.jpg'],
    'y*': [],
    # A directory that is there is none either.
    'a [1]/b?': ['a [1]/b1', 'a [1]/b2'],
    'a [1]/*/b1': ['a [1]/in/b1'],
    'a [2]/b?': [],
    'a ?/b?': ['a 1/b1'],
  }.items():
    assert storage.matches(name) == expected, name
  assert storage.matches(f'{tmp_path}/a [1]/b?') == [
    f'{tmp_path}/a [1]/b1',
    f'{tmp_path}/a [1]/b2',
  ]


@functools.cache
def _store_class():
  """Returns a file system that only Beam knows, kept in `directory`."""
  from apache_beam.io import localfilesystem

  class Store(localfilesystem.LocalFileSystem):
    directory = ''

    @classmethod
    def scheme(cls):
      return 'kept'

    def _inside(self, path):
      return os.path.join(self.directory, path.removeprefix('kept://'))

    def match(self, patterns, limits=None):
      found = super().match([self._inside(p) for p in patterns], limits)
      for result in found:
        for metadata in result.metadata_list:
          name = os.path.relpath(metadata.path, self.directory)
          metadata.path = f'kept://{name}'
      return found

    def create(self, path, *args, **kwargs):
      return super().create(self._inside(path), *args, **kwargs)

    def open(self, path, *args, **kwargs):
      if not self.exists(path):
        raise FileNotFoundError(errno.ENOENT, 'No such object', path)
      return super().open(self._inside(path), *args, **kwargs)

    def exists(self, path):
      return super().exists(self._inside(path))

    def mkdirs(self, path):
      super().mkdirs(self._inside(path))

    def rename(self, sources, targets):
      super().rename(
        [self._inside(p) for p in sources], [self._inside(p) for p in targets]
      )

    def delete(self, paths):
      for path in map(self._inside, paths):
        shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)

  return Store


@pytest.fixture(name='root', params=['ram', 'beam', 'local'])
def fixture_root(request, tmp_path):
  if request.param == 'local':
    return f'{tmp_path}/root'
  if request.param == 'beam':
    pytest.importorskip('apache_beam', reason='needs Apache Beam')
    _store_class().directory = str(tmp_path)
    return 'kept://root'
  return f'ram://{request.node.originalname}'


def test_files_are_written_found_and_read(root):
  storage.makedirs(f'{root}/a/b')
  storage.makedirs(f'{root}/a/b')
  path = f'{root}/a/b/x-1'
  assert not storage.exists(path)
  for content in (b'old', b'0123456789'):
    with files.replacing(path) as temporary:
      with open(temporary, 'wb') as f:
        f.write(content)
  files.write_json(f'{root}/a/b/x-2', {'é': 1})
  assert storage.exists(path) and storage.isfile(path)
  assert storage.isdir(f'{root}/a') and not storage.isfile(f'{root}/a')
  assert storage.stat(path).size == storage.getsize(path) == 10
  assert sorted(storage.listdir(f'{root}/a/b')) == ['x-1', 'x-2']
  assert storage.listdir(f'{root}/a') == ['b']
  assert storage.matches(f'{root}/a/b/x-?') == [path, f'{root}/a/b/x-2']
  assert storage.matches(path) == [path]
  assert storage.matches(f'{root}/a/b/y') == []
  assert files.split_names(f'{path},{root}/a/b/x-2') == [
    path,
    f'{root}/a/b/x-2',
  ]
  with storage.open_read(path) as f:
    f.seek(4)
    assert f.read(3) == b'456'
    assert f.read() == b'789'
  assert files.read_json(f'{root}/a/b/x-2') == {'é': 1}
  assert files.sha256(path).startswith('84d89877f0d4041e')
  storage.remove(path)
  assert not storage.exists(path)
  storage.remove_tree(f'{root}/a')
  assert not storage.exists(f'{root}/a/b/x-2')


def test_a_write_that_fails_leaves_the_old_file(root):
  storage.makedirs(root)
  path = f'{root}/x'
  files.write_json(path, 'old')
  with pytest.raises(OSError, match='full') as raised:
    with files.replacing(path) as temporary:
      with open(temporary, 'wb') as f:
        f.write(b'half')
      raise OSError(errno.ENOSPC, 'full', temporary)
  assert raised.value.filename == path
  assert files.read_json(path) == 'old'
  assert storage.listdir(root) == ['x']


def test_what_is_missing_is_an_error_that_names_it(root):
  storage.makedirs(root)
  path = f'{root}/none'
  for function in (storage.open_read, storage.stat, files.read_json):
    with pytest.raises(FileNotFoundError) as raised:
      function(path)
    assert raised.value.filename == path


def test_arrays_are_read(root):
  storage.makedirs(root)
  array = np.arange(6.0).reshape(2, 3)
  with files.writing(f'{root}/a.npy') as f:
    np.save(f, array)
  np.testing.assert_array_equal(numpy_files.map_file(f'{root}/a.npy'), array)
  assert files.checksum(f'{root}/a.npy') == f.checksum


def test_a_remote_directory_is_not_locked(caplog):
  with locks.hold('ram://locked', 'build'):
    with locks.hold('ram://locked', 'build'):
      pass
  assert 'a remote store has no locks' in caplog.text


def test_an_unknown_store_is_told():
  with pytest.raises(OSError, match='nothing here opens nowhere://') as raised:
    storage.open_read('nowhere://bucket/x')
  assert raised.value.filename == 'nowhere://bucket/x'


def test_addresses_of_the_web_are_no_store():
  assert storage.matches('https://example.org/a.jpg') == []


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
