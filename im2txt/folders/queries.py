# SPDX-License-Identifier: Apache-2.0
"""Finds photos of an index by a text, or by an image.

A text finds the photos that make it likelier than the mean image does: the
score is its log probability given the photo, less that given the mean image. For
one text the second is the same for all photos, so it does not change their
order; but with it 0 means that a photo says nothing for the text, and scores of
several texts can be compared. An image finds the photos whose features have the
largest cosine with its own.
"""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

from absl import logging
import numpy as np

from im2txt.folders import photo_index
from im2txt.inference_utils import captioner as captioner_lib
from im2txt.inference_utils import library
from im2txt.inference_utils import likelihood
from im2txt.text import tokenizer


class Hit(NamedTuple):
  """A photo that was found.

  Attributes:
    path: of the photo.
    score: the larger the better, see the module.
  """

  path: str
  score: float

  def as_dict(self) -> dict[str, Any]:
    """Returns what JSON tells of it, {name: value}."""
    return self._asdict()


def find(
  index: photo_index.PhotoIndex,
  captioner: library.Captioner,
  texts: Sequence[str],
  images: Sequence[str],
  count: int,
) -> list[list[Hit]]:
  """Returns for each text, and then for each image, what it finds, best first.

  Args:
    index: the photos.
    captioner: the model.
    texts: as a user types them.
    images: names of image files.
    count: photos per text or image.

  Raises:
    ValueError: the model knows no word of a text, or an image is damaged.
    OSError: an image cannot be read.
  """
  model = captioner.model
  ids = [word_ids(model, text) for text in texts]
  decoded = []
  for name in images:
    try:
      decoded.append(captioner.decode(name))
    except ValueError as error:
      raise ValueError(f'--image={name}: {error}') from error
  found = by_texts(index, model, ids, count) if ids else []
  if decoded:
    found += by_images(index, model.encode(decoded).numpy(), count)
  return found


def word_ids(captioner: captioner_lib.Captioner, text: str) -> list[int]:
  """Returns the ids of a text, <S> first.

  There is no </S>: what the model would write after the text is left open.

  Args:
    captioner: knows the words.
    text: as a user types it.

  Raises:
    ValueError: the model knows no word of the text.
  """
  vocab = captioner.vocab
  words = tokenizer.tokenize(text, captioner.tokenizer)
  ids = [vocab.word_to_id(word) for word in words]
  unknown = vocab.unknown(words)
  if len(unknown) == len(words):
    raise ValueError(
      f'--text={text}: no word that the model knows'
      + (f': {", ".join(unknown)}' if unknown else '')
    )
  if unknown:
    logging.warning(
      '%s: the model does not know %s; it reads %s',
      text,
      ', '.join(unknown),
      ' '.join(vocab.id_to_word(i) for i in ids),
    )
  return [vocab.start_id, *ids]


def by_texts(
  index: photo_index.PhotoIndex,
  captioner: captioner_lib.Captioner,
  texts: Sequence[Sequence[int]],
  count: int,
) -> list[list[Hit]]:
  """Returns for each text the photos that fit it best, best first.

  Args:
    index: the photos.
    captioner: the model. The mean image is that of its confidence; if it has
      none, that of the index.
    texts: of `word_ids`.
    count: photos per text.
  """
  scorer = likelihood.Likelihood(captioner.model)
  total = np.zeros(captioner.model.feature_size)

  def score(features: np.ndarray) -> np.ndarray:
    total[:] += features.sum(axis=0, dtype=np.float64)
    return scorer.log_likelihoods(features, texts)

  found = _best(index, score, len(texts), count)
  confidence = captioner.decoder.confidence
  mean = confidence.mean_features if confidence else total / max(len(index), 1)
  (priors,) = scorer.log_likelihoods(np.array([mean], np.float32), texts)
  return [
    [Hit(hit.path, hit.score - float(prior)) for hit in hits]
    for hits, prior in zip(found, priors)
  ]


def by_images(
  index: photo_index.PhotoIndex, features: np.ndarray, count: int
) -> list[list[Hit]]:
  """Returns for each image the photos that are most like it, best first.

  Args:
    index: the photos.
    features: float32 [images, feature_size], of `Captioner.encode`.
    count: photos per image.
  """
  wanted = _directions(features)
  return _best(
    index, lambda found: _directions(found) @ wanted.T, len(features), count
  )


def _directions(features: np.ndarray) -> np.ndarray:
  norms = np.linalg.norm(features, axis=1, keepdims=True)
  return features / np.where(norms, norms, 1)


def _best(
  index: photo_index.PhotoIndex,
  score: Callable[[np.ndarray], np.ndarray],
  queries: int,
  count: int,
) -> list[list[Hit]]:
  """Returns for each query the photos with the best scores.

  Args:
    index: the photos.
    score: takes features, returns float [photos, queries].
    queries: their number.
    count: photos per query.
  """
  best: list[list[Hit]] = [[] for _ in range(queries)]
  for paths, features in index.batches():
    scores = score(features)
    for query, hits in enumerate(best):
      hits += map(Hit, paths, scores[:, query].tolist())
      # Stable: of equal ones in the order of their paths.
      hits.sort(key=lambda hit: -hit.score)
      del hits[count:]
  return best
