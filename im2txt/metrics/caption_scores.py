# SPDX-License-Identifier: Apache-2.0
"""BLEU, METEOR, ROUGE-L, CIDEr-D and SPICE, as MSCOCO's evaluation scores them.

BLEU, ROUGE-L, CIDEr-D and the Penn Treebank tokenizer are this package's own
and give the digits of pycocoevalcap's. METEOR and SPICE are Java programs that
come with pycocoevalcap.
"""

import importlib.util
import os
import shutil
import subprocess
from typing import Callable
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

METRICS = (
  'bleu_1',
  'bleu_2',
  'bleu_3',
  'bleu_4',
  'meteor',
  'rouge_l',
  'cider',
  'spice',
)

_BLEU = METRICS[:4]
_NGRAM_METRICS = (*_BLEU, 'cider')
_JAVA = {'meteor', 'spice'}
_VERSIONS = {
  _BLEU: ('bleu', bleu.VERSION),
  ('meteor',): ('meteor', meteor.VERSION),
  ('rouge_l',): ('rouge', rouge.VERSION),
  ('cider',): ('cider', cider.VERSION),
  ('spice',): ('spice', '1.0'),
}
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
  found = []
  if not wanted.isdisjoint(_NGRAM_METRICS):
    found += _ngram_scores(mine, theirs)
  if 'rouge_l' in wanted:
    found.append(_by_mean('rouge_l', rouge.scores(mine, theirs)))
  for name, scorer in (('meteor', _meteor), ('spice', _spice)):
    if name in wanted:
      try:
        found.append(
          scorer(
            dict(zip(ids, theirs)),
            {i: [caption] for i, caption in zip(ids, mine)},
          )
        )
      # Whatever it is that the packages raise, the other scores are good.
      except Exception as error:
        logging.warning('no %s: %s: %s', name, type(error).__name__, error)
  scores, image_scores = {}, {}
  for values, per_image, statistics in found:
    scores.update(zip(statistics.metrics, map(float, values)))
    image_scores.update(zip(statistics.metrics, per_image.T))
  names = [name for name in METRICS if name in wanted and name in scores]
  return Measured(
    {name: scores[name] for name in names},
    ids,
    {name: image_scores[name] for name in names},
    [statistics for _, _, statistics in found],
    sum(map(len, theirs)),
  )


def signature(measured, tokenizer=f'ptb-{ptb_tokenizer.VERSION}'):
  """Returns what scores depend on, a line to print beside them.

  Args:
    measured: `Measured`.
    tokenizer: name and version of what split the captions.
  """
  fields = {
    'images': len(measured.image_ids),
    'references': measured.num_references,
    'tok': tokenizer,
    'java': 'yes' if _JAVA & measured.scores.keys() else 'no',
  }
  for names, (name, version) in _VERSIONS.items():
    if not measured.scores.keys().isdisjoint(names):
      fields[name] = version
  return '|'.join(f'{name}:{value}' for name, value in fields.items())


def _package(name):
  """Returns the directory of a package of pycocoevalcap."""
  # It has no __init__.py, so it may be in several places.
  places = importlib.util.find_spec('pycocoevalcap').submodule_search_locations
  return os.path.join(list(places)[0], name)


# Each of the following returns lists of (scores of all images, float64 [images,
# metrics], `Statistics`), or one such.


def _ngram_scores(mine, theirs):
  candidates, references = ngrams.pair(mine, theirs)
  rows = bleu.statistics(candidates, references)
  return [
    (
      bleu.scores([rows.sum(axis=0)])[0],
      bleu.scores(rows),
      Statistics(_BLEU, rows.astype(np.float64), bleu.scores),
    ),
    _by_mean('cider', cider.scores(candidates, references)),
  ]


def _by_mean(name, values):
  return (
    [np.mean(values)],
    values[:, np.newaxis],
    Statistics((name,), values[:, np.newaxis], lambda sums: sums / len(values)),
  )


def _meteor(references, candidates):
  value, values, rows = meteor.measure(references, candidates)
  return (
    [value],
    values[:, np.newaxis],
    Statistics(
      ('meteor',), rows, lambda sums: meteor.scores(sums)[:, np.newaxis]
    ),
  )


def _spice(references, candidates):
  from pycocoevalcap.spice.spice import Spice

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
  _, values, statistics = _by_mean(
    'spice', np.array([of[image_id] for image_id in references])
  )
  return [value], values, statistics
