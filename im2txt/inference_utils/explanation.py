# SPDX-License-Identifier: Apache-2.0
"""How a caption came about: the beam as it grew, and where a word looked."""

from typing import Any
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from im2txt.inference_utils import caption_generator
from im2txt.inference_utils import captioner as captioner_lib

# Below any probability that a search tries.
_LEAST = 1e-30


class Partial(NamedTuple):
  """A partial caption of a step, or one that ended there.

  Attributes:
    words: list of str, without <S>; with </S> where it ended.
    log_probability: float.
    parent: index in the step before of the caption that it extends; None in the
      first.
    alternatives: the likeliest next words, a list of (word, probability), best
      first, whether the search took them or not; empty where it ended.
  """

  words: list[str]
  log_probability: float
  parent: int | None
  alternatives: list[tuple[str, float]]


class Step(NamedTuple):
  """A step of the search.

  Attributes:
    partial: list of `Partial`, best first, that a word is to be added to.
    ended: list of `Partial`, best first, that end with the word added, and are
      among the best so far; `parent` is their index in `partial`.
  """

  partial: list[Partial]
  ended: list[Partial]


class Growth(NamedTuple):
  """A whole search.

  Attributes:
    steps: list of `Step`.
    captions: list of `captioner.ScoredCaption`s, what the search found.
  """

  steps: list[Step]
  captions: list[captioner_lib.ScoredCaption]


class Attribution(NamedTuple):
  """Which regions of an image the words of a caption rest on.

  Attributes:
    words: list of str.
    log_probabilities: list of float, of each word after those before it.
    maps: float32 [words, rows, columns]. How much of the word's log probability
      each region contributes, to first order; below 0: it speaks against it.
    seen: (left, top, right, bottom), the part of the image that the maps cover,
      as shares of its width and height.
  """

  words: list[str]
  log_probabilities: list[float]
  maps: np.ndarray
  seen: tuple[float, float, float, float]


def grow(
  captioner: captioner_lib.Captioner, image: Any, alternatives: int = 5
) -> Growth:
  """Captions an image and keeps the steps, which takes longer than captioning.

  Args:
    captioner: a `captioner.Captioner`.
    image: result of its `decode`.
    alternatives: int, next words that are kept of each partial caption.

  Returns:
    `Growth`.

  Raises:
    ValueError: see `FeatureCaptioner.search_step_by_step`.
  """
  decoder, vocab = captioner.decoder, captioner.vocab
  steps: list[Step] = []
  before: list[list[int]] = []

  def words(sentence: list[int]) -> list[str]:
    return [vocab.id_to_word(word) for word in sentence[1:]]

  def on_step(
    partial: list[caption_generator.Caption],
    softmax: np.ndarray,
    complete: list[caption_generator.Caption],
  ) -> None:
    nonlocal before
    order = sorted(range(len(partial)), key=lambda i: -partial[i].score)
    shown = []
    for i in order:
      sentence = partial[i].sentence
      best = np.argsort(-softmax[i], kind='stable')[:alternatives]
      shown.append(
        Partial(
          words(sentence),
          partial[i].logprob,
          before.index(sentence[:-1]) if before else None,
          [(vocab.id_to_word(w), float(softmax[i][w])) for w in best],
        )
      )
    before = [partial[i].sentence for i in order]
    ended = [
      Partial(
        words(caption.sentence),
        caption.logprob,
        before.index(caption.sentence[:-1]),
        [],
      )
      for caption in complete
      if len(caption.sentence) == len(before[0]) + 1
    ]
    steps.append(Step(shown, ended))

  found = decoder.search_step_by_step(captioner.encode([image]), on_step)
  return Growth(
    steps,
    [
      captioner_lib.ScoredCaption(decoder.text(c.sentence), c.logprob)
      for c in found
    ],
  )


def attribute(
  captioner: captioner_lib.Captioner, image: Any, words: list[str]
) -> Attribution:
  """Says which regions of an image the words of a caption rest on.

  The features are the mean of Inception's last maps over the image. So the
  gradient of a word's log probability by the features, times the map, is what
  each place adds to it to first order (as in Grad-CAM: Selvaraju et al. 2017).
  A place sees far around it, so the maps are coarse.

  Args:
    captioner: a `captioner.Captioner`.
    image: result of its `decode`.
    words: list of str, without <S>; one that is not in the vocabulary counts
      as the unknown word.

  Returns:
    `Attribution`.

  Raises:
    ValueError: there is no word.
  """
  if not words:
    raise ValueError('no word to attribute')
  model, vocab = captioner.model, captioner.vocab
  (maps,) = captioner.feature_maps([image])
  ids = [vocab.word_to_id(word) for word in words]
  # A row for each word, so that one gradient is that of all.
  features = tf.repeat(
    tf.reduce_mean(maps, [0, 1])[tf.newaxis], len(words), axis=0
  )
  log_probabilities = []
  with tf.GradientTape() as tape:
    tape.watch(features)
    state = model.initial_state(features)
    for row, (word, following) in enumerate(
      zip([vocab.start_id, *ids[:-1]], ids)
    ):
      softmax, state = model.inference_step(
        tf.fill([len(words)], tf.constant(word, tf.int64)), state
      )
      log_probabilities.append(
        tf.math.log(tf.maximum(softmax[row, following], _LEAST))
      )
    total = tf.add_n(log_probabilities)
  gradients = tape.gradient(total, features)
  places = maps.shape[0] * maps.shape[1]
  return Attribution(
    list(words),
    [float(value) for value in log_probabilities],
    (tf.einsum('wf,rcf->wrc', gradients, maps) / places).numpy(),
    captioner.seen,
  )
