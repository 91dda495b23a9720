# SPDX-License-Identifier: Apache-2.0
"""Tests of tflite: TensorFlow Lite writes the captions of the program."""

import json
import sys

import numpy as np
import pytest
import tensorflow as tf

from im2txt import testing
from im2txt.checkpoints import int8_stamp
from im2txt.encoders import tensorflow_lite
from im2txt.export import tflite
from im2txt.inference_utils import captioner as captioner_lib
from im2txt.inference_utils import search_config

_IMAGES = [testing.jpeg(i) for i in range(2)]
_SQUARE = testing.jpeg(5, 30, 30)


@pytest.fixture(scope='module', name='captioner')
def fixture_captioner(tmp_path_factory):
  """A calibrated model that may not write `dog`."""
  path = tmp_path_factory.mktemp('model')
  testing.caption_model(path)
  captioner = captioner_lib.Captioner(
    str(path),
    str(path / 'word_counts.txt'),
    search_config.SearchConfig(beam_size=2, forbidden_words=('dog',)),
  )
  images = [captioner.decode(image) for image in _IMAGES]
  int8_stamp.save(path, captioner.encoders[0].calibrate(images, 'two images'))
  return captioner


@pytest.mark.parametrize(
  'precision, tolerance', [('float32', 1e-4), ('float16', 0.02)]
)
def test_captions_are_those_of_the_program(
  captioner, tmp_path, precision, tolerance
):
  tflite.save(captioner, str(tmp_path), precision)
  exported = tflite.TFLiteCaptioner(str(tmp_path))
  assert exported.settings.precision == precision
  # Bytes, and pixels of another shape.
  for image, given in (
    (_IMAGES[0], _IMAGES[0]),
    (_SQUARE, tf.io.decode_jpeg(_SQUARE).numpy()),
  ):
    found = exported.caption(given)
    (expected,) = captioner.caption([captioner.decode(image)])
    assert [c.text for c in found] == [c.text for c in expected]
    np.testing.assert_allclose(
      [c.log_probability for c in found],
      [c.log_probability for c in expected],
      atol=tolerance,
    )


def test_int8_is_near_and_in_integers(captioner, tmp_path):
  tflite.save(captioner, str(tmp_path), 'int8')
  # Images of random weights are all alike, and their captions change easily.
  assert tflite.TFLiteCaptioner(str(tmp_path)).caption(_IMAGES[0])[0].text
  encode = tensorflow_lite.runner((tmp_path / tflite.ENCODER).read_bytes())
  pixels = tf.io.decode_jpeg(_IMAGES[1]).numpy()
  found = encode(pixels=pixels[np.newaxis])['features']
  expected = captioner.encode([captioner.process(pixels)])
  difference = np.linalg.norm(found - expected) / np.linalg.norm(expected)
  assert 0.001 < difference < 0.2
  operations = _operations(tmp_path / tflite.ENCODER)
  assert operations.count(('CONV_2D', np.int8)) >= 90


def _operations(path):
  """Returns the operations of a model, with the dtypes of their outputs."""
  interpreter = tf.lite.Interpreter(
    str(path),
    experimental_op_resolver_type=(
      tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    ),
  )
  dtypes = {t['index']: t['dtype'] for t in interpreter.get_tensor_details()}
  return [
    (operation['op_name'], dtypes[operation['outputs'][0]])
    for operation in interpreter._get_ops_details()
  ]


def test_another_search_is_refused(captioner, tmp_path):
  sampling = captioner.with_search(search_config.SearchConfig(sample=True))
  with pytest.raises(ValueError, match='leave out sampling'):
    tflite.save(sampling, str(tmp_path), 'float32')
  assert not list(tmp_path.iterdir())


def test_half_an_export_is_refused(tmp_path):
  with pytest.raises(ValueError, match=f'{tmp_path} has no whole model'):
    tflite.TFLiteCaptioner(str(tmp_path))
  (tmp_path / tflite.SETTINGS).write_text(json.dumps({'beam_size': 3}))
  with pytest.raises(ValueError, match=f'{tmp_path} has no whole model'):
    tflite.TFLiteCaptioner(str(tmp_path))


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
