# SPDX-License-Identifier: Apache-2.0
"""Tests of saved_model and frozen_graph, in this process."""

import copy
import errno
import sys

import numpy as np
import pytest
import tensorflow as tf

from im2txt import checkpoints
from im2txt import testing
from im2txt.checkpoints import confidence_stamp
from im2txt.export import frozen_graph
from im2txt.export import saved_model
from im2txt.inference_utils import captioner as captioner_lib
from im2txt.inference_utils import search_config


@pytest.fixture(scope='module', name='directory')
def fixture_directory(tmp_path_factory):
  path = tmp_path_factory.mktemp('model')
  testing.caption_model(path)
  return path


def _changed(directory, path, **factors):
  """Writes a checkpoint whose variables are multiplied; returns its prefix."""
  source = checkpoints.Checkpoint(str(directory))
  values = {name: source.get(name) for name in source.shapes}
  for name, factor in factors.items():
    values[name] = values[name] * factor
  checkpoints.write(str(path / 'model.ckpt-9'), values)
  for name in ('configuration.json', 'vocabulary.json'):
    (path / name).write_bytes((directory / name).read_bytes())
  return str(path / 'model.ckpt-9')


def _captioner(directory, *paths, **search):
  return captioner_lib.Captioner(
    [str(path) for path in paths or [directory]],
    str(directory / 'word_counts.txt'),
    search_config.SearchConfig(**search),
  )


def _assert_same(outputs, expected, at_most):
  """Compares what a signature returns with `ScoredCaption`s."""
  outputs = {name: value.numpy() for name, value in outputs.items()}
  is_fitted = expected[0][0].confidence is not None
  assert set(outputs) == {
    'captions',
    'log_probabilities',
    *(['confidences'] if is_fitted else []),
  }
  assert outputs['captions'].shape == (len(expected), at_most)
  assert outputs['log_probabilities'].dtype == np.float32
  for i, captions in enumerate(expected):
    missing = at_most - len(captions)
    assert [text.decode() for text in outputs['captions'][i]] == [
      *(caption.text for caption in captions),
      *[''] * missing,
    ]
    np.testing.assert_allclose(
      outputs['log_probabilities'][i],
      [
        *(caption.log_probability for caption in captions),
        *[-np.inf] * missing,
      ],
      atol=1e-4,
    )
    if is_fitted:
      np.testing.assert_allclose(
        outputs['confidences'][i],
        [*(caption.confidence for caption in captions), *[0.0] * missing],
        atol=1e-4,
      )


@pytest.fixture(scope='module', name='captioner')
def fixture_captioner(directory):
  return _captioner(directory, beam_size=2, length_normalization_factor=0.5)


@pytest.fixture(scope='module', name='signatures')
def fixture_signatures(captioner):
  return saved_model.CaptionModule(captioner).signatures()


def test_pixels_of_any_size_are_captioned(captioner, signatures):
  pixels = np.random.default_rng(0).integers(
    0, 256, [2, 30, 50, 3], dtype=np.uint8
  )
  expected = captioner.caption([captioner.process(image) for image in pixels])
  _assert_same(signatures['from_pixels'](tf.constant(pixels)), expected, 2)
  _assert_same(
    signatures['from_float_pixels'](tf.constant(pixels / np.float32(255))),
    expected,
    2,
  )


def test_files_of_several_kinds_are_in_one_batch(captioner, signatures):
  pixels = tf.io.decode_jpeg(testing.jpeg(1))
  images = [testing.jpeg(0), tf.io.encode_png(pixels).numpy()]
  _assert_same(
    signatures['serving_default'](tf.constant(images)),
    captioner.caption([captioner.decode(image) for image in images]),
    2,
  )


@pytest.mark.parametrize(
  'search',
  [
    {},
    {'allow_unknown_word': False, 'forbidden_words': ('dog',)},
    {'required_words': ('cat',), 'max_caption_length': 6},
    {'beam_size': 4, 'beam_groups': 2},
    {'beam_size': 5, 'max_caption_length': 2},
    {'sample': True, 'sampling_seed': 3},
  ],
)
def test_the_settings_of_the_search_are_in_the_model(captioner, search):
  captioner = captioner.with_search(search_config.SearchConfig(**search))
  features = np.random.default_rng(1).normal(0, 2000, [3, 2048])
  features = features.astype(np.float32)
  signatures = saved_model.CaptionModule(captioner).signatures()
  _assert_same(
    signatures['from_features'](tf.constant(features)),
    captioner.decoder.caption(features),
    captioner.decoder.search.beam_size,
  )


