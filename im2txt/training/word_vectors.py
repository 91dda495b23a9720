# SPDX-License-Identifier: Apache-2.0
"""Word embeddings to start from, read from a file of word vectors.

The formats are those of GloVe (Pennington et al. 2014), a line `word v1 ... vn`
per word, and the text format of word2vec (Mikolov et al. 2013), which begins
with a line `words n`. Either may be compressed by gzip.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import gzip
import itertools
import zlib

from absl import logging
import numpy as np
import tensorflow as tf

from im2txt.text import vocabulary

_GZIP = b'\x1f\x8b'


def read(
  path: str, words: Sequence[str], size: int
) -> tuple[np.ndarray, np.ndarray]:
  """Reads the vectors of some words.

  If a word comes twice, its first vector counts. Words with spaces, which files
  of GloVe may have, are passed over.

  Args:
    path: the file.
    words: the words to look for.
    size: of a vector.

  Returns:
    (indices of the words that were found, int64 [found]; their vectors, float32
    [found, size]).

  Raises:
    ValueError: the file cannot be read, or a line is no vector of that size.
  """
  places = {word.encode(): i for i, word in enumerate(words)}
  indices: list[int] = []
  vectors: list[np.ndarray] = []
  for number, line in _lines(path):
    fields = line.split()
    if number == 1 and _is_header(fields):
      _check_size(path, number, int(fields[1]), size)
      continue
    if len(fields) != size + 1:
      if len(fields) <= size or _are_numbers(fields[1:]):
        _check_size(path, number, len(fields) - 1, size)
      continue
    index = places.pop(fields[0], None)
    if index is None:
      continue
    values = fields[1:]
    if not _are_numbers(values):
      raise ValueError(
        f'{path}:{number}: the vector of {fields[0].decode()!r} holds something '
        'other than finite numbers; get the file again'
      )
    indices.append(index)
    vectors.append(np.array(values, np.float32))
  return (
    np.array(indices, np.int64),
    np.array(vectors, np.float32).reshape([-1, size]),
  )


def assign(
  path: str, vocab: vocabulary.Vocabulary, embedding_map: tf.Variable
) -> None:
  """Gives words the embeddings of a file; the other words keep theirs.

  Args:
    path: see `read`.
    vocab: the words.
    embedding_map: float32 [vocab_size, embedding_size].

  Raises:
    ValueError: see `read`; or the file has none of the words.
  """
  indices, vectors = read(path, vocab.words, embedding_map.shape[1])
  if not len(indices):
    raise ValueError(
      f'--word_vectors_file={path} has no word of the vocabulary {vocab.file}: '
      'give a file of its language'
    )
  embedding_map.scatter_nd_update(indices[:, np.newaxis], vectors)
  logging.info(
    'the embeddings of %d of %d words are from %s; those of the other %d start '
    'at random',
    len(indices),
    len(vocab),
    path,
    len(vocab) - len(indices),
  )


def _lines(path: str) -> Iterator[tuple[int, bytes]]:
  """Yields (number, line) of a file, which may be compressed."""
  number = 0
  try:
    with open(path, 'rb') as f:
      compressed = f.read(len(_GZIP)) == _GZIP
    with gzip.open(path) if compressed else open(path, 'rb') as lines:
      for number in itertools.count(1):
        line = lines.readline()
        if not line:
          return
        yield number, line
  except (OSError, EOFError, zlib.error) as error:
    where = f'{path}:{number}' if number else path
    raise ValueError(
      f'{where}: cannot read --word_vectors_file ({error}); get the file again'
    ) from error


def _is_header(fields: Sequence[bytes]) -> bool:
  """Returns whether the first line is the header of word2vec."""
  return len(fields) == 2 and all(field.isdigit() for field in fields)


def _are_numbers(fields: Sequence[bytes]) -> bool:
  """Returns whether all fields are finite numbers."""
  try:
    with np.errstate(over='ignore'):  # It becomes infinite.
      return bool(np.isfinite(np.array(fields, np.float32)).all())
  except ValueError:
    return False


def _check_size(path: str, number: int, found: int, size: int) -> None:
  """Raises ValueError if a line is of vectors of another size."""
  if found != size:
    raise ValueError(
      f'{path}:{number}: a vector of {found} number(s), and '
      f'--embedding_size={size}: give --embedding_size the size of the vectors '
      'in the file'
    )
