# SPDX-License-Identifier: Apache-2.0
"""Tests of beam_search."""

import itertools
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
from im2txt.inference_utils import decoding_rules
from im2txt.inference_utils import search_config

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
      [tf.cast(states, tf.int64), tf.cast(words, tf.int64)[:, None]], 1
    )
    return tf.gather_nd(self._tables, indices), states + [[0.0, 1.0]]


def random_tables(seed, sharpness):
  # Other ones at each step: else captions with the same pairs of words in
  # another order would be equally probable.
  logits = np.random.default_rng(seed).normal(
    scale=sharpness, size=[_IMAGES, _STEPS, _WORDS, _WORDS]
  )
  return tf.nn.softmax(logits).numpy()


def at_every_step(table):
  return np.broadcast_to(table, [1, _STEPS, _WORDS, _WORDS])


def search(model, mark_ties=True, **options):
  """Returns what the graph and what the full Python search find."""
  found = tf.function(
    lambda states: beam_search.beam_search(
      model.step,
      states,
      _START,
      _END,
      search_config.SearchConfig(**options),
      mark_ties=mark_ties,
    ),
    autograph=False,
  )(tf.constant(model.states))
  steps = int(model.steps)
  expected = caption_generator.CaptionGenerator(
    lambda words, states: [np.asarray(x) for x in model.step(words, states)],
    _START,
    _END,
    search_config.SearchConfig(**options),
  ).beam_search(model.states)
  return found, steps, expected


def captions(found, image):
  """Returns (sentences, log probabilities, scores) of one image."""
  n = int(tf.math.count_nonzero(found.lengths[image]))
  return (
    [
      s[:k].tolist()
      for s, k in zip(
        found.sentences[image].numpy(), found.lengths[image].numpy()
      )
      if k
    ],
    found.log_probabilities[image].numpy()[:n],
    found.scores[image].numpy()[:n],
  )


def assert_equal(found, image, expected, message='', tolerance=1e-12):
  sentences, log_probabilities, scores = captions(found, image)
  assert sentences == [c.sentence for c in expected], message
  np.testing.assert_allclose(
    log_probabilities,
    [c.logprob for c in expected],
    atol=tolerance,
    err_msg=message,
  )
  np.testing.assert_allclose(
    scores, [c.score for c in expected], atol=tolerance, err_msg=message
  )


@pytest.mark.parametrize(
  'beam_size, max_caption_length, length_normalization_factor',
  [
    (1, 20, 0.0),
    (3, 20, 0.0),
    (3, 20, 0.7),
    (3, 30, 2.0),
    (4, 2, 1.0),
    (2, 1, 0.0),
    (12, 6, 0.5),
  ],
)
@pytest.mark.parametrize('sharpness', [0.5, 3.0])
def test_equals_the_full_search_of_random_models(
  beam_size, max_caption_length, length_normalization_factor, sharpness
):
  found, _, expected = search(
    Models(random_tables(beam_size, sharpness)),
    beam_size=beam_size,
    max_caption_length=max_caption_length,
    length_normalization_factor=length_normalization_factor,
  )
  assert not found.ambiguous.numpy().any()
  for image in range(_IMAGES):
    assert_equal(found, image, expected[image], f'image {image}')


@pytest.mark.parametrize(
  'beam_size, length_normalization_factor',
  [(2, 0.0), (3, 0.0), (3, 0.7), (12, 0.5)],
)
def test_equals_the_full_search_if_a_word_is_left_out(
  beam_size, length_normalization_factor
):
  tables = random_tables(beam_size, 1.0)
  # The likeliest by far; what it had is nobody's now.
  tables *= 0.2
  tables[..., 4] = 0.0
  found, steps, expected = search(
    Models(tables),
    beam_size=beam_size,
    max_caption_length=30,
    length_normalization_factor=length_normalization_factor,
  )
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
    Models(tables),
    beam_size=3,
    max_caption_length=40,
    length_normalization_factor=length_normalization_factor,
  )
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
      Models(at_every_step(table)),
      beam_size=2,
      max_caption_length=20,
      length_normalization_factor=factor,
    )
    assert_equal(found, 0, expected[0])
    assert found.lengths[0, 0] == length


def test_equal_scores_are_told():
  # Probabilities that are powers of two: some captions are equally good.
  powers = np.random.default_rng(0).integers(
    1, 30, [_IMAGES, _STEPS, _WORDS, _WORDS]
  )
  found, _, expected = search(
    Models(0.5**powers), beam_size=3, max_caption_length=6
  )
  ambiguous = found.ambiguous.numpy()
  differ = [
    captions(found, i)[0] != [c.sentence for c in expected[i]]
    for i in range(_IMAGES)
  ]
  assert any(differ) and not all(ambiguous)
  assert not (differ & ~ambiguous).any()


