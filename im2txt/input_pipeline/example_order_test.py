# SPDX-License-Identifier: Apache-2.0
"""Tests of example_order."""

import itertools
import sys

import numpy as np
import pytest

from im2txt.input_pipeline import example_order

# 40 shards of 0 to 9 examples.
_SHARDS = np.repeat(np.arange(40), np.arange(40) % 10)


@pytest.mark.parametrize('shards', [None, _SHARDS])
def test_an_epoch_is_a_permutation_of_seed_and_epoch(shards):
  orders = [
    example_order.epoch_order(len(_SHARDS), seed, epoch, shards)
    for seed in (1, 2)
    for epoch in (0, 1)
  ]
  for order in orders:
    np.testing.assert_array_equal(np.sort(order), np.arange(len(_SHARDS)))
  for one, other in itertools.combinations(orders, 2):
    assert (one != other).any()
  np.testing.assert_array_equal(
    example_order.epoch_order(len(_SHARDS), 1, 1, shards), orders[1]
  )


def test_a_few_shards_at_a_time_are_shuffled_as_one():
  order = example_order.epoch_order(len(_SHARDS), 1, 0, _SHARDS)
  shards = _SHARDS[order]
  first_seen = [shards.tolist().index(shard) for shard in np.unique(_SHARDS)]
  last_seen = [
    np.flatnonzero(shards == shard)[-1] for shard in np.unique(_SHARDS)
  ]
  # What lies far apart in the order is never of one shard; and yet the
  # examples of a shard are spread, and shards come in any order.
  spans = np.subtract(last_seen, first_seen)
  assert 50 < spans.max() < 9 * 16
  assert first_seen != sorted(first_seen)


@pytest.mark.parametrize('size', [1, 3, 7, 23])
def test_batches_take_each_example_once_an_epoch(size):
  steps = list(itertools.islice(example_order.batches(7, size, 5), 21))
  examples = np.concatenate([examples for examples, _, _ in steps])
  assert [place for _, place, _ in steps] == [size * step for step in range(21)]
  for epoch in examples.reshape(-1, 7):
    np.testing.assert_array_equal(np.sort(epoch), np.arange(7))
  for step in range(21):
    found, place, rng = next(example_order.batches(7, size, 5, step))
    np.testing.assert_array_equal(found, steps[step][0])
    assert place == steps[step][1]
    np.testing.assert_array_equal(
      rng.integers(1000, size=4), steps[step][2].integers(1000, size=4)
    )


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
