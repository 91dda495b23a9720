# SPDX-License-Identifier: Apache-2.0
"""CIDEr-D of captions, as COCO's evaluation computes it.

Vedantam et al. 2015, "CIDEr: Consensus-based Image Description Evaluation". The
digits are those of pycocoevalcap's scorer: sums are taken in its order.
"""

import math

import numpy as np

from im2txt.metrics import ngrams

VERSION = 'D-1'

_SIGMA = 6.0


def scores(candidates, references):
  """Returns the CIDEr-D of each image, 0 to 10.

  Args:
    candidates: `ngrams.Captions`, one per image.
    references: likewise, those of each image together; the weights of n-grams
      come from these.

  Returns:
    float64 [images].
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
  for mine, theirs in zip(candidates.counts, references.counts):
    rarity = _rarity(theirs, references.images, images)
    values, norms = _weigh(mine, rarity, images)
    their_values, their_norms = _weigh(theirs, rarity, len(references.lengths))
    found, places = ngrams.find(
      mine.keys(candidates.images), theirs.keys(references.images)
    )
    # In the order of the candidate's n-grams.
    order = np.argsort(places, kind='stable')
    other = their_values[found][order]
    products = np.bincount(
      theirs.captions[found][order],
      np.minimum(values[places[order]], other) * other,
      len(references.lengths),
    )
    scale = norms[references.images] * their_norms
    similarity = np.divide(
      products, scale, out=np.zeros_like(scale), where=scale != 0
    )
    total += np.bincount(references.images, similarity * penalty, images)
  return total / ngrams.MAX_N / np.bincount(references.images) * 10


def _rarity(counts, image_of_caption, images):
  """Returns float64 [n-grams], the logarithm of images per image with it."""
  # Sorted by hand: np.unique hashes, which takes ten times as long.
  keys = np.sort(counts.keys(image_of_caption))
  keys = keys[np.diff(keys, prepend=-1) != 0]
  frequency = np.bincount(keys % counts.num_ngrams, minlength=counts.num_ngrams)
  return np.log(float(images)) - np.log(np.maximum(frequency, 1.0))


def _weigh(counts, rarity, captions):
  """Returns (float64 [entries], tf-idf; float64 [captions], their norms)."""
  values = counts.counts * rarity[counts.ngrams]
  return values, np.sqrt(np.bincount(counts.captions, values**2, captions))
