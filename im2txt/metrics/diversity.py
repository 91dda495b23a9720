# SPDX-License-Identifier: Apache-2.0
"""The diversity of captions, and the share of them that was in training."""

import collections
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from collections.abc import Set
import math
from typing import NamedTuple
from typing import TypeVar

import numpy as np

from im2txt.metrics import bleu
from im2txt.metrics import cider
from im2txt.metrics import ngrams

_Id = TypeVar('_Id', bound=int | str)

MEASURES = ('distinct_captions', 'vocabulary_used', 'mean_length')
# Of several captions per image.
SET_MEASURES = ('oracle_cider', 'mbleu_4', 'self_cider')


def diversity(captions: Sequence[str]) -> dict[str, float]:
  """Measures how varied the captions of a set of images are.

  Args:
    captions: one caption per image, tokens joined by blanks.

  Returns:
    MEASURES: `distinct_captions`, `vocabulary_used` (number of different
    words), `mean_length` (words per caption).
  """
  words = [word for caption in captions for word in caption.split()]
  return dict(
    zip(
      MEASURES,
      (len(set(captions)), len(set(words)), len(words) / max(len(captions), 1)),
    )
  )


def share_in_training(
  captions: Sequence[str], training_captions: Set[str]
) -> float:
  """Returns the share of captions that are in the training set.

  One minus this is their novelty. In section 4.3.6 of the paper, 80 % of the
  best captions were in the training set, and half of the 15 best.

  Args:
    captions: tokens joined by blanks.
    training_captions: tokens joined by blanks.

  Returns:
    A share in [0, 1]; 0 if there are no captions.
  """
  found = sum(caption in training_captions for caption in captions)
  return found / max(len(captions), 1)


class Novelty(NamedTuple):
  """How many captions are not in the training set, and how good these are.

  Attributes:
    best_in_training: share of the best captions that are in the training set.
    new: share of all captions that are not.
    bleu_4_best: BLEU-4 of the best captions.
    bleu_4_new: BLEU-4 of the captions that are not in the training set; NaN if
      there are none.
    bleu_4_known: BLEU-4 of those that are; NaN if there are none.
  """

  best_in_training: float
  new: float
  bleu_4_best: float
  bleu_4_new: float
  bleu_4_known: float


def novelty(
  references: Mapping[_Id, Sequence[str]],
  n_best: Mapping[_Id, Sequence[str]],
  training_captions: Set[str],
  n: int = 15,
) -> Novelty:
  """Measures what section 4.3.6 of the paper does.

  Args:
    references: captions of each image, by image id, tokens joined by blanks.
    n_best: likewise, for the same images, the best first.
    training_captions: tokens joined by blanks.
    n: captions of each image that are taken, the best ones.
  """
  pairs = [
    (caption, references[image_id])
    for image_id, captions in n_best.items()
    for caption in captions[:n]
  ]
  best = [(captions[0], references[i]) for i, captions in n_best.items()]
  new = [pair for pair in pairs if pair[0] not in training_captions]
  known = [pair for pair in pairs if pair[0] in training_captions]
  return Novelty(
    share_in_training([caption for caption, _ in best], training_captions),
    len(new) / max(len(pairs), 1),
    *map(_bleu_4, (best, new, known)),
  )


def _bleu_4(pairs: Sequence[tuple[str, Sequence[str]]]) -> float:
  """Returns BLEU-4 of (caption, references), NaN if there are none."""
  if not pairs:
    return math.nan
  candidates, references = zip(*pairs)
  rows = bleu.statistics(*ngrams.pair(candidates, references))
  return float(bleu.scores([rows.sum(axis=0)])[0, 3])


def of_sets(
  references: Mapping[_Id, Sequence[str]],
  n_best: Mapping[_Id, Sequence[str]],
  measures: Collection[str] = SET_MEASURES,
) -> dict[str, float]:
  """Measures sets of captions, several per image.

  Args:
    references: captions of each image, by image id, tokens joined by blanks.
    n_best: likewise, for the same images.
    measures: names from SET_MEASURES.

  Returns:
    The measures, by name; empty if no image has two captions.
  """
  if all(len(captions) < 2 for captions in n_best.values()):
    return {}
  functions = {
    'oracle_cider': lambda: oracle_cider(references, n_best)[0],
    'mbleu_4': lambda: mbleu(n_best)[3],
    'self_cider': lambda: self_cider(references, n_best),
  }
  return {name: functions[name]() for name in SET_MEASURES if name in measures}