def test_of_equal_scores_the_first_that_was_found_is_better_if_not_told():
  same = np.full([_WORDS, _WORDS], 1 / _WORDS)
  found, _, _ = search(
    Models(at_every_step(same)), mark_ties=False, beam_size=3
  )
  assert not found.ambiguous[0]
  assert captions(found, 0)[0] == [
    [_START, _END],
    [_START, 1, _END],
    [_START, 2, _END],
  ]


def test_images_without_equal_scores_do_not_depend_on_how_these_are_settled():
  powers = np.random.default_rng(0).integers(
    1, 30, [_IMAGES, _STEPS, _WORDS, _WORDS]
  )
  tables = 0.5**powers
  told, settled = (
    search(Models(tables), mark_ties, beam_size=3, max_caption_length=6)[0]
    for mark_ties in (True, False)
  )
  assert told.ambiguous.numpy().any() and not settled.ambiguous.numpy().any()
  for image in range(_IMAGES):
    sentences, log_probabilities, _ = captions(settled, image)
    if not told.ambiguous[image]:
      assert sentences == captions(told, image)[0]
    np.testing.assert_allclose(
      log_probabilities,
      [
        sum(
          np.log(tables[image, step, word, following])
          for step, (word, following) in enumerate(itertools.pairwise(sentence))
        )
        for sentence in sentences
      ],
    )
    assert (np.diff(log_probabilities) <= 1e-9).all()


def test_words_below_the_threshold_and_incomplete_captions():
  table = np.zeros([_WORDS, _WORDS])
  table[:, _END], table[:, 2] = 1 - 1e-13, 1e-13
  found, _, expected = search(Models(at_every_step(table)), beam_size=3)
  assert captions(found, 0)[0] == [[_START, _END]]
  assert_equal(found, 0, expected[0])
  tables = random_tables(0, 1.0)[:1]
  tables[..., _END] = 0.0
  found, _, expected = search(Models(tables), beam_size=3, max_caption_length=4)
  assert found.lengths.numpy().tolist() == [[4, 4, 4]]
  assert_equal(found, 0, expected[0])


class Remembering:
  """A model whose state holds the caption, and which strikes out words by it.

  Args:
    model: `Models`.
    strikes_out: callable (caption, a list of words) -> words of probability 0.
  """

  def __init__(self, model, strikes_out):
    self._model = model
    self._strikes_out = strikes_out
    self.states = np.concatenate(
      [model.states, np.full([len(model.states), _STEPS], -1)], axis=1
    )

  def step(self, words, states):
    states = np.array(states)
    softmax, states[:, :2] = (
      np.array(x) for x in self._model.step(words, states[:, :2])
    )
    for row, (word, state) in enumerate(zip(words, states)):
      length = int(state[1])
      state[1 + length] = word
      softmax[
        row, self._strikes_out(state[2 : 2 + length].astype(int).tolist())
      ] = 0
    return softmax, states


def graph_search(model, search, required=()):
  rules = decoding_rules.rules(search, _END, required)
  return tf.function(
    lambda states: beam_search.beam_search(
      model.step, states, _START, _END, search, rules, required
    ),
    autograph=False,
  )(tf.constant(model.states))


def _twice(caption, n):
  """Words that would make n words in a row appear again."""
  ngrams = {tuple(caption[i : i + n]) for i in range(len(caption) - n + 1)}
  return [
    word
    for word in range(_WORDS)
    if tuple(caption[len(caption) + 1 - n :] + [word]) in ngrams
  ]


@pytest.mark.parametrize(
  'settings, strikes_out',
  [
    ({'min_caption_length': 8}, lambda c: [_END] if len(c) < 7 else []),
    ({'repeated_words': 'apart'}, lambda c: c[-1:]),
    ({'repeated_words': 'never'}, lambda c: c),
    ({'allow_repeated_trigram': False}, lambda c: _twice(c, 3)),
    (
      {
        'allow_repeated_trigram': False,
        'min_caption_length': 12,
        'repeated_words': 'apart',
      },
      lambda c: _twice(c, 3) + c[-1:] + ([_END] if len(c) < 11 else []),
    ),
    # After all words but the end there is no word left.
    (
      {'repeated_words': 'never', 'min_caption_length': 12},
      lambda c: c + [_END],
    ),
  ],
)
@pytest.mark.parametrize('beam_size', [1, 4])
def test_rules_give_what_the_full_search_gives_of_a_model_that_has_them(
  settings, strikes_out, beam_size
):
  search_for = search_config.SearchConfig(
    beam_size=beam_size,
    max_caption_length=14,
    length_normalization_factor=0.4,
    **settings,
  )
  # From step to step nearly the same words: they would be repeated.
  tables = random_tables(beam_size, 1.0)[:12] * random_tables(5, 2.0)[:12, :1]
  tables /= tables.sum(axis=-1, keepdims=True)
  model = Models(tables)
  found = graph_search(model, search_for)
  remembering = Remembering(model, strikes_out)
  expected = caption_generator.CaptionGenerator(
    remembering.step, _START, _END, search_for
  ).beam_search(remembering.states)
  free = graph_search(
    model,
    search_config.SearchConfig(
      beam_size=beam_size,
      max_caption_length=14,
      length_normalization_factor=0.4,
    ),
  )
  for image in range(len(tables)):
    assert_equal(found, image, expected[image], f'image {image}')
  assert not np.array_equal(found.sentences, free.sentences)


