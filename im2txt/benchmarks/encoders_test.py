# SPDX-License-Identifier: Apache-2.0
"""Tests of the comparison of encoders, by encoders that take no time."""

import sys

import numpy as np
import pytest

from im2txt import testing
from im2txt.benchmarks import encoders
from im2txt.data import shards
from im2txt.inference_utils import captioner as captioner_lib


class _Captioner:
  """In the place of a `Captioner`: the features are the captions."""

  def __init__(self):
    self.decoder = self

  def decode(self, data, exif_orientation):
    assert not exif_orientation
    return np.full([2, 2, 3], len(data), np.float32)

  def caption(self, features):
    return [
      [captioner_lib.ScoredCaption('a dog' if f[0] else 'two cats', -1.0)]
      for f in features
    ]


def test_figures_are_compared_with_float32(tmp_path):
  path = str(tmp_path / 'val-00000-of-00001')
  with shards.Writer(path) as writer:
    for i in range(3):
      writer.write(
        shards.serialize(
          i, testing.numbered_jpeg(i), ['<S>', 'a', 'dog', '</S>'], [0, 1, 2, 3]
        )
      )
  sizes = []

  def right(images):
    sizes.append(len(images))
    return np.ones([len(images), 1])

  def wrong_once(images):
    return np.arange(len(images))[:, np.newaxis] != 1

  found = encoders.compare(
    _Captioner(),
    {encoders.BASELINE: right, 'other': wrong_once},
    [path],
  )
  assert sizes == [3, 3]  # Once to warm up.
  baseline, other = found[encoders.BASELINE], found['other']
  assert baseline['x float32'] == baseline['x float32 (captions)'] == 1
  assert baseline['captions changed'] == baseline['cider, difference'] == 0
  assert other['captions changed'] == 1
  assert other['cider, difference'] == pytest.approx(
    other['cider'] - baseline['cider']
  )
  first = encoders.compare(_Captioner(), {encoders.BASELINE: right}, [path], 1)
  assert sizes[2:] == [1, 1] and len(first) == 1


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
