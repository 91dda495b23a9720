# SPDX-License-Identifier: Apache-2.0
"""Adds new words to a trained word embedding and softmax."""

import numpy as np

# Share of the probability of the unknown word that goes to the new words.
SHARE = 0.5


def add(
  embedding_map: np.ndarray,
  weights: np.ndarray,
  biases: np.ndarray,
  unknown: int,
  words: range,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Initializes new words. They take half of the unknown word's probability.

  So far the model has read and written each of the new words as the unknown
  word. So each starts as a copy of the unknown word. The biases are such that,
  in every state of the LSTM, the unknown word keeps half of its probability,
  and the new words share the other half equally. The probabilities of all other
  words stay as they were. Training then tells the copies apart.

  A model often has more ids than its vocabulary has words. Such rows are
  overwritten. Their probability was almost zero; it goes to all words.

  Args:
    embedding_map: float [vocab_size, embedding_size].
    weights: float [units, vocab_size], of the softmax layer.
    biases: float [vocab_size].
    unknown: id of the unknown word.
    words: ids of the new words. The first is at most vocab_size.

  Returns:
    The three arrays, with at least `words.stop` ids.
  """
  rows = max(len(biases), words.stop) - len(biases)
  embedding_map = np.pad(embedding_map, [(0, rows), (0, 0)])
  weights = np.pad(weights, [(0, 0), (0, rows)])
  biases = np.pad(biases, [(0, rows)])
  new = slice(words.start, words.stop)
  embedding_map[new] = embedding_map[unknown]
  weights[:, new] = weights[:, [unknown]]
  biases[new] = biases[unknown] + np.log(SHARE / len(words))
  biases[unknown] += np.log(1 - SHARE)
  return embedding_map, weights, biases
