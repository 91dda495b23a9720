# SPDX-License-Identifier: Apache-2.0
"""Tests of caption_generator."""

import itertools
import json
import math
import sys

import numpy as np
import pytest
import tensorflow as tf

from im2txt import configuration
from im2txt import show_and_tell_model
from im2txt import testing
from im2txt.inference_utils import caption_generator
from im2txt.inference_utils import search_config

# A hand-made language of the words a, b, c and the two special ones.
_START, _END, _A, _B, _C = range(5)


class MarkovModel:
  """Predicts the next word from the last alone.

  Attributes:
    table: float64 [words, words], row: the last word, column: the next.
  """

  def __init__(self, table):
    self.table = np.asarray(table)

  def step(self, words, states):
    assert len(words) == len(states)
    return self.table[words], states + 1


_MODEL = MarkovModel(
  [
    # START END   A    B    C
    [0.0, 0.05, 0.5, 0.3, 0.15],
    [0.0, 1.00, 0.0, 0.0, 0.00],
    [0.0, 0.30, 0.1, 0.4, 0.20],
    [0.0, 0.10, 0.2, 0.1, 0.60],
    [0.0, 0.60, 0.3, 0.1, 0.00],
  ]
)


def search(model, **kwargs):
  generator = caption_generator.CaptionGenerator(
    model.step, _START, _END, search_config.SearchConfig(**kwargs)
  )
  return generator.beam_search(np.zeros([1, 1], np.float32))[0]


def every_caption(model, max_length, normalization):
  """All complete captions with their log probabilities, best first."""
  found = []
  for n in range(max_length - 1):
    for words in itertools.product((_A, _B, _C), repeat=n):
      sentence = [_START, *words, _END]
      p = math.prod(model.table[a][b] for a, b in itertools.pairwise(sentence))
      if p > 0:
        score = math.log(p) / len(sentence) ** normalization
        found.append((score, math.log(p), sentence))
  return sorted(found, reverse=True)


@pytest.mark.parametrize('normalization', [0.0, 0.5, 1.0])
@pytest.mark.parametrize('max_length', [2, 3, 5])
def test_a_wide_beam_equals_brute_force(max_length, normalization):
  expected = every_caption(_MODEL, max_length, normalization)
  found = search(
    _MODEL,
    beam_size=500,
    max_caption_length=max_length,
    length_normalization_factor=normalization,
  )
  # Wide enough for everything: all captions, in order of their scores.
  assert len(found) == len(expected)
  np.testing.assert_allclose(
    [c.score for c in found], [e[0] for e in expected], rtol=1e-9
  )
  # Equally good ones may change places with one another.
  assert {tuple(c.sentence): pytest.approx(c.logprob) for c in found} == {
    tuple(e[2]): e[1] for e in expected
  }


def test_a_beam_of_one_is_greedy():
  (caption,) = search(_MODEL, beam_size=1, max_caption_length=9)
  # a (.5), b (.4), c (.6), then </S> (.6).
  assert caption.sentence == [_START, _A, _B, _C, _END]
  assert caption.logprob == pytest.approx(math.log(0.5 * 0.4 * 0.6 * 0.6))


def test_length_normalization_favours_longer_captions():
  def mean_length(factor):
    return np.mean(
      [
        len(c.sentence)
        for c in search(
          _MODEL,
          beam_size=5,
          max_caption_length=10,
          length_normalization_factor=factor,
        )
      ]
    )

  assert mean_length(2.0) > mean_length(0.0)


def test_incomplete_captions_when_none_ends():
  table = _MODEL.table.copy()
  table[:, _END] = 0.0
  captions = search(MarkovModel(table), beam_size=2, max_caption_length=4)
  assert [len(c.sentence) for c in captions] == [4, 4]
  assert all(_END not in c.sentence for c in captions)


def test_max_caption_length_one_is_the_start_word():
  (caption,) = search(_MODEL, beam_size=3, max_caption_length=1)
  assert caption.sentence == [_START] and caption.logprob == 0.0


