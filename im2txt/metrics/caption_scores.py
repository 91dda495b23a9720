# SPDX-License-Identifier: Apache-2.0
"""BLEU, METEOR, ROUGE-L, CIDEr-D and SPICE, as MSCOCO's evaluation scores them.

This package implements BLEU, ROUGE-L, CIDEr-D and the Penn Treebank tokenizer,
and its scores equal those of pycocoevalcap to the last digit. METEOR and SPICE
are Java programs of pycocoevalcap.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import functools
import importlib.util
import os
import shutil
import subprocess
from typing import NamedTuple
from typing import TypeVar

from absl import logging
import numpy as np

from im2txt.metrics import bleu
from im2txt.metrics import cider
from im2txt.metrics import meteor
from im2txt.metrics import ngrams
from im2txt.metrics import ptb_tokenizer
from im2txt.metrics import rouge

tokenize = ptb_tokenizer.tokenize

# Tokenizes captions: tokens joined by blanks.
Split = Callable[[Sequence[str]], Sequence[str]]

# The id of an image.
_Id = TypeVar('_Id', bound=int | str)


class Statistics(NamedTuple):
  """What some metrics of a set of images are computed from.

  Attributes:
    metrics: their names.
    rows: float64 [images, columns]. Scores depend on the sum of the rows only.
    scores: function from float64 [n, columns], n sums over equally many images,
      to float64 [n, metrics].
  """

  metrics: tuple[str, ...]
  rows: np.ndarray
  scores: Callable[[np.ndarray], np.ndarray]


class Found(NamedTuple):
  """The result of a scorer.

  Attributes:
    scores: float [metrics], of all images together.
    image_scores: float64 [images, metrics].
    statistics: what both are computed from.
  """

  scores: Sequence[float] | np.ndarray
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
    ids: Sequence[int | str],
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
  ) -> None:
    self.ids = ids
    self.candidates = candidates
    self.references = references

  @functools.cached_property
  def counts(self) -> tuple[ngrams.Captions, ngrams.Captions]:
    """The n-grams of candidates and references, counted once only."""
    return ngrams.pair(self.candidates, self.references)

  def for_pycocoevalcap(
    self,
  ) -> tuple[dict[int | str, Sequence[str]], dict[int | str, list[str]]]:
    """Returns (references, candidates) in the form that its scorers take."""
    return (
      dict(zip(self.ids, self.references)),
      {i: [caption] for i, caption in zip(self.ids, self.candidates)},
    )


class Scorer(NamedTuple):
  """One or more metrics that are computed together.

  Attributes:
    name: for signatures.
    version: for signatures.
    metrics: names of the metrics.
    find: computes the metrics.
    needs_java: whether a Java program computes them.
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
      f"SPICE's Java program failed ({error}): it needs 8 GB of memory and an "
      'old version of Java, such as 8'
    ) from error
  # SPICE sorts the images.
  by_image = {
    image_id: scores['All']['f']
    for image_id, scores in zip(sorted(references), details)
  }
  mean = _by_mean('spice', np.array([by_image[i] for i in captions.ids]))
  return mean._replace(scores=[value])


def _by_mean(metric: str, values: np.ndarray) -> Found:
  """Returns the result of a metric that is a mean over the images."""
  column = values[:, np.newaxis]
  return Found(
    [float(np.mean(values))],
    column,
    Statistics((metric,), column, lambda sums: sums / len(values)),
  )


_BLEU = ('bleu_1', 'bleu_2', 'bleu_3', 'bleu_4')

# All metrics, in the order of the tables of `score`.
SCORERS = (
  Scorer('bleu', bleu.VERSION, _BLEU, _bleu),
  Scorer('meteor', meteor.VERSION, ('meteor',), _meteor, needs_java=True),
  Scorer('rouge', rouge.VERSION, ('rouge_l',), _rouge),
  Scorer('cider', cider.VERSION, ('cider',), _cider),
  Scorer('spice', '1.0', ('spice',), _spice, needs_java=True),
)
METRICS = tuple(metric for scorer in SCORERS for metric in scorer.metrics)

# pycocoevalcap would download these over HTTP. This package never does.
_SPICE_MODELS = ('lib', 'stanford-corenlp-3.6.0-models.jar')


