# SPDX-License-Identifier: Apache-2.0
"""Tests of sampling."""

import collections
import itertools
import math
import sys

import numpy as np
import pytest
import tensorflow as tf

from im2txt.inference_utils import decoding_rules
from im2txt.inference_utils import sampling
from im2txt.inference_utils.search_config import SearchConfig

_START, _END = 1, 0
# From each word to each word.
_TABLE = np.array(
  [
    [1.0, 0.0, 0.0, 0.0],
    [0.1, 0.0, 0.6, 0.3],
    [0.5, 0.0, 0.1, 0.4],
    [0.7, 0.0, 0.3, 0.0],
  ],
  np.float32,
)


def sample(images=1, first_image=0, rules=False, **settings):
  """Returns the captions drawn for images that all are as _TABLE has it."""
  search = SearchConfig(sample=True, **settings)

  def step(words, states):
    return tf.gather(_TABLE, words), states

  return tf.function(
    lambda: sampling.sample(
      step,
      tf.zeros([images, 1]),
      _START,
      _END,
      search,
      decoding_rules.rules(search, _END) if rules else (),
      first_image,
    ),
    autograph=False,
  )()


def sentences(found, image=0):
  return [
    tuple(s[:n])
    for s, n in zip(
      found.sentences[image].numpy().tolist(), found.lengths[image].numpy()
    )
  ]


def probability(sentence, table=_TABLE):
  return math.prod(table[a][b] for a, b in itertools.pairwise(sentence))


def test_captions_are_as_frequent_as_they_are_probable():
  count = 4000
  found = sample(beam_size=count, max_caption_length=6)
  seen = collections.Counter(sentences(found))
  assert sum(seen.values()) == count and len(seen) > 20
  for sentence, times in seen.most_common(10):
    p = probability(sentence)
    # Five standard deviations.
    assert abs(times - count * p) < 5 * (count * p * (1 - p)) ** 0.5, sentence
  np.testing.assert_allclose(
    found.log_probabilities[0],
    [math.log(probability(s)) for s in sentences(found)],
    atol=1e-6,
  )
  # Best first.
  assert (np.diff(found.scores[0]) <= 0).all()


def test_the_temperature_makes_likely_words_likelier():
  count = 2000
  table = _TABLE**2 / (_TABLE**2).sum(axis=1, keepdims=True)
  found = sample(beam_size=count, max_caption_length=6, temperature=0.5)
  best = (_START, 2, _END)
  p = probability(best, table)
  times = sentences(found).count(best)
  assert abs(times - count * p) < 5 * (count * p * (1 - p)) ** 0.5
  # The probability that is told is the model's.
  assert found.log_probabilities[0, sentences(found).index(best)].numpy() == (
    pytest.approx(math.log(0.6 * 0.5))
  )
  coldest = sample(beam_size=50, temperature=1e-6)
  assert set(sentences(coldest)) == {best}


def test_an_image_gets_the_same_in_any_batch():
  together = sample(images=4, beam_size=5)
  assert len({str(sentences(together, i)) for i in range(4)}) == 4
  for image in range(4):
    alone = sample(first_image=image, beam_size=5)
    assert sentences(alone) == sentences(together, image)
  assert sentences(sample(beam_size=5, sampling_seed=1)) != (
    sentences(sample(beam_size=5))
  )


def test_rules_hold_and_lengths_too():
  for sentence in sentences(
    sample(
      rules=True,
      beam_size=300,
      min_caption_length=4,
      max_caption_length=5,
      repeated_words='apart',
    )
  ):
    assert 4 <= len(sentence) <= 5
    assert all(a != b for a, b in itertools.pairwise(sentence))
    assert len(sentence) == 5 or sentence[-1] == _END


def test_a_caption_that_no_word_may_follow_ends_there():
  # Of 2 and 3 each once, and then only the end word, which is too early.
  found = sample(
    rules=True, beam_size=40, min_caption_length=6, repeated_words='never'
  )
  assert set(sentences(found)) == {(_START, 2, 3), (_START, 3, 2)}
  np.testing.assert_allclose(
    found.log_probabilities[0],
    [math.log(probability(s)) for s in sentences(found)],
    atol=1e-6,
  )


def test_length_normalization_ranks_samples():
  found = sample(beam_size=100, length_normalization_factor=1.0)
  lengths = found.lengths[0].numpy()
  np.testing.assert_allclose(
    found.scores[0], found.log_probabilities[0] / lengths
  )
  assert (np.diff(found.scores[0]) <= 0).all()
  assert (np.diff(found.log_probabilities[0]) > 0).any()


@pytest.mark.parametrize(
  'settings, expected',
  [
    ({}, [0.1, 0.4, 0.2, 0.3]),
    ({'top_k': 2}, [0, 0.4, 0, 0.3]),
    ({'top_k': 9}, [0.1, 0.4, 0.2, 0.3]),
    ({'top_p': 0.39}, [0, 0.4, 0, 0]),
    ({'top_p': 0.41}, [0, 0.4, 0, 0.3]),
    ({'top_p': 0.95}, [0.1, 0.4, 0.2, 0.3]),
    ({'top_p': 1e-9}, [0, 0.4, 0, 0]),
    # Of the two that are left, 0.4 is more than half.
    ({'top_k': 2, 'top_p': 0.5}, [0, 0.4, 0, 0]),
    # Powers of the shares of the likeliest: 1/16, 1, 1/4, 9/16.
    ({'temperature': 0.5, 'top_p': 0.8}, [0, 1, 0, 9 / 16]),
  ],
)
def test_what_words_are_drawn_by(settings, expected):
  found = sampling.filtered(
    tf.constant([[0.1, 0.4, 0.2, 0.3]]), SearchConfig(sample=True, **settings)
  )
  np.testing.assert_allclose(found, [expected], atol=1e-6)


def test_draw():
  weights = tf.constant([[0.0, 1.0, 0.0, 3.0, 0.0]] * 5)
  uniform = tf.constant([0.0, 0.2499, 0.2501, 0.75, 1 - 1e-16], tf.float64)
  assert sampling.draw(weights, uniform).numpy().tolist() == [1, 1, 3, 3, 3]


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
