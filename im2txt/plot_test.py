# SPDX-License-Identifier: Apache-2.0
"""Tests of plot."""

import sys

from PIL import Image
import pytest
import tensorflow as tf

from im2txt import plot
from im2txt import testing


def test_writes_a_png(tmp_path, capsys):
  writer = tf.summary.create_file_writer(str(tmp_path / 'events'))
  with writer.as_default():
    tf.summary.scalar('losses/smoothed_loss', 3.0, step=10)
  writer.close()
  output = tmp_path / 'curves.png'
  with testing.flags_of(plot, f'--logdirs={tmp_path}', f'--output={output}'):
    plot.main([])
  assert 'curves.png' in capsys.readouterr().out
  with Image.open(output) as image:
    assert image.format == 'PNG' and image.width == 1200
  assert {path.name for path in tmp_path.iterdir()} == {'events', 'curves.png'}


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