def all_captions(table, max_length):
  """Returns {complete caption: its log probability} of one image's tables."""
  found, partial = {}, {(_START,): 0.0}
  for t in range(1, max_length):
    longer = {}
    for caption, logprob in partial.items():
      for word in range(_WORDS):
        p = float(table[t - 1, caption[-1], word])
        target = found if word == _END else longer
        target[caption + (word,)] = logprob + np.log(p)
    partial = longer
  return found


@pytest.mark.parametrize('required', [[5], [5, 3]])
@pytest.mark.parametrize('factor', [0.0, 0.8])
def test_required_words_with_a_wide_beam_equal_brute_force(required, factor):
  tables = random_tables(3, 1.0)[:4]
  found = graph_search(
    Models(tables),
    search_config.SearchConfig(
      beam_size=150, max_caption_length=5, length_normalization_factor=factor
    ),
    required,
  )
  for image, table in enumerate(tables.astype(np.float32)):
    expected = sorted(
      (
        (logprob / len(c) ** factor, list(c))
        for c, logprob in all_captions(table, 5).items()
        if set(required) <= set(c)
      ),
      reverse=True,
    )[:150]
    sentences, _, scores = captions(found, image)
    assert sentences == [c for _, c in expected]
    np.testing.assert_allclose(scores, [s for s, _ in expected], atol=1e-9)


def test_a_narrow_beam_finds_words_that_are_unlikely():
  tables = random_tables(1, 1.0)
  tables[..., [4, 6]] *= 1e-4
  required = [6, 4]
  model = Models(tables)
  search_for = search_config.SearchConfig(beam_size=3)
  found = graph_search(model, search_for, required)
  free = graph_search(model, search_for)
  better = 0
  for image in range(_IMAGES):
    sentences, log_probabilities, _ = captions(found, image)
    assert len(sentences) == len(set(map(tuple, sentences))) == 3
    for sentence, log_probability in zip(sentences, log_probabilities):
      assert {4, 6} < set(sentence) and sentence[-1] == _END
      assert log_probability == pytest.approx(
        sum(
          np.log(float(np.float32(tables[image, t, a, b])))
          for t, (a, b) in enumerate(itertools.pairwise(sentence))
        )
      )
    assert not any({4, 6} & set(s) for s in captions(free, image)[0])
    # Words put after one another as soon as possible would be a bad caption.
    better += log_probabilities[0] > np.log(
      tables[image, 0, _START, 4]
      * tables[image, 1, 4, 6]
      * tables[image, 2, 6, _END]
    )
  assert better > _IMAGES / 2


def test_captions_with_most_of_the_words_if_none_has_all():
  tables = random_tables(0, 1.0)[:5]
  tables[..., 6] = 0.0
  found = graph_search(
    Models(tables),
    search_config.SearchConfig(beam_size=2, max_caption_length=6),
    [6, 4],
  )
  for image in range(5):
    sentences = captions(found, image)[0]
    assert len(sentences) == 2
    # None of them may end.
    assert all(4 in s and _END not in s and len(s) == 6 for s in sentences)


def diverse_search(table, width, groups, penalty, max_length, factor):
  """Diverse beam search of one image as the paper's algorithm 1 has it."""
  partial = [[((_START,), 0.0, 0.0)] for _ in range(groups)]
  complete = [[] for _ in range(groups)]
  for t in range(1, max_length):
    used = np.zeros([_WORDS])
    for g in range(groups):
      candidates = []
      for caption, logprob, penalized in partial[g]:
        row = table[t - 1, caption[-1]].astype(np.float64)
        order = np.argsort(-(row * np.exp(-penalty * used)), kind='stable')
        for word in order[:width].tolist():
          new = (
            caption + (word,),
            logprob + np.log(row[word]),
            penalized + np.log(row[word]) - penalty * used[word],
          )
          (complete[g] if word == _END else candidates).append(new)
      complete[g].sort(key=lambda c: -c[2] / len(c[0]) ** factor)
      del complete[g][width:]
      partial[g] = sorted(candidates, key=lambda c: -c[2])[:width]
      for caption, _, _ in partial[g]:
        used[caption[-1]] += 1
  if not any(complete):
    complete, factor = partial, 0.0
  return sorted(
    (c for group in complete for c in group),
    key=lambda c: -c[1] / len(c[0]) ** factor,
  )


