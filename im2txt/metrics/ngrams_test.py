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


def test_index_gives_later_captions_the_same_numbers():
  rng = np.random.default_rng(1)
  captions = [rng.integers(0, 5, n).tolist() for n in rng.integers(0, 9, 30)]
  index = ngrams.Index(captions[:20])
  counts, lengths = index.count(captions[10:])
  assert lengths.tolist() == [len(caption) for caption in captions[10:]]
  for n, (known, found) in enumerate(zip(index.counts, counts), start=1):
    numbers = {}
    for entries, first in ((known, 0), (found, 10)):
      for caption, number, times in zip(
        entries.captions.tolist(), entries.ngrams.tolist(), entries.counts
      ):
        words = captions[first + caption]
        ngrams_of_caption = [
          tuple(words[j : j + n]) for j in range(len(words) - n + 1)
        ]
        # Which n-gram it is: the one that has had the number, or the next.
        ngram = next(
          (key for key, value in numbers.items() if value == number), None
        ) or next(key for key in ngrams_of_caption if key not in numbers)
        numbers[ngram] = number
        assert ngrams_of_caption.count(ngram) == times
        assert number < entries.num_ngrams
    assert len(set(numbers.values())) == len(numbers)
    # Nothing that was counted later has been added.
    assert all(
      (a == b).all()
      for a, b in zip(index.count(captions[:20])[0][n - 1][:3], known[:3])
    )


def test_unknown_words_are_equal_to_none():
  index = ngrams.Index([[3, 9, 9], [9]], unknown_id=9)
  assert len(set(index.counts[0].ngrams.tolist())) == 4
  counts, _ = index.count([[9, 3, 9]])
  unknown, known, other = counts[0].ngrams.tolist()
  assert known == index.counts[0].ngrams[0]
  assert not {unknown, other} & set(index.counts[0].ngrams.tolist())
  assert not set(counts[1].ngrams) & set(index.counts[1].ngrams)


def test_entries_of_captions():
  counts = ngrams.count(['a b', '', 'c', 'b'])[0][0]
  entries, owners = counts.entries(np.array([3, 0, 1, 0]))
  assert counts.captions[entries].tolist() == [3, 0, 0, 0, 0]
  assert owners.tolist() == [0, 1, 1, 3, 3]


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
