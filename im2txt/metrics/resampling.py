# SPDX-License-Identifier: Apache-2.0
"""Confidence intervals of scores, and tests of their differences.

Koehn 2004, "Statistical Significance Tests for Machine Translation
Evaluation", for the bootstrap; Riezler and Maxwell 2005, "On Some Pitfalls in
Automatic Evaluation and Significance Testing for MT", for the randomization.
Each resample sums the statistics of the images, so n-grams are counted once
only. CIDEr keeps the weights of n-grams of the whole set.
"""

from collections.abc import Iterable
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from im2txt.metrics import caption_scores

RESAMPLES = 1000
CONFIDENCE = 0.95
SEED = 12345

# Float64 values in memory at once.
VALUES_AT_ONCE = 1 << 23
# Above the rounding errors of sums.
_ROUNDING = 1e-12


class Difference(NamedTuple):
  """The difference between the scores of two sets of captions.

  Attributes:
    value: the first score minus the second.
    low: lower end of the interval of `CONFIDENCE`.
    high: upper end of the interval.
    p_value: probability of a difference as large, of either sign, if captions
      of the two sets are swapped at random.
  """

  value: float
  low: float
  high: float
  p_value: float


def intervals(
  measured: caption_scores.Measured,
  resamples: int = RESAMPLES,
  seed: int = SEED,
) -> dict[str, tuple[float, float]]:
  """Returns the interval of `CONFIDENCE` of each score.

  Args:
    measured: the scores.
    resamples: number of sets of images to draw.
    seed: of the draws.

  Returns:
    (low, high) by metric.
  """
  return {
    name: _percentiles(values)
    for name, values in _scores(
      measured, _draws(len(measured.image_ids), resamples, seed)
    ).items()
  }


def compare(
  measured: caption_scores.Measured,
  baseline: caption_scores.Measured,
  resamples: int = RESAMPLES,
  seed: int = SEED,
) -> dict[str, Difference]:
  """Compares two sets of captions of the same images.

  The interval comes from the paired bootstrap, and the p value from approximate
  randomization.

  Args:
    measured: the scores of the first set.
    baseline: the scores of the second set.
    resamples: number of sets of images to draw, and of random swaps.
    seed: of the draws and swaps.

  Returns:
    The differences, by metric, of the metrics that both have.

  Raises:
    ValueError: the images differ.
  """
  if measured.image_ids != baseline.image_ids:
    raise ValueError('both sets of captions must be of the same images')
  images = len(measured.image_ids)
  drawn, theirs = (
    _scores(m, _draws(images, resamples, seed)) for m in (measured, baseline)
  )
  # A weight of 1 swaps the captions of an image.
  ours, others = (
    _scores(m, _swaps(images, resamples, seed), other)
    for m, other in ((measured, baseline), (baseline, measured))
  )
  differences = {}
  for name in measured.scores:
    if name in baseline.scores:
      value = measured.scores[name] - baseline.scores[name]
      chance = np.abs(ours[name] - others[name])
      differences[name] = Difference(
        value,
        *_percentiles(drawn[name] - theirs[name]),
        (1 + int((chance >= abs(value) - _ROUNDING).sum())) / (1 + resamples),
      )
  return differences


def _percentiles(values: np.ndarray) -> tuple[float, float]:
  """Returns the interval that has the share `CONFIDENCE` of the values."""
  low, high = np.quantile(
    values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
  ).tolist()
  return low, high


def _draws(images: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
  """Yields float64 [some, images], how often each image is drawn."""
  # NumPy guarantees that the numbers of RandomState never change.
  random = np.random.RandomState(seed)
  for rows in _parts(images, resamples):
    yield np.stack(
      [
        np.bincount(random.randint(images, size=images), minlength=images)
        for _ in range(rows)
      ]
    ).astype(np.float64)


def _swaps(images: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
  """Yields float64 [some, images], 0 or 1 at random."""
  random = np.random.RandomState(seed)
  for rows in _parts(images, resamples):
    yield random.randint(2, size=[rows, images]).astype(np.float64)


def _parts(images: int, resamples: int) -> Iterator[int]:
  """Yields how many resamples to take at once, to limit memory."""
  most = max(VALUES_AT_ONCE // images, 1)
  for done in range(0, resamples, most):
    yield min(most, resamples - done)


def _scores(
  measured: caption_scores.Measured,
  weights: Iterable[np.ndarray],
  swapped: caption_scores.Measured | None = None,
) -> dict[str, np.ndarray]:
  """Scores weighted sets of images.

  Args:
    measured: statistics of the images.
    weights: parts of the weights, float64 [some, images].
    swapped: if given, it replaces `measured` for images of weight 1.

  Returns:
    float64 [resamples], by metric.
  """
  others = (
    {} if swapped is None else {s.metrics: s.rows for s in swapped.statistics}
  )
  sums: dict[tuple[str, ...], list[np.ndarray]] = {
    s.metrics: []
    for s in measured.statistics
    if swapped is None or s.metrics in others
  }
  for part in weights:
    for statistics in measured.statistics:
      if statistics.metrics not in sums:
        continue
      rows = statistics.rows
      sums[statistics.metrics].append(
        part @ rows
        if swapped is None
        else rows.sum(axis=0) + part @ (others[statistics.metrics] - rows)
      )
  values: dict[str, np.ndarray] = {}
  for statistics in measured.statistics:
    if statistics.metrics in sums:
      scores = statistics.scores(np.concatenate(sums[statistics.metrics]))
      values.update(zip(statistics.metrics, scores.T))
  return {name: values[name] for name in measured.scores if name in values}
