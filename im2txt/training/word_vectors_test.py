# SPDX-License-Identifier: Apache-2.0
"""Tests of word_vectors."""

import gzip
import sys

import numpy as np
import pytest
import tensorflow as tf

from im2txt.text import vocabulary
from im2txt.training import word_vectors

_WORDS = ['<S>', '</S>', 'a', 'dog', 'naïve', '2', '<UNK>']
_GLOVE = 'a 0.5 -1 2e-1\nthe 9 9 9\ndog 1 2 3\nnaïve 4 5 6\na 7 7 7\n'
_FOUND = {2: [0.5, -1, 0.2], 3: [1, 2, 3], 4: [4, 5, 6]}


def write(path, text):
  content = text.encode()
  path.write_bytes(gzip.compress(content) if path.suffix == '.gz' else content)
  return str(path)


def read(path, size=3):
  indices, vectors = word_vectors.read(path, _WORDS, size)
  assert vectors.dtype == np.float32 and vectors.shape == (len(indices), size)
  return dict(zip(indices.tolist(), vectors.tolist()))


@pytest.mark.parametrize('name', ['vectors.txt', 'vectors.txt.gz'])
@pytest.mark.parametrize(
  'text',
  [
    _GLOVE,
    '5 3\n' + _GLOVE,
    # As word2vec ends its lines, and another system.
    '5 3\n' + _GLOVE.replace('\n', ' \n'),
    _GLOVE.replace('\n', '\r\n'),
    _GLOVE.rstrip('\n'),
    # Words with spaces, and with others than ASCII's.
    '. . . 1 1 1\nat me@x.org 2 2 2\n' + _GLOVE + 'dog\u2028dog 1 1 1\n',
  ],
)
def test_reads_both_formats(tmp_path, name, text):
  found = read(write(tmp_path / name, text))
  assert found == {
    index: pytest.approx(vector) for index, vector in _FOUND.items()
  }


def test_compression_is_told_by_the_content(tmp_path):
  path = tmp_path / 'vectors.txt'
  path.write_bytes(gzip.compress(_GLOVE.encode()))
  assert set(read(str(path))) == set(_FOUND)


def test_a_word_of_digits_is_no_header(tmp_path):
  assert read(write(tmp_path / 'v', '2 3 4 5\n')) == {5: [3, 4, 5]}


def test_finds_no_word(tmp_path):
  assert read(write(tmp_path / 'v', 'the 1 2 3\n')) == {}
  assert read(write(tmp_path / 'v', '')) == {}


@pytest.mark.parametrize(
  'text, line, message',
  [
    ('a 1 2\n', 1, 'a vector of 2 number.* --embedding_size=3'),
    (_GLOVE + 'cat 1\n', 6, 'a vector of 1 number'),
    (_GLOVE + '\nb 1 2 3', 6, 'a vector of'),
    ('a 1 2 3 4\n', 1, 'a vector of 4 number'),
    ('9 4\na 1 2 3 4\n', 1, 'a vector of 4 number'),
    ('the 1 2 3\ndog 1 x 3\n', 2, "of 'dog' holds something"),
    ('dog 1 nan 3\n', 1, "of 'dog' holds something"),
    ('dog 1 1e99 3\n', 1, "of 'dog' holds something"),
  ],
)
def test_a_bad_line_is_named(tmp_path, text, line, message):
  path = write(tmp_path / 'v.txt', text)
  with pytest.raises(ValueError, match=message) as error:
    read(path)
  assert str(error.value).startswith(f'{path}:{line}: ')
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('damage', ['cut', 'zeros', 'missing'])
def test_a_file_that_cannot_be_read_is_named(tmp_path, damage):
  path = tmp_path / 'v.txt.gz'
  if damage != 'missing':
    rng = np.random.default_rng(1)
    content = gzip.compress(
      ''.join(
        f'w{i} {x} 1 1\n' for i, x in enumerate(rng.random(9999))
      ).encode()
    )
    half = len(content) // 2
    end = b'' if damage == 'cut' else b'\0' * half
    path.write_bytes(content[:half] + end)
  with pytest.raises(ValueError, match='cannot read --word_vectors_file') as e:
    read(str(path))
  assert str(path) in str(e.value) and '\n' not in str(e.value)


def test_gives_words_their_embeddings_and_the_others_keep_theirs(
  tmp_path, caplog
):
  words = tmp_path / 'words.txt'
  words.write_text('<S> 9\n</S> 9\na 3\ndog 2\ncat 1\n')
  vocab = vocabulary.Vocabulary(str(words))
  embeddings = np.random.default_rng(1).random([8, 3]).astype(np.float32)
  # More rows than words.
  variable = tf.Variable(embeddings)
  with caplog.at_level('INFO', 'absl'):
    word_vectors.assign(write(tmp_path / 'v', _GLOVE), vocab, variable)
  embeddings[2:4] = [_FOUND[2], _FOUND[3]]
  np.testing.assert_allclose(variable, embeddings)
  assert f'2 of 6 words are from {tmp_path}/v; those of the other 4' in (
    caplog.text
  )
  with pytest.raises(ValueError, match=f'/o has no word of .*{words}'):
    word_vectors.assign(write(tmp_path / 'o', 'le 1 2 3\n'), vocab, variable)


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
