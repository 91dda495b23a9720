# SPDX-License-Identifier: Apache-2.0
"""Self-critical training: captions are sampled and rewarded by their CIDEr-D.

Rennie et al. 2017, "Self-critical Sequence Training for Image Captioning",
equation 7, with the mean reward of the other samples of the image as baseline
(Luo 2020), which needs no greedy caption. It starts from a model that cross
entropy has trained.
"""

import collections
import math

import numpy as np
import tensorflow as tf

_MAX_N = 4  # Words of the longest n-grams of CIDEr.
_SIGMA = 6.0  # Of the penalty of CIDEr-D for other lengths.


class CiderReward:
  """CIDEr-D of word ids against the references of training images.

  Vedantam et al. 2015, "CIDEr: Consensus-based Image Description Evaluation".
  The end word counts as a word, so that a caption that breaks off is worth less
  than one that ends as references do.

  Args:
    references: list over images of lists of captions, lists of word ids without
      the start word and with the end word.
    unknown_id: id of the unknown word, which matches no word.
  """

  def __init__(self, references, unknown_id):
    self._unknown_id = unknown_id
    counts = [
      [self._ngrams(caption) for caption in captions] for captions in references
    ]
    self._document_frequency = collections.Counter(
      ngram for captions in counts for ngram in set().union(*captions)
    )
    self._log_images = math.log(max(len(references), 2))
    self._references = [
      [self._vectors(ngrams) for ngrams in captions] for captions in counts
    ]

  def __call__(self, caption, image):
    """Returns the CIDEr-D, from 0 to 10, of a caption of an image.

    Args:
      caption: list of word ids, as of the references.
      image: index into the references.
    """
    vectors, norms, length = self._vectors(self._ngrams(caption))
    total = 0.0
    for theirs, their_norms, their_length in self._references[image]:
      similarity = 0.0
      for mine, other, norm, their_norm in zip(
        vectors, theirs, norms, their_norms
      ):
        if norm and their_norm:
          similarity += sum(
            min(value, other[ngram]) * other[ngram]
            for ngram, value in mine.items()
            if ngram in other
          ) / (norm * their_norm)
      total += similarity * math.exp(
        -((length - their_length) ** 2) / (2 * _SIGMA**2)
      )
    return 10.0 * total / _MAX_N / len(self._references[image])

  def _ngrams(self, caption):
    """Returns how often each n-gram, a tuple, is in a caption."""
    # An object of its own is equal to no word.
    words = [object() if word == self._unknown_id else word for word in caption]
    return collections.Counter(
      tuple(words[start : start + n])
      for n in range(1, _MAX_N + 1)
      for start in range(len(words) - n + 1)
    )

  def _vectors(self, ngrams):
    """Returns (tf-idf by n-gram of each n, their norms, caption's length)."""
    vectors = [{} for _ in range(_MAX_N)]
    length = 0
    for ngram, count in ngrams.items():
      rarity = self._log_images - math.log(
        max(self._document_frequency.get(ngram, 0), 1)
      )
      vectors[len(ngram) - 1][ngram] = count * rarity
      length += count if len(ngram) == 1 else 0
    norms = [
      math.sqrt(sum(value * value for value in vector.values()))
      for vector in vectors
    ]
    return vectors, norms, length


def sample(model, features, start_id, end_id, left_out, max_length, seed):
  """Samples a caption for each row; to be traced.

  Args:
    model: a `ShowAndTellModel`.
    features: float32 [batch, 2048].
    start_id: id of the start word.
    end_id: id of the end word.
    left_out: ids that are not drawn, a list of int.
    max_length: words drawn at most, the end word included.
    seed: int [2] that determines what is drawn.

  Returns:
    int64 [batch, time], word ids; the end word fills each row up.
  """
  batch = tf.shape(features)[0]
  allowed = np.ones(model.config.vocab_size, np.float32)
  allowed[left_out] = 0.0
  end = tf.fill([batch], tf.constant(end_id, tf.int64))

  def draw(words, states, ended, drawn):
    softmax, states = model.inference_step(words, states)
    words = tf.random.stateless_categorical(
      tf.math.log(softmax * allowed),
      1,
      tf.random.experimental.stateless_fold_in(
        seed, tf.shape(drawn)[1], alg='philox'
      ),
    )[:, 0]
    words = tf.where(ended, end, words)
    return (
      words,
      states,
      ended | (words == end_id),
      tf.concat([drawn, words[:, tf.newaxis]], axis=1),
    )

  state = (
    tf.fill([batch], tf.constant(start_id, tf.int64)),
    model.initial_state(features),
    tf.zeros([batch], tf.bool),
    tf.zeros([batch, 0], tf.int64),
  )
  shapes = (*(x.shape for x in state[:-1]), tf.TensorShape([None, None]))
  *_, drawn = tf.while_loop(
    lambda words, states, ended, drawn: ~tf.reduce_all(ended),
    draw,
    state,
    shape_invariants=shapes,
    maximum_iterations=max_length,
  )
  return drawn


def advantages(rewards, samples_per_image):
  """Returns by how much each reward is above the mean of the image's others.

  Args:
    rewards: float [images * samples_per_image], those of an image together.
    samples_per_image: int above 1.

  Returns:
    float32, as `rewards`.

  >>> advantages([1.0, 3.0], 2).tolist()
  [-2.0, 2.0]
  """
  rewards = np.reshape(rewards, [-1, samples_per_image])
  others = (rewards.sum(axis=1, keepdims=True) - rewards) / (
    samples_per_image - 1
  )
  return (rewards - others).astype(np.float32).reshape(-1)


def loss(model, features, input_seqs, target_seqs, input_mask, weights, seed):
  """The loss whose gradient is that of the negative expected reward.

  Args:
    model: a `ShowAndTellModel`.
    features: see `ShowAndTellModel.cross_entropies`, as the next three.
    input_seqs: sampled captions.
    target_seqs: likewise.
    input_mask: likewise.
    weights: float32 [batch], what `advantages` returns.
    seed: see `ShowAndTellModel.cross_entropies`.

  Returns:
    float32 scalar: the mean over words of cross entropy times weight.
  """
  entropies = model.cross_entropies(
    features, input_seqs, target_seqs, input_mask, is_training=True, seed=seed
  )
  rows = tf.where(input_mask > 0)[:, 0]
  return tf.reduce_mean(entropies * tf.gather(weights, rows))
