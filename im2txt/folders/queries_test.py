# SPDX-License-Identifier: Apache-2.0
"""Tests of queries: the scores of photos, and their order."""

import sys
import types

import numpy as np
import pytest
import tensorflow as tf

from im2txt import configuration
from im2txt import show_and_tell_model
from im2txt.folders import queries
from im2txt.text import vocabulary

_WORDS = ['a', '<S>', '</S>', 'dog', 'cat', 'beach', '.']


class _Index:
  """Photos with random features, in two batches."""

  def __init__(self, count=7):
    # Of such sizes, and with such differences, as Inception's.
    self.features = (
      np.random.default_rng(1).gamma(0.3, 1.0, [count, 2048]).astype(np.float32)
    )
    self.paths = [f'{i}.jpg' for i in range(count)]

  def __len__(self):
    return len(self.paths)

  def batches(self):
    for rows in (slice(0, 4), slice(4, None)):
      yield self.paths[rows], self.features[rows]


@pytest.fixture(scope='module', name='captioner')
def fixture_captioner(tmp_path_factory):
  """What queries need of a captioner, with random weights."""
  path = tmp_path_factory.mktemp('words') / 'words'
  path.write_text(''.join(f'{word} 1\n' for word in _WORDS))
  config = configuration.ModelConfig(
    vocab_size=8, embedding_size=5, num_lstm_units=4, initializer_scale=0.5
  )
  tf.random.set_seed(1)
  model = show_and_tell_model.ShowAndTellModel(config, with_inception=False)
  model.image_embedding_weights.assign(model.image_embedding_weights * 0.2)
  return types.SimpleNamespace(
    model=model,
    vocab=vocabulary.Vocabulary(str(path)),
    tokenizer='whitespace',
    decoder=types.SimpleNamespace(confidence=None),
  )


def _log_probability(model, ids, features):
  """Returns that of a caption, word by word."""
  _, state = None, model.initial_state(features[np.newaxis])
  total = 0.0
  for word, following in zip(ids, ids[1:]):
    softmax, state = model.inference_step([word], state)
    total += np.log(softmax.numpy()[0, following])
  return total


@pytest.mark.parametrize('of_confidence', [False, True])
def test_a_text_scores_by_what_a_photo_adds_to_the_mean_image(
  captioner, of_confidence
):
  index = _Index()
  mean = index.features.mean(axis=0)
  if of_confidence:
    mean = mean * 2
    captioner = types.SimpleNamespace(
      **{
        **vars(captioner),
        'decoder': types.SimpleNamespace(
          confidence=types.SimpleNamespace(mean_features=mean.tolist())
        ),
      }
    )
  texts = [
    queries.word_ids(captioner, text) for text in ('a dog', 'cat on a beach')
  ]
  assert texts == [[1, 0, 3], [1, 4, 7, 0, 5]]
  found = queries.by_texts(index, captioner, texts, count=3)
  for ids, hits in zip(texts, found):
    expected = [
      _log_probability(captioner.model, ids, features)
      - _log_probability(captioner.model, ids, mean)
      for features in index.features
    ]
    order = np.argsort(expected)[::-1][:3]
    assert [hit.path for hit in hits] == [f'{i}.jpg' for i in order]
    np.testing.assert_allclose(
      [hit.score for hit in hits], np.array(expected)[order], atol=1e-5
    )


def test_an_image_finds_itself_and_what_is_alike():
  index = _Index()
  index.features[5] = 3 * index.features[2]
  index.features[6] = 0
  (hits,) = queries.by_images(index, index.features[2:3], count=20)
  assert [hit.path for hit in hits[:2]] == ['2.jpg', '5.jpg']
  np.testing.assert_allclose([hit.score for hit in hits[:2]], 1, atol=1e-6)
  scores = [hit.score for hit in hits]
  assert scores == sorted(scores, reverse=True) and len(hits) == 7
  assert hits[-1] == ('6.jpg', 0.0)


def test_of_an_empty_index_nothing_is_found(captioner):
  index = _Index(0)
  assert queries.by_texts(index, captioner, [[1, 0]], 3) == [[]]


def test_words_that_the_model_does_not_know(captioner, caplog):
  assert queries.word_ids(captioner, 'a dogg') == [1, 0, 7]
  assert "'dogg' (near it: dog)" in caplog.text and 'a <UNK>' in caplog.text
  for text in ('xyzzy', ''):
    with pytest.raises(ValueError, match=f'--text={text}: no word'):
      queries.word_ids(captioner, text)


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
