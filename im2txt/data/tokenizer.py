# SPDX-License-Identifier: Apache-2.0
"""Captions to tokens, exactly as the 2016 program made them.

A caption is lower-cased, split into sentences by NLTK's Punkt model of English
and each sentence into Penn Treebank tokens. Without the model's data (package
`punkt_tab`) nothing is tokenized: any other way gives other tokens, so another
vocabulary.
"""

import functools
import os
import re

# One sentence of letters, commas, hyphens within words and a full stop at the
# end: nine captions of ten. What NLTK does with such is simple, and it takes
# twenty times as long as doing that. The exceptions are what it makes two
# words of.
_PLAIN = re.compile(r'[a-z]+(?:(?:-| ?, | )[a-z]+)*(?: ?\.)? ?')
_NOT_ONE_WORD = re.compile('cannot|gimme|gonna|gotta|lemme|wanna')

PUNKT_DIRECTORY = 'tokenizers/punkt_tab/english'


def project_data_directory():
  """Returns the project's own place for NLTK data, `data/nltk_data`.

  Under Bazel this file is a link in the runfiles; the data lies beside what
  it points to.
  """
  root = os.path.realpath(__file__)
  for _ in range(3):
    root = os.path.dirname(root)
  return os.path.join(root, 'data', 'nltk_data')


def load():
  """Loads the Punkt model, so that a caller can fail before any work.

  Raises:
    ValueError: the model's data is missing, incomplete or refused by NLTK.
  """
  _word_tokenize()


def tokenize(caption):
  """Returns the tokens of a caption, a list of str.

  >>> tokenize("A man's hat. It isn't red")
  ['a', 'man', "'s", 'hat', '.', 'it', 'is', "n't", 'red']

  Args:
    caption: str, in any case.

  Raises:
    ValueError: the Punkt model's data is missing.
  """
  word_tokenize = _word_tokenize()
  caption = caption.lower()
  if _PLAIN.fullmatch(caption) and not _NOT_ONE_WORD.search(caption):
    return caption.replace(',', ' , ').replace('.', ' . ').split()
  return word_tokenize(caption)


@functools.lru_cache(maxsize=None)
def _word_tokenize():
  """Returns nltk's word_tokenize with its model found and loaded."""
  # NLTK takes half a second to import: not before it is needed.
  import nltk.data  # pylint: disable=g-import-not-at-top
  from nltk.tokenize import word_tokenize  # pylint: disable=g-import-not-at-top
  places = [project_data_directory(),
            os.path.join(os.getcwd(), 'data', 'nltk_data')]
  # `bazel run` starts a program in its runfiles and tells where it was called.
  if 'BUILD_WORKSPACE_DIRECTORY' in os.environ:
    places.append(os.path.join(
        os.environ['BUILD_WORKSPACE_DIRECTORY'], 'data', 'nltk_data'))
  for place in places:
    if place not in nltk.data.path:
      nltk.data.path.append(place)
  try:
    word_tokenize('')
  except LookupError as error:
    raise ValueError(
        'NLTK\'s tokenizer data (punkt_tab) is not installed: run '
        'scripts/setup.sh, or set NLTK_DATA to a directory with '
        f'{PUNKT_DIRECTORY}/.') from error
  # NLTK refuses data that other users of the machine could have changed.
  except (OSError, ValueError) as error:
    reason = ' '.join(str(error).split())
    raise ValueError(
        f'NLTK\'s tokenizer data (punkt_tab) cannot be used ({reason}): run '
        'scripts/setup.sh, or set NLTK_DATA to a directory with a sound '
        f'{PUNKT_DIRECTORY}/.') from error
  return word_tokenize
