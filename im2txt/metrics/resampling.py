# SPDX-License-Identifier: Apache-2.0
"""How sure scores and their differences are: images drawn again, or swapped.

Koehn 2004, "Statistical Significance Tests for Machine Translation
Evaluation", for the bootstrap; Riezler and Maxwell 2005, "On Some Pitfalls in
Automatic Evaluation and Significance Testing for MT", for the randomization.
Each resample sums what is known of each image, so captions are counted once.
The n-grams' weights in CIDEr stay those of all images.
"""

from typing import NamedTuple

import numpy as np

RESAMPLES = 1000
CONFIDENCE = 0.95
SEED = 12345

_VALUES_AT_ONCE = 1 << 23
# Sums in another order differ by less.
_ROUNDING = 1e-12


class Difference(NamedTuple):
  """By how much one set of captions scores higher than another.

  Attributes:
    value: float.
    low: float, of the interval that holds the difference with `CONFIDENCE`.
    high: float.
    p_value: float, how often a difference as large, of either sign, comes about
      where it is by chance which of two captions is whose.
  """

  value: float
  low: float
  high: float
  p_value: float


def intervals(measured, resamples=RESAMPLES, seed=SEED):
  """Returns the interval that holds each score with `CONFIDENCE`.

  Args:
    measured: `caption_scores.Measured`.
    resamples: sets of images to draw.
    seed: int, which ones.

  Returns:
    dict, name of the metric -> (low, high).
  """
  return {
    name: _percentiles(values)
    for name, values in _scores(
      measured, _draws(len(measured.image_ids), resamples, seed)
    ).items()
  }


def compare(measured, baseline, resamples=RESAMPLES, seed=SEED):
  """Compares two sets of captions of the same images.

  The interval is that of the paired bootstrap, the p value that of approximate
  randomization.

  Args:
    measured: `caption_scores.Measured`.
    baseline: likewise, what is compared with.
    resamples: sets of images to draw, and ways to swap captions.
    seed: int, which ones.

  Returns:
    dict, name of a metric that both have -> `Difference`.

  Raises:
    ValueError: the images are not the same.
  """
  if measured.image_ids != baseline.image_ids:
    raise ValueError('captions of different images cannot be compared')
  images = len(measured.image_ids)
  drawn, theirs = (
    _scores(m, _draws(images, resamples, seed)) for m in (measured, baseline)
  )
  # Where 1, the captions are swapped.
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


def _percentiles(values):
  """Returns (low, high) of the middle of values, two float."""
  return tuple(
    np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]).tolist()
  )


def _draws(images, resamples, seed):
  """Yields float64 [some, images], how often each image is drawn."""
  # Of RandomState NumPy promises that its numbers stay.
  random = np.random.RandomState(seed)
  for rows in _parts(images, resamples):
    yield np.stack(
      [
        np.bincount(random.randint(images, size=images), minlength=images)
        for _ in range(rows)
      ]
    ).astype(np.float64)


def _swaps(images, resamples, seed):
  """Yields float64 [some, images], 1 for half of the images, by chance."""
  random = np.random.RandomState(seed)
  for rows in _parts(images, resamples):
    yield random.randint(2, size=[rows, images]).astype(np.float64)


def _parts(images, resamples):
  """Yields how many resamples to take at once, as memory allows."""
  most = max(_VALUES_AT_ONCE // images, 1)
  for done in range(0, resamples, most):
    yield min(most, resamples - done)


def _scores(measured, weights, swapped=None):
  """Scores weighted sets of images.

  Args:
    measured: `caption_scores.Measured`.
    weights: yields float64 [some, images].
    swapped: None, or the `Measured` of which images of weight 1 are taken in
      the place of `measured`.

  Returns:
    dict, name of the metric -> float64 [resamples].
  """
  others = (
    {} if swapped is None else {s.metrics: s.rows for s in swapped.statistics}
  )
  sums = {
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
  values = {}
  for statistics in measured.statistics:
    if statistics.metrics in sums:
      scores = statistics.scores(np.concatenate(sums[statistics.metrics]))
      values.update(zip(statistics.metrics, scores.T))
  return {name: values[name] for name in measured.scores if name in values}
