# SPDX-License-Identifier: Apache-2.0
"""Tests of ngrams."""

import collections
import sys

import numpy as np
import pytest

from im2txt.metrics import ngrams

_CAPTIONS = ['a dog and a dog', '', 'dog', 'a dog a dog a dog', 'c\u00a0d a']


def test_counts_are_those_of_counters_in_their_order():
  counts, lengths = ngrams.count(_CAPTIONS)
  assert lengths.tolist() == [5, 0, 1, 6, 3]
  for n, found in enumerate(counts, start=1):
    names = {}
    entries = []
    for i, caption in enumerate(_CAPTIONS):
      words = caption.split()
      counter = collections.Counter(
        tuple(words[j : j + n]) for j in range(len(words) - n + 1)
      )
      entries += [(i, ngram, times) for ngram, times in counter.items()]
    assert found.captions.tolist() == [i for i, _, _ in entries]
    assert found.counts.tolist() == [times for _, _, times in entries]
    for (_, ngram, _), number in zip(entries, found.ngrams.tolist()):
      assert names.setdefault(ngram, number) == number
      assert number < found.num_ngrams
    assert len(set(names.values())) == len(names)


@pytest.mark.parametrize('captions', [[], [''], ['', '']])
def test_no_words(captions):
  counts, lengths = ngrams.count(captions)
  assert lengths.tolist() == [0] * len(captions)
  assert [len(c.counts) for c in counts] == [0] * ngrams.MAX_N


def test_pair_numbers_ngrams_alike():
  mine, theirs = ngrams.pair(['a b', 'c'], [['b a', 'a'], ['c']])
  assert mine.images.tolist() == [0, 1]
  assert theirs.images.tolist() == [0, 0, 1]
  assert theirs.lengths.tolist() == [2, 1, 1]
  a, b, c = mine.counts[0].ngrams.tolist()
  assert theirs.counts[0].ngrams.tolist() == [b, a, a, c]
  assert theirs.counts[0].captions.tolist() == [0, 0, 1, 2]
  assert not set(mine.counts[1].ngrams) & set(theirs.counts[1].ngrams)


def test_find():
  found, places = ngrams.find(np.array([5, 3, 9]), np.array([3, 4, 9, 10, 5]))
  assert found.tolist() == [True, False, True, False, True]
  assert places.tolist() == [1, 2, 0]
  found, places = ngrams.find(np.zeros(0, int), np.array([3]))
  assert found.tolist() == [False] and not places.size


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
