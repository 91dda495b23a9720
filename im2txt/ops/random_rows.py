# SPDX-License-Identifier: Apache-2.0
"""Random numbers of rows: functions of a seed and the number of the row.

Replicas that divide the rows of a batch draw what one process would draw.
"""

import tensorflow as tf

# Philox makes this many numbers per value of its counter.
_NUMBERS_PER_COUNT = 4


def uniform(
  seed: tf.Tensor, place: int | tf.Tensor, rows: tf.Tensor, size: int
) -> tf.Tensor:
  """Returns random numbers, float32 [n, size] in [0, 1).

  Args:
    seed: int [2], of the step.
    place: a number of its own for each use of the seed.
    rows: int64 [n], 0 or above. They should be near each other: numbers are
      drawn for all rows from the smallest to the largest.
    size: numbers per row.
  """
  first = tf.reduce_min(rows)
  counts_per_row = -(-size // _NUMBERS_PER_COUNT)
  # Philox gives the same numbers on every device.
  key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(
    seed=tf.random.experimental.stateless_fold_in(seed, place, alg='philox')
  )
  drawn = tf.raw_ops.StatelessRandomUniformV2(
    shape=tf.stack(
      [tf.reduce_max(rows) - first + 1, counts_per_row * _NUMBERS_PER_COUNT]
    ),
    key=key,
    counter=counter + tf.stack([tf.cast(first * counts_per_row, tf.uint64), 0]),
    alg=tf.random.Algorithm.PHILOX.value,
  )
  return tf.gather(drawn, rows - first)[:, :size]


def categorical(probabilities: tf.Tensor, numbers: tf.Tensor) -> tf.Tensor:
  """Draws a class for each row, int64 [n].

  Args:
    probabilities: float32 [n, classes], of each row up to a factor.
    numbers: float32 [n] in [0, 1), see `uniform`.
  """
  sums = tf.cumsum(probabilities, axis=1)
  drawn = tf.searchsorted(
    sums, numbers[:, tf.newaxis] * sums[:, -1:], 'right', tf.int64
  )[:, 0]
  # Rounding may lead behind the last class.
  return tf.minimum(drawn, tf.shape(sums, tf.int64)[1] - 1)
