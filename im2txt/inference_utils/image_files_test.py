# SPDX-License-Identifier: Apache-2.0
"""Tests of image_files."""

import io
import os
import sys
import threading

import pytest

from im2txt.inference_utils import image_files


def decode(data):
  if data == b'bad':
    raise ValueError('damaged')
  return data.decode()


@pytest.fixture(name='files')
def fixture_files(tmp_path):
  """Six files, the second damaged; and one that does not exist."""
  paths = [tmp_path / str(i) for i in range(6)]
  for path in paths:
    path.write_bytes(b'bad' if path.name == '1' else path.name.encode())
  return [str(path) for path in paths] + [str(tmp_path / 'none')]


@pytest.mark.parametrize('ahead', [0, 2, 100])
def test_order_is_kept_and_errors_stand_in_their_place(files, ahead):
  found = list(image_files.read_images(files, decode, ahead))
  assert [name for name, _ in found] == files
  assert [image for _, image in found[:1] + found[2:-1]] == list('02345')
  assert isinstance(found[1][1], ValueError)
  assert isinstance(found[-1][1], FileNotFoundError)


def test_reads_ahead_of_the_caller_but_not_further(files):
  seen = []
  third = threading.Event()

  def decode_and_tell(data):
    seen.append(data)
    if len(seen) == 3:
      third.set()
    return data

  images = image_files.read_images(files[:-1], decode_and_tell, 2)
  next(images)
  # The caller holds the first; two more come without being asked for.
  assert third.wait(timeout=30)
  assert len(seen) == 3
  assert len(list(images)) == 5


def test_of_a_collection_no_more_is_taken_than_is_worked_on_ahead():
  taken = []

  def items():
    for i in range(1000):
      taken.append(i)
      yield i

  results = image_files.ahead_of_caller(items(), lambda i: -i, ahead=3)
  assert next(results) == (0, 0)
  assert next(results) == (1, -1)
  results.close()
  assert taken == [0, 1, 2, 3, 4]


def test_what_is_no_fault_of_an_item_is_raised():
  def work(item):
    raise KeyError(item)

  with pytest.raises(KeyError):
    list(image_files.ahead_of_caller(['a'], work, ahead=3))


def test_a_directory_stands_for_the_images_in_it(tmp_path):
  for name in ('b.PNG', 'a.jpg', 'c.txt', '.hidden.jpg'):
    (tmp_path / name).touch()
  (tmp_path / 'inner').mkdir()
  (tmp_path / 'inner' / 'd.txt').touch()
  found = image_files.find([str(tmp_path), str(tmp_path / 'c.txt')])
  assert found.files == [
    str(tmp_path / name) for name in ('a.jpg', 'b.PNG', 'c.txt')
  ]
  assert found.passed_over == {str(tmp_path): ['c.txt', 'inner']}
  assert not found.missing
  inner = str(tmp_path / 'inner')
  assert list(image_files.find([inner]).missing) == [inner]


def test_a_tree_comes_in_the_order_of_its_names(tmp_path):
  for name in (
    'b/2.jpg',
    'b/deep/3.jpg',
    'a/notes.txt',
    'a/1.JPG',
    'a/1.JPG.xmp',
    'z.jpg',
    'clip.mp4',
    '.hidden/h.jpg',
  ):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
  (tmp_path / 'link').symlink_to(tmp_path / 'a')

  def find(**kwargs):
    found = image_files.find([str(tmp_path)], recursive=True, **kwargs)
    assert not found.missing
    files = [os.path.relpath(name, tmp_path) for name in found.files]
    return files, found.passed_over[str(tmp_path)]

  assert find() == (
    ['z.jpg', 'a/1.JPG', 'b/2.jpg', 'b/deep/3.jpg'],
    ['a/notes.txt', 'clip.mp4', 'link'],
  )
  assert find(suffixes=('.mp4',))[0] == ['clip.mp4']


def test_a_directory_that_cannot_be_read_is_told(tmp_path, monkeypatch):
  (tmp_path / 'inner').mkdir()
  (tmp_path / 'a.jpg').touch()
  scandir = os.scandir

  def refuse(path):
    if os.path.basename(path) == 'inner':
      raise PermissionError(13, 'Permission denied', path)
    return scandir(path)

  monkeypatch.setattr(os, 'scandir', refuse)
  found = image_files.find([str(tmp_path)], recursive=True)
  assert found.files == [str(tmp_path / 'a.jpg')]
  assert found.missing == {str(tmp_path / 'inner'): 'Permission denied'}
  assert image_files.find([str(tmp_path / 'inner')]).missing == {
    str(tmp_path / 'inner'): 'Permission denied'
  }


def test_a_name_that_exists_is_no_pattern(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for name in ('x[1].jpg', 'x1.jpg', 'x2.jpg'):
    (tmp_path / name).touch()
  found = image_files.find(
    ['x[1].jpg', 'x[2].jpg', 'x?.jpg', 'y*', 'http://a/b.jpg']
  )
  assert found.files == ['x[1].jpg', 'x2.jpg', 'x1.jpg', 'x2.jpg']
  assert found.missing == {
    'y*': 'no such file',
    'http://a/b.jpg': 'download it first',
  }


def test_a_file_that_is_too_large_is_not_read(files, monkeypatch):
  monkeypatch.setattr(image_files, 'MOST_BYTES', 1)
  # The second has three bytes.
  found = list(image_files.read_images(files[:3], bytes.decode, 1))
  assert [image for _, image in found[::2]] == ['0', '2']
  assert 'larger than' in str(found[1][1])


def test_of_a_pipe_no_more_is_read_than_of_a_file(tmp_path, monkeypatch):
  monkeypatch.setattr(image_files, 'MOST_BYTES', 3)
  pipe = tmp_path / 'pipe'
  os.mkfifo(pipe)
  for data, expected in ((b'abc', 'abc'), (b'abcd', 'larger than')):
    writer = threading.Thread(target=pipe.write_bytes, args=[data])
    writer.start()
    ((_, image),) = image_files.read_images([str(pipe)], bytes.decode, 0)
    writer.join()
    assert expected in str(image)


def test_too_little_memory_stands_in_its_place(files):
  def decode_little(data):
    if data == b'bad':
      raise MemoryError
    return data

  found = list(image_files.read_images(files[:3], decode_little, 1))
  assert 'too little memory' in str(found[1][1])
  assert found[2][1] == b'2'


def test_names_of_standard_input_stand_in_the_place_of_a_dash(monkeypatch):
  lines = io.BytesIO(b'a, b\r\n\n\xff\n')
  monkeypatch.setattr(sys, 'stdin', io.TextIOWrapper(lines))
  names = image_files.with_standard_input(['first', '-', 'last'])
  assert names == ['first', 'a, b', os.fsdecode(b'\xff'), 'last']


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
