# SPDX-License-Identifier: Apache-2.0
"""A sheet of pictures with their captions and those of humans."""

import io
import re
import textwrap
from typing import NamedTuple
import warnings

from absl import logging

from im2txt.data import image_formats

_LINE_LENGTH = 38
# In inches; a line is one of 8 points.
_PICTURE_WIDTH, _PICTURE_HEIGHT = 2.5, 1.95
_MARGIN = 0.06
_LINE_HEIGHT = 0.135
_DOTS_PER_INCH = 80
# Pictures with a longer side are made smaller, which bounds the memory.
_LONGEST_SIDE = 1024


class CaptionedPicture(NamedTuple):
  """What is shown of one picture.

  Attributes:
    name: str, for messages.
    data: bytes of the picture's file.
    caption: str.
    humans: list of str, the captions that humans wrote.
  """

  name: str
  data: bytes
  caption: str
  humans: list


def is_human(caption, humans):
  """Returns whether a human wrote the caption too, word for word.

  >>> is_human('a red star .', ['One star.', 'A  red, star'])
  True
  """
  return _words(caption) in map(_words, humans)


def _words(caption):
  """Returns the words of a caption, lower-cased, without punctuation."""
  return re.findall(r"[\w']+", caption.lower())


def draw(pictures, columns, num_humans):
  """Draws pictures, under each its caption, and in grey those of humans.

  A caption that a human wrote too, word for word, is green. In the place of a
  picture that cannot be decoded stands why.

  Args:
    pictures: list of CaptionedPicture.
    columns: pictures side by side.
    num_humans: captions of humans under a picture, at most.

  Returns:
    bytes of a PNG file.

  Raises:
    ValueError: no picture can be decoded.
  """
  from matplotlib import figure as figure_lib
  from matplotlib import font_manager

  wrapped = [
    # No line begins with the full stop that stands apart.
    [
      textwrap.wrap(text.replace(' .', '\N{NO-BREAK SPACE}.'), _LINE_LENGTH)
      for text in (picture.caption, *picture.humans[:num_humans])
    ]
    for picture in pictures
  ]
  most_lines = max(sum(map(len, texts)) for texts in wrapped)
  cell_width = _PICTURE_WIDTH + 2 * _MARGIN
  cell_height = _PICTURE_HEIGHT + _LINE_HEIGHT * most_lines + 4 * _MARGIN
  width = columns * cell_width
  height = -(-len(pictures) // columns) * cell_height
  # For scripts that the first has not; a letter that none has is a box.
  fonts = [
    'DejaVu Sans',
    *sorted(
      name
      for name in font_manager.get_font_names()
      if name.startswith('Noto Sans')
    ),
  ]
  figure = figure_lib.Figure(figsize=(width, height), dpi=_DOTS_PER_INCH)
  faults = []
  for place, (picture, texts) in enumerate(zip(pictures, wrapped)):
    row, column = divmod(place, columns)
    left = column * cell_width + _MARGIN
    bottom = height - row * cell_height - _MARGIN - _PICTURE_HEIGHT
    axes = figure.add_axes(
      (
        left / width,
        bottom / height,
        _PICTURE_WIDTH / width,
        _PICTURE_HEIGHT / height,
      )
    )
    axes.set_axis_off()
    # Above its text, whatever its shape.
    axes.set_anchor('SW')
    try:
      axes.imshow(image_formats.thumbnail(picture.data, _LONGEST_SIDE))
    except ValueError as error:
      faults.append(f'cannot decode the picture {picture.name} ({error})')
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
    colors = ['green' if is_human(picture.caption, picture.humans) else 'black']
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
  if len(faults) == len(pictures):
    raise ValueError(faults[0])
  for fault in faults:
    logging.warning('%s', fault)
  png = io.BytesIO()
  with warnings.catch_warnings():
    warnings.filterwarnings('ignore', 'Glyph .* missing')
    figure.savefig(png, format='png')
  return png.getvalue()
