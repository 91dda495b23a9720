# SPDX-License-Identifier: Apache-2.0
"""Tests of confidence, in the captions of a model of random weights."""

import dataclasses
import sys

import numpy as np
import pytest

from im2txt import testing
from im2txt.checkpoints import confidence_stamp
from im2txt.inference_utils import captioner as captioner_lib
from im2txt.inference_utils import confidence

_FITTED = confidence_stamp.Confidence(
  global_step=10,
  cider=0.5,
  bias=0.5,
  log_probability=0.25,
  gain=2.0,
  mean_features=[100.0] * 2048,
  measured={'images': 3},
)


@pytest.fixture(scope='module', name='directory')
def fixture_directory(tmp_path_factory):
  path = tmp_path_factory.mktemp('model')
  testing.caption_model(path)
  confidence_stamp.save(path, _FITTED)
  return path


def _captioner(directory):
  return captioner_lib.Captioner(
    str(directory), str(directory / 'word_counts.txt')
  )


@pytest.fixture(scope='module', name='captioner')
def fixture_captioner(directory):
  return _captioner(directory)


def test_what_is_saved_is_read(directory):
  assert confidence_stamp.load(str(directory), 10) == _FITTED


def test_captions_have_the_confidence_of_their_words(captioner):
  model = captioner.model
  features = np.random.default_rng(0).normal(0, 3000, [2, 2048])
  features = features.astype(np.float32)
  found = captioner.decoder.caption(features)
  sentences = captioner.decoder.sentences(features)
  for captions, of in zip(found, sentences, strict=True):
    assert len(captions) == 3
    for caption, sentence in zip(captions, of, strict=True):
      assert caption.text == sentence.text
      # Word by word, as the search would.
      prior, state = 0.0, model.initial_state(np.full([1, 2048], 100.0))
      for word, following in zip(sentence.words, sentence.words[1:]):
        softmax, state = model.inference_step([word], state)
        prior += np.log(softmax[0, following])
      count = len(sentence.words) - 1
      each = caption.log_probability / count
      expected = 0.5 + 0.25 * each + 2 * (each - prior / count)
      assert caption.confidence == pytest.approx(
        1 / (1 + np.exp(-expected)), abs=1e-5
      )
      assert caption.as_dict()['confidence'] == caption.confidence


def test_another_search_keeps_it(captioner):
  other = captioner.decoder.with_search(
    captioner_lib.search_config.SearchConfig(beam_size=1)
  )
  features = np.zeros([1, 2048], np.float32)
  assert other.caption(features)[0][0].confidence is not None


def test_a_caption_of_no_word_has_no_gain(captioner):
  scorer = confidence.Scorer(captioner.model, _FITTED.mean_features)
  np.testing.assert_array_equal(scorer([[1]], [0.0]), [[0, 0]])
  assert scorer([[1], [1, 3, 2]], [0.0, -4.0])[1, 0] == -2


def test_that_of_another_step_is_not_used(tmp_path, caplog):
  confidence_stamp.save(tmp_path, dataclasses.replace(_FITTED, global_step=9))
  assert confidence_stamp.load(str(tmp_path), 10) is None
  assert 'is of step 9, not 10' in caplog.text


def test_damage_is_told(tmp_path, captioner):
  (tmp_path / 'confidence.json').write_text('{"bias": 1}')
  with pytest.raises(ValueError, match='confidence.json is damaged'):
    confidence_stamp.load(str(tmp_path), 10)
  with pytest.raises(ValueError, match='mean_features of 3 numbers'):
    confidence.Scorer(captioner.model, [0.0] * 3)


def test_without_it_there_is_none(tmp_path):
  assert confidence_stamp.load(str(tmp_path), 10) is None
  assert 'confidence' not in captioner_lib.ScoredCaption('a', -1.0).as_dict()


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
