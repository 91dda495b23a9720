# SPDX-License-Identifier: Apache-2.0
"""Tests of image_store."""

import os
import sys
import zipfile

import pytest

from im2txt.data import image_formats
from im2txt.data import image_store


def _zip(path, *names):
  with zipfile.ZipFile(path, 'w') as archive:
    for name in names:
      archive.writestr(name, f'content of {name}')
  return str(path)


def test_a_directory(tmp_path):
  (tmp_path / 'a.jpg').write_bytes(b'xyz')
  stat = image_store.stats(str(tmp_path), '--image_dir')
  path = str(tmp_path / 'a.jpg')
  assert stat(path) == (3, os.stat(path).st_mtime_ns)
  assert image_store.read(path) == b'xyz'
  for function in (stat, image_store.read):
    with pytest.raises(OSError):
      function(str(tmp_path / 'b.jpg'))


@pytest.mark.parametrize(
  'members, name',
  [
    (['train/', 'train/a.jpg', 'train/b.jpg'], 'a.jpg'),
    (['a.jpg', 'b.jpg'], 'a.jpg'),
    (['train/a.jpg', 'val/a.jpg'], 'train/a.jpg'),
    (['coco/train/a.jpg'], 'a.jpg'),
    (
      [
        'Images/a.jpg',
        'Images/b.JPG',
        'captions.txt',
        '.DS_Store',
        '__MACOSX/Images/._a.jpg',
        'Images/.DS_Store',
      ],
      'a.jpg',
    ),
  ],
)
def test_an_archive(tmp_path, members, name):
  archive = _zip(tmp_path / 'x.zip', *members)
  stat = image_store.stats(archive, '--image_dir')
  path = os.path.join(archive, name)
  content = image_store.read(path)
  assert content.startswith(b'content of ') and content.endswith(name.encode())
  assert stat(path)[0] == len(content)
  for function in (stat, image_store.read):
    with pytest.raises(OSError):
      function(os.path.join(archive, 'c.jpg'))


def test_a_directory_that_is_called_as_an_archive(tmp_path):
  directory = tmp_path / 'y.zip'
  directory.mkdir()
  (directory / 'a.jpg').write_bytes(b'xyz')
  image_store.stats(str(directory), '--image_dir')(str(directory / 'a.jpg'))
  assert image_store.read(str(directory / 'a.jpg')) == b'xyz'


def test_files_that_are_too_large_are_not_read(tmp_path, monkeypatch):
  (tmp_path / 'a.jpg').write_bytes(b'1234')
  archive = str(tmp_path / 'b.zip')
  with zipfile.ZipFile(archive, 'w') as f:
    f.writestr('a.jpg', b'1234')
  monkeypatch.setattr(image_formats, 'MOST_FILE_BYTES', 3)
  for directory in (str(tmp_path), archive):
    with pytest.raises(OSError, match='a.jpg is larger than 0 MB, the most'):
      image_store.read(os.path.join(directory, 'a.jpg'))
  monkeypatch.setattr(image_formats, 'MOST_FILE_BYTES', 4)
  for directory in (str(tmp_path), archive):
    assert image_store.read(os.path.join(directory, 'a.jpg')) == b'1234'


def test_refusals(tmp_path):
  (tmp_path / 'file.zip').write_bytes(b'PK')
  (tmp_path / 'file.tar').write_bytes(b'')
  for name, part in (
    ('nowhere', '--image_dir=.*nowhere: there is no such directory; give'),
    ('file.zip', '--image_dir=.*file.zip is not a sound zip'),
    ('file.tar', '--image_dir=.*file.tar is a file'),
  ):
    with pytest.raises(ValueError, match=part):
      image_store.stats(str(tmp_path / name), '--image_dir')


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
