# SPDX-License-Identifier: Apache-2.0
"""Words that are near one another in the embedding of words.

The paper's section on word embeddings lists the nearest words of a few: "horse"
is near "pony" and "donkey". The model learns this from captions alone.
"""

from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from im2txt import checkpoints
from im2txt.text import vocabulary

_EMBEDDING = 'seq_embedding/map'


class Neighbour(NamedTuple):
  """A word that is near another.

  Attributes:
    word: the word.
    cosine: of the angle between the embeddings of both.
  """

  word: str
  cosine: float


class Neighbours(NamedTuple):
  """A word with its neighbours.

  Attributes:
    word: of the vocabulary.
    neighbours: the nearest first.
  """

  word: str
  neighbours: list[Neighbour]

  def as_dict(self) -> dict[str, Any]:
    """Returns what JSON tells of it, {name: value}."""
    return {
      'word': self.word,
      'neighbours': [neighbour._asdict() for neighbour in self.neighbours],
    }


class WordEmbedding:
  """The embeddings of the words of a vocabulary.

  Punctuation, the start, the end and the unknown word are nobody's neighbours.

  Args:
    embeddings: float [ids, size]. A model may have more ids than words.
    vocab: the vocabulary.
  """

  def __init__(
    self, embeddings: npt.NDArray, vocab: vocabulary.Vocabulary
  ) -> None:
    embeddings = embeddings[: len(vocab)].astype(np.float32)
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    # A word whose embedding is zero is near nothing.
    self._directions = embeddings / np.where(norms, norms, 1)
    self._vocab = vocab
    # Without a letter or a digit it is punctuation.
    self._are_words = np.array(
      [any(map(str.isalnum, word)) for word in vocab.words]
    )
    self._are_words[[vocab.start_id, vocab.end_id, vocab.unk_id]] = False

  def most_frequent(self, count: int) -> list[str]:
    """Returns the first `count` words, without punctuation."""
    return [
      self._vocab.words[word_id]
      for word_id in np.flatnonzero(self._are_words)[:count]
    ]

  def check_known(self, words: Sequence[str]) -> None:
    """Raises ValueError if a word is unknown, with the nearest spellings."""
    if described := self._vocab.unknown(words):
      raise ValueError(
        f'not in the vocabulary file {self._vocab.file}: '
        f'{", ".join(described)}; give words that are'
      )

  def neighbours(
    self, words: Sequence[str], count: int, rows: int = 512
  ) -> Iterator[Neighbours]:
    """Yields each word with its nearest words.

    Args:
      words: words of the vocabulary, see `check_known`.
      count: number of neighbours.
      rows: words whose similarities to all others are in memory at a time.
    """
    for first in range(0, len(words), rows):
      part = words[first : first + rows]
      ids = np.array([self._vocab.word_to_id(word) for word in part])
      cosines = self._directions[ids] @ self._directions.T
      cosines[:, ~self._are_words] = -np.inf
      cosines[np.arange(len(ids)), ids] = -np.inf
      # Stable, so that equal ones come in the order of the vocabulary.
      order = np.argsort(-cosines, axis=1, kind='stable')[:, :count]
      for word, row, nearest in zip(part, cosines, order):
        yield Neighbours(
          word,
          [
            Neighbour(self._vocab.words[i], float(row[i]))
            for i in nearest
            if np.isfinite(row[i])
          ],
        )


def load(checkpoint_path: str, vocab_file: str) -> WordEmbedding:
  """Opens the word embedding of a checkpoint; nothing else of it is read.

  Args:
    checkpoint_path: see `checkpoints.resolve`.
    vocab_file: the vocabulary that the model was trained with.

  Raises:
    ValueError: one of them cannot be used, or they do not go together.
  """
  trained = checkpoints.load(checkpoint_path)
  vocab = vocabulary.Vocabulary(vocab_file)
  trained.check_vocabulary(vocab)
  return WordEmbedding(trained.checkpoint.get(_EMBEDDING), vocab)
