# SPDX-License-Identifier: Apache-2.0
"""BLEU-1 to BLEU-4 of captions, as COCO's evaluation counts it.

Papineni et al. 2002, "BLEU: a Method for Automatic Evaluation of Machine
Translation", with the closest length of the references. The digits are those
of pycocoevalcap's scorer, its tiny constants included.
"""

from collections.abc import Sequence
import math

import numpy as np

from im2txt.metrics import ngrams

VERSION = '1'

# Added to counts, so that a caption without n-grams scores 0.
_SMALL = 1e-9
_TINY = 1e-15


def statistics(
  candidates: ngrams.Captions, references: ngrams.Captions
) -> np.ndarray:
  """Counts what BLEU is computed from.

  Args:
    candidates: one caption per image.
    references: one or more captions per image.

  Returns:
    int64 [images, 2 + 2 * MAX_N]: words of the caption; words of the reference
    of the closest length; for each n, the n-grams of the caption; and for each
    n, those that are in a reference.
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


def scores(rows: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
  """Returns BLEU-1, BLEU-2, ... of rows of statistics.

  Args:
    rows: [n, 2 + 2 * MAX_N], rows of `statistics`, or sums of them.

  Returns:
    float64 [n, MAX_N].
  """
  # In Python, as NumPy's powers may differ in the last digit.
  return np.array([_score(*row) for row in np.asarray(rows).tolist()])


def _score(
  length: float, reference_length: float, *counts: float
) -> list[float]:
  said, right = counts[: ngrams.MAX_N], counts[ngrams.MAX_N :]
  values, product = [], 1.0
  for n in range(ngrams.MAX_N):
    product *= (right[n] + _TINY) / (said[n] + _SMALL)
    values.append(product ** (1 / (n + 1)))
  ratio = (length + _TINY) / (reference_length + _SMALL)
  if ratio < 1:
    values = [value * math.exp(1 - 1 / ratio) for value in values]
  return values
