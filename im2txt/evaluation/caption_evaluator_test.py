# SPDX-License-Identifier: Apache-2.0
"""Tests of caption_evaluator."""

import sys

import numpy as np
import pytest
import tensorflow as tf

from im2txt import configuration
from im2txt import show_and_tell_model
from im2txt import testing
from im2txt.data import shards
from im2txt.evaluation import caption_evaluator
from im2txt.inference_utils import captioner
from im2txt.inference_utils import search_config
from im2txt.metrics import caption_scores
from im2txt.text import vocabulary

_WORDS = ['<S>', '</S>', 'a', 'man', 'dog', 'runs', 'green|blue']
_CAPTIONS = {
  30: ['a man', 'a green|blue <UNK>'],
  10: ['a dog runs'],
  20: ['a dog'],
  40: ['a man runs', 'a man'],
}


@pytest.fixture(name='vocab')
def fixture_vocab(tmp_path):
  path = tmp_path / 'word_counts.txt'
  path.write_text(''.join(f'{word} 5\n' for word in _WORDS))
  return vocabulary.Vocabulary(str(path))


@pytest.fixture(name='files')
def fixture_files(tmp_path, vocab):
  """A compact shard."""
  with shards.Writer(tmp_path / 'val') as writer:
    for image_id, captions in _CAPTIONS.items():
      tokens = [['<S>', *caption.split(), '</S>'] for caption in captions]
      writer.write(
        shards.serialize_compact(
          image_id,
          testing.jpeg(image_id),
          [(t, [vocab.word_to_id(word) for word in t]) for t in tokens],
        )
      )
  return [str(tmp_path / 'val')]


def _model(seed):
  tf.random.set_seed(seed)
  return show_and_tell_model.ShowAndTellModel(
    configuration.ModelConfig(
      vocab_size=9, embedding_size=5, num_lstm_units=4, initializer_scale=0.8
    ),
    with_inception=False,
  )


def test_captions_of_one_model_after_another(files, vocab, monkeypatch):
  monkeypatch.setattr(caption_evaluator, 'BATCH_SIZE', 3)
  search = search_config.SearchConfig(beam_size=2, max_caption_length=6)
  evaluator = caption_evaluator.CaptionEvaluator(
    files, vocab, ['cider'], search
  )
  features = np.random.default_rng(1).normal(size=[4, 2048]).astype(np.float32)
  ids = np.array([20, 30, 40, 10])

  def expected(model):
    found = captioner.FeatureCaptioner(model, vocab, search).caption(features)
    return {
      image_id: [caption.text for caption in captions]
      for image_id, captions in zip(ids.tolist(), found)
    }

  model, other = _model(1), _model(3)
  results = [expected(model), expected(other)]
  assert results[0] != results[1]
  assert len({str(captions) for captions in results[0].values()}) > 1
  assert evaluator.caption(model, ids, features) == results[0]
  # Restored from another checkpoint, and replaced.
  for variable, new in zip(model.variables, other.variables):
    variable.assign(new)
  assert evaluator.caption(model, ids, features) == results[1]
  assert evaluator.caption(_model(1), ids, features) == results[0]


def test_scores_what_was_asked_for(files, vocab, monkeypatch):
  monkeypatch.setattr(
    caption_scores,
    'unavailable',
    lambda: {'meteor': 'left out', 'spice': 'left out'},
  )
  evaluator = caption_evaluator.CaptionEvaluator(
    files, vocab, ['mean_length', 'bleu_1', 'bleu_2']
  )
  n_best = {30: ['a man', 'x'], 40: ['a dog runs', 'y']}
  assert evaluator.score(n_best) == {
    'mean_length': 2.5,
    'bleu_1': pytest.approx(4 / 5),
    'bleu_2': pytest.approx((4 / 5 * 1 / 3) ** 0.5),
  }


def test_the_sample_stays_the_same(files, vocab):
  evaluator = caption_evaluator.CaptionEvaluator(files, vocab, [])
  for word in ('one', 'two'):
    n_best = {image_id: [f'{word} {image_id}'] for image_id in (30, 10, 20, 40)}
    samples = evaluator.sample(n_best, 2)
    assert samples == [
      (
        f'image {image_id}',
        testing.jpeg(image_id),
        f'{word} {image_id}',
        _CAPTIONS[image_id],
      )
      for image_id in (30, 20)
    ]
  assert caption_evaluator.markdown(samples) == (
    'image | caption | references\n--- | --- | ---\n'
    'image 30 | two 30 | a man<br>a green\\|blue &lt;UNK&gt;\n'
    'image 20 | two 20 | a dog'
  )


def test_human_captions_stand_as_those_of_the_model(files, vocab):
  evaluator = caption_evaluator.CaptionEvaluator(files, vocab, [], separator='')
  (sample,) = evaluator.sample({20: ['adog']}, 1)
  assert sample.references == ['adog']


def test_another_vocabulary_is_refused(files, vocab, tmp_path):
  path = tmp_path / 'other'
  path.write_text(''.join(f'{word} 5\n' for word in reversed(_WORDS)))
  with pytest.raises(ValueError, match='not those of the vocabulary'):
    caption_evaluator.CaptionEvaluator(
      files, vocabulary.Vocabulary(str(path)), []
    )
  evaluator = caption_evaluator.CaptionEvaluator(files, vocab, [])
  model = show_and_tell_model.ShowAndTellModel(
    configuration.ModelConfig(vocab_size=7), with_inception=False
  )
  with pytest.raises(ValueError, match='vocab_size of 7'):
    evaluator.caption(model, np.array([10]), np.zeros([1, 2048], np.float32))


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
