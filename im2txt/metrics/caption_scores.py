# SPDX-License-Identifier: Apache-2.0
"""BLEU, METEOR, ROUGE-L, CIDEr-D and SPICE, as MSCOCO's evaluation scores them.

BLEU, ROUGE-L, CIDEr-D and the Penn Treebank tokenizer are this package's own
and give the digits of pycocoevalcap's. METEOR and SPICE are Java programs that
come with pycocoevalcap.
"""

from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Sequence
import functools
import importlib.util
import os
import shutil
import subprocess
from typing import NamedTuple

from absl import logging
import numpy as np

from im2txt.metrics import bleu
from im2txt.metrics import cider
from im2txt.metrics import meteor
from im2txt.metrics import ngrams
from im2txt.metrics import ptb_tokenizer
from im2txt.metrics import rouge

tokenize = ptb_tokenizer.tokenize


class Statistics(NamedTuple):
  """What some metrics of a set of images are computed from.

  Attributes:
    metrics: tuple of their names.
    rows: float64 [images, columns]; their sum over images is what counts.
    scores: function from float64 [n, columns], n such sums over as many images,
      to float64 [n, metrics].
  """

  metrics: tuple
  rows: np.ndarray
  scores: Callable


class Found(NamedTuple):
  """What a scorer finds.

  Attributes:
    scores: float [metrics], of all images.
    image_scores: float64 [images, metrics].
    statistics: what both are computed from.
  """

  scores: Sequence[float]
  image_scores: np.ndarray
  statistics: Statistics


class TokenizedCaptions:
  """Captions to score and their references, tokens joined by blanks.

  Args:
    ids: of the images.
    candidates: one caption per image.
    references: one or more captions per image.
  """

  def __init__(
    self,
    ids: Sequence[Hashable],
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
  ):
    self.ids = ids
    self.candidates = candidates
    self.references = references

  @functools.cached_property
  def counts(self) -> tuple[ngrams.Captions, ngrams.Captions]:
    """The n-grams of candidates and of references, counted once for all."""
    return ngrams.pair(self.candidates, self.references)

  def for_pycocoevalcap(
    self,
  ) -> tuple[dict[Hashable, Sequence[str]], dict[Hashable, list[str]]]:
    """Returns (references, candidates) as its scorers take them."""
    return (
      dict(zip(self.ids, self.references)),
      {i: [caption] for i, caption in zip(self.ids, self.candidates)},
    )


class Scorer(NamedTuple):
  """One or more metrics that are computed together.

  Attributes:
    name: in signatures.
    version: likewise.
    metrics: their names.
    find: what computes them.
    needs_java: whether a Java program does the work.
  """

  name: str
  version: str
  metrics: tuple[str, ...]
  find: Callable[[TokenizedCaptions], Found]
  needs_java: bool = False


def _bleu(captions: TokenizedCaptions) -> Found:
  rows = bleu.statistics(*captions.counts)
  return Found(
    bleu.scores([rows.sum(axis=0)])[0],
    bleu.scores(rows),
    Statistics(_BLEU, rows.astype(np.float64), bleu.scores),
  )


def _meteor(captions: TokenizedCaptions) -> Found:
  value, values, rows = meteor.measure(*captions.for_pycocoevalcap())
  return Found(
    [value],
    values[:, np.newaxis],
    Statistics(
      ('meteor',), rows, lambda sums: meteor.scores(sums)[:, np.newaxis]
    ),
  )


def _rouge(captions: TokenizedCaptions) -> Found:
  return _by_mean(
    'rouge_l', rouge.scores(captions.candidates, captions.references)
  )


def _cider(captions: TokenizedCaptions) -> Found:
  return _by_mean('cider', cider.scores(*captions.counts))


def _spice(captions: TokenizedCaptions) -> Found:
  from pycocoevalcap.spice.spice import Spice

  references, candidates = captions.for_pycocoevalcap()

  try:
    value, details = Spice().compute_score(references, candidates)
  except subprocess.CalledProcessError as error:
    raise OSError(
      f"SPICE's Java program failed ({error}): it needs 8 GB of "
      'memory, and a Java that it knows, such as 8'
    ) from error
  # It sorts the images.
  of = {
    image_id: scores['All']['f']
    for image_id, scores in zip(sorted(references), details)
  }
  mean = _by_mean('spice', np.array([of[i] for i in captions.ids]))
  return mean._replace(scores=[value])


def _by_mean(metric: str, values: np.ndarray) -> Found:
  """Returns what a metric gives whose score is the mean over the images."""
  column = values[:, np.newaxis]
  return Found(
    [np.mean(values)],
    column,
    Statistics((metric,), column, lambda sums: sums / len(values)),
  )


_BLEU = ('bleu_1', 'bleu_2', 'bleu_3', 'bleu_4')

# Every metric that there is. In the order of the tables of score.
SCORERS = (
  Scorer('bleu', bleu.VERSION, _BLEU, _bleu),
  Scorer('meteor', meteor.VERSION, ('meteor',), _meteor, needs_java=True),
  Scorer('rouge', rouge.VERSION, ('rouge_l',), _rouge),
  Scorer('cider', cider.VERSION, ('cider',), _cider),
  Scorer('spice', '1.0', ('spice',), _spice, needs_java=True),
)
METRICS = tuple(metric for scorer in SCORERS for metric in scorer.metrics)

# pycocoevalcap fetches these over HTTP when SPICE is made; we never do.
_SPICE_MODELS = ('lib', 'stanford-corenlp-3.6.0-models.jar')


