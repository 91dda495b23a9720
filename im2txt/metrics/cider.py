# SPDX-License-Identifier: Apache-2.0
"""CIDEr-D of captions, as COCO's evaluation computes it.

Vedantam et al. 2015, "CIDEr: Consensus-based Image Description Evaluation". The
digits are those of pycocoevalcap's scorer: sums are taken in its order.
"""

from collections.abc import Sequence
import math
from typing import NamedTuple

import numpy as np

from im2txt.metrics import ngrams

VERSION = 'D-1'

_SIGMA = 6.0


class _Vectors(NamedTuple):
  """Captions as vectors over the n-grams of one n.

  Attributes:
    counts: the n-grams of the captions.
    values: float64 [entries], tf-idf of each entry of `counts`.
    norms: float64 [captions].
  """

  counts: ngrams.Counts
  values: np.ndarray
  norms: np.ndarray


def scores(
  candidates: ngrams.Captions, references: ngrams.Captions
) -> np.ndarray:
  """Returns the CIDEr-D of each image, 0 to 10.

  Args:
    candidates: one caption per image.
    references: one or more captions per image. The weights of n-grams come
      from these.

  Returns:
    float64 [images].
  """
  images = len(candidates.lengths)
  mine, theirs = [], []
  for own, other in zip(candidates.counts, references.counts):
    rarity = _rarity(other, references.images, images)
    mine.append(_weigh(own, rarity, images))
    theirs.append(_weigh(other, rarity, len(references.lengths)))
  return _similarity(candidates, references, mine, theirs)


class Scorer:
  """CIDEr-D of captions of word ids against references that stay the same.

  The weights of n-grams come from the references of all images, so a score
  does not depend on which captions are scored together.

  Args:
    references: for each image its captions, lists of word ids. No image is
      without a caption.
    unknown_id: id of the unknown word, which matches no word.
  """

  def __init__(
    self, references: Sequence[Sequence[Sequence[int]]], unknown_id: int
  ) -> None:
    self._index = ngrams.Index(
      [caption for captions in references for caption in captions], unknown_id
    )
    per_image = [len(captions) for captions in references]
    images = np.repeat(np.arange(len(references)), per_image)
    self._ends = np.cumsum(per_image)
    # With one image every n-gram would weigh nothing.
    self._images = max(len(references), 2)
    self._rarities = [
      _rarity(counts, images, self._images) for counts in self._index.counts
    ]
    self._vectors = [
      _weigh(counts, rarity, len(images))
      for counts, rarity in zip(self._index.counts, self._rarities)
    ]

  def __call__(
    self, captions: Sequence[Sequence[int]], images: Sequence[int] | np.ndarray
  ) -> np.ndarray:
    """Returns the CIDEr-D, 0 to 10, of captions.

    Args:
      captions: lists of word ids, like the references.
      images: int [captions], the index of the image of each.

    Returns:
      float64 [captions].
    """
    counts, lengths = self._index.count(captions)
    mine = []
    for own, rarity in zip(counts, self._rarities):
      new = np.full(own.num_ngrams - len(rarity), math.log(self._images))
      mine.append(_weigh(own, np.append(rarity, new), len(captions)))
    # The references of each caption's image, once per caption.
    ends = self._ends[images]
    starts = np.append(0, self._ends)[images]
    rows, owners = ngrams.ranges(starts, ends)
    theirs = []
    for own, (other, values, norms) in zip(counts, self._vectors):
      entries, captions_of_entries = other.entries(rows)
      theirs.append(
        _Vectors(
          ngrams.Counts(
            captions_of_entries,
            other.ngrams[entries],
            other.counts[entries],
            own.num_ngrams,
          ),
          values[entries],
          norms[rows],
        )
      )
    return _similarity(
      ngrams.Captions(counts, lengths, np.arange(len(captions))),
      ngrams.Captions(
        [vectors.counts for vectors in theirs],
        self._index.lengths[rows],
        owners,
      ),
      mine,
      theirs,
    )


def _similarity(
  candidates: ngrams.Captions,
  references: ngrams.Captions,
  mine: Sequence[_Vectors],
  theirs: Sequence[_Vectors],
) -> np.ndarray:
  """Returns float64 [images], the CIDEr-D of each.

  Args:
    candidates: one caption per image.
    references: one or more captions per image.
    mine: for each n, the vectors of the candidates.
    theirs: for each n, the vectors of the references.
  """
  images = len(candidates.lengths)
  # pycocoevalcap compares the numbers of bigrams, not those of words.
  difference = np.maximum(candidates.lengths - 1, 0)[
    references.images
  ] - np.maximum(references.lengths - 1, 0)
  penalties = {
    d: math.e ** (-(float(d) ** 2) / (2 * _SIGMA**2))
    for d in np.unique(difference).tolist()
  }
  penalty = np.array([penalties[d] for d in difference.tolist()])
  total = np.zeros(images)
  for own, other in zip(mine, theirs):
    found, places = ngrams.find(
      own.counts.keys(candidates.images), other.counts.keys(references.images)
    )
    # In the order of the candidate's n-grams.
    order = np.argsort(places, kind='stable')
    values = other.values[found][order]
    products = np.bincount(
      other.counts.captions[found][order],
      np.minimum(own.values[places[order]], values) * values,
      len(references.lengths),
    )
    scale = own.norms[references.images] * other.norms
    similarity = np.divide(
      products, scale, out=np.zeros_like(scale), where=scale != 0
    )
    total += np.bincount(references.images, similarity * penalty, images)
  return (
    total / ngrams.MAX_N / np.bincount(references.images, minlength=images) * 10
  )


def _rarity(
  counts: ngrams.Counts, image_of_caption: np.ndarray, images: int
) -> np.ndarray:
  """Returns float64 [num_ngrams], log of images per image with the n-gram.

  Args:
    counts: the n-grams of the references.
    image_of_caption: int64 [captions].
    images: number of images.
  """
  # Sorted by hand: np.unique hashes, which takes ten times as long.
  keys = np.sort(counts.keys(image_of_caption))
  keys = keys[np.diff(keys, prepend=-1) != 0]
  frequency = np.bincount(keys % counts.num_ngrams, minlength=counts.num_ngrams)
  return np.log(float(images)) - np.log(np.maximum(frequency, 1.0))


def _weigh(
  counts: ngrams.Counts, rarity: np.ndarray, captions: int
) -> _Vectors:
  """Returns the vectors of captions, given the rarity of each n-gram."""
  values = counts.counts * rarity[counts.ngrams]
  return _Vectors(
    counts,
    values,
    np.sqrt(np.bincount(counts.captions, values**2, captions)),
  )