@pytest.mark.parametrize(
  'search', [{}, {'beam_size': 5, 'max_caption_length': 2}]
)
def test_confidences_are_in_the_model(captioner, search):
  decoder = captioner_lib.FeatureCaptioner(
    captioner.model,
    captioner.vocab,
    search_config.SearchConfig(**search),
    confidence=confidence_stamp.Confidence(
      10, 0.5, 0.1, 0.2, 0.3, [50.0] * 2048, {}
    ),
  )
  fitted = copy.copy(captioner)
  fitted.decoder = decoder
  features = np.random.default_rng(1).normal(0, 2000, [3, 2048])
  features = features.astype(np.float32)
  signatures = saved_model.CaptionModule(fitted).signatures()
  _assert_same(
    signatures['from_features'](tf.constant(features)),
    decoder.caption(features),
    decoder.search.beam_size,
  )


def test_equal_scores_give_captions_too(directory, tmp_path):
  ties = _changed(
    directory, tmp_path, **{'logits/weights': 0, 'logits/biases': 0}
  )
  module = saved_model.CaptionModule(_captioner(directory, ties))
  found = module.signatures()['from_features'](tf.zeros([1, 2048]))
  # The words of the smallest ids.
  assert [text.decode() for text in found['captions'][0].numpy()] == [
    '',
    'a',
    '<S>',
  ]
  np.testing.assert_allclose(
    found['log_probabilities'][0], -np.log(8) * np.array([1, 2, 2]), rtol=1e-5
  )


def test_an_ensemble_with_two_encoders(directory, tmp_path):
  other = _changed(
    directory,
    tmp_path,
    **{'InceptionV3/Conv2d_1a_3x3/weights': 0.9, 'logits/weights': 1.5},
  )
  captioner = _captioner(directory, directory, other)
  path = saved_model.save(captioner, str(tmp_path / 'exported'), version=3)
  assert path == str(tmp_path / 'exported' / '3')
  images = [testing.jpeg(i) for i in range(2)]
  _assert_same(
    tf.saved_model.load(path).signatures['serving_default'](
      image_bytes=tf.constant(images)
    ),
    captioner.caption([captioner.decode(image) for image in images]),
    3,
  )
  graph_def = frozen_graph.build(captioner)
  with tf.Graph().as_default() as graph:
    tf.graph_util.import_graph_def(graph_def, name='')
  with tf.compat.v1.Session(graph=graph) as session:
    state = session.run('lstm/initial_state:0', {'image_feed:0': images[0]})
    softmax, new = session.run(
      ['softmax:0', 'lstm/state:0'],
      {'input_feed:0': [1, 4], 'lstm/state_feed:0': np.repeat(state, 2, 0)},
    )
  expected = captioner.model.initial_state(
    captioner.encode([captioner.decode(images[0])])
  )
  np.testing.assert_allclose(state, expected, atol=1e-5)
  for found, wanted in zip(
    (softmax, new),
    captioner.model.inference_step([1, 4], tf.repeat(expected, 2, axis=0)),
    strict=True,
  ):
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_full_disk_leaves_nothing(captioner, tmp_path, monkeypatch):
  def fail(module, path, signatures):
    tf.io.gfile.makedirs(path)
    raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(tf.saved_model, 'save', fail)
  with pytest.raises(OSError, match='No space left') as error:
    saved_model.save(captioner, str(tmp_path))
  assert error.value.filename == str(tmp_path / '10')
  assert not list(tmp_path.iterdir())


def test_batching_parameters_are_a_text_proto():
  assert saved_model.batching_parameters(32).splitlines() == [
    'max_batch_size { value: 32 }',
    'batch_timeout_micros { value: 5000 }',
    'max_enqueued_batches { value: 4 }',
    'num_batch_threads { value: 1 }',
  ]


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
