# SPDX-License-Identifier: Apache-2.0
"""Tokenizers by name: each turns a caption into tokens.

  nltk        as in 2016: lower-cased, split into sentences by NLTK's Punkt
              model of English, and each sentence into Penn Treebank tokens.
              The model's data (package `punkt_tab`) are required: any other
              method would give other tokens, and so another vocabulary
  unicode     for languages with spaces between words, in any script: words
              (letters with their marks, digits; apostrophes and hyphens within
              a word) and each sign between them, lower-cased
  characters  for languages without spaces, such as Chinese, Japanese and Thai:
              one token per character as readers see it, lower-cased
  whitespace  for captions that are split already: the parts between spaces,
              unchanged

No token contains a space of any kind. `unicode` and `characters` treat a letter
that can be written as one or two code points (u with a diaeresis) as the same.
"""

from collections.abc import Callable
from collections.abc import Iterable
import functools
import os
import re
from typing import TYPE_CHECKING
import unicodedata

from im2txt.runtime import files

if TYPE_CHECKING:
  from im2txt.text import vocabulary_stamp

# One sentence of letters, digits, commas, hyphens within words, and a full stop
# at the end: nine captions of ten. NLTK's output for these is easy to
# reproduce, twenty times faster. The exceptions are words that NLTK splits.
_PLAIN = re.compile(r'[a-z0-9]+(?:(?:-| ?, | )[a-z0-9]+)*(?: ?\.)? ?')
_NOT_ONE_WORD = re.compile('cannot|gimme|gonna|gotta|lemme|wanna')

# One character as readers see it (\X), if it is visible: no space, and no
# control or format character, such as a direction mark.
_CHARACTER = r'(?![\s\p{Cc}\p{Cf}])\X'
# The joiners U+200C and U+200D are part of the spelling of Persian and of Indic
# languages. A comma or full stop between digits is part of a number.
_LETTER = r'[\p{L}\p{M}\p{N}]'
_UNICODE = (
  rf"{_LETTER}(?:(?:[\u200c\u200d]*|['\u2019-]|(?<=\p{{N}})[.,](?=\p{{N}}))"
  rf'{_LETTER})*|{_CHARACTER}'
)

PUNKT_DIRECTORY = 'tokenizers/punkt_tab/english'


def project_data_directory() -> str:
  """Returns the project's own directory for NLTK data, `data/nltk_data`.

  If im2txt is installed from a wheel, it is `~/nltk_data`, which NLTK itself
  searches.
  """
  return files.data_directory('nltk_data')


def load(name: str = 'nltk') -> None:
  """Loads a tokenizer's data, so that errors come before any work.

  Args:
    name: one of NAMES.

  Raises:
    ValueError: there is no such tokenizer, or its data are missing, incomplete
      or refused by NLTK.
  """
  tokenize('', name)


def tokenize(caption: str, name: str = 'nltk') -> list[str]:
  """Returns the tokens of a caption.

  >>> tokenize("A man's hat. It isn't red")
  ['a', 'man', "'s", 'hat', '.', 'it', 'is', "n't", 'red']
  >>> tokenize("L'été, 3,5 °C", 'unicode')
  ["l'été", ',', '3,5', '°', 'c']

  Args:
    caption: text in upper or lower case.
    name: one of NAMES.

  Raises:
    ValueError: there is no such tokenizer, or its data are missing.
  """
  if name not in _TOKENIZERS:
    raise ValueError(
      f'unknown tokenizer {name!r}: give one of {", ".join(NAMES)}'
    )
  return _TOKENIZERS[name](caption)


def version(name: str) -> str:
  """Returns a text that changes when a tokenizer may give other tokens."""
  if name == 'nltk':
    import nltk

    return nltk.__version__
  import regex

  return f'{name} {regex.__version__}'


def for_scores(
  stamp: 'vocabulary_stamp.Stamp | None',
) -> Callable[[Iterable[str]], list[str]] | None:
  """Returns the function that tokenizes captions for scores.

  Args:
    stamp: the stamp of the data, None if not known.

  Returns:
    `without_punctuation` for the stamp's tokenizer; None for `nltk`, whose
    captions are left to COCO's own tokenizer.
  """
  if stamp is None or stamp.tokenizer == 'nltk':
    return None
  return functools.partial(without_punctuation, name=stamp.tokenizer)


def without_punctuation(captions: Iterable[str], name: str) -> list[str]:
  """Tokenizes captions for scores as `caption_scores.tokenize` does English.

  >>> without_punctuation(['一只狗。', '猫'], 'characters')
  ['一 只 狗', '猫']

  Args:
    captions: texts.
    name: one of NAMES.

  Returns:
    For each caption its tokens joined by spaces, without the tokens that have
    no letter or digit.
  """
  return [
    ' '.join(
      token for token in tokenize(caption, name) if any(map(str.isalnum, token))
    )
    for caption in captions
  ]


def _nltk(caption: str) -> list[str]:
  word_tokenize = _word_tokenize()
  caption = caption.lower()
  if _PLAIN.fullmatch(caption) and not _NOT_ONE_WORD.search(caption):
    return caption.replace(',', ' , ').replace('.', ' . ').split()
  return word_tokenize(caption)


def _found(pattern: str, caption: str) -> list[str]:
  # The import takes twenty milliseconds, and few programs need it.
  import regex

  return regex.findall(pattern, unicodedata.normalize('NFC', caption.lower()))


def _unicode(caption: str) -> list[str]:
  # A word is the same with a straight or a typographic apostrophe.
  return [
    token.replace('\u2019', "'") if len(token) > 1 else token
    for token in _found(_UNICODE, caption)
  ]


_TOKENIZERS: dict[str, Callable[[str], list[str]]] = {
  'nltk': _nltk,
  'unicode': _unicode,
  # The unknown word in a printed caption is one token, not five characters.
  'characters': functools.partial(_found, '<unk>|' + _CHARACTER),
  'whitespace': str.split,
}
NAMES = list(_TOKENIZERS)


@functools.lru_cache(maxsize=None)
def _word_tokenize() -> Callable[[str], list[str]]:
  """Returns nltk's word_tokenize with its model loaded."""
  # Importing NLTK takes half a second, so it is imported only when needed.
  import nltk.data
  from nltk.tokenize import word_tokenize

  directories = [
    project_data_directory(),
    os.path.join(os.getcwd(), 'data', 'nltk_data'),
  ]
  # `bazel run` starts a program in its runfiles, and sets this variable to the
  # root of the checkout.
  if 'BUILD_WORKSPACE_DIRECTORY' in os.environ:
    directories.append(
      os.path.join(os.environ['BUILD_WORKSPACE_DIRECTORY'], 'data', 'nltk_data')
    )
  for directory in directories:
    if directory not in nltk.data.path:
      nltk.data.path.append(directory)
  try:
    word_tokenize('')
  except LookupError as error:
    raise ValueError(
      "NLTK's tokenizer data (punkt_tab) is not installed: run "
      'scripts/setup.sh, or set NLTK_DATA to a directory with '
      f'{PUNKT_DIRECTORY}/'
    ) from error
  # NLTK refuses data that other users of the machine could have changed.
  except (OSError, ValueError) as error:
    reason = ' '.join(str(error).split())
    raise ValueError(
      f"NLTK's tokenizer data (punkt_tab) cannot be used ({reason}): run "
      'scripts/setup.sh, or set NLTK_DATA to a directory with an undamaged '
      f'{PUNKT_DIRECTORY}/'
    ) from error
  return word_tokenize
