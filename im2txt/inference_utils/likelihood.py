# SPDX-License-Identifier: Apache-2.0
"""How likely a model finds captions of images."""

import dataclasses

import numpy as np
import tensorflow as tf

from im2txt.inference_utils import ensemble
from im2txt.ops import lstm

# Pairs of image and node whose distributions over the vocabulary are in memory
# at a time: 50 MB at 12,000 words. More is no faster.
_ROWS = 1024
# LSTM states in memory at a time, 4 KB each at 512 units and 16 KB on the way.
_STATES = 8192


class Likelihood:
  """Scores captions of images whose features are known.

  Args:
    model: a `ShowAndTellModel` or an `ensemble.Ensemble`.
  """

  def __init__(self, model):
    self._members = getattr(model, 'members', [(model, slice(None))])
    self._cross_entropies = tf.function(
      model.cross_entropies, autograph=False, reduce_retracing=True
    )

  def cross_entropies(self, features, captions):
    """Scores captions word by word, each of its own image.

    Args:
      features: float32 [captions, feature_size of the model].
      captions: list of lists of int, ids with those of <S> and </S>.

    Returns:
      float32 [words], nats; a caption has as many as ids, less one.
    """
    time = max(len(caption) for caption in captions) - 1
    sequences = np.zeros([len(captions), time + 1], np.int64)
    mask = np.zeros([len(captions), time], np.int32)
    for row, caption in enumerate(captions):
      sequences[row, : len(caption)] = caption
      mask[row, : len(caption) - 1] = 1
    return self._cross_entropies(
      features, sequences[:, :-1], sequences[:, 1:], mask
    ).numpy()

  def log_likelihoods(self, features, captions, progress=lambda images: None):
    """Scores every caption with every image.

    Captions that begin with the same words share the work for these: they are
    put in a tree, one level of which is fed to the LSTM at a time. Neither the
    product of word embedding and kernel nor that of an LSTM's state and kernel
    is then done twice, and a softmax is normalized once for all that may
    follow. The scores are the same as if each caption was scored alone.

    Args:
      features: float32 [images, feature_size of the model].
      captions: list of lists of int, ids with those of <S> and </S>.
      progress: called with the number of images done, now and then.

    Returns:
      float64 [images, captions], natural logarithms of probabilities.
    """
    levels = _prefix_tree(captions)
    scores = np.zeros([len(features), len(captions)])
    widest = max(len(level.words) for level in levels)
    block = min(_ROWS, max(1, _STATES // widest))
    scorers = [
      (_MemberScorer(model, levels), columns)
      for model, columns in self._members
    ]
    for start in range(0, len(features), block):
      rows = slice(start, min(start + block, len(features)))
      members = zip(
        *(scorer.edges(features[rows, columns]) for scorer, columns in scorers)
      )
      for level, edges in zip(levels, members):
        scores[rows, level.captions] += np.asarray(
          ensemble.mean_of_logarithms(list(edges))
        )[:, level.edges]
      progress(rows.stop)
    return scores


class _MemberScorer:
  """Scores the edges of a tree of captions with one model.

  Args:
    model: a `ShowAndTellModel`.
    levels: list of `_Level`.
  """

  def __init__(self, model, levels):
    self._model = model
    self._levels = levels
    self._advance = tf.function(
      _advance, autograph=False, reduce_retracing=True
    )
    self._log_probabilities = tf.function(
      _log_probabilities, autograph=False, reduce_retracing=True
    )
    size = model.config.embedding_size
    word_kernel, self._state_kernel = (
      model.lstm_kernel[:size],
      model.lstm_kernel[size:],
    )
    self._word_gates = [
      tf.matmul(tf.gather(model.embedding_map, level.words), word_kernel)
      + model.lstm_bias
      for level in levels
    ]

  def edges(self, features):
    """Yields float32 [images, edges], log probabilities, for each level.

    Args:
      features: float32 [images, 2048].
    """
    model = self._model
    c, h = tf.split(model.initial_state(features)[:, tf.newaxis], 2, axis=2)
    for level, gates in zip(self._levels, self._word_gates):
      c, h = self._advance(c, h, level.parents, gates, self._state_kernel)
      step = max(1, _ROWS // h.shape[0])
      parts = []
      for first in range(0, len(level.words), step):
        edges = slice(*np.searchsorted(level.edge_nodes, [first, first + step]))
        parts.append(
          self._log_probabilities(
            h[:, first : first + step],
            level.edge_nodes[edges] - first,
            level.edge_words[edges],
            model.logits_weights,
            model.logits_biases,
          ).numpy()
        )
      yield np.concatenate(parts, axis=1)


@dataclasses.dataclass
class _Level:
  """The n-th word of all captions that have one: nodes, and what follows each.

  Attributes:
    parents: int32 [nodes], nodes of the level before.
    words: int64 [nodes].
    edge_nodes: int32 [edges], ascending.
    edge_words: int32 [edges], the word that follows the node.
    captions: int [captions that have an edge here].
    edges: int, likewise, the edge of each.
  """

  parents: np.ndarray
  words: np.ndarray
  edge_nodes: np.ndarray
  edge_words: np.ndarray
  captions: np.ndarray
  edges: np.ndarray


def _prefix_tree(captions):
  """Returns the _Levels of captions, of the first word to the last but one."""
  captions = [np.asarray(caption) for caption in captions]
  levels = []
  alive = np.arange(len(captions))
  above = np.zeros(len(captions), int)  # Of each caption alive, its node.
  for position in range(max(map(len, captions)) - 1):
    has_next = np.array([len(captions[i]) > position + 1 for i in alive])
    alive, above = alive[has_next], above[has_next]
    words = [captions[i][position : position + 2] for i in alive]
    nodes, node_of = np.unique(
      [(parent, pair[0]) for parent, pair in zip(above, words)],
      axis=0,
      return_inverse=True,
    )
    edges, edge_of = np.unique(
      [(node, pair[1]) for node, pair in zip(node_of, words)],
      axis=0,
      return_inverse=True,
    )
    levels.append(
      _Level(
        nodes[:, 0].astype(np.int32),
        nodes[:, 1],
        edges[:, 0].astype(np.int32),
        edges[:, 1].astype(np.int32),
        alive,
        edge_of,
      )
    )
    above = node_of
  return levels


def _advance(c, h, parents, word_gates, state_kernel):
  """Feeds the words of a level to the LSTM.

  Args:
    c: float32 [images, nodes above, units].
    h: likewise.
    parents: int32 [nodes].
    word_gates: float32 [nodes, 4 * units], the words' part of the gates.
    state_kernel: float32 [units, 4 * units].

  Returns:
    (c, h), each float32 [images, nodes, units].
  """
  gates = word_gates + tf.gather(
    tf.einsum('bnu,ug->bng', h, state_kernel), parents, axis=1
  )
  return lstm.next_state(gates, tf.gather(c, parents, axis=1))


def _log_probabilities(h, edge_nodes, edge_words, weights, biases):
  """Returns the log probabilities of edges, float32 [images, edges].

  Args:
    h: float32 [images, nodes, units].
    edge_nodes: int32 [edges].
    edge_words: int32 [edges].
    weights: float32 [units, vocab_size].
    biases: float32 [vocab_size].
  """
  logits = tf.einsum('bnu,uv->bnv', h, weights) + biases
  shape = tf.shape(logits)
  chosen = tf.gather(
    tf.reshape(logits, [shape[0], -1]),
    edge_nodes * shape[2] + edge_words,
    axis=1,
  )
  return chosen - tf.gather(
    tf.reduce_logsumexp(logits, axis=2), edge_nodes, axis=1
  )