def oracle_cider(
  references: Mapping[_Id, Sequence[str]], n_best: Mapping[_Id, Sequence[str]]
) -> tuple[float, dict[_Id, str]]:
  """Returns what CIDEr would be if the best caption of each image were chosen.

  Args:
    references: see `of_sets`.
    n_best: see `of_sets`.

  Returns:
    (the mean over images of the best CIDEr-D; the best caption of each image,
    by image id).
  """
  of_images = [references[image_id] for image_id in n_best]
  by_rank = []
  for rank in range(max(map(len, n_best.values()))):
    # An image with fewer captions repeats its last one.
    candidates = [
      captions[min(rank, len(captions) - 1)] for captions in n_best.values()
    ]
    by_rank.append(cider.scores(*ngrams.pair(candidates, of_images)))
  scores = np.array(by_rank)
  chosen = {
    image_id: captions[min(rank, len(captions) - 1)]
    for (image_id, captions), rank in zip(
      n_best.items(), scores.argmax(axis=0).tolist()
    )
  }
  return float(scores.max(axis=0).mean()), chosen


def mbleu(n_best: Mapping[_Id, Sequence[str]]) -> list[float]:
  """Returns how similar the captions of an image are.

  This is the BLEU of each caption against the others of its image, averaged
  over all captions. It is 1 if they are equal. Images with one caption do not
  count.

  Args:
    n_best: see `of_sets`.

  Returns:
    The means of BLEU-1 to BLEU-4.
  """
  candidates, others = [], []
  for captions in n_best.values():
    for i, caption in enumerate(captions):
      if len(captions) > 1:
        candidates.append(caption)
        others.append([*captions[:i], *captions[i + 1 :]])
  scores = bleu.scores(bleu.statistics(*ngrams.pair(candidates, others)))
  return scores.mean(axis=0).tolist()


def self_cider(
  references: Mapping[_Id, Sequence[str]], n_best: Mapping[_Id, Sequence[str]]
) -> float:
  """Returns how different the captions of an image are.

  Wang and Chan 2019, "Describing like Humans: on Diversity in Image
  Captioning", section 4.2. Take the matrix of the CIDEr between each two of the
  m captions of an image, and the square roots of its eigenvalues. With r, the
  share of the largest root in their sum, the diversity is -log_m(r). It is 0 if
  all captions are equal, and 1 if no two have a word in common.

  Args:
    references: see `of_sets`. The weights of n-grams come from these.
    n_best: see `of_sets`.

  Returns:
    The mean over the images with two captions or more.
  """
  frequencies = collections.Counter(
    ngram
    for captions in references.values()
    for ngram in set().union(*map(_ngrams, captions))
  )
  found = []
  for captions in n_best.values():
    if len(captions) < 2:
      continue
    kernel = _cider_kernel(captions, frequencies, len(references))
    roots = np.sqrt(np.clip(np.linalg.eigvalsh(kernel), 0.0, None))
    # If all words weigh nothing, the captions count as equal.
    share = roots[-1] / roots.sum() if roots[-1] > 0 else 1.0
    found.append(-math.log(share) / math.log(len(captions)))
  return float(np.mean(found))


def _ngrams(caption: str) -> collections.Counter[tuple[str, ...]]:
  """Returns how often each n-gram is in a caption."""
  words = caption.split()
  return collections.Counter(
    tuple(words[start : start + n])
    for n in range(1, ngrams.MAX_N + 1)
    for start in range(len(words) - n + 1)
  )


def _cider_kernel(
  captions: Sequence[str],
  frequencies: collections.Counter[tuple[str, ...]],
  num_images: int,
) -> np.ndarray:
  """Returns the CIDEr (not CIDEr-D) of each two captions, from 0 to 1.

  Args:
    captions: tokens joined by blanks.
    frequencies: number of images that have a reference with the n-gram.
    num_images: images with references.

  Returns:
    float64 [captions, captions].
  """
  counts = [_ngrams(caption) for caption in captions]
  columns = {ngram: i for i, ngram in enumerate(set().union(*counts))}
  vectors = np.zeros([ngrams.MAX_N, len(captions), len(columns)])
  for row, of_caption in enumerate(counts):
    for ngram, count in of_caption.items():
      vectors[len(ngram) - 1, row, columns[ngram]] = count * math.log(
        num_images / max(frequencies[ngram], 1)
      )
  norms = np.linalg.norm(vectors, axis=2, keepdims=True)
  vectors /= np.where(norms > 0, norms, 1.0)
  return (vectors @ vectors.transpose(0, 2, 1)).mean(axis=0)
