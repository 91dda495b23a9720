# SPDX-License-Identifier: Apache-2.0
"""Tests of beam_search."""

import json
import sys

import numpy as np
import pytest
import tensorflow as tf

from im2txt import configuration
from im2txt import show_and_tell_model
from im2txt import testing
from im2txt.inference_utils import beam_search
from im2txt.inference_utils import caption_generator

_START, _END, _WORDS = 1, 0, 7
_IMAGES, _STEPS = 60, 40


class Models:
  """For each image, tables of the next word's probabilities.

  Args:
    tables: [images, steps, words, words]: how probable the word of the last
      axis is at a step after the word of the one before.

  Attributes:
    states: float32 [images, 2], the initial states: the image and the step.
    steps: number of calls of `step`.
  """

  def __init__(self, tables):
    self._tables = tf.constant(tables, tf.float32)
    self.states = np.zeros([len(tables), 2], np.float32)
    self.states[:, 0] = np.arange(len(tables))
    self.steps = tf.Variable(0)

  def step(self, words, states):
    self.steps.assign_add(1)
    indices = tf.concat(
        [tf.cast(states, tf.int64), tf.cast(words, tf.int64)[:, None]], 1)
    return tf.gather_nd(self._tables, indices), states + [[0.0, 1.0]]


def random_tables(seed, sharpness):
  # Other ones at each step: else captions with the same pairs of words in
  # another order would be equally probable.
  logits = np.random.default_rng(seed).normal(
      scale=sharpness, size=[_IMAGES, _STEPS, _WORDS, _WORDS])
  return tf.nn.softmax(logits).numpy()


def at_every_step(table):
  return np.broadcast_to(table, [1, _STEPS, _WORDS, _WORDS])


def search(model, **options):
  """Returns what the graph and what the full Python search find."""
  found = tf.function(
      lambda states: beam_search.beam_search(
          model.step, states, _START, _END, **options),
      autograph=False)(tf.constant(model.states))
  steps = int(model.steps)
  expected = caption_generator.CaptionGenerator(
      lambda words, states: [np.asarray(x) for x in model.step(words, states)],
      _START, _END, **options).beam_search(model.states)
  return found, steps, expected


def captions(found, image):
  """Returns (sentences, log probabilities, scores) of one image."""
  n = int(tf.math.count_nonzero(found.lengths[image]))
  return ([s[:k].tolist() for s, k in zip(
      found.sentences[image].numpy(), found.lengths[image].numpy()) if k],
          found.log_probabilities[image].numpy()[:n],
          found.scores[image].numpy()[:n])


def assert_equal(found, image, expected, message='', tolerance=1e-12):
  sentences, log_probabilities, scores = captions(found, image)
  assert sentences == [c.sentence for c in expected], message
  np.testing.assert_allclose(
      log_probabilities, [c.logprob for c in expected], atol=tolerance,
      err_msg=message)
  np.testing.assert_allclose(
      scores, [c.score for c in expected], atol=tolerance, err_msg=message)


@pytest.mark.parametrize(
    'beam_size, max_caption_length, length_normalization_factor', [
        (1, 20, 0.0), (3, 20, 0.0), (3, 20, 0.7), (3, 30, 2.0), (4, 2, 1.0),
        (2, 1, 0.0), (12, 6, 0.5)])
@pytest.mark.parametrize('sharpness', [0.5, 3.0])
def test_equals_the_full_search_of_random_models(
    beam_size, max_caption_length, length_normalization_factor, sharpness):
  found, _, expected = search(
      Models(random_tables(beam_size, sharpness)), beam_size=beam_size,
      max_caption_length=max_caption_length,
      length_normalization_factor=length_normalization_factor)
  assert not found.ambiguous.numpy().any()
  for image in range(_IMAGES):
    assert_equal(found, image, expected[image], f'image {image}')


@pytest.mark.parametrize('beam_size, length_normalization_factor', [
    (2, 0.0), (3, 0.0), (3, 0.7), (12, 0.5)])
def test_equals_the_full_search_if_a_word_is_left_out(
    beam_size, length_normalization_factor):
  tables = random_tables(beam_size, 1.0)
  # The likeliest by far; what it had is nobody's now.
  tables *= 0.2
  tables[..., 4] = 0.0
  found, steps, expected = search(
      Models(tables), beam_size=beam_size, max_caption_length=30,
      length_normalization_factor=length_normalization_factor)
  assert steps < 29
  assert not found.ambiguous.numpy().any()
  for image in range(_IMAGES):
    assert_equal(found, image, expected[image], f'image {image}')
    assert all(4 not in sentence for sentence in captions(found, image)[0])


@pytest.mark.parametrize('length_normalization_factor', [0.0, 0.3])
def test_ends_before_the_full_search(length_normalization_factor):
  tables = random_tables(0, 0.5)
  tables[..., _END] = 2.0
  tables /= tables.sum(axis=-1, keepdims=True)
  found, steps, expected = search(
      Models(tables), beam_size=3, max_caption_length=40,
      length_normalization_factor=length_normalization_factor)
  assert steps < 39
  for image in range(_IMAGES):
    assert_equal(found, image, expected[image], f'image {image}')


