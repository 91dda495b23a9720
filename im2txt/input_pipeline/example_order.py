# SPDX-License-Identifier: Apache-2.0
"""The order of the training examples: a function of seed and step.

So a run that resumes at a step sees the same examples as without the break, and
nothing about the order has to be saved. Each example comes once per epoch.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

# This many shards are shuffled as one, so that records which are read one after
# the other are near each other on the disk, where reading ahead helps. They
# have 36,800 captions of MSCOCO; the program of 2016 chose among 4,600.
_SHARDS_AT_A_TIME = 16


class Examples(NamedTuple):
  """The examples of a step.

  Attributes:
    examples: int64 [size], the examples.
    position: position of the first among the examples of all epochs.
    rng: a generator that is a function of seed and step.
  """

  examples: np.ndarray
  position: int
  rng: np.random.Generator


def epoch_order(
  count: int, seed: int, epoch: int, shards: np.ndarray | None = None
) -> np.ndarray:
  """Returns the order of an epoch, a permutation of range(count).

  Args:
    count: number of examples.
    seed: a number that is not negative.
    epoch: number of the epoch, from 0.
    shards: int [count], the shard of each example, ascending; None: the
      examples are near each other.

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


def batches(
  count: int,
  size: int,
  seed: int,
  first_step: int = 0,
  shards: np.ndarray | None = None,
) -> Iterator[Examples]:
  """Yields the examples of each step, forever. A batch may cross epochs.

  Args:
    count: number of examples.
    size: examples per step.
    seed: see `epoch_order`.
    first_step: the step to begin with.
    shards: see `epoch_order`.
  """
  # Orders of the epochs of the last batch.
  known: dict[int, np.ndarray] = {}
  step = first_step
  while True:
    position = step * size
    epochs = range(position // count, (position + size - 1) // count + 1)
    known = {
      epoch: known[epoch]
      if epoch in known
      else epoch_order(count, seed, epoch, shards)
      for epoch in epochs
    }
    examples = np.concatenate([known[epoch] for epoch in epochs])
    first = position - epochs[0] * count
    yield Examples(
      examples[first : first + size],
      position,
      np.random.default_rng([seed, step, 1]),
    )
    step += 1
