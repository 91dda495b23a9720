# SPDX-License-Identifier: Apache-2.0
"""How well a score of images and captions finds the ones that belong together."""

import numpy as np

RECALL_AT = (1, 5, 10)


def ranking(scores, image_of_caption):
  """Ranks captions by image and images by caption (section 4.3.7 of the paper).

  The rank of an image's captions is that of the best of them. Ties count
  against: a score that is the same everywhere finds nothing.

  Args:
    scores: float [images, captions], higher is better.
    image_of_caption: int [captions], the row of `scores` that each caption
      belongs to; an image may have any number of captions, but one.

  Returns:
    dict of float: `image_to_caption_recall_1` (share of images with one of
    their own captions in the first place), `_recall_5`, `_recall_10`,
    `image_to_caption_median_rank` (1 is best), and the same of
    `caption_to_image_` for the images of each caption.

  Raises:
    ValueError: the shapes do not fit, there is a NaN, or an image without a
      caption.
  """
  scores = np.asarray(scores)
  image_of_caption = np.asarray(image_of_caption)
  images = np.arange(len(scores))
  if scores.ndim != 2 or image_of_caption.shape != scores.shape[1:]:
    raise ValueError(
      f'scores of shape {scores.shape} do not go with the images of '
      f'{image_of_caption.shape} captions'
    )
  if np.isnan(scores).any():
    raise ValueError('a score is not a number')
  if not np.array_equal(np.unique(image_of_caption), images):
    raise ValueError(
      'every image needs a caption, and every caption one of the '
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


def _summary(name, ranks):
  """Returns the recalls and the median of ranks, which count from 1."""
  summary = {
    f'{name}_recall_{k}': float((ranks <= k).mean()) for k in RECALL_AT
  }
  summary[f'{name}_median_rank'] = float(np.median(ranks))
  return summary
