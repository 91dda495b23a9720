# SPDX-License-Identifier: Apache-2.0
"""Room for new words in a trained word embedding and softmax."""

import numpy as np

# Of the unknown word's probability, what goes to the new words together.
SHARE = 0.5


def add(embedding_map, weights, biases, unknown, words):
  """Gives new words a start: they take half of the unknown word's probability.

  What the new words are, the model has so far read and written as the unknown
  one. So each begins as a copy of it, and its bias is such that, whatever the
  state of the LSTM, the unknown word and the new ones share what the unknown
  word had: one half for it, the other for the new ones in equal parts. The
  probability of every other word then stays as it was, after every other word.
  Copies part in training, as each is fed and expected in other captions.

  Rows that are there but were no word's (a model often has more ids than its
  vocabulary words) are written over. The softmax gave them almost nothing, and
  just that is divided among all words.

  Args:
    embedding_map: float [vocab_size, embedding_size].
    weights: float [units, vocab_size], of the softmax layer.
    biases: float [vocab_size].
    unknown: int, id of the unknown word.
    words: range of the ids of the new words, from within vocab_size or its end
      on.

  Returns:
    The three arrays, with rows up to `words.stop` at least.
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
