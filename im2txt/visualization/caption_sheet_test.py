# SPDX-License-Identifier: Apache-2.0
"""Tests of caption_sheet."""

import io
import sys

import numpy as np
from PIL import Image
import pytest

from im2txt import testing
from im2txt.visualization import caption_sheet


def test_words_count_not_their_writing():
  assert caption_sheet.is_reference('a red star .', ['x', 'A  red, star'])
  assert not caption_sheet.is_reference('a star red', ['A red star'])


def _draw(images, *args):
  """Returns int [height, width, 3]."""
  with Image.open(io.BytesIO(caption_sheet.draw(images, *args))) as sheet:
    assert sheet.format == 'PNG'
    return np.asarray(sheet.convert('RGB')).astype(int)


def _rows(is_colored):
  """Returns how many rows of pixels have such a colour."""
  return int(is_colored.any(axis=1).sum())


def test_captions_stand_under_their_images():
  blue = io.BytesIO()
  Image.new('RGB', (60, 40), (0, 0, 255)).save(blue, 'PNG')
  references = ['A red star.', 'Red.', 'One star with five points.']
  images = [
    caption_sheet.CaptionedImage('a', blue.getvalue(), caption, references)
    for caption in ('a red star', 'costs $ 5 $', 'one')
  ]
  sheet = _draw(images, 2, 3)
  is_blue = (sheet == (0, 0, 255)).all(axis=2)
  is_green = sheet[..., 1] - sheet[..., [0, 2]].max(axis=2) > 60
  is_grey = (np.ptp(sheet, axis=2) < 5) & (abs(sheet[..., 0] - 128) < 20)
  middle = sheet.shape[1] // 2
  # Two images of the same size, and a third below.
  assert _rows(is_blue[:, :middle]) == 2 * _rows(is_blue[:, middle:])
  assert is_green[:, :middle].any() and not is_green[:, middle:].any()
  last_blue = np.flatnonzero(is_blue[:, middle:].any(axis=1)).max()
  first_grey = np.flatnonzero(is_grey[:, middle:].any(axis=1)).min()
  assert last_blue < first_grey
  # Three references instead of one.
  fewer = _draw(images, 2, 1)
  assert fewer.shape[0] < sheet.shape[0] and fewer.shape[1] == sheet.shape[1]


def test_an_image_that_is_too_large_is_named(monkeypatch):
  image = caption_sheet.CaptionedImage('7.jpg', testing.jpeg(), 'a', [])
  caption_sheet.draw([image], 1, 1)
  testing.set_largest_image(monkeypatch, 40 * 60 - 1)
  with pytest.raises(ValueError, match='image 7.jpg .*too large, 60 x 40'):
    caption_sheet.draw([image], 1, 1)


def test_an_image_that_is_none_is_named():
  with pytest.raises(ValueError, match='image 7.jpg'):
    caption_sheet.draw(
      [caption_sheet.CaptionedImage('7.jpg', testing.jpeg()[:90], 'a', [])],
      1,
      1,
    )


def test_one_damaged_image_leaves_the_others(caplog):
  images = [
    caption_sheet.CaptionedImage(f'{i}.jpg', data, 'a', [])
    for i, data in enumerate([testing.jpeg()[:90], testing.jpeg()])
  ]
  with caplog.at_level('WARNING'):
    sheet = _draw(images, 2, 1)
  assert 'cannot decode the image 0.jpg (damaged JPEG' in caplog.text
  assert '1.jpg' not in caplog.text
  middle = sheet.shape[1] // 2
  is_colored = np.ptp(sheet, axis=2) > 30
  assert is_colored[:, middle:].any() and not is_colored[:, :middle].any()
  # Why stands in its place, above the line of the caption.
  assert (sheet[:-40, :middle] < 200).any()


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
