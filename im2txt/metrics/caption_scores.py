# SPDX-License-Identifier: Apache-2.0
"""BLEU, METEOR, ROUGE-L, CIDEr-D and SPICE, by MSCOCO's own scorers.

The scorers are those of pycocoevalcap, and so is the Penn Treebank tokenizer
that they want, which runs in Java. METEOR and SPICE run in Java themselves.
"""

import importlib.resources
import os
import shutil
import subprocess

from absl import logging

METRICS = ('bleu_1', 'bleu_2', 'bleu_3', 'bleu_4', 'meteor', 'rouge_l',
           'cider', 'spice')

_BLEU = METRICS[:4]
# pycocoevalcap fetches these over HTTP when SPICE is made; we never do.
_SPICE_MODELS = ('lib', 'stanford-corenlp-3.6.0-models.jar')


def unavailable():
  """Returns what cannot be computed on this machine, dict metric -> reason."""
  reasons = {}
  if not has_java():
    reasons['meteor'] = reasons['spice'] = (
        'Java is not installed (bazel-bootstrap brings it; Debian\'s '
        'default-jre-headless is enough)')
  elif not os.path.exists(os.path.join(_package('spice'), *_SPICE_MODELS)):
    reasons['spice'] = (
        'its language models are not installed: Stanford CoreNLP 3.6.0\'s two '
        f'jars belong into {os.path.join(_package("spice"), "lib")}')
  return reasons


def has_java():
  """Returns whether there is a Java to run."""
  return shutil.which('java') is not None


def tokenize(captions):
  """Tokenizes captions as the scorers want them.

  Lower-cased Penn Treebank tokens without punctuation, by the tokenizer of
  MSCOCO's evaluation. Without Java by that of NLTK, which differs in rare
  cases (a period within a caption): `has_java` tells which it was.

  >>> tokenize(['A man, riding.', "It isn't red"])
  ['a man riding', "it is n't red"]

  Args:
    captions: list of str.

  Returns:
    List of str, tokens joined by blanks, one for each caption.

  Raises:
    OSError: Java failed.
  """
  # A caption is a line to the tokenizer.
  lines = [' '.join(caption.split()) for caption in captions]
  split = _ptb_split if has_java() else _nltk_split
  from pycocoevalcap.tokenizer import ptbtokenizer  # pylint: disable=g-import-not-at-top
  return [
      ' '.join(token for token in tokens
               if token not in ptbtokenizer.PUNCTUATIONS)
      for tokens in split(lines)]


def shortcomings(metrics=METRICS, split=tokenize):
  """Returns lines for the user: which metrics are left out, and why.

  Args:
    metrics: names out of METRICS.
    split: what tokenizes captions, see `score`.
  """
  lines = [f'no {metric}: {reason}'
           for metric, reason in unavailable().items() if metric in metrics]
  if split is tokenize and not has_java():
    lines.append('captions are tokenized by NLTK: scores may differ from those '
                 'made with Java in the third digit')
  return lines


def score(references, candidates, metrics=METRICS, split=tokenize):
  """Scores one caption an image against those of humans.

  Corpus scores, as COCO's evaluation server gives them: 0 to 1, CIDEr 0 to 10.
  The n-grams' weights in CIDEr come from `references`, so that it depends on
  the set of images; with one image it is 0.

  Args:
    references: dict, image id -> list of str, one or more captions.
    candidates: dict, image id -> str, for the same images.
    metrics: names out of METRICS; those that are `unavailable` are left out,
      and with a warning those whose scorer fails.
    split: what tokenizes a list of captions, as `tokenize` does.

  Returns:
    dict, name of the metric -> float, in the order of METRICS.

  Raises:
    ValueError: the images are not the same, none, or one has no reference.
    OSError: Java's tokenizer failed.
  """
  if not candidates or references.keys() != candidates.keys():
    raise ValueError(
        f'{len(candidates)} images with a caption and {len(references)} with '
        'references to score against: they must be the same, and not none')
  for image_id, captions in references.items():
    if not captions:
      raise ValueError(f'image {image_id} has no caption to score against')
  wanted = set(metrics) - unavailable().keys()
  logging.info('scoring captions of %d images: %s', len(candidates), ', '.join(
      name for name in METRICS if name in wanted))
  tokens = iter(split(
      [caption for captions in references.values() for caption in captions]
      + [candidates[image_id] for image_id in references]))
  references = {image_id: [next(tokens) for _ in captions]
                for image_id, captions in references.items()}
  candidates = {image_id: [next(tokens)] for image_id in references}
  scores = {}
  for names, scorer in ((_BLEU, _bleu), (('meteor',), _meteor),
                        (('rouge_l',), _rouge_l), (('cider',), _cider),
                        (('spice',), _spice)):
    if wanted.isdisjoint(names):
      continue
    try:
      scores.update(zip(names, map(float, scorer(references, candidates))))
    # Whatever it is that the packages raise, the other scores are good.
    except Exception as error:  # pylint: disable=broad-exception-caught
      logging.warning('no %s: %s: %s', ', '.join(names), type(error).__name__,
                      error)
  return {name: scores[name] for name in METRICS
          if name in wanted and name in scores}


