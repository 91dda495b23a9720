# SPDX-License-Identifier: Apache-2.0
"""Tests of data/photos, the photos that come with the project."""

import glob
import os
import re
import sys

from PIL import Image
import pytest

from im2txt.runtime import files

_PHOTOS = files.shipped('photos')


def test_readme_tells_where_each_photo_is_from():
  with open(os.path.join(_PHOTOS, 'README.md'), encoding='utf-8') as f:
    rows = [
      [cell.strip() for cell in line.strip().strip('|').split('|')]
      for line in f
      if line.startswith('| `')
    ]
  named = [row[0].strip('`') for row in rows]
  found = sorted(os.listdir(_PHOTOS))
  assert sorted([*named, 'README.md']) == found and len(named) == 12
  for row in rows:
    assert len(row) == 6 and all(row), row
    assert row[3] in ('CC0 1.0', 'public domain'), row


def test_photos_are_small_and_whole():
  paths = glob.glob(os.path.join(_PHOTOS, '*.jpg'))
  assert len(paths) == 12
  assert sum(map(os.path.getsize, paths)) < 500_000
  for path in paths:
    assert re.fullmatch(r'[a-z_]+\.jpg', os.path.basename(path))
    with Image.open(path) as image:
      image.load()
      assert image.format == 'JPEG' and max(image.size) == 480
      assert not image.getexif()


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