def unavailable():
  """Returns what cannot be computed on this machine, dict metric -> reason."""
  reasons = {}
  if not importlib.util.find_spec('pycocoevalcap'):
    reasons['meteor'] = reasons['spice'] = (
      'the Python package pycocoevalcap is not installed (scripts/setup.sh '
      'does that)'
    )
  elif not has_java():
    reasons['meteor'] = reasons['spice'] = (
      "Java is not installed (bazel-bootstrap brings it; Debian's "
      'default-jre-headless is enough)'
    )
  elif not os.path.exists(os.path.join(_package('spice'), *_SPICE_MODELS)):
    reasons['spice'] = (
      "its language models are not installed: Stanford CoreNLP 3.6.0's two "
      f'jars belong into {os.path.join(_package("spice"), "lib")}'
    )
  return reasons


def has_java():
  """Returns whether there is a Java to run."""
  return shutil.which('java') is not None


def shortcomings(metrics=METRICS):
  """Returns lines for the user: which metrics are left out, and why.

  Args:
    metrics: names out of METRICS.
  """
  return [
    f'no {metric}: {reason}'
    for metric, reason in unavailable().items()
    if metric in metrics
  ]


class Measured(NamedTuple):
  """Scores of captions, with all that tells how sure they are.

  Attributes:
    scores: dict, name of the metric -> float, in the order of METRICS.
    image_ids: list of the images.
    image_scores: dict, name of the metric -> float64 [images]. The scores of
      BLEU and METEOR are not the means of these.
    statistics: list of `Statistics`, of all these metrics.
    num_references: int, of all images.
  """

  scores: dict
  image_ids: list
  image_scores: dict
  statistics: list
  num_references: int


def score(references, candidates, metrics=METRICS, split=tokenize):
  """Scores one caption per image against those of humans.

  Args:
    references: see `measure`, as the others.
    candidates: likewise.
    metrics: likewise.
    split: likewise.

  Returns:
    dict, name of the metric -> float, in the order of METRICS.

  Raises:
    ValueError: the images are not the same, none, or one has no reference.
  """
  return measure(references, candidates, metrics, split).scores


def measure(references, candidates, metrics=METRICS, split=tokenize):
  """Scores one caption per image against those of humans, and each image.

  Corpus scores, as COCO's evaluation server gives them: 0 to 1, CIDEr 0 to 10.
  The n-grams' weights in CIDEr come from `references`, so that it depends on
  the set of images; with one image it is 0.

  Args:
    references: dict, image id -> list of str, one or more captions.
    candidates: dict, image id -> str, for the same images.
    metrics: names out of METRICS; those that are `unavailable` are left out,
      and with a warning those whose Java program fails.
    split: what tokenizes a list of captions, as `tokenize` does.

  Returns:
    `Measured`.

  Raises:
    ValueError: the images are not the same, none, or one has no reference.
  """
  if not candidates or references.keys() != candidates.keys():
    raise ValueError(
      f'{len(candidates)} images with a caption and {len(references)} with '
      'references to score against: they must be the same, and not none'
    )
  for image_id, captions in references.items():
    if not captions:
      raise ValueError(f'image {image_id} has no caption to score against')
  wanted = set(metrics) - unavailable().keys()
  logging.info(
    'scoring captions of %d images: %s',
    len(candidates),
    ', '.join(name for name in METRICS if name in wanted),
  )
  ids = list(references)
  # Apart, as COCO's code does: the next caption can matter to the tokenizer.
  tokens = iter(
    split([caption for captions in references.values() for caption in captions])
  )
  theirs = [
    [next(tokens) for _ in captions] for captions in references.values()
  ]
  mine = split([candidates[image_id] for image_id in ids])
  captions = TokenizedCaptions(ids, mine, theirs)
  found = []
  for scorer in SCORERS:
    if wanted.isdisjoint(scorer.metrics):
      continue
    try:
      found.append(scorer.find(captions))
    # Whatever it is that a Java program fails of, the other scores are good.
    except Exception as error:
      if not scorer.needs_java:
        raise
      logging.warning('no %s: %s: %s', scorer.name, type(error).__name__, error)
  scores, image_scores = {}, {}
  for f in found:
    scores.update(zip(f.statistics.metrics, map(float, f.scores)))
    image_scores.update(zip(f.statistics.metrics, f.image_scores.T))
  names = [name for name in METRICS if name in wanted and name in scores]
  return Measured(
    {name: scores[name] for name in names},
    ids,
    {name: image_scores[name] for name in names},
    [f.statistics for f in found],
    sum(map(len, theirs)),
  )


def signature(measured, tokenizer=f'ptb-{ptb_tokenizer.VERSION}'):
  """Returns what scores depend on, a line to print beside them.

  Args:
    measured: `Measured`.
    tokenizer: name and version of what split the captions.
  """
  ran = [
    scorer
    for scorer in SCORERS
    if not measured.scores.keys().isdisjoint(scorer.metrics)
  ]
  fields = {
    'images': len(measured.image_ids),
    'references': measured.num_references,
    'tok': tokenizer,
    'java': 'yes' if any(scorer.needs_java for scorer in ran) else 'no',
    **{scorer.name: scorer.version for scorer in ran},
  }
  return '|'.join(f'{name}:{value}' for name, value in fields.items())


def _package(name):
  """Returns the directory of a package of pycocoevalcap."""
  # It has no __init__.py, so it may be in several places.
  places = importlib.util.find_spec('pycocoevalcap').submodule_search_locations
  return os.path.join(list(places)[0], name)