@pytest.mark.parametrize(
  'beam_size, groups, penalty, factor',
  [(2, 2, 0.7, 0.0), (6, 3, 0.5, 0.0), (4, 2, 2.0, 0.6), (4, 4, 0.0, 0.0)],
)
def test_groups_equal_the_diverse_beam_search_of_the_paper(
  beam_size, groups, penalty, factor
):
  tables = random_tables(beam_size + groups, 1.0)[:20]
  tables[..., _END] += 0.1
  tables /= tables.sum(axis=-1, keepdims=True)
  found = graph_search(
    Models(tables),
    search_config.SearchConfig(
      beam_size=beam_size,
      beam_groups=groups,
      beam_group_penalty=penalty,
      max_caption_length=15,
      length_normalization_factor=factor,
    ),
  )
  for image, table in enumerate(tables.astype(np.float32)):
    expected = diverse_search(
      table, beam_size // groups, groups, penalty, 15, factor
    )
    sentences, log_probabilities, scores = captions(found, image)
    np.testing.assert_allclose(
      log_probabilities, [c[1] for c in expected], atol=1e-5
    )
    np.testing.assert_allclose(
      scores, [c[1] / len(c[0]) ** factor for c in expected], atol=1e-5
    )
    if penalty:
      assert sentences == [list(c[0]) for c in expected], f'image {image}'
    else:  # All groups find the same: they do not meet.
      assert len(set(map(tuple, sentences))) == 1


def test_groups_have_more_different_captions():
  model = Models(random_tables(8, 3.0))

  def first_words(**settings):
    found = graph_search(
      model, search_config.SearchConfig(beam_size=4, **settings)
    )
    return np.mean(
      [len({s[1] for s in captions(found, i)[0]}) for i in range(_IMAGES)]
    )

  assert first_words(beam_groups=4, beam_group_penalty=3.0) > (
    first_words() + 0.5
  )


def test_groups_banks_and_rules_go_together():
  model = Models(random_tables(4, 1.0))
  found = graph_search(
    model,
    search_config.SearchConfig(
      beam_size=4,
      beam_groups=2,
      beam_group_penalty=1.0,
      min_caption_length=6,
      repeated_words='never',
      max_caption_length=10,
    ),
    [5, 2],
  )
  for image in range(_IMAGES):
    sentences = captions(found, image)[0]
    assert len(sentences) >= 2
    for sentence in sentences:
      assert {5, 2} < set(sentence)
      assert len(sentence) == len(set(sentence)) >= 6


@pytest.fixture(scope='module', name='reference')
def fixture_reference():
  """(cases, initial states by image, model, search by options)."""
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
  states = dict(zip(vectors['files'], tf.constant(vectors['initial_state'])))
  searches = {}

  def graph_search(state, **options):
    key = tuple(sorted(options.items()))
    if key not in searches:
      searches[key] = tf.function(
        lambda states: beam_search.beam_search(
          model.inference_step,
          states,
          cases['start_id'],
          cases['end_id'],
          search_config.SearchConfig(**options),
        ),
        autograph=False,
      )
    return searches[key](state[None])

  return cases, states, model, graph_search


@pytest.mark.parametrize(
  'weights', ['small', 'eos_impossible', 'eos_certain', 'all_ties']
)
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
    options = {
      k: case[k]
      for k in (
        'beam_size',
        'max_caption_length',
        'length_normalization_factor',
      )
      if k in case
    }
    found = graph_search(states[case['image']], **options)
    message = f'{case["image"]} {options}'
    if found.ambiguous[0]:
      # The Python search answers these; its own test holds it to the vectors.
      assert weights == 'all_ties', message
    else:
      assert_equal(
        found,
        0,
        [
          caption_generator.Caption(c['ids'], None, c['logprob'], c['score'])
          for c in case['captions']
        ],
        message,
        tolerance=1e-4,
      )


@pytest.mark.parametrize('n', [1, 3, 20])
@pytest.mark.parametrize('vocab_size', [500, 2999, 12000])
def test_top_words_are_those_of_top_k(vocab_size, n):
  rng = np.random.default_rng(vocab_size)
  distinct = rng.random([48, vocab_size], np.float32)
  # Few values, so that most of the best are equal; and all of them.
  tied = np.round(distinct[:, ::-1], 2)
  same = np.zeros_like(distinct)
  for softmax in distinct, tied, same:
    for got, expected in zip(
      beam_search.top_words(tf.constant(softmax), n), tf.math.top_k(softmax, n)
    ):
      np.testing.assert_array_equal(got, expected)


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
