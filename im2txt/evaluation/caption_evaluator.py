# SPDX-License-Identifier: Apache-2.0
"""Captions the same images with one model after another, and scores them."""

from collections.abc import Sequence
import html

import numpy as np
import numpy.typing as npt

from im2txt import show_and_tell_model
from im2txt.data import shards
from im2txt.inference_utils import captioner
from im2txt.inference_utils import likelihood
from im2txt.inference_utils import search_config
from im2txt.metrics import caption_scores
from im2txt.metrics import ranking
from im2txt.metrics import summary
from im2txt.runtime import distribution
from im2txt.runtime.progress import Progress
from im2txt.text import vocabulary
from im2txt.visualization import caption_sheet

# Image id -> captions, the best first.
NBest = dict[int, list[str]]

# Images whose captions a device searches at once.
BATCH_SIZE = 32


class CaptionEvaluator:
  """The images of some shards, with their references.

  Args:
    files: shard file names.
    vocab: the `Vocabulary` of the shards and of the models.
    metrics: names out of `summary.METRICS`.
    search: a `search_config.SearchConfig`.
    separator: see `captioner.FeatureCaptioner`.
    split: what tokenizes captions, see `caption_scores.score`.
    max_images: images of the shards that may be captioned, the first ones.
    training: see `summary.summarize`.
    replicas: share the images of a batch. Models are of their scope.

  Raises:
    ValueError: a shard is damaged, or its ids are of another vocabulary.
  """

  def __init__(
    self,
    files: Sequence[str],
    vocab: vocabulary.Vocabulary,
    metrics: Sequence[str],
    search: search_config.SearchConfig = search_config.SearchConfig(),
    separator: str = ' ',
    split: caption_scores.Split = caption_scores.tokenize,
    max_images: int = 0,
    training: set[str] | None = None,
    replicas: distribution.Replicas = distribution.ALONE,
  ):
    self._files = files
    self._vocab = vocab
    self._metrics = metrics
    self._search = search
    self._separator = separator
    self._split = split
    self._training = training
    self._replicas = replicas
    self._references: dict[int, list[str]] = {}
    self._ids: dict[int, list[list[int]]] = {}
    for image_id, (captions, ids) in shards.captions_by_image(
      files, max_images, vocab
    ).items():
      self._references[image_id], self._ids[image_id] = captions, ids
    self._model: show_and_tell_model.ShowAndTellModel | None = None
    self._captioner: captioner.FeatureCaptioner | None = None
    self._samples: dict[int, bytes] = {}

  def caption(
    self,
    model: show_and_tell_model.ShowAndTellModel,
    image_ids: npt.NDArray[np.int64],
    features: npt.NDArray[np.float32],
  ) -> NBest:
    """Captions images.

    Args:
      model: a `ShowAndTellModel`.
      image_ids: int [images].
      features: float32 [images, 2048].

    Returns:
      dict, image id -> list of captions, str, the best first.

    Raises:
      ValueError: the vocabulary is larger than the model's.
    """
    if model is not self._model or self._captioner is None:
      self._captioner = captioner.FeatureCaptioner(
        model,
        self._vocab,
        self._search,
        self._separator,
        replicas=self._replicas,
      )
      self._model = model
    n_best: NBest = {}
    size = BATCH_SIZE * self._replicas.count
    with Progress('Captioning', len(image_ids), 'images') as progress:
      for start in range(0, len(image_ids), size):
        batch = slice(start, start + size)
        found = self._captioner.caption(features[batch], start)
        n_best.update(
          zip(
            image_ids[batch].tolist(),
            ([caption.text for caption in captions] for captions in found),
          )
        )
        progress.update(len(found))
    return n_best

  def score(self, n_best: NBest) -> dict[str, float]:
    """Scores the captions of images.

    Args:
      n_best: what `caption` returns.

    Returns:
      dict, name of the metric -> number; those that cannot be computed are left
      out with a warning.
    """
    scores = summary.summarize(
      self._references, n_best, self._training, self._metrics, self._split
    )
    return {
      name: scores[name]
      for name in (*self._metrics, 'best_in_training', 'n_best_in_training')
      if name in scores
    }

  def rank(
    self,
    model: show_and_tell_model.ShowAndTellModel,
    image_ids: npt.NDArray[np.int64],
    features: npt.NDArray[np.float32],
  ) -> dict[str, float]:
    """Ranks images and the first caption of each.

    Args:
      model: a `ShowAndTellModel`.
      image_ids: int [images].
      features: float32 [images, 2048].

    Returns:
      See `rank`.
    """
    return rank(
      likelihood.Likelihood(model),
      features,
      [self._ids[image_id][:1] for image_id in image_ids.tolist()],
    )

  def sample(
    self, n_best: NBest, count: int
  ) -> list[caption_sheet.CaptionedImage]:
    """Returns some of the images with their captions, always the same ones.

    Args:
      n_best: what `caption` returns, of the same images at every call.
      count: images, evenly from all.

    Returns:
      list of `caption_sheet.CaptionedImage`.
    """
    if not self._samples:
      ids = list(n_best)
      count = min(count, len(ids))
      wanted = [ids[i * len(ids) // count] for i in range(count)]
      found = dict(
        image
        for batch in shards.image_batches(self._files, wanted, count)
        for image in batch
      )
      self._samples = {image_id: found[image_id] for image_id in wanted}
    return [
      caption_sheet.CaptionedImage(
        f'image {image_id}',
        data,
        n_best[image_id][0],
        [
          caption.replace(' ', self._separator)
          for caption in self._references[image_id]
        ],
      )
      for image_id, data in self._samples.items()
    ]


def rank(
  scorer: likelihood.Likelihood,
  features: npt.NDArray[np.float32],
  ids_of_image: Sequence[Sequence[list[int]]],
) -> dict[str, float]:
  """Returns what `ranking` says of the likelihoods, and of how many.

  Args:
    scorer: a `Likelihood`.
    features: float32 [images, 2048].
    ids_of_image: for each image a list of captions, lists of ids.
  """
  owners, captions = zip(
    *((row, ids) for row, image in enumerate(ids_of_image) for ids in image)
  )
  with Progress('Ranking', len(features), 'images') as progress:
    done = 0

    def advance(images: int) -> None:
      nonlocal done
      progress.update(images - done)
      done = images

    scores = scorer.log_likelihoods(features, captions, advance)
  return {
    'ranking_images': len(features),
    'ranking_captions': len(captions),
    **ranking.ranking(scores, np.array(owners)),
  }


def markdown(samples: Sequence[caption_sheet.CaptionedImage]) -> str:
  """Returns a table of captions beside references, for TensorBoard.

  Args:
    samples: a row each.
  """

  def cell(*captions: str) -> str:
    # TensorBoard would take <UNK> for HTML.
    return '<br>'.join(
      html.escape(caption, quote=False).replace('|', '\\|')
      for caption in captions
    )

  rows = [('image', 'caption', 'references'), ('---',) * 3]
  rows += [
    (sample.name, cell(sample.caption), cell(*sample.references))
    for sample in samples
  ]
  return '\n'.join(map(' | '.join, rows))
