# SPDX-License-Identifier: Apache-2.0
"""Tests of word_neighbours."""

import sys

import numpy as np
import pytest

from im2txt import testing
from im2txt.inference_utils import word_neighbours
from im2txt.text import vocabulary

_WORDS = ['a', '<S>', '</S>', '.', 'dog', 'hound', 'cat', '3']


@pytest.fixture(name='make')
def fixture_make(tmp_path):
  """Returns a function from {word: direction} to a `WordEmbedding`."""
  path = tmp_path / 'word_counts.txt'
  path.write_text(''.join(f'{word} 5\n' for word in _WORDS))
  vocab = vocabulary.Vocabulary(str(path))

  def make(directions=None, further_ids=0):
    embeddings = np.random.default_rng(1).normal(
      size=[len(vocab) + further_ids, 6]
    )
    for word, direction in (directions or {}).items():
      embeddings[vocab.word_to_id(word)] = direction
    return word_neighbours.WordEmbedding(embeddings, vocab)

  return make


def test_neighbours_are_ordered_by_the_angle_and_not_by_the_length(make):
  embedding = make(
    {
      'dog': [1, 0, 0, 0, 0, 0],
      'hound': [0.1, 0.01, 0, 0, 0, 0],
      'cat': [30, 40, 0, 0, 0, 0],
    }
  )
  (found,) = embedding.neighbours(['dog'], 2)
  assert found.word == 'dog'
  assert [near.word for near in found.neighbours] == ['hound', 'cat']
  assert [near.cosine for near in found.neighbours] == pytest.approx(
    [1 / np.sqrt(1.01), 0.6]
  )


def test_only_words_are_neighbours(make):
  """Not the word itself, no punctuation, and no ids without a word."""
  (found,) = make(further_ids=5).neighbours(['dog'], 100)
  assert sorted(near.word for near in found.neighbours) == sorted(
    set(_WORDS) - {'dog', '.', '<S>', '</S>'}
  )


def test_a_word_without_a_direction_is_near_nothing(make):
  (found,) = make({'dog': np.zeros(6)}).neighbours(['dog'], 2)
  assert [near.cosine for near in found.neighbours] == [0, 0]
  # Equal ones come in the order of the vocabulary.
  assert [near.word for near in found.neighbours] == ['a', 'hound']


def test_many_words_are_as_each_alone(make):
  embedding = make()
  words = ['dog', 'cat', 'hound', 'a', '3']
  alone = [next(embedding.neighbours([word], 3)) for word in words]
  together = list(embedding.neighbours(words, 3, rows=2))
  assert [found.word for found in together] == words
  for one, other in zip(alone, together):
    assert [n.word for n in one.neighbours] == [
      n.word for n in other.neighbours
    ]


def test_frequent_words_are_without_punctuation(make):
  assert make().most_frequent(3) == ['a', 'dog', 'hound']
  assert make().most_frequent(100) == ['a', 'dog', 'hound', 'cat', '3']


def test_unknown_words_are_told_with_near_spellings(make):
  embedding = make()
  embedding.check_known(['dog', '<S>'])
  with pytest.raises(ValueError) as error:
    embedding.check_known(['dog', 'Hounds', 'zzz'])
  assert "'Hounds' (near it: hound), 'zzz'; give words" in str(error.value)
  assert "'dog'" not in str(error.value)


def test_the_embedding_of_a_checkpoint(tmp_path):
  testing.caption_model(tmp_path, with_inception=False)
  vocab_file = str(tmp_path / 'word_counts.txt')
  embedding = word_neighbours.load(str(tmp_path), vocab_file)
  (found,) = embedding.neighbours(['dog'], 9)
  assert {near.word for near in found.neighbours} == {'a', 'cat', 'über'}
  (tmp_path / 'word_counts.txt').write_text('<S> 1\n</S> 1\n')
  with pytest.raises(ValueError, match='not of one vocabulary'):
    word_neighbours.load(str(tmp_path), vocab_file)


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
