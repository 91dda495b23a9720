# SPDX-License-Identifier: Apache-2.0
"""Tests of photo_index: what is indexed, and what is not again."""

import os
import sqlite3
import sys

import numpy as np
import pytest

from im2txt.folders import photo_index

_ENCODER = '0123456789abcdef'


class _Array(np.ndarray):
  def numpy(self):
    return np.asarray(self)


class _Captioner:
  """The features of an image are three times the number in its file.

  Args:
    stop_at: the number at which it is killed.

  Attributes:
    seen: the numbers encoded.
  """

  def __init__(self, stop_at=None):
    self.seen = []
    self._stop_at = stop_at

  def decode(self, data, exif_orientation):
    assert exif_orientation
    if not data.isdigit():
      raise ValueError('damaged')
    return int(data)

  def encode(self, images):
    if self._stop_at in images:
      raise KeyboardInterrupt
    self.seen += images
    return np.repeat(np.float32(images)[:, None], 3, axis=1).view(_Array)


@pytest.fixture(name='photos')
def fixture_photos(tmp_path):
  """A tree of five photos and a damaged one, whose names are of all kinds."""
  root = tmp_path / 'photos'
  (root / 'b' / 'deep').mkdir(parents=True)
  (root / '.hidden').mkdir()
  for name, content in {
    'a.jpg': '1',
    'b/two\nlines, "x".jpg': '2',
    'b/deep/c.png': '3',
    'b/deep/bad.jpg': 'x',
    'z.jpg': '5',
    '.hidden/h.jpg': '9',
    'b/notes.txt': '9',
  }.items():
    (root / name).write_text(content)
  with open(os.fsencode(root) + b'/b/\xff.jpg', 'wb') as f:
    f.write(b'4')
  return root


def _update(path, *names, encoder=_ENCODER, stop_at=None):
  """Returns (numbers encoded, the `Update`)."""
  captioner = _Captioner(stop_at)
  with photo_index.PhotoIndex(str(path), encoder, create=True) as index:
    update = index.update(list(map(str, names)), captioner, batch_size=2)
  return captioner.seen, update


def _content(path):
  """Returns {base name: first feature}."""
  with photo_index.PhotoIndex(str(path), _ENCODER) as index:
    found = {}
    for paths, features in index.batches(batch_size=2):
      assert features.shape == (len(paths), 3)
      found.update(zip(map(os.path.basename, paths), features[:, 0].tolist()))
    assert len(index) == len(found)
    return found


_ALL = {
  'a.jpg': 1.0,
  'two\nlines, "x".jpg': 2.0,
  'c.png': 3.0,
  os.fsdecode(b'\xff.jpg'): 4.0,
  'z.jpg': 5.0,
}


def test_a_tree_is_indexed_once(photos, tmp_path):
  path = tmp_path / 'index'
  seen, update = _update(path, photos)
  assert sorted(seen) == [1, 2, 3, 4, 5]
  assert update[:3] == (5, 0, 0)
  assert update.failures == {str(photos / 'b' / 'deep' / 'bad.jpg'): 'damaged'}
  assert _content(path) == _ALL
  seen, update = _update(path, photos)
  assert not seen and update[:3] == (0, 0, 6) and len(update.failures) == 1


@pytest.mark.parametrize('stop_at', [1, 2, 3, 4, 5])
def test_goes_on_where_it_was_killed(photos, tmp_path, stop_at):
  path = tmp_path / 'index'
  with pytest.raises(KeyboardInterrupt):
    _update(path, photos, stop_at=stop_at)
  before = _content(path)
  assert stop_at not in before.values()
  seen, _ = _update(path, photos)
  assert sorted(seen + list(before.values())) == [1, 2, 3, 4, 5]
  assert _content(path) == _ALL


def test_new_changed_and_removed_photos(photos, tmp_path, monkeypatch):
  path = tmp_path / 'index'
  _update(path, photos)
  (photos / 'a.jpg').write_text('10')
  (photos / 'b' / 'deep' / 'c.png').unlink()
  (photos / 'z.jpg').rename(photos / 'y.jpg')
  # However the directory is named.
  monkeypatch.chdir(photos)
  seen, update = _update(path, '../photos/')
  assert sorted(seen) == [5, 10] and update[:3] == (2, 2, 3)
  expected = {**_ALL, 'a.jpg': 10.0, 'y.jpg': 5.0}
  del expected['c.png'], expected['z.jpg']
  assert _content(path) == expected


def test_what_was_not_named_or_cannot_be_seen_stays(photos, tmp_path):
  path = tmp_path / 'index'
  _update(path, photos)
  (photos / 'a.jpg').unlink()
  _update(path, photos / 'b')
  assert _content(path) == _ALL
  # A disk that is not mounted: its directory is empty.
  other = tmp_path / 'other'
  other.mkdir()
  (other / '6.jpg').write_text('6')
  _update(path, other)
  (photos / 'b').rename(tmp_path / 'away')
  (photos / 'b').mkdir()
  _update(path, photos / 'b', other)
  assert _content(path) == {**_ALL, '6.jpg': 6.0}
  # Named itself, a photo that is gone is an error and no reason to forget it.
  _, update = _update(path, photos / 'a.jpg', other)
  assert update.failures == {str(photos / 'a.jpg'): 'no such file'}
  assert 'a.jpg' in _content(path)


def test_another_encoder_is_refused(photos, tmp_path):
  path = tmp_path / 'index'
  _update(path, photos)
  with pytest.raises(ValueError, match='another encoder') as raised:
    _update(path, photos, encoder='f' * 16)
  assert f'--index_file={path}' in str(raised.value)
  assert _content(path) == _ALL


def test_what_is_no_index_is_refused_and_stays(photos, tmp_path):
  text, other = tmp_path / 'text', tmp_path / 'other.sqlite'
  text.write_text('my notes ' * 1000)
  database = sqlite3.connect(other)
  database.execute('CREATE TABLE a (b)')
  database.close()
  for path in (text, other):
    before = path.read_bytes()
    with pytest.raises(ValueError, match=f'--index_file={path}'):
      _update(path, photos)
    assert path.read_bytes() == before
  with pytest.raises(ValueError, match='there is no index yet'):
    photo_index.PhotoIndex(str(tmp_path / 'none'), _ENCODER)
  assert not (tmp_path / 'none').exists()


def test_a_text_in_the_place_of_photos_is_told(tmp_path):
  with pytest.raises(ValueError, match='a dog: no such file.*--text'):
    _update(tmp_path / 'index', 'a dog')


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