def _package(name):
  """Returns the directory of a package of pycocoevalcap."""
  return str(importlib.resources.files('pycocoevalcap') / name)


def _ptb_split(lines):
  """Returns the tokens of each line, by Stanford's tokenizer."""
  from pycocoevalcap.tokenizer import ptbtokenizer  # pylint: disable=g-import-not-at-top
  jar = os.path.join(
      _package('tokenizer'), ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR)
  # Not by pycocoevalcap's class: it writes into the installed package, takes
  # the encoding of the locale, and loses empty captions at the end.
  process = subprocess.run(
      ['java', '-cp', jar, 'edu.stanford.nlp.process.PTBTokenizer',
       '-preserveLines', '-lowerCase', '-encoding', 'UTF-8'],
      input=''.join(line + '\n' for line in lines).encode('utf-8'),
      capture_output=True, check=False)
  split = [line.split() for line in
           process.stdout.decode('utf-8').split('\n')[:-1]]
  if process.returncode or len(split) != len(lines):
    reason = process.stderr.decode('utf-8', 'replace').strip().split('\n')[-1]
    raise OSError(
        f'Java\'s tokenizer ended with status {process.returncode} after '
        f'{len(split)} of {len(lines)} captions ({reason})')
  return split


def _nltk_split(lines):
  """Returns the tokens of each line, without Java."""
  from nltk.tokenize import treebank  # pylint: disable=g-import-not-at-top
  tokenizer = treebank.TreebankWordTokenizer()
  return [[token.lower() for token in tokenizer.tokenize(
      line, convert_parentheses=True)] for line in lines]


# Each of the following returns a list of scores of tokenized captions.


def _bleu(references, candidates):
  from pycocoevalcap.bleu.bleu import Bleu  # pylint: disable=g-import-not-at-top
  return Bleu(4).compute_score(references, candidates, verbose=0)[0]


def _meteor(references, candidates):
  from pycocoevalcap.meteor.meteor import Meteor  # pylint: disable=g-import-not-at-top
  meteor = Meteor()
  try:
    return [meteor.compute_score(references, candidates)[0]]
  except (OSError, ValueError) as error:
    raise OSError(f'METEOR\'s Java program failed ({error}): it needs 2 GB of '
                  'memory') from error
  finally:
    # An error leaves it taken, and its destructor would wait for it forever.
    if meteor.lock.locked():
      meteor.lock.release()


def _rouge_l(references, candidates):
  from pycocoevalcap.rouge.rouge import Rouge  # pylint: disable=g-import-not-at-top
  return [Rouge().compute_score(references, candidates)[0]]


def _cider(references, candidates):
  from pycocoevalcap.cider.cider import Cider  # pylint: disable=g-import-not-at-top
  return [Cider().compute_score(references, candidates)[0]]


def _spice(references, candidates):
  from pycocoevalcap.spice.spice import Spice  # pylint: disable=g-import-not-at-top
  try:
    return [Spice().compute_score(references, candidates)[0]]
  except subprocess.CalledProcessError as error:
    raise OSError(f'SPICE\'s Java program failed ({error}): it needs 8 GB of '
                  'memory, and a Java that it knows, such as 8') from error
