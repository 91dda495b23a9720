# SPDX-License-Identifier: Apache-2.0
"""Words to ids and back.

A vocabulary file has one line `word count` per word, the most frequent first. A
word's id is the number of its line, counted from 0. The unknown word, which
stands for all others, is not in the file: its id is the one after the last.
"""

import ast
from collections.abc import Iterable
import difflib
import hashlib
import re

from im2txt.runtime import storage

# What programs name the file, beside shards and checkpoints.
FILE_NAME = 'word_counts.txt'

# Only ASCII spaces, tabs and line ends separate words and counts: a word of
# another language may contain any other space, such as U+00A0.
_LINE = re.compile(r'[ \t]*([^ \t]+)(?:[ \t]+[0-9]+)?[ \t]*')

# Some Python 3 builders printed words as bytes: b'word' or b"it's".
_BYTES_LITERAL = re.compile(r"""b(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""")


class Vocabulary:
  """The words of a vocabulary file and their ids.

  Attributes:
    file: path of the vocabulary file.
    words: the word of each id.
    start_id: id of the word that begins every caption.
    end_id: id of the word that ends every caption.
    unk_id: id of the word that stands for every unknown word.
  """

  def __init__(
    self,
    vocab_file: str,
    start_word: str = '<S>',
    end_word: str = '</S>',
    unk_word: str = '<UNK>',
  ) -> None:
    """Reads a vocabulary file.

    Args:
      vocab_file: path of the vocabulary file, UTF-8.
      start_word: word that begins every caption.
      end_word: word that ends every caption.
      unk_word: word that stands for every unknown word.

    Raises:
      ValueError: the file cannot be read, is empty or malformed, or lacks
        the start or the end word.
    """
    self.file = vocab_file
    self.words: list[str] = _read_words(vocab_file)
    self._ids = {word: i for i, word in enumerate(self.words)}
    for role, word in (('start', start_word), ('end', end_word)):
      if word not in self._ids:
        raise ValueError(
          f'the vocabulary file {vocab_file} has no line for the {role} word '
          f"{word!r}: give the file that was made with the model's data, "
          f'or the {role} word that it was made with'
        )
    if unk_word not in self._ids:
      self._ids[unk_word] = len(self.words)
      self.words.append(unk_word)
    self.start_id = self._ids[start_word]
    self.end_id = self._ids[end_word]
    self.unk_id = self._ids[unk_word]

  def __len__(self) -> int:
    return len(self.words)

  @property
  def fingerprint(self) -> str:
    """16 hexadecimal digits that identify these words in this order.

    It depends neither on counts nor on the name of the unknown word, which is
    rarely in the file: each reader of the file chooses its own.
    """
    words = list(self.words)
    words[self.unk_id] = '<UNK>'
    return hashlib.sha256('\n'.join(words).encode()).hexdigest()[:16]

  def word_to_id(self, word: str) -> int:
    """Returns the id of `word`, or `unk_id` if the word is unknown."""
    return self._ids.get(word, self.unk_id)

  def unknown(self, words: Iterable[str]) -> list[str]:
    """Returns the words that are not in it, each with the nearest spellings."""
    described = []
    for word in words:
      if self.id_to_word(self.word_to_id(word)) != word:
        # Captions are mostly in lower case.
        near = difflib.get_close_matches(word.lower(), self.words, n=5)
        described.append(
          repr(word) + (f' (near it: {", ".join(near)})' if near else '')
        )
    return described

  def id_to_word(self, word_id: int) -> str:
    """Returns the word of `word_id`, or the unknown word if there is none.

    A model may have more ids than its vocabulary has words.
    """
    if 0 <= word_id < len(self.words):
      return self.words[word_id]
    return self.words[self.unk_id]

  def check_fits_model(self, vocab_size: int) -> None:
    """Checks that a model has an id for every word.

    Args:
      vocab_size: number of ids of the model.

    Raises:
      ValueError: there are more words than ids.
    """
    if len(self) > vocab_size:
      raise ValueError(
        f'the vocabulary file {self.file} has {len(self)} words (with '
        f'the unknown word), more than the vocab_size of {vocab_size} of the '
        "model: give the file that was made with the model's data, or a "
        'model with a vocab_size of at least that'
      )


def _read_words(vocab_file: str) -> list[str]:
  """Returns the first field of every line of a vocabulary file."""
  try:
    # Editors on Windows put a byte order mark at the start, which is not part
    # of a word.
    with storage.open_text(vocab_file, 'utf-8-sig') as f:
      lines = f.read().rstrip(' \t\n').split('\n')
  except OSError as error:
    raise ValueError(
      f'cannot read the vocabulary file {vocab_file} ({error.strerror}): '
      'give the word_counts.txt that build_mscoco_data wrote'
    ) from error
  except UnicodeDecodeError as error:
    raise ValueError(
      f'{vocab_file} is not a vocabulary file: it is not UTF-8 text '
      f'({error.reason} at byte {error.start}); give the word_counts.txt '
      'that build_mscoco_data wrote'
    ) from error
  if lines == ['']:
    raise ValueError(
      f'the vocabulary file {vocab_file} is empty: give the word_counts.txt '
      'that build_mscoco_data wrote'
    )
  words = []
  for number, line in enumerate(lines, start=1):
    # Ids are line numbers, so a blank line must not be skipped, and a file of
    # another kind must not be read as words. The count is not used and may be
    # missing.
    match = _LINE.fullmatch(line)
    if not match:
      raise ValueError(
        f'line {number} of {vocab_file} is not "word count" but '
        f'{line[:40]!r}: give the word_counts.txt that build_mscoco_data '
        'wrote'
      )
    words.append(match[1])
  # One such word may be from a caption. If all words are like that, they were
  # printed as bytes by accident.
  if all(_BYTES_LITERAL.fullmatch(word) for word in words):
    try:
      words = [ast.literal_eval(word).decode('utf-8') for word in words]
    except (SyntaxError, UnicodeDecodeError, ValueError) as error:
      raise ValueError(
        f"a word of {vocab_file} looks like b'...' but cannot be decoded "
        f'({error}): give the word_counts.txt that build_mscoco_data '
        'wrote'
      ) from error
  return words
