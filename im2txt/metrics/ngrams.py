# SPDX-License-Identifier: Apache-2.0
"""Counts the n-grams of many captions at once."""

from typing import NamedTuple

import numpy as np

MAX_N = 4


class Counts(NamedTuple):
  """How often each n-gram of one n is in each caption.

  An entry is a caption and one of its n-grams. Entries are in the order of the
  captions and, within a caption, of the first time that the n-gram comes.

  Attributes:
    captions: int64 [entries], index of the caption.
    ngrams: int64 [entries], the same number for the same n-gram.
    counts: int64 [entries], how often it is in the caption, 1 or more.
    num_ngrams: int, above all of `ngrams`.
  """

  captions: np.ndarray
  ngrams: np.ndarray
  counts: np.ndarray
  num_ngrams: int

  def of(self, start, stop):
    """Returns the entries of a range of captions, numbered from 0."""
    rows = slice(*np.searchsorted(self.captions, [start, stop]))
    return Counts(
      self.captions[rows] - start,
      self.ngrams[rows],
      self.counts[rows],
      self.num_ngrams,
    )

  def keys(self, groups):
    """Returns int64 [entries], equal for the same group and n-gram.

    Args:
      groups: int64 [captions], the group of each.
    """
    return groups[self.captions] * self.num_ngrams + self.ngrams


def count(captions):
  """Counts the n-grams of captions.

  >>> count(['a dog', 'a a'])[0][0].counts.tolist()
  [1, 1, 2]

  Args:
    captions: list of str, tokens joined by blanks.

  Returns:
    (list of MAX_N `Counts`, for n = 1, 2, ...; int64 [captions], their words).
  """
  words = [caption.split() for caption in captions]
  lengths = np.array([len(caption) for caption in words], np.int64)
  numbers = {}
  ids = np.array(
    [
      numbers.setdefault(word, len(numbers))
      for caption in words
      for word in caption
    ],
    np.int64,
  )
  owners = np.repeat(np.arange(len(captions)), lengths)
  unigrams, starts = ids, np.arange(len(ids))
  counts = []
  for n in range(1, MAX_N + 1):
    if n > 1:
      # Those that a word of the same caption follows.
      last = starts + n - 1
      goes_on = last < len(owners)
      starts, ids = starts[goes_on], ids[goes_on]
      goes_on = owners[starts] == owners[starts + n - 1]
      starts, ids = starts[goes_on], ids[goes_on]
      # A number for each pair of an n-gram of before and a word.
      _, ids = np.unique(
        ids * len(numbers) + unigrams[starts + n - 1], return_inverse=True
      )
    num_ngrams = int(ids.max(initial=0)) + 1
    _, first, times = np.unique(
      owners[starts] * num_ngrams + ids, return_index=True, return_counts=True
    )
    order = np.argsort(first)
    first = first[order]
    counts.append(
      Counts(owners[starts[first]], ids[first], times[order], num_ngrams)
    )
  return counts, lengths


def find(keys, wanted):
  """Finds keys in others.

  Args:
    keys: int64 [n], each once.
    wanted: int64 [m].

  Returns:
    (bool [m], which are there; int64, the index in `keys` of each of these).
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
    counts: list of MAX_N `Counts`.
    lengths: int64 [captions], words.
    images: int64 [captions], index of the image of each, not falling.
  """

  counts: list
  lengths: np.ndarray
  images: np.ndarray


def pair(candidates, references):
  """Counts captions and references, with the same numbers for n-grams.

  Args:
    candidates: list of str, tokens joined by blanks, one caption per image.
    references: list over images of lists of str.

  Returns:
    (`Captions` of the candidates, `Captions` of the references).
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
