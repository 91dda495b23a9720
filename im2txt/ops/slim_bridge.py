# SPDX-License-Identifier: Apache-2.0
"""Makes tf-slim, which was written for TensorFlow 1, work with TensorFlow 2.

tf-slim 1.1 finds TF1 layers through TensorFlow's lazy Keras loader, which looks
for `tf_keras.legacy_tf_layers`. tf-keras has moved these modules to
`tf_keras.src.legacy_tf_layers`, so this module registers the old names before
it imports tf-slim. Keras 3 has neither the TF1 layers nor
track_tf1_style_variables: `im2txt/__init__.py` makes TensorFlow use tf-keras.
Always import tf-slim from here:

  from im2txt.ops.slim_bridge import tf_slim, track_tf1_style_variables
"""

import importlib
import sys
import warnings

import tensorflow as tf


def _register_moved_modules() -> None:
  """Makes `tf_keras.legacy_tf_layers.*` importable under its old name."""
  new = 'tf_keras.src.legacy_tf_layers'
  old = 'tf_keras.legacy_tf_layers'
  for suffix in (
    '',
    '.base',
    '.convolutional',
    '.core',
    '.normalization',
    '.pooling',
  ):
    if old + suffix not in sys.modules:
      sys.modules[old + suffix] = importlib.import_module(new + suffix)


_register_moved_modules()
# tf-slim calls deprecated functions of its own. Users can do nothing about it.
warnings.filterwarnings(
  'ignore', message=r'`(layer|tf\.layers)\.', category=UserWarning
)

import tf_slim
from tf_slim.nets.inception_v3 import inception_v3_base

track_tf1_style_variables = tf.compat.v1.keras.utils.track_tf1_style_variables
