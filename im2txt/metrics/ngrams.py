# SPDX-License-Identifier: Apache-2.0
"""Counts the n-grams of many captions at once."""

from collections.abc import Sequence
import itertools
from typing import NamedTuple

import numpy as np

MAX_N = 4

# Word ids are below this.
_MAX_WORDS = 2**31


class Counts(NamedTuple):
  """How often each n-gram of one n is in each caption.

  An entry is a caption and one of its n-grams. Entries are in the order of the
  captions and, within a caption, in the order in which n-grams first appear.

  Attributes:
    captions: int64 [entries], index of the caption.
    ngrams: int64 [entries], the same number for the same n-gram.
    counts: int64 [entries], how often it is in the caption, 1 or more.
    num_ngrams: above all of `ngrams`.
  """

  captions: np.ndarray
  ngrams: np.ndarray
  counts: np.ndarray
  num_ngrams: int

  def of(self, start: int, stop: int) -> 'Counts':
    """Returns the entries of a range of captions, numbered from 0."""
    rows = slice(*np.searchsorted(self.captions, [start, stop]))
    return Counts(
      self.captions[rows] - start,
      self.ngrams[rows],
      self.counts[rows],
      self.num_ngrams,
    )

  def entries(self, captions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds the entries of some captions.

    Args:
      captions: int64 [n], indices; one may be there several times.

    Returns:
      (int64 [m], indices of entries; int64 [m], the index in `captions` of the
      caption of each).
    """
    return ranges(
      np.searchsorted(self.captions, captions, 'left'),
      np.searchsorted(self.captions, captions, 'right'),
    )

  def keys(self, groups: np.ndarray) -> np.ndarray:
    """Returns int64 [entries], equal for the same group and n-gram.

    Args:
      groups: int64 [captions], the group of each.
    """
    return groups[self.captions] * self.num_ngrams + self.ngrams


class Index:
  """Numbers the n-grams of captions of word ids.

  Captions that are counted later get the same numbers for the same n-grams,
  and higher numbers for new ones.

  >>> index = Index([[7, 8]])
  >>> index.counts[0].ngrams.tolist(), index.counts[1].ngrams.tolist()
  ([0, 1], [0])
  >>> index.count([[8, 9, 7]])[0][0].ngrams.tolist()
  [1, 2, 0]

  Args:
    captions: lists of word ids, below 2**31.
    unknown_id: id of the unknown word, which is equal to no word, not even to
      itself; None if there is no such id.

  Attributes:
    counts: a `Counts` for each of n = 1 to MAX_N.
    lengths: int64 [captions], words per caption.
  """

  def __init__(
    self, captions: Sequence[Sequence[int]], unknown_id: int | None = None
  ) -> None:
    self._unknown_id = unknown_id
    # For each n: the sorted keys of the n-grams, with a last one above all; and
    # a number above those of the n-grams.
    self._keys = [np.zeros(0, np.int64)] * MAX_N
    self._num_ngrams = [0] * MAX_N
    self.counts, self.lengths = self._count(captions, adds=True)

  def count(
    self, captions: Sequence[Sequence[int]]
  ) -> tuple[list[Counts], np.ndarray]:
    """Counts the n-grams of further captions, which are not added.

    Args:
      captions: lists of word ids.

    Returns:
      (a `Counts` for each of n = 1 to MAX_N; int64 [captions], words per
      caption).
    """
    return self._count(captions, adds=False)

  def _count(
    self, captions: Sequence[Sequence[int]], adds: bool
  ) -> tuple[list[Counts], np.ndarray]:
    """Counts n-grams, see `count`, and adds them to the index if `adds`."""
    lengths = np.array([len(caption) for caption in captions], np.int64)
    words = np.fromiter(itertools.chain.from_iterable(captions), np.int64)
    owners = np.repeat(np.arange(len(captions)), lengths)
    if self._unknown_id is not None:
      unknown = np.flatnonzero(words == self._unknown_id)
      words[unknown] = -1 - np.arange(len(unknown))
    starts, ids = np.arange(len(words)), words
    counts = []
    for n in range(1, MAX_N + 1):
      if n > 1:
        # Keep the n-grams that a word of the same caption follows.
        goes_on = starts + n - 1 < len(owners)
        starts, ids = starts[goes_on], ids[goes_on]
        goes_on = owners[starts] == owners[starts + n - 1]
        starts, ids = starts[goes_on], ids[goes_on]
        # A key for each pair of a shorter n-gram and the word after it.
        ids = ids * _MAX_WORDS + words[starts + n - 1]
      ids, num_ngrams = self._number(n, ids, adds)
      if n == 1:
        words = ids
      _, first, times = np.unique(
        owners[starts] * num_ngrams + ids, return_index=True, return_counts=True
      )
      order = np.argsort(first)
      first = first[order]
      counts.append(
        Counts(owners[starts[first]], ids[first], times[order], num_ngrams)
      )
    return counts, lengths

  def _number(
    self, n: int, keys: np.ndarray, adds: bool
  ) -> tuple[np.ndarray, int]:
    """Returns (int64 [n-grams], their numbers; a number above all of these).

    Args:
      n: words per n-gram.
      keys: int64 [n-grams], equal for equal n-grams; negative for those that
        are equal to no n-gram of another call.
      adds: whether to add the n-grams to the index.
    """
    if adds:
      known, numbers = np.unique(keys, return_inverse=True)
      # Negative keys keep their numbers, so that no other n-gram gets these.
      self._num_ngrams[n - 1] = len(known)
      self._keys[n - 1] = np.append(known, np.iinfo(np.int64).max)
      return numbers, len(known)
    known, num_ngrams = self._keys[n - 1], self._num_ngrams[n - 1]
    numbers = np.searchsorted(known, keys)
    is_new = (known[numbers] != keys) | (keys < 0)
    new, inverse = np.unique(keys[is_new], return_inverse=True)
    numbers[is_new] = num_ngrams + inverse
    return numbers, num_ngrams + len(new)


def count(captions: Sequence[str]) -> tuple[list[Counts], np.ndarray]:
  """Counts the n-grams of captions.

  >>> count(['a dog', 'a a'])[0][0].counts.tolist()
  [1, 1, 2]

  Args:
    captions: tokens joined by blanks.

  Returns:
    (a `Counts` for each of n = 1 to MAX_N; int64 [captions], words per
    caption).
  """
  ids: dict[str, int] = {}
  index = Index(
    [
      [ids.setdefault(word, len(ids)) for word in caption.split()]
      for caption in captions
    ]
  )
  return index.counts, index.lengths


def ranges(
  starts: np.ndarray, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Joins ranges of integers.

  >>> numbers, owners = ranges(np.array([5, 2]), np.array([6, 4]))
  >>> numbers.tolist(), owners.tolist()
  ([5, 2, 3], [0, 1, 1])

  Args:
    starts: int64 [n].
    ends: int64 [n], exclusive.

  Returns:
    (int64 [m], the integers; int64 [m], the index of the range of each).
  """
  lengths = ends - starts
  owners = np.repeat(np.arange(len(lengths)), lengths)
  shifts = starts - np.cumsum(lengths) + lengths
  return np.arange(len(owners)) + shifts[owners], owners


def find(keys: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Finds keys among others.

  Args:
    keys: int64 [n], all different.
    wanted: int64 [m].

  Returns:
    (bool [m], whether each is in `keys`; int64, the indices in `keys` of those
    that are).
  """
  if not len(keys):
    return np.zeros(len(wanted), bool), np.zeros(0, np.int64)
  order = np.argsort(keys)
  places = np.searchsorted(keys, wanted, sorter=order)
  places = order[np.minimum(places, len(keys) - 1)]
  found = keys[places] == wanted
  return found, places[found]


class Captions(NamedTuple):
  """Captions of images, counted together with others.

  Attributes:
    counts: a `Counts` for each of n = 1 to MAX_N.
    lengths: int64 [captions], words per caption.
    images: int64 [captions], index of the image of each, ascending.
  """

  counts: Sequence[Counts]
  lengths: np.ndarray
  images: np.ndarray


def pair(
  candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[Captions, Captions]:
  """Counts captions and references, with the same numbers for n-grams.

  Args:
    candidates: one caption per image, tokens joined by blanks.
    references: for each image its references, likewise.

  Returns:
    (the candidates, the references).
  """
  images = len(candidates)
  counts, lengths = count(
    [*candidates, *(caption for captions in references for caption in captions)]
  )
  owners = np.repeat(np.arange(images), [len(r) for r in references])
  return (
    Captions(
      [c.of(0, images) for c in counts], lengths[:images], np.arange(images)
    ),
    Captions(
      [c.of(images, len(lengths)) for c in counts], lengths[images:], owners
    ),
  )
