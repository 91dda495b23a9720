# SPDX-License-Identifier: Apache-2.0
"""METEOR 1.5 of captions: matches by its Java program, and what follows.

Denkowski and Lavie 2014, "Meteor Universal: Language Specific Translation
Evaluation for Any Target Language", with its parameters for English.
"""

import contextlib

import numpy as np

VERSION = '1.5'

_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
# Of matches by the word, its stem, its synonyms, and paraphrases.
_WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])
# A line of the program: words of caption and reference, function words of both,
# for each kind of match content words of both and function words of both, and
# chunks and matched words of both.
_COLUMNS = 4 + 4 * len(_WEIGHTS) + 3


def measure(references, candidates):
  """Runs the program.

  Args:
    references: dict, image id -> list of str, tokens joined by blanks.
    candidates: dict, image id -> list of one such str, for the same images.

  Returns:
    (METEOR of all images, float; float64 [images], of each; float64 [images,
    columns], what `scores` takes).

  Raises:
    ImportError: pycocoevalcap is not installed.
    OSError: the program failed.
  """
  from pycocoevalcap.meteor import meteor

  lines = []

  class Meteor(meteor.Meteor):
    """Remembers what the program says of each image."""

    def _stat(self, hypothesis_str, reference_list):
      lines.append(super()._stat(hypothesis_str, reference_list))
      return lines[-1]

  scorer = Meteor()
  try:
    score, values = scorer.compute_score(references, candidates)
  except (OSError, ValueError) as error:
    raise OSError(
      f"METEOR's Java program failed ({error}): it needs 2 GB of memory"
    ) from error
  finally:
    # An error leaves it taken, and its destructor would wait for it forever, or
    # complain of a pipe that nobody reads.
    if scorer.lock.locked():
      scorer.lock.release()
    with contextlib.suppress(OSError):
      scorer.meteor_p.stdin.close()
  rows = np.array([line.split() for line in lines], np.float64)
  # A caption that is one chunk, all of it a reference, is in no pieces.
  whole = (
    (rows[:, -3] == 1)
    & (rows[:, -2] == rows[:, 0])
    & (rows[:, -1] == rows[:, 1])
  )
  rows[whole, -3] = 0
  return score, np.array(values), rows


def scores(rows):
  """Returns METEOR of each of some sums of the program's counts.

  Args:
    rows: float64 [n, columns], what `measure` gives, or sums of that.

  Returns:
    float64 [n].
  """
  rows = np.asarray(rows, np.float64)
  if rows.shape[1:] != (_COLUMNS,):
    raise ValueError(f'{rows.shape[1:]} counts per row, not {_COLUMNS}')
  length, reference_length, function, reference_function = rows[:, :4].T
  matches = rows[:, 4:-3].reshape([-1, len(_WEIGHTS), 4])
  chunks, matched, reference_matched = rows[:, -3:].T

  def share(content, function_matches, words, function_words):
    found = (_DELTA * content + (1 - _DELTA) * function_matches) @ _WEIGHTS
    of = _DELTA * (words - function_words) + (1 - _DELTA) * function_words
    return np.divide(found, of, out=np.zeros_like(of), where=of > 0)

  precision = share(matches[:, :, 0], matches[:, :, 2], length, function)
  recall = share(
    matches[:, :, 1], matches[:, :, 3], reference_length, reference_function
  )
  weighted = _ALPHA * precision + (1 - _ALPHA) * recall
  mean = np.divide(
    precision * recall,
    weighted,
    out=np.zeros_like(weighted),
    where=weighted > 0,
  )
  words = (matched + reference_matched) / 2
  fragmentation = np.divide(
    chunks, words, out=np.zeros_like(words), where=words > 0
  )
  return mean * (1 - _GAMMA * fragmentation**_BETA)
