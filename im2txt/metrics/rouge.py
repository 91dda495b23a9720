# SPDX-License-Identifier: Apache-2.0
"""ROUGE-L of captions, as COCO's evaluation computes it.

Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries". It takes the
best precision and the best recall over the references, with beta 1.2.
"""

from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

VERSION = 'L-1'

_BETA = 1.2


def scores(
  candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> np.ndarray:
  """Returns the ROUGE-L of each image.

  Args:
    candidates: one caption per image, tokens joined by blanks.
    references: one or more captions per image, likewise.

  Returns:
    float64 [images].
  """
  return np.array([_score(*pair) for pair in zip(candidates, references)])


def _score(candidate: str, references: Sequence[str]) -> float:
  # As in pycocoevalcap, an empty caption has one word, the empty one.
  words = candidate.split(' ')
  places: dict[str, int] = {}
  for i, word in enumerate(words):
    places[word] = places.get(word, 0) | 1 << i
  precision = recall = 0.0
  for reference in references:
    others = reference.split(' ')
    common = _longest_common_subsequence(places, len(words), others)
    precision = max(precision, common / len(words))
    recall = max(recall, common / len(others))
  if not precision or not recall:
    return 0.0
  return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


def _longest_common_subsequence(
  places: Mapping[str, int], length: int, others: Sequence[str]
) -> int:
  """Returns the length of the longest common subsequence of two captions.

  Integers have a bit for each word of the first caption, so each word of the
  second takes only a few operations (Hyyro 2004, "Bit-parallel LCS-length
  computation revisited").

  Args:
    places: by word, an integer whose bits tell where the first caption has it.
    length: number of words of the first caption.
    others: words of the second caption.
  """
  everywhere = (1 << length) - 1
  unmatched = everywhere
  for word in others:
    hits = unmatched & places.get(word, 0)
    unmatched = (unmatched + hits | unmatched - hits) & everywhere
  return length - unmatched.bit_count()