def test_words_below_the_threshold_are_never_tried():
  table = np.zeros([5, 5])
  table[:, _END], table[:, _A] = 1 - 1e-13, 1e-13
  captions = search(MarkovModel(table), beam_size=3, max_caption_length=5)
  assert [c.sentence for c in captions] == [[_START, _END]]


def test_images_in_a_batch_do_not_meet():
  # The state tells the images apart: the second one has other words.
  other = _MODEL.table[:, [0, 1, 4, 2, 3]]

  def step(words, states):
    tables = np.where(states[:, :1, None] == 0, _MODEL.table, other)
    return tables[np.arange(len(words)), words], states

  generator = caption_generator.CaptionGenerator(
    step,
    _START,
    _END,
    search_config.SearchConfig(beam_size=3, max_caption_length=8),
  )
  states = np.array([[0.0], [1.0], [0.0]], np.float32)
  together = generator.beam_search(states)
  for state, captions in zip(states, together):
    (alone,) = generator.beam_search(state[None])
    assert [c.sentence for c in captions] == [c.sentence for c in alone]
  assert together[0][0].sentence != together[1][0].sentence


def test_a_caption_that_no_word_may_follow_stays_as_it_is():
  table = np.zeros([5, 5])
  table[_START, [_A, _B]] = 0.75, 0.25
  table[_A, _C] = 1.0
  captions = search(MarkovModel(table), beam_size=3, max_caption_length=9)
  assert [c.sentence for c in captions] == [[_START, _A, _C]]
  table[_A, _C] = 0.0
  captions = search(MarkovModel(table), beam_size=3, max_caption_length=9)
  assert [(c.sentence, c.logprob) for c in captions] == [
    ([_START, _A], math.log(0.75)),
    ([_START, _B], math.log(0.25)),
  ]


@pytest.mark.parametrize(
  'weights', ['small', 'eos_impossible', 'eos_certain', 'all_ties']
)
def test_every_search_of_the_2016_program(weights):
  with open(
    testing.testdata_path('inference', 'beam_searches.json'), encoding='utf-8'
  ) as f:
    cases = json.load(f)
  model = show_and_tell_model.ShowAndTellModel(
    configuration.ModelConfig(
      vocab_size=100, embedding_size=32, num_lstm_units=24
    ),
    with_inception=False,
  )
  vectors = testing.assign_decoder(model)
  biases = model.logits_biases.numpy()
  if weights == 'all_ties':
    model.logits_weights.assign(tf.zeros_like(model.logits_weights))
    biases[:] = 0
  elif weights != 'small':
    biases[cases['end_id']] = -1e4 if weights == 'eos_impossible' else 1e4
  model.logits_biases.assign(biases)
  step = tf.function(
    model.inference_step,
    autograph=False,
    input_signature=[
      tf.TensorSpec([None], tf.int64),
      tf.TensorSpec([None, 48]),
    ],
  )
  states = dict(zip(vectors['files'], vectors['initial_state']))
  mine = [c for c in cases['cases'] if c['weights'] == weights]
  assert mine
  for case in mine:
    options = {
      k: case[k]
      for k in (
        'beam_size',
        'max_caption_length',
        'length_normalization_factor',
      )
      if k in case
    }
    (captions,) = caption_generator.CaptionGenerator(
      lambda words, states: [x.numpy() for x in step(words, states)],
      cases['start_id'],
      cases['end_id'],
      search_config.SearchConfig(**options),
    ).beam_search(states[case['image']][None])
    expected = case['captions']
    message = f'{case["image"]} {options}'
    assert [c.sentence for c in captions] == [e['ids'] for e in expected], (
      message
    )
    for key in ('logprob', 'score'):
      np.testing.assert_allclose(
        [getattr(c, key) for c in captions],
        [e[key] for e in expected],
        atol=1e-4,
        err_msg=message,
      )


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
