# SPDX-License-Identifier: Apache-2.0
"""Draws a sheet of images with their captions and references."""

from collections.abc import Iterable
from collections.abc import Sequence
import io
import re
import textwrap
from typing import NamedTuple
import warnings

from absl import logging

from im2txt.data import image_formats

_LINE_LENGTH = 38
# In inches; a line of text has 8 points.
_IMAGE_WIDTH, _IMAGE_HEIGHT = 2.5, 1.95
_MARGIN = 0.06
_LINE_HEIGHT = 0.135
_DOTS_PER_INCH = 80
# Images with a longer side are made smaller, which limits the memory.
_LONGEST_SIDE = 1024


class CaptionedImage(NamedTuple):
  """An image, its caption and its references.

  Attributes:
    name: name of the image, for messages.
    data: content of the image's file.
    caption: the generated caption.
    references: the references.
  """

  name: str
  data: bytes
  caption: str
  references: list[str]


def is_reference(caption: str, references: Iterable[str]) -> bool:
  """Returns whether a caption equals a reference, word for word.

  >>> is_reference('a red star .', ['One star.', 'A  red, star'])
  True
  """
  return _words(caption) in map(_words, references)


def _words(caption: str) -> list[str]:
  """Returns the words of a caption, lower-cased, without punctuation."""
  return re.findall(r"[\w']+", caption.lower())


def draw(
  images: Sequence[CaptionedImage], columns: int, num_references: int
) -> bytes:
  """Draws images with their captions below, and their references in grey.

  A caption that equals a reference, word for word, is green. An image that
  cannot be decoded is replaced by the reason.

  Args:
    images: the images.
    columns: number of images side by side.
    num_references: largest number of references below an image.

  Returns:
    The content of a PNG file.

  Raises:
    ValueError: no image can be decoded.
  """
  from matplotlib import figure as figure_lib
  from matplotlib import font_manager

  wrapped = [
    # A full stop after a space must not begin a line.
    [
      textwrap.wrap(text.replace(' .', '\N{NO-BREAK SPACE}.'), _LINE_LENGTH)
      for text in (image.caption, *image.references[:num_references])
    ]
    for image in images
  ]
  most_lines = max(sum(map(len, texts)) for texts in wrapped)
  cell_width = _IMAGE_WIDTH + 2 * _MARGIN
  cell_height = _IMAGE_HEIGHT + _LINE_HEIGHT * most_lines + 4 * _MARGIN
  width = columns * cell_width
  height = -(-len(images) // columns) * cell_height
  # Further fonts for other scripts. A letter in none of them becomes a box.
  fonts = [
    'DejaVu Sans',
    *sorted(
      name
      for name in font_manager.get_font_names()
      if name.startswith('Noto Sans')
    ),
  ]
  figure = figure_lib.Figure(figsize=(width, height), dpi=_DOTS_PER_INCH)
  faults: list[str] = []
  for number, (image, texts) in enumerate(zip(images, wrapped)):
    row, column = divmod(number, columns)
    left = column * cell_width + _MARGIN
    bottom = height - row * cell_height - _MARGIN - _IMAGE_HEIGHT
    axes = figure.add_axes(
      (
        left / width,
        bottom / height,
        _IMAGE_WIDTH / width,
        _IMAGE_HEIGHT / height,
      )
    )
    axes.set_axis_off()
    # Directly above its text, whatever its shape.
    axes.set_anchor('SW')
    try:
      axes.imshow(image_formats.thumbnail(image.data, _LONGEST_SIDE))
    except ValueError as error:
      faults.append(f'cannot decode the image {image.name} ({error})')
      axes.text(
        0,
        0,
        '\n'.join(textwrap.wrap(str(error), _LINE_LENGTH)[:10]),
        fontsize=8,
        fontfamily=fonts,
        verticalalignment='bottom',
        parse_math=False,
        color='grey',
      )
    top = bottom - _MARGIN
    is_found = is_reference(image.caption, image.references)
    colors = ['green' if is_found else 'black']
    colors += ['grey'] * (len(texts) - 1)
    for lines, color in zip(texts, colors):
      for line in lines:
        figure.text(
          left / width,
          top / height,
          line,
          color=color,
          fontsize=8,
          fontfamily=fonts,
          verticalalignment='top',
          parse_math=False,
        )
        top -= _LINE_HEIGHT
  if len(faults) == len(images):
    raise ValueError(faults[0])
  for fault in faults:
    logging.warning('%s', fault)
  png = io.BytesIO()
  with warnings.catch_warnings():
    warnings.filterwarnings('ignore', 'Glyph .* missing')
    figure.savefig(png, format='png')
  return png.getvalue()
