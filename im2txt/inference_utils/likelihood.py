# SPDX-License-Identifier: Apache-2.0
"""The likelihood of captions, given images."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses

import numpy as np
import tensorflow as tf

from im2txt import show_and_tell_model
from im2txt.inference_utils import ensemble
from im2txt.ops import lstm
from im2txt.runtime import distribution


class Likelihood:
  """Scores captions of images, given the features of the images.

  Args:
    model: gives the probabilities.
    rows: pairs of image and node whose distributions over the vocabulary are in
      memory at a time: 50 MB with 12,000 words. More rows are not faster.
    states: LSTM states in memory at a time. With 512 units each takes 4 KB, and
      16 KB while it is computed.
    replicas: share what `cross_entropies` scores. The model is of their scope.
  """

  def __init__(
    self,
    model: ensemble.Model,
    rows: int = 1024,
    states: int = 8192,
    replicas: distribution.Replicas = distribution.ALONE,
  ) -> None:
    self._rows, self._states = rows, states
    self._members = getattr(model, 'members', [(model, slice(None))])
    self._cross_entropies = replicas.by_rows(
      model.cross_entropies, reduce_retracing=True
    )

  def cross_entropies(
    self, features: np.ndarray, captions: Sequence[Sequence[int]]
  ) -> np.ndarray:
    """Scores captions word by word, each with its own image.

    Args:
      features: float32 [captions, feature_size of the model].
      captions: word ids, including <S> and </S>.

    Returns:
      float32 [words], in nats. A caption of n ids has n - 1 words here.
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

  def log_likelihoods(
    self,
    features: np.ndarray,
    captions: Sequence[Sequence[int]],
    progress: Callable[[int], object] = lambda images: None,
  ) -> np.ndarray:
    """Scores every caption with every image.

    Captions that start with the same words share the work for these. They form
    a tree, and the LSTM reads one level of it at a time. So no product of a
    word embedding or a state with the kernel is computed twice, and a softmax
    is normalized only once for all words that may follow. The scores are those
    of captions that are scored one by one.

    Args:
      features: float32 [images, feature_size of the model].
      captions: word ids, including <S> and </S>.
      progress: is called now and then with the number of images done.

    Returns:
      float64 [images, captions], natural logarithms of probabilities.
    """
    levels = _prefix_tree(captions)
    scores = np.zeros([len(features), len(captions)])
    widest = max(len(level.words) for level in levels)
    block = min(self._rows, max(1, self._states // widest))
    scorers = [
      (_MemberScorer(model, levels, self._rows), columns)
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
    model: the model.
    levels: the tree.
    most: rows of distributions over the vocabulary at a time.
  """

  def __init__(
    self,
    model: show_and_tell_model.ShowAndTellModel,
    levels: 'Sequence[_Level]',
    most: int,
  ) -> None:
    self._model = model
    self._most = most
    self._levels = levels
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

  def edges(self, features: np.ndarray) -> Iterator[np.ndarray]:
    """Yields for each level the log probabilities, float32 [images, edges].

    Args:
      features: float32 [images, 2048].
    """
    model = self._model
    c, h = tf.split(model.initial_state(features)[:, tf.newaxis], 2, axis=2)
    for level, gates in zip(self._levels, self._word_gates):
      c, h = _advance(c, h, level.parents, gates, self._state_kernel)
      step = max(1, self._most // h.shape[0])
      parts = []
      for first in range(0, len(level.words), step):
        edges = slice(*np.searchsorted(level.edge_nodes, [first, first + step]))
        parts.append(
          _log_probabilities(
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
  """A level of the tree: the n-th words of captions, and the words after them.

  Attributes:
    parents: int32 [nodes], nodes of the previous level.
    words: int64 [nodes], the word of each node.
    edge_nodes: int32 [edges], the node of each edge, ascending.
    edge_words: int32 [edges], the word that follows the node.
    captions: int [n], the captions that have an edge in this level.
    edges: int [n], the edge of each of these captions.
  """

  parents: np.ndarray
  words: np.ndarray
  edge_nodes: np.ndarray
  edge_words: np.ndarray
  captions: np.ndarray
  edges: np.ndarray


def _prefix_tree(captions: Sequence[Sequence[int]]) -> list[_Level]:
  """Returns the levels for the first word to the last but one."""
  arrays = [np.asarray(caption) for caption in captions]
  levels = []
  alive = np.arange(len(arrays))
  above = np.zeros(len(arrays), int)  # The node of each caption in `alive`.
  for position in range(max(map(len, arrays)) - 1):
    has_next = np.array([len(arrays[i]) > position + 1 for i in alive])
    alive, above = alive[has_next], above[has_next]
    words = [arrays[i][position : position + 2] for i in alive]
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


def _floats(rank: int) -> tf.TensorSpec:
  return tf.TensorSpec([None] * rank)


# Traced once: levels and batches differ in size.
@tf.function(
  autograph=False,
  input_signature=[
    _floats(3),
    _floats(3),
    tf.TensorSpec([None], tf.int32),
    _floats(2),
    _floats(2),
  ],
)
def _advance(
  c: tf.Tensor,
  h: tf.Tensor,
  parents: tf.Tensor,
  word_gates: tf.Tensor,
  state_kernel: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
  """Feeds the words of a level to the LSTM.

  Args:
    c: float32 [images, nodes of the previous level, units].
    h: float32 [images, nodes of the previous level, units].
    parents: int32 [nodes].
    word_gates: float32 [nodes, 4 * units], what words add to the gates.
    state_kernel: float32 [units, 4 * units].

  Returns:
    (c, h), each float32 [images, nodes, units].
  """
  gates = word_gates + tf.gather(
    tf.einsum('bnu,ug->bng', h, state_kernel), parents, axis=1
  )
  return lstm.next_state(gates, tf.gather(c, parents, axis=1))


@tf.function(
  autograph=False,
  input_signature=[
    _floats(3),
    tf.TensorSpec([None], tf.int32),
    tf.TensorSpec([None], tf.int32),
    _floats(2),
    _floats(1),
  ],
)
def _log_probabilities(
  h: tf.Tensor,
  edge_nodes: tf.Tensor,
  edge_words: tf.Tensor,
  weights: tf.Tensor,
  biases: tf.Tensor,
) -> tf.Tensor:
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
