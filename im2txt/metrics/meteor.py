# SPDX-License-Identifier: Apache-2.0
"""METEOR 1.5 of captions. Its Java program finds the matches.

Denkowski and Lavie 2014, "Meteor Universal: Language Specific Translation
Evaluation for Any Target Language", with its parameters for English.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
from typing import TypeVar

import numpy as np

_Id = TypeVar('_Id', bound=int | str)

VERSION = '1.5'

_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
# Of matches of words, stems, synonyms and paraphrases.
_WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])
# The program prints a line of counts per image: words of both (of caption and
# reference), function words of both; for each kind of match, matched content
# words of both and matched function words of both; chunks, and matched words of
# both.
_COLUMNS = 4 + 4 * len(_WEIGHTS) + 3


def measure(
  references: Mapping[_Id, Sequence[str]],
  candidates: Mapping[_Id, Sequence[str]],
) -> tuple[float, np.ndarray, np.ndarray]:
  """Scores captions by the Java program.

  Args:
    references: captions of each image, by image id, tokens joined by blanks.
    candidates: a list of one caption per image, likewise, for the same images.

  Returns:
    (METEOR of all images together; float64 [images], of each image; float64
    [images, columns], the counts that `scores` takes).

  Raises:
    ImportError: pycocoevalcap is not installed.
    OSError: the program failed.
  """
  from pycocoevalcap.meteor import meteor

  lines: list[str] = []

  class Meteor(meteor.Meteor):
    """Keeps the counts that the program prints for each image."""

    def _stat(self, hypothesis_str: str, reference_list: list[str]) -> str:
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
    # After an error the lock is still held, and the destructor would wait for
    # it forever, or report a broken pipe.
    if scorer.lock.locked():
      scorer.lock.release()
    with contextlib.suppress(OSError):
      scorer.meteor_p.stdin.close()
  rows = np.array([line.split() for line in lines], np.float64)
  # A caption that equals the reference counts as not fragmented.
  whole = (
    (rows[:, -3] == 1)
    & (rows[:, -2] == rows[:, 0])
    & (rows[:, -1] == rows[:, 1])
  )
  rows[whole, -3] = 0
  return score, np.array(values), rows


def scores(rows: np.ndarray) -> np.ndarray:
  """Returns METEOR of rows of counts.

  Args:
    rows: float64 [n, columns], rows of `measure`, or sums of them.

  Returns:
    float64 [n].
  """
  rows = np.asarray(rows, np.float64)
  if rows.shape[1:] != (_COLUMNS,):
    raise ValueError(f'{rows.shape[1:]} counts per row, must be {_COLUMNS}')
  length, reference_length, function, reference_function = rows[:, :4].T
  matches = rows[:, 4:-3].reshape([-1, len(_WEIGHTS), 4])
  chunks, matched, reference_matched = rows[:, -3:].T

  def share(
    content: np.ndarray,
    function_matches: np.ndarray,
    words: np.ndarray,
    function_words: np.ndarray,
  ) -> np.ndarray:
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
