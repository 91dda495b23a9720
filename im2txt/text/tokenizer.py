# SPDX-License-Identifier: Apache-2.0
"""Captions to tokens, in one of several ways, each with a name.

  nltk        as the 2016 program: lower-cased, split into sentences by NLTK's
              Punkt model of English and each sentence into Penn Treebank
              tokens. Without the model's data (package `punkt_tab`) nothing is
              tokenized: any other way gives other tokens, so another vocabulary
  unicode     for languages with spaces between words, in any script: words
              (letters with their marks, digits; apostrophes and hyphens within)
              and each sign between them, lower-cased
  characters  for languages without, such as Chinese, Japanese and Thai: what
              readers take for one character, lower-cased, without spaces
  whitespace  for captions that are split already: what stands between spaces,
              as it is

No token holds a space of any kind. In `unicode` and `characters` letters that
can be written as one code point or as two (u with a diaeresis) are one.
"""

import functools
import os
import re
import unicodedata

from im2txt.runtime import files

# One sentence of letters, digits, commas, hyphens within words and a full stop
# at the end: nine captions of ten. What NLTK does with such is simple, and it
# takes twenty times as long as doing that. The exceptions are what it makes two
# words of.
_PLAIN = re.compile(r'[a-z0-9]+(?:(?:-| ?, | )[a-z0-9]+)*(?: ?\.)? ?')
_NOT_ONE_WORD = re.compile('cannot|gimme|gonna|gotta|lemme|wanna')

# What a reader takes for one character (\X), if there is something to see: no
# space, and no control or format character, such as a mark of direction.
_CHARACTER = r'(?![\s\p{Cc}\p{Cf}])\X'
# The joiners U+200C and U+200D belong to the spelling of Persian and of Indic
# languages. A comma or full stop between digits is part of a number.
_LETTER = r'[\p{L}\p{M}\p{N}]'
_UNICODE = (
  rf"{_LETTER}(?:(?:[\u200c\u200d]*|['\u2019-]|(?<=\p{{N}})[.,](?=\p{{N}}))"
  rf'{_LETTER})*|{_CHARACTER}'
)

PUNKT_DIRECTORY = 'tokenizers/punkt_tab/english'


def project_data_directory():
  """Returns the project's own place for NLTK data, `data/nltk_data`.

  Installed from a wheel it is `~/nltk_data`, which NLTK itself looks into.
  """
  return files.data_directory('nltk_data')


def load(name='nltk'):
  """Loads a tokenizer's data, so that a caller can fail before any work.

  Args:
    name: one of NAMES.

  Raises:
    ValueError: there is no such tokenizer, or the data is missing, incomplete
      or refused by NLTK.
  """
  tokenize('', name)


def tokenize(caption, name='nltk'):
  """Returns the tokens of a caption, a list of str.

  >>> tokenize("A man's hat. It isn't red")
  ['a', 'man', "'s", 'hat', '.', 'it', 'is', "n't", 'red']
  >>> tokenize("L'été, 3,5 °C", 'unicode')
  ["l'été", ',', '3,5', '°', 'c']

  Args:
    caption: str, in any case.
    name: one of NAMES.

  Raises:
    ValueError: there is no such tokenizer, or its data is missing.
  """
  if name not in _TOKENIZERS:
    raise ValueError(
      f'unknown tokenizer {name!r}: known are {", ".join(NAMES)}'
    )
  return _TOKENIZERS[name](caption)


def version(name):
  """Returns a str that changes when a tokenizer may give other tokens."""
  if name == 'nltk':
    import nltk

    return nltk.__version__
  import regex

  return f'{name} {regex.__version__}'


def for_scores(stamp):
  """Returns what splits captions for scores, as `without_punctuation`.

  Args:
    stamp: the `vocabulary_stamp.Stamp` of the data, None if not known.

  Returns:
    A function from a list of str to another; None for `nltk`, captions of which
    are left to COCO's own tokenizer.
  """
  if stamp is None or stamp.tokenizer == 'nltk':
    return None
  return functools.partial(without_punctuation, name=stamp.tokenizer)


def without_punctuation(captions, name):
  """Tokenizes captions for scores as `caption_scores.tokenize` does English.

  >>> without_punctuation(['一只狗。', '猫'], 'characters')
  ['一 只 狗', '猫']

  Args:
    captions: list of str.
    name: one of NAMES.

  Returns:
    List of str, tokens joined by blanks; tokens without a letter or digit are
    left out.
  """
  return [
    ' '.join(
      token for token in tokenize(caption, name) if any(map(str.isalnum, token))
    )
    for caption in captions
  ]


def _nltk(caption):
  word_tokenize = _word_tokenize()
  caption = caption.lower()
  if _PLAIN.fullmatch(caption) and not _NOT_ONE_WORD.search(caption):
    return caption.replace(',', ' , ').replace('.', ' . ').split()
  return word_tokenize(caption)


def _found(pattern, caption):
  # Twenty milliseconds to import, of use to few.
  import regex

  return regex.findall(pattern, unicodedata.normalize('NFC', caption.lower()))


def _unicode(caption):
  # The apostrophes of keyboards and of typesetters make the same word.
  return [
    token.replace('\u2019', "'") if len(token) > 1 else token
    for token in _found(_UNICODE, caption)
  ]


_TOKENIZERS = {
  'nltk': _nltk,
  'unicode': _unicode,
  # The unknown word, as printed captions may have it, is not five characters.
  'characters': functools.partial(_found, '<unk>|' + _CHARACTER),
  'whitespace': str.split,
}
NAMES = list(_TOKENIZERS)


@functools.lru_cache(maxsize=None)
def _word_tokenize():
  """Returns nltk's word_tokenize with its model found and loaded."""
  # NLTK takes half a second to import: not before it is needed.
  import nltk.data
  from nltk.tokenize import word_tokenize

  places = [
    project_data_directory(),
    os.path.join(os.getcwd(), 'data', 'nltk_data'),
  ]
  # `bazel run` starts a program in its runfiles and tells where it was called.
  if 'BUILD_WORKSPACE_DIRECTORY' in os.environ:
    places.append(
      os.path.join(os.environ['BUILD_WORKSPACE_DIRECTORY'], 'data', 'nltk_data')
    )
  for place in places:
    if place not in nltk.data.path:
      nltk.data.path.append(place)
  try:
    word_tokenize('')
  except LookupError as error:
    raise ValueError(
      "NLTK's tokenizer data (punkt_tab) is not installed: run "
      'scripts/setup.sh, or set NLTK_DATA to a directory with '
      f'{PUNKT_DIRECTORY}/.'
    ) from error
  # NLTK refuses data that other users of the machine could have changed.
  except (OSError, ValueError) as error:
    reason = ' '.join(str(error).split())
    raise ValueError(
      f"NLTK's tokenizer data (punkt_tab) cannot be used ({reason}): run "
      'scripts/setup.sh, or set NLTK_DATA to a directory with a sound '
      f'{PUNKT_DIRECTORY}/.'
    ) from error
  return word_tokenize
