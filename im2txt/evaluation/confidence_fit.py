# SPDX-License-Identifier: Apache-2.0
"""Fits the confidence in captions on images with references."""

import dataclasses
from typing import NamedTuple
from typing import TYPE_CHECKING

import numpy as np

from im2txt.checkpoints import confidence_stamp
from im2txt.evaluation import beam_sweep
from im2txt.inference_utils import batches
from im2txt.inference_utils import captioner as captioner_lib
from im2txt.inference_utils import confidence
from im2txt.metrics import caption_scores
from im2txt.runtime.progress import Progress

if TYPE_CHECKING:
  from matplotlib import figure

_BATCH_SIZE = 32
# Bins of the reliability plot and of the calibration error.
BINS = 10
# Holds the weights back where the captions of few images are all good or bad.
_REGULARIZATION = 1e-3


class Fitted(NamedTuple):
  """A confidence, and what it says of images that it was not fitted on.

  Attributes:
    confidence: the confidence.
    predicted: float64 [images], confidences in [0, 1].
    good: bool [images], whether the captions were good.
  """

  confidence: confidence_stamp.Confidence
  predicted: np.ndarray
  good: np.ndarray


def fit(
  captioner: captioner_lib.Captioner,
  images: beam_sweep.Images,
  cider: float,
  split: caption_scores.Split = caption_scores.tokenize,
) -> Fitted:
  """Fits on half of the images, drawn at random, and measures on the rest.

  Args:
    captioner: the model, with the settings of the search.
    images: images that the model was not trained on, with references.
    cider: a caption is good if its CIDEr is at least this.
    split: what tokenizes captions, see `caption_scores.score`.

  Raises:
    ValueError: no image can be decoded; or the captions of the images that it
      is fitted on are all good, or none is.
  """
  ids: list[int] = []
  parts = []
  with Progress('Encoding', len(images.references), 'images') as progress:
    for batch, encoded in batches.encode_batches(
      captioner, images.batches(_BATCH_SIZE), progress
    ):
      ids += batch
      parts.append(encoded)
  if len(ids) < 2:
    raise ValueError('two images or more that can be decoded are needed')
  features = np.concatenate(parts)
  order = np.random.default_rng(0).permutation(len(ids))
  is_for_fit = np.zeros(len(ids), bool)
  is_for_fit[order[: len(ids) // 2]] = True
  mean = features[is_for_fit].mean(axis=0)
  scorer = confidence.Scorer(captioner.model, mean)
  texts: dict[int, str] = {}
  numbers = []
  for start in range(0, len(ids), _BATCH_SIZE):
    rows = slice(start, start + _BATCH_SIZE)
    found = captioner.decoder.sentences(features[rows], start)
    if not all(found):
      raise ValueError(
        'the search finds no caption of an image: give other settings of the '
        'search'
      )
    best = [captions[0] for captions in found]
    numbers.append(
      scorer([c.words for c in best], [c.log_probability for c in best])
    )
    texts.update(zip(ids[rows], (c.text for c in best)))
  scores = caption_scores.measure(
    {i: images.references[i] for i in ids}, texts, ['cider'], split
  )
  by_image = dict(zip(scores.image_ids, scores.image_scores['cider']))
  good = np.array([by_image[i] >= cider for i in ids])
  x = np.concatenate(numbers)
  weights = logistic(x[is_for_fit], good[is_for_fit], cider)
  bias, log_probability, gain = (round(float(w), 6) for w in weights)
  fitted = confidence_stamp.Confidence(
    captioner.global_step,
    cider,
    bias,
    log_probability,
    gain,
    [round(float(value), 5) for value in mean],
    {},
  )
  predicted, good_of_others = fitted.of(x[~is_for_fit]), good[~is_for_fit]
  return Fitted(
    dataclasses.replace(
      fitted,
      measured={
        'images_fitted': int(is_for_fit.sum()),
        'images': len(predicted),
        **measure(predicted, good_of_others),
      },
    ),
    predicted,
    good_of_others,
  )


def logistic(x: np.ndarray, good: np.ndarray, cider: float) -> np.ndarray:
  """Returns bias and weights of a logistic regression, float64 [1 + n].

  Args:
    x: float64 [images, n].
    good: bool [images].
    cider: for messages.

  Raises:
    ValueError: all are good, or none is.
  """
  if good.all() or not good.any():
    raise ValueError(
      f'{"all" if good.any() else "none"} of {len(good)} captions have a CIDEr '
      f'of {cider:g} or more: give another --cider, or more images'
    )
  x = np.concatenate([np.ones([len(x), 1]), x], axis=1)
  weights = np.zeros(x.shape[1])
  # Newton's method, without a penalty on the bias.
  penalty = _REGULARIZATION * np.diag([0.0, *[1.0] * (x.shape[1] - 1)])
  for _ in range(100):
    p = 1 / (1 + np.exp(-x @ weights))
    gradient = x.T @ (p - good) / len(x) + penalty @ weights
    curvature = (x * (p * (1 - p))[:, None]).T @ x / len(x) + penalty
    step = np.linalg.solve(curvature, gradient)
    weights -= step
    if np.abs(step).max() < 1e-10:
      break
  return weights


class Bin(NamedTuple):
  """Captions of similar confidence.

  Attributes:
    images: their number.
    predicted: their mean confidence.
    good: the share of them that is good.
  """

  images: int
  predicted: float
  good: float


def bins(predicted: np.ndarray, good: np.ndarray) -> list[Bin]:
  """Returns the bins with captions, of BINS equal parts of [0, 1].

  Args:
    predicted: float64 [images].
    good: bool [images].
  """
  number = np.minimum((predicted * BINS).astype(int), BINS - 1)
  return [
    Bin(int(of.sum()), float(predicted[of].mean()), float(good[of].mean()))
    for of in (number == i for i in range(BINS))
    if of.any()
  ]


def measure(predicted: np.ndarray, good: np.ndarray) -> dict[str, float]:
  """Returns how well confidences fit, {name: value}.

  `share_good` is the share of good captions. `calibration_error` is the mean
  distance of confidence and share in a bin, weighted by captions (ECE). `brier`
  is the mean square of confidence less outcome. `auc` is the probability that a
  good caption has more confidence than one that is not (0.5: no use).

  Args:
    predicted: float64 [images].
    good: bool [images].
  """
  result = {
    'share_good': float(good.mean()),
    'calibration_error': sum(
      b.images * abs(b.predicted - b.good) for b in bins(predicted, good)
    )
    / len(good),
    'brier': float(np.mean((predicted - good) ** 2)),
  }
  if good.any() and not good.all():
    result['auc'] = auc(predicted, good)
  return {name: round(value, 4) for name, value in result.items()}


def auc(predicted: np.ndarray, good: np.ndarray) -> float:
  """Returns the area under the ROC curve, from 0 to 1; 0.5 is chance.

  It is how often the good one of a pair has the larger value; an equal value
  counts half.

  Args:
    predicted: float [captions].
    good: bool [captions].
  """
  yes, no = predicted[good][:, None], predicted[~good]
  return float(np.mean((yes > no) + 0.5 * (yes == no)))


def draw(
  predicted: np.ndarray, good: np.ndarray, cider: float
) -> 'figure.Figure':
  """Returns the reliability plot, a matplotlib Figure.

  Args:
    predicted: float64 [images].
    good: bool [images].
    cider: from which on a caption is good.
  """
  from matplotlib import figure

  result = figure.Figure(figsize=(5, 6), layout='constrained')
  top, bottom = result.subplots(
    2, 1, sharex=True, height_ratios=[3, 1], squeeze=True
  )
  found = bins(predicted, good)
  top.plot([0, 1], [0, 1], color='grey', linestyle='--', linewidth=1)
  top.plot([b.predicted for b in found], [b.good for b in found], marker='o')
  top.set_ylabel(f'share with a CIDEr of {cider:g} or more')
  top.set_ylim(0, 1)
  top.grid(alpha=0.3)
  bottom.hist(predicted, bins=BINS, range=(0, 1))
  bottom.set_xlabel('confidence')
  bottom.set_ylabel('images')
  bottom.set_xlim(0, 1)
  return result


def table(predicted: np.ndarray, good: np.ndarray) -> str:
  """Returns what abstaining below a confidence leaves, as lines of text.

  Args:
    predicted: float [captions], confidences from 0 to 1.
    good: bool [captions].
  """
  lines = ['min_confidence  captioned  good']
  for least in np.arange(BINS) / BINS:
    kept = predicted >= least
    share = f'{good[kept].mean():4.0%}' if kept.any() else '   -'
    lines.append(f'{least:14.1f}  {kept.mean():9.0%}  {share}')
  return '\n'.join(lines)
