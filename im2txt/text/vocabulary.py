# SPDX-License-Identifier: Apache-2.0
"""Words to ids and back.

A vocabulary file has one line `word count` for each word, most frequent first;
a word's id is the number of its line, counted from 0. The word for everything
unknown is not in the file: it gets the id after the last.
"""

import ast
import hashlib
import re

# Only blanks and line ends of ASCII part what is in the file: a word of another
# language may hold any other space, such as U+00A0.
_LINE = re.compile(r'[ \t]*([^ \t]+)(?:[ \t]+[0-9]+)?[ \t]*')

# What Python 3 builders wrote when they printed words that were still bytes:
# b'word' or b"it's".
_BYTES_LITERAL = re.compile(r"""b(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""")


class Vocabulary:
  """The words of a vocabulary file and their ids.

  Attributes:
    file: path of the vocabulary file.
    words: list of str, the word of each id.
    start_id: int, id of the word that begins every caption.
    end_id: int, id of the word that ends every caption.
    unk_id: int, id of the word that stands for every unknown one.
  """

  def __init__(
    self, vocab_file, start_word='<S>', end_word='</S>', unk_word='<UNK>'
  ):
    """Reads a vocabulary file.

    Args:
      vocab_file: path of the vocabulary file, UTF-8.
      start_word: word that begins every caption.
      end_word: word that ends every caption.
      unk_word: word that stands for every unknown one.

    Raises:
      ValueError: the file cannot be read, is empty or malformed, or lacks
        the start or the end word.
    """
    self.file = vocab_file
    self.words = _read_words(vocab_file)
    self._ids = {word: i for i, word in enumerate(self.words)}
    for role, word in (('start', start_word), ('end', end_word)):
      if word not in self._ids:
        raise ValueError(
          f'The vocabulary file {vocab_file} has no line for the {role} word '
          f"{word!r}: give the file that was made with the model's data, "
          f'or the {role} word that it was made with.'
        )
    if unk_word not in self._ids:
      self._ids[unk_word] = len(self.words)
      self.words.append(unk_word)
    self.start_id = self._ids[start_word]
    self.end_id = self._ids[end_word]
    self.unk_id = self._ids[unk_word]

  def __len__(self):
    return len(self.words)

  @property
  def fingerprint(self):
    """16 hexadecimal digits that tell these words in this order from others.

    It depends neither on counts nor on what the unknown word is called: that is
    implied mostly, and whoever reads the file calls it as they like.
    """
    words = list(self.words)
    words[self.unk_id] = '<UNK>'
    return hashlib.sha256('\n'.join(words).encode()).hexdigest()[:16]

  def word_to_id(self, word):
    """Returns the id of `word`, `unk_id` if it has none of its own."""
    return self._ids.get(word, self.unk_id)

  def id_to_word(self, word_id):
    """Returns the word of `word_id`, the unknown word for an id without one.

    A model may have more ids than its vocabulary has words.
    """
    if 0 <= word_id < len(self.words):
      return self.words[word_id]
    return self.words[self.unk_id]

  def check_fits_model(self, vocab_size):
    """Raises ValueError if a model of `vocab_size` ids cannot name every word.

    Args:
      vocab_size: int, number of ids of the model.

    Raises:
      ValueError: there are more words than ids.
    """
    if len(self) > vocab_size:
      raise ValueError(
        f'The vocabulary file {self.file} has {len(self)} words (with '
        f'the unknown word), more than the vocab_size of {vocab_size} of the '
        "model: give the file that was made with the model's data, or a "
        'model with a vocab_size of at least that.'
      )


def _read_words(vocab_file):
  """Returns the first field of every line of a vocabulary file."""
  try:
    # Editors on Windows put a mark at the start, which is no part of a word.
    with open(vocab_file, encoding='utf-8-sig') as f:
      lines = f.read().rstrip(' \t\n').split('\n')
  except OSError as error:
    raise ValueError(
      f'Cannot read the vocabulary file {vocab_file} ({error.strerror}): '
      'build_mscoco_data writes one, named word_counts.txt.'
    ) from error
  except UnicodeDecodeError as error:
    raise ValueError(
      f'{vocab_file} is not a vocabulary file: it is not UTF-8 text '
      f'({error.reason} at byte {error.start}). Give the word_counts.txt '
      'that build_mscoco_data wrote.'
    ) from error
  if lines == ['']:
    raise ValueError(
      f'The vocabulary file {vocab_file} is empty: give the word_counts.txt '
      'that build_mscoco_data wrote.'
    )
  words = []
  for number, line in enumerate(lines, start=1):
    # Ids are line numbers, so a blank line must not be passed over; and a
    # file of another kind should not be taken for words.
    # The count itself is not used and may be missing.
    match = _LINE.fullmatch(line)
    if not match:
      raise ValueError(
        f'Line {number} of {vocab_file} is not "word count" but '
        f'{line[:40]!r}: give the word_counts.txt that build_mscoco_data '
        'wrote.'
      )
    words.append(match[1])
  # One such word could be a caption's own; all of them are an accident.
  if all(_BYTES_LITERAL.fullmatch(word) for word in words):
    try:
      words = [ast.literal_eval(word).decode('utf-8') for word in words]
    except (SyntaxError, UnicodeDecodeError, ValueError) as error:
      raise ValueError(
        f"A word of {vocab_file} looks like b'...' but cannot be decoded "
        f'({error}): give the word_counts.txt that build_mscoco_data '
        'wrote.'
      ) from error
  return words
