# SPDX-License-Identifier: Apache-2.0
"""Tests of explanation."""

import math
import sys

import numpy as np
import pytest
import tensorflow as tf

from im2txt import testing
from im2txt.inference_utils import explanation
from im2txt.inference_utils import library


@pytest.fixture(scope='module', name='directory')
def fixture_directory(tmp_path_factory):
  path = tmp_path_factory.mktemp('model')
  testing.caption_model(path)
  return path


@pytest.fixture(scope='module', name='captioner')
def fixture_captioner(directory):
  return library.Captioner.load(directory, beam_size=7, max_caption_length=6)


def test_the_steps_lead_to_the_captions(captioner):
  image = captioner.decode(testing.jpeg(2))
  growth = explanation.grow(captioner.model, image, alternatives=7)
  assert [c.text for c in growth.captions] == [
    c.text for c in captioner.caption(testing.jpeg(2))
  ]
  assert growth.steps[0].partial[0].words == []
  assert len(growth.steps) > 2
  ended = set()
  for before, step in zip([None, *growth.steps], growth.steps):
    scores = [partial.log_probability for partial in step.partial]
    assert scores == sorted(scores, reverse=True) and len(scores) <= 7
    for partial in step.partial:
      probabilities = [p for _, p in partial.alternatives]
      assert len(probabilities) == 7
      assert probabilities == sorted(probabilities, reverse=True)
      if before:
        parent = before.partial[partial.parent]
        assert parent.words == partial.words[:-1]
        # More ids than one are of no word.
        assert any(
          word == partial.words[-1]
          and partial.log_probability
          == pytest.approx(parent.log_probability + math.log(p), abs=1e-6)
          for word, p in parent.alternatives
        )
    for caption in step.ended:
      assert caption.words[-1] == '</S>'
      assert step.partial[caption.parent].words == caption.words[:-1]
      ended.add((' '.join(caption.words[:-1]), caption.log_probability))
  found = {(c.text, c.log_probability) for c in growth.captions}
  assert ended and found <= ended


def test_steps_are_shown_of_the_search_of_2016_only(captioner):
  other = captioner.with_search(sample=True)
  with pytest.raises(ValueError, match='of a search as in 2016'):
    explanation.grow(other.model, captioner.decode(testing.jpeg()))


@pytest.mark.parametrize('members', [1, 2])
def test_maps_are_averaged_to_the_features(directory, members):
  captioner = library.Captioner.load([directory] * members).model
  images = [captioner.decode(testing.jpeg(i)) for i in range(2)]
  maps = captioner.feature_maps(images)
  features = captioner.encode(images)
  assert len(maps.shape) == 4 and maps.shape[3] == features.shape[1]
  np.testing.assert_allclose(tf.reduce_mean(maps, [1, 2]), features, rtol=1e-4)


def test_maps_are_the_first_order_of_log_probabilities(captioner):
  model = captioner.model
  image = captioner.decode(testing.jpeg(1))
  words = ['a', 'dog', 'unheard-of', 'cat']
  found = explanation.attribute(model, image, words)
  maps = model.feature_maps([image])[0].numpy()
  rows, columns, _ = maps.shape
  assert found.words == words
  assert found.maps.shape == (4, rows, columns)

  def log_probabilities(features):
    state = model.model.initial_state(features[np.newaxis])
    values, word = [], model.vocab.start_id
    for following in map(model.vocab.word_to_id, words):
      softmax, state = model.model.inference_step(
        tf.constant([word], tf.int64), state
      )
      values.append(math.log(softmax[0, following]))
      word = following
    return np.array(values)

  features = maps.mean(axis=(0, 1))
  np.testing.assert_allclose(
    found.log_probabilities, log_probabilities(features), atol=1e-5
  )
  # What is lost if a place counts a little less.
  share = 0.02
  for row, column in ((0, 0), (rows - 1, columns - 1)):
    change = share * maps[row, column] / (rows * columns)
    difference = log_probabilities(features + change) - log_probabilities(
      features - change
    )
    np.testing.assert_allclose(
      difference / (2 * share),
      found.maps[:, row, column],
      rtol=0.05,
      atol=2e-4 * np.abs(found.maps).max() / share,
    )


def test_the_middle_of_an_image_is_seen(captioner):
  left, top, right, bottom = captioner.model.seen
  assert left == top and right == bottom
  # Of 346 pixels 75 are taken.
  assert right - left == pytest.approx(75 / 346)
  assert left + right == pytest.approx(1)


def test_without_a_word_there_is_nothing_to_say(captioner):
  with pytest.raises(ValueError, match='no word'):
    explanation.attribute(captioner.model, None, [])


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
