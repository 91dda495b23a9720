# SPDX-License-Identifier: Apache-2.0
"""BLEU-1 to BLEU-4 of captions, as COCO's evaluation counts it.

Papineni et al. 2002, "BLEU: a Method for Automatic Evaluation of Machine
Translation", with the closest length of the references. The digits are those
of pycocoevalcap's scorer, its tiny constants included.
"""

import math

import numpy as np

from im2txt.metrics import ngrams

VERSION = '1'

# In the place of zeros: nothing right of nothing said is 0.
_SMALL = 1e-9
_TINY = 1e-15


def statistics(candidates, references):
  """Counts what BLEU is computed from.

  Args:
    candidates: `ngrams.Captions`, one per image.
    references: likewise, those of each image together.

  Returns:
    int64 [images, 2 + 2 * MAX_N]: words of the caption, words of the reference
    whose length is closest, n-grams of the caption for each n, and how many of
    these are right.
  """
  images = len(candidates.lengths)
  difference = np.abs(
    references.lengths - candidates.lengths[references.images]
  )
  order = np.lexsort((references.lengths, difference, references.images))
  _, first = np.unique(references.images[order], return_index=True)
  lengths = candidates.lengths
  said, right = [], []
  for n, (mine, theirs) in enumerate(
    zip(candidates.counts, references.counts), start=1
  ):
    said.append(np.maximum(lengths - n + 1, 0))
    keys, groups = np.unique(
      theirs.keys(references.images), return_inverse=True
    )
    most = np.zeros(len(keys), np.int64)
    np.maximum.at(most, groups, theirs.counts)
    found, places = ngrams.find(keys, mine.keys(candidates.images))
    hits = np.zeros(images, np.int64)
    np.add.at(
      hits, mine.captions[found], np.minimum(mine.counts[found], most[places])
    )
    right.append(hits)
  return np.stack(
    [lengths, references.lengths[order][first], *said, *right], axis=1
  )


def scores(rows):
  """Returns BLEU-1, BLEU-2, ... of each of some sums of statistics.

  Args:
    rows: [n, 2 + 2 * MAX_N], what `statistics` gives, or sums of that.

  Returns:
    float64 [n, MAX_N].
  """
  # Python's powers: NumPy's may differ in the last digit.
  return np.array([_score(*row) for row in np.asarray(rows).tolist()])


def _score(length, reference_length, *counts):
  said, right = counts[: ngrams.MAX_N], counts[ngrams.MAX_N :]
  values, product = [], 1.0
  for n in range(ngrams.MAX_N):
    product *= (right[n] + _TINY) / (said[n] + _SMALL)
    values.append(product ** (1 / (n + 1)))
  ratio = (length + _TINY) / (reference_length + _SMALL)
  if ratio < 1:
    values = [value * math.exp(1 - 1 / ratio) for value in values]
  return values