def test_a_long_caption_that_gains_by_its_length_is_waited_for():
  # Two short captions fill the list; then comes a certain walk through the
  # other words. It is less probable than either, but has the greater score once
  # length counts.
  table = np.zeros([_WORDS, _WORDS])
  table[_START, [_END, 2]] = 0.5, 0.4
  table[2, [_END, 3]] = 0.6, 0.4
  for word in range(3, _WORDS - 1):
    table[word, word + 1] = 1.0
  table[_WORDS - 1, _END] = 1.0
  for factor, length in ((0.0, 2), (1.0, _WORDS)):
    found, _, expected = search(
        Models(at_every_step(table)), beam_size=2, max_caption_length=20,
        length_normalization_factor=factor)
    assert_equal(found, 0, expected[0])
    assert found.lengths[0, 0] == length


def test_equal_scores_are_told():
  # Probabilities that are powers of two: some captions are equally good.
  powers = np.random.default_rng(0).integers(
      1, 30, [_IMAGES, _STEPS, _WORDS, _WORDS])
  found, _, expected = search(
      Models(0.5 ** powers), beam_size=3, max_caption_length=6)
  ambiguous = found.ambiguous.numpy()
  differ = [captions(found, i)[0] != [c.sentence for c in expected[i]]
            for i in range(_IMAGES)]
  assert any(differ) and not all(ambiguous)
  assert not (differ & ~ambiguous).any()


def test_words_below_the_threshold_and_incomplete_captions():
  table = np.zeros([_WORDS, _WORDS])
  table[:, _END], table[:, 2] = 1 - 1e-13, 1e-13
  found, _, expected = search(Models(at_every_step(table)), beam_size=3)
  assert captions(found, 0)[0] == [[_START, _END]]
  assert_equal(found, 0, expected[0])
  tables = random_tables(0, 1.0)[:1]
  tables[..., _END] = 0.0
  found, _, expected = search(
      Models(tables), beam_size=3, max_caption_length=4)
  assert found.lengths.numpy().tolist() == [[4, 4, 4]]
  assert_equal(found, 0, expected[0])


@pytest.fixture(scope='module', name='reference')
def fixture_reference():
  """(cases, initial states by image, model, search by options)."""
  with open(testing.testdata_path('inference', 'beam_searches.json'),
            encoding='utf-8') as f:
    cases = json.load(f)
  model = show_and_tell_model.ShowAndTellModel(
      configuration.ModelConfig(
          vocab_size=100, embedding_size=32, num_lstm_units=24),
      with_inception=False)
  vectors = testing.assign_decoder(model)
  states = dict(zip(vectors['files'], tf.constant(vectors['initial_state'])))
  searches = {}

  def graph_search(state, **options):
    key = tuple(sorted(options.items()))
    if key not in searches:
      searches[key] = tf.function(
          lambda states: beam_search.beam_search(
              model.inference_step, states, cases['start_id'], cases['end_id'],
              **options), autograph=False)
    return searches[key](state[None])

  return cases, states, model, graph_search


@pytest.mark.parametrize(
    'weights', ['small', 'eos_impossible', 'eos_certain', 'all_ties'])
def test_every_search_of_the_2016_program(reference, weights):
  cases, states, model, graph_search = reference
  testing.assign_decoder(model)
  biases = model.logits_biases.numpy()
  if weights == 'all_ties':
    model.logits_weights.assign(tf.zeros_like(model.logits_weights))
    biases[:] = 0
  elif weights != 'small':
    biases[cases['end_id']] = -1e4 if weights == 'eos_impossible' else 1e4
  model.logits_biases.assign(biases)
  mine = [c for c in cases['cases'] if c['weights'] == weights]
  assert mine
  for case in mine:
    options = {k: case[k] for k in (
        'beam_size', 'max_caption_length', 'length_normalization_factor')
               if k in case}
    found = graph_search(states[case['image']], **options)
    message = f'{case["image"]} {options}'
    if found.ambiguous[0]:
      # The Python search answers these; its own test holds it to the vectors.
      assert weights == 'all_ties', message
    else:
      assert_equal(found, 0, [
          caption_generator.Caption(c['ids'], None, c['logprob'], c['score'])
          for c in case['captions']], message, tolerance=1e-4)


@pytest.mark.parametrize('n', [1, 3, 20])
@pytest.mark.parametrize('vocab_size', [500, 2999, 12000])
def test_top_words_are_those_of_top_k(vocab_size, n):
  rng = np.random.default_rng(vocab_size)
  distinct = rng.random([48, vocab_size], np.float32)
  # Few values, so that most of the best are equal; and all of them.
  tied = np.round(distinct[:, ::-1], 2)
  same = np.zeros_like(distinct)
  for softmax in distinct, tied, same:
    for got, expected in zip(beam_search.top_words(tf.constant(softmax), n),
                             tf.math.top_k(softmax, n)):
      np.testing.assert_array_equal(got, expected)


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
