# SPDX-License-Identifier: Apache-2.0
"""Tests of untrained_inception."""

import sys

import numpy as np
import pytest
import tensorflow as tf

from im2txt.ops import image_embedding
from im2txt.ops import untrained_inception

_SIZE = 171
_NUM = 12


def test_features_tell_images_apart():
  # Some plain colours: mean values that differ, as in the sample's pictures.
  colors = np.random.default_rng(0).uniform(-1, 1, [_NUM, 1, 1, 3])
  noise = np.random.default_rng(1).normal(0, 0.1, [_NUM, _SIZE, _SIZE, 3])
  images = tf.constant(np.clip(colors + noise, -1, 1), tf.float32)
  tf.random.set_seed(0)
  weights = untrained_inception.weights(images)
  inception = image_embedding.InceptionV3(height=_SIZE, width=_SIZE)
  assert set(weights) == set(inception.named_variables)
  for name, variable in inception.named_variables.items():
    variable.assign(weights[name])
  features = inception(images).numpy()
  # Neither dead nor exploding, and most of the size is difference.
  assert 0.05 < features.std(axis=0).mean() < 5
  assert features.std(axis=0).mean() > 0.3 * features.mean()
  # The same colour under other noise is nearest to itself.
  noise = np.random.default_rng(2).normal(0, 0.1, [_NUM, _SIZE, _SIZE, 3])
  other = inception(
      tf.constant(np.clip(colors + noise, -1, 1), tf.float32)).numpy()
  distances = ((features[:, None] - other[None]) ** 2).sum(-1)
  assert distances.argmin(axis=1).tolist() == list(range(_NUM))


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
