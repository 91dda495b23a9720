# SPDX-License-Identifier: Apache-2.0
"""ROUGE-L of captions, as COCO's evaluation computes it.

Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries", with the
best precision and the best recall over the references, and beta 1.2.
"""

import numpy as np

VERSION = 'L-1'

_BETA = 1.2


def scores(candidates, references):
  """Returns the ROUGE-L of each image.

  Args:
    candidates: list of str, tokens joined by blanks, one caption per image.
    references: list over images of lists of str.

  Returns:
    float64 [images].
  """
  return np.array([_score(*pair) for pair in zip(candidates, references)])


def _score(candidate, references):
  # As pycocoevalcap does: a caption without words has one, the empty one.
  words = candidate.split(' ')
  places = {}
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


def _longest_common_subsequence(places, length, others):
  """Returns the length of the longest common subsequence of two captions.

  A bit for each word of the first, so that a word of the second costs a few
  operations on integers (Hyyro 2004, "Bit-parallel LCS-length computation
  revisited").

  Args:
    places: dict, word -> int whose bits tell where the first has it.
    length: words of the first.
    others: list of str, words of the second.
  """
  everywhere = (1 << length) - 1
  unmatched = everywhere
  for word in others:
    hits = unmatched & places.get(word, 0)
    unmatched = (unmatched + hits | unmatched - hits) & everywhere
  return length - unmatched.bit_count()