def unavailable() -> dict[str, str]:
  """Returns, by metric, why it cannot be computed on this machine."""
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
  elif not os.path.exists(
    os.path.join(package_directory('spice'), *_SPICE_MODELS)
  ):
    reasons['spice'] = (
      "its language models are not installed: Stanford CoreNLP 3.6.0's two "
      f'jars must be in {os.path.join(package_directory("spice"), "lib")}'
    )
  return reasons


def has_java() -> bool:
  """Returns whether Java is installed."""
  return shutil.which('java') is not None


def shortcomings(metrics: Iterable[str] = METRICS) -> list[str]:
  """Returns one line per unavailable metric, with the reason.

  Args:
    metrics: names from METRICS.
  """
  return [
    f'no {metric}: {reason}'
    for metric, reason in unavailable().items()
    if metric in metrics
  ]


class Measured(NamedTuple):
  """Scores of captions, with what is needed for their confidence intervals.

  Attributes:
    scores: by metric, in the order of METRICS.
    image_ids: ids of the images.
    image_scores: by metric, float64 [images]. BLEU and METEOR are not the means
      of these.
    statistics: of all these metrics.
    num_references: number of references of all images together.
  """

  scores: dict[str, float]
  image_ids: Sequence[int | str]
  image_scores: dict[str, np.ndarray]
  statistics: list[Statistics]
  num_references: int


def score(
  references: Mapping[_Id, Sequence[str]],
  candidates: Mapping[_Id, str],
  metrics: Iterable[str] = METRICS,
  split: Split = tokenize,
) -> dict[str, float]:
  """Returns `measure(...).scores`, which takes the same arguments."""
  return measure(references, candidates, metrics, split).scores


def measure(
  references: Mapping[_Id, Sequence[str]],
  candidates: Mapping[_Id, str],
  metrics: Iterable[str] = METRICS,
  split: Split = tokenize,
) -> Measured:
  """Scores one caption per image against the references.

  Scores are from 0 to 1, CIDEr from 0 to 10, as on COCO's evaluation server.
  CIDEr takes the weights of n-grams from `references`, so it depends on the set
  of images. With one image it is 0.

  Args:
    references: one or more captions of each image, by image id.
    candidates: the caption of each image, by image id, for the same images.
    metrics: names from METRICS. Those that are `unavailable` are left out.
      Those whose Java program fails are left out with a warning.
    split: tokenizes captions.

  Returns:
    The scores, of all images together and of each.

  Raises:
    ValueError: the images differ, there are none, or one has no reference.
  """
  if not candidates or references.keys() != candidates.keys():
    raise ValueError(
      f'{len(candidates)} images have a caption and {len(references)} have '
      'references: they must be the same images, one or more'
    )
  for image_id, captions in references.items():
    if not captions:
      raise ValueError(f'image {image_id} has no reference')
  wanted = set(metrics) - unavailable().keys()
  logging.info(
    'scoring captions of %d images: %s',
    len(candidates),
    ', '.join(name for name in METRICS if name in wanted),
  )
  ids = list(references)
  # References first, then candidates, as in COCO's code: the tokenizer may look
  # at the next caption.
  tokens = iter(
    split([caption for captions in references.values() for caption in captions])
  )
  theirs = [
    [next(tokens) for _ in captions] for captions in references.values()
  ]
  mine = split([candidates[image_id] for image_id in ids])
  tokenized = TokenizedCaptions(ids, mine, theirs)
  found: list[Found] = []
  for scorer in SCORERS:
    if wanted.isdisjoint(scorer.metrics):
      continue
    try:
      found.append(scorer.find(tokenized))
    # A Java program may fail in any way. The other scores are still valid.
    except Exception as error:
      if not scorer.needs_java:
        raise
      logging.warning('no %s: %s: %s', scorer.name, type(error).__name__, error)
  scores: dict[str, float] = {}
  image_scores: dict[str, np.ndarray] = {}
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


def signature(
  measured: Measured, tokenizer: str = f'ptb-{ptb_tokenizer.VERSION}'
) -> str:
  """Returns a line that tells what the scores depend on.

  Args:
    measured: the scores.
    tokenizer: its name and version.
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


def package_directory(name: str) -> str:
  """Returns the directory of a package of pycocoevalcap."""
  spec = importlib.util.find_spec('pycocoevalcap')
  assert spec and spec.submodule_search_locations
  # It has no __init__.py, so it may be in several places.
  return os.path.join(list(spec.submodule_search_locations)[0], name)
