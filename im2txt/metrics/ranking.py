# SPDX-License-Identifier: Apache-2.0
"""Image-caption retrieval: how well a score finds the pairs that match."""

import numpy as np

RECALL_AT = (1, 5, 10)


def ranking(
  scores: np.ndarray, image_of_caption: np.ndarray
) -> dict[str, float]:
  """Ranks captions by image and images by caption (section 4.3.7 of the paper).

  An image with several captions gets the rank of the best of them. Ties count
  as wrong, so a score that is the same for all pairs finds nothing.

  Args:
    scores: float [images, captions], higher is better.
    image_of_caption: int [captions], the row of `scores` that each caption
      belongs to. An image has one caption or more.

  Returns:
    `image_to_caption_recall_1`, the share of images that have one of their own
    captions in the first place; `_recall_5` and `_recall_10` likewise;
    `image_to_caption_median_rank`, where 1 is best; and the same with
    `caption_to_image_`.

  Raises:
    ValueError: the shapes do not fit, there is a NaN, or an image has no
      caption.
  """
  scores = np.asarray(scores)
  image_of_caption = np.asarray(image_of_caption)
  images = np.arange(len(scores))
  if scores.ndim != 2 or image_of_caption.shape != scores.shape[1:]:
    raise ValueError(
      f'scores of shape {scores.shape} do not fit image_of_caption of shape '
      f'{image_of_caption.shape}'
    )
  if np.isnan(scores).any():
    raise ValueError('a score is not a number')
  if not np.array_equal(np.unique(image_of_caption), images):
    raise ValueError(
      'every image must have a caption, and every caption one of the '
      f'{len(images)} images'
    )
  own = scores[image_of_caption, np.arange(scores.shape[1])]
  image_ranks = (scores >= own).sum(axis=0)
  best = np.full(len(images), -np.inf)
  np.maximum.at(best, image_of_caption, own)
  is_others = image_of_caption != images[:, np.newaxis]
  caption_ranks = 1 + ((scores >= best[:, np.newaxis]) & is_others).sum(axis=1)
  return {
    **_summary('image_to_caption', caption_ranks),
    **_summary('caption_to_image', image_ranks),
  }


def _summary(name: str, ranks: np.ndarray) -> dict[str, float]:
  """Returns the recalls and the median of ranks. Ranks start at 1."""
  summary = {
    f'{name}_recall_{k}': float((ranks <= k).mean()) for k in RECALL_AT
  }
  summary[f'{name}_median_rank'] = float(np.median(ranks))
  return summary
