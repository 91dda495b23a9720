# SPDX-License-Identifier: Apache-2.0
"""In which order training sees its examples: a function of seed and step.

So a run that goes on at a step sees what it would have seen without the break,
and nothing about the order has to be saved. In each epoch each example comes
once.
"""

import numpy as np

# So many shards at a time are shuffled as one, so that the records which are
# read one after the other lie near each other: a disk then reads ahead to some
# use. 36,800 captions with the shards of MSCOCO; the program of 2016 chose
# among 4,600.
_SHARDS_AT_A_TIME = 16


def epoch_order(count, seed, epoch, shards=None):
  """Returns the order of an epoch, a permutation of range(count).

  Args:
    count: number of examples.
    seed: int, not negative.
    epoch: int, from 0 on.
    shards: int [count], which shard an example lies in, ascending; None: all
      are near each other.

  Returns:
    int64 [count].

  >>> epoch_order(4, seed=2, epoch=0).tolist()
  [3, 2, 0, 1]
  """
  rng = np.random.default_rng([seed, epoch])
  if shards is None:
    return rng.permutation(count)
  ends = np.searchsorted(shards, np.arange(shards[-1] + 1), side='right')
  starts = np.concatenate([[0], ends[:-1]])
  order = rng.permutation(len(ends))
  return np.concatenate(
    [
      rng.permutation(
        np.concatenate(
          [
            np.arange(starts[shard], ends[shard])
            for shard in order[first : first + _SHARDS_AT_A_TIME]
          ]
        )
      )
      for first in range(0, len(order), _SHARDS_AT_A_TIME)
    ]
  )


def batches(count, size, seed, first_step=0, shards=None):
  """Yields the examples of each step, forever. A batch may cross epochs.

  Args:
    count: number of examples.
    size: examples per step.
    seed: see `epoch_order`.
    first_step: int, the step to begin with.
    shards: see `epoch_order`.

  Yields:
    (examples int64 [size]; place int, of the first of them among the examples
    of all epochs; rng, a `np.random.Generator` that is a function of seed and
    step).
  """
  known = {}  # Orders of the epochs of the last batch.
  step = first_step
  while True:
    place = step * size
    epochs = range(place // count, (place + size - 1) // count + 1)
    known = {
      epoch: known[epoch]
      if epoch in known
      else epoch_order(count, seed, epoch, shards)
      for epoch in epochs
    }
    examples = np.concatenate([known[epoch] for epoch in epochs])
    first = place - epochs[0] * count
    yield (
      examples[first : first + size],
      place,
      np.random.default_rng([seed, step, 1]),
    )
    step += 1
