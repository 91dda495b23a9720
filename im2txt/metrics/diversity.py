# SPDX-License-Identifier: Apache-2.0
"""How varied captions are, and how many of them were seen in training."""

import collections
import math

import numpy as np

from im2txt.metrics import bleu
from im2txt.metrics import cider
from im2txt.metrics import ngrams

MEASURES = ('distinct_captions', 'vocabulary_used', 'mean_length')
# Of several captions per image.
SET_MEASURES = ('oracle_cider', 'mbleu_4', 'self_cider')


def diversity(captions):
  """Measures how varied the captions of a set of images are.

  Args:
    captions: list of str, tokens joined by blanks, one caption an image.

  Returns:
    dict of MEASURES: `distinct_captions` (int), `vocabulary_used` (int,
    different words), `mean_length` (float, words a caption).
  """
  words = [word for caption in captions for word in caption.split()]
  return dict(
    zip(
      MEASURES,
      (len(set(captions)), len(set(words)), len(words) / max(len(captions), 1)),
    )
  )


def share_in_training(captions, training_captions):
  """Returns the share of captions that are in the training set, word by word.

  One minus this is their novelty (section 4.3.6 of the paper: 0.8 of the best
  captions of MSCOCO's model were in its training set, half of the 15 best).

  Args:
    captions: list of str, tokens joined by blanks.
    training_captions: set of str, likewise.

  Returns:
    float in [0, 1]; 0 of no captions.
  """
  found = sum(caption in training_captions for caption in captions)
  return found / max(len(captions), 1)


def of_sets(references, n_best, measures=SET_MEASURES):
  """Measures sets of captions, several per image.

  Args:
    references: dict, image id -> list of str, tokens joined by blanks.
    n_best: dict, image id -> list of str, likewise, for the same images.
    measures: names out of SET_MEASURES.

  Returns:
    dict, name -> float; empty if no image has two captions.
  """
  if all(len(captions) < 2 for captions in n_best.values()):
    return {}
  functions = {
    'oracle_cider': lambda: oracle_cider(references, n_best)[0],
    'mbleu_4': lambda: mbleu(n_best)[3],
    'self_cider': lambda: self_cider(references, n_best),
  }
  return {name: functions[name]() for name in SET_MEASURES if name in measures}


def oracle_cider(references, n_best):
  """Returns what CIDEr would be if the best caption of each image was known.

  Args:
    references: see `of_sets`.
    n_best: likewise.

  Returns:
    (mean over images of the best CIDEr-D, dict image id -> caption that has
    it).
  """
  of_images = [references[image_id] for image_id in n_best]
  scores = []
  for rank in range(max(map(len, n_best.values()))):
    # Where there are fewer captions, the last one again.
    candidates = [
      captions[min(rank, len(captions) - 1)] for captions in n_best.values()
    ]
    scores.append(cider.scores(*ngrams.pair(candidates, of_images)))
  scores = np.array(scores)
  chosen = {
    image_id: captions[min(rank, len(captions) - 1)]
    for (image_id, captions), rank in zip(
      n_best.items(), scores.argmax(axis=0).tolist()
    )
  }
  return float(scores.max(axis=0).mean()), chosen


def mbleu(n_best):
  """Returns how much the captions of an image are like one another.

  The BLEU of each caption against the others of its image, averaged over all
  captions: 1 where these are equal. Images with one caption do not count.

  Args:
    n_best: see `of_sets`.

  Returns:
    list of 4 floats, of BLEU-1 to BLEU-4.
  """
  candidates, others = [], []
  for captions in n_best.values():
    for i, caption in enumerate(captions):
      if len(captions) > 1:
        candidates.append(caption)
        others.append(captions[:i] + captions[i + 1 :])
  scores = bleu.scores(bleu.statistics(*ngrams.pair(candidates, others)))
  return scores.mean(axis=0).tolist()


def self_cider(references, n_best):
  """Returns how many different things the captions of an image tell.

  Wang and Chan 2019, "Describing like Humans: on Diversity in Image
  Captioning", section 4.2: of the matrix of the CIDEr that each two of an
  image's m captions have, -log_m(r), where r is the share of the square root
  of the largest eigenvalue in those of all. 0 where all captions are equal, 1
  where no two have a word in common. Mean over the images with two captions or
  more.

  Args:
    references: see `of_sets`; they tell how rare n-grams are.
    n_best: likewise.
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
    # Captions of words that are all as good as none tell the same.
    share = roots[-1] / roots.sum() if roots[-1] > 0 else 1.0
    found.append(-math.log(share) / math.log(len(captions)))
  return float(np.mean(found))


def _ngrams(caption):
  """Returns how often each n-gram, a tuple, is in a caption, a str."""
  words = caption.split()
  return collections.Counter(
    tuple(words[start : start + n])
    for n in range(1, ngrams.MAX_N + 1)
    for start in range(len(words) - n + 1)
  )


def _cider_kernel(captions, frequencies, num_images):
  """Returns the CIDEr (not CIDEr-D) of each two captions, from 0 to 1.

  Args:
    captions: list of str.
    frequencies: Counter, in how many images' references an n-gram is.
    num_images: int, images with references.

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
