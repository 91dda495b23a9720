# SPDX-License-Identifier: Apache-2.0
"""How work is shared: among which devices, and which part each of them has."""

import dataclasses

# Values of --distribution, see `distribution.make`.
AUTO, ONE, MIRRORED, MULTI_WORKER = NAMES = (
  'auto',
  'one',
  'mirrored',
  'multi_worker',
)
# Those of programs that run on one machine, see `distribution.make_local`.
LOCAL_NAMES = (AUTO, ONE, MIRRORED)
LOCAL_TEXT = (
  'Devices to use: one; mirrored, all GPUs of this machine, each for a share of '
  'every batch. auto is mirrored with several GPUs, else one.'
)


@dataclasses.dataclass(frozen=True)
class Share:
  """A replica's part of a batch, or a worker's of a data set: a run of it.

  Attributes:
    index: of the replica or worker.
    count: number of replicas or workers.
  """

  index: int
  count: int

  def bounds(self, size: int) -> tuple[int, int]:
    """Returns the first example and the end, of `size` examples.

    >>> [Share(index, 3).bounds(8) for index in range(3)]
    [(0, 2), (2, 5), (5, 8)]
    """
    return (
      size * self.index // self.count,
      size * (self.index + 1) // self.count,
    )


# The share of the only replica.
WHOLE = Share(0, 1)
