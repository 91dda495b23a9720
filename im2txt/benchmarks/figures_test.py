# SPDX-License-Identifier: Apache-2.0
"""Tests of figures."""

import sys

from PIL import Image
import pytest

from im2txt.benchmarks import figures


def test_draws(tmp_path):
  figures.draw(
    {
      'captioning, parts': {'unit': 'ms per image', 'a': 1.0, 'b': 2.0},
      'training step, parts': {'unit': 'ms per caption', 'c': 3.0},
      'growth': {'captioning: x': [(1, 2.0)], 'training: y': [(1, 2.0)]},
    },
    str(tmp_path),
  )
  for name in ('time.png', 'growth.png'):
    with Image.open(tmp_path / name) as image:
      assert image.format == 'PNG' and image.width > 200


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
