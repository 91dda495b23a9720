# SPDX-License-Identifier: Apache-2.0
"""Tests of vocabulary."""

import sys

import pytest

from im2txt import testing
from im2txt.text import vocabulary


def _write(tmp_path, content):
  path = tmp_path / 'word_counts.txt'
  path.write_bytes(content.encode() if isinstance(content, str) else content)
  return str(path)


def test_ids_are_line_numbers_and_unknown_is_last(tmp_path):
  vocab = vocabulary.Vocabulary(_write(tmp_path, 'a 9\n<S> 5\n</S> 5\ndog 4'))
  assert vocab.words == ['a', '<S>', '</S>', 'dog', '<UNK>']
  assert len(vocab) == 5
  assert (vocab.start_id, vocab.end_id, vocab.unk_id) == (1, 2, 4)
  assert vocab.word_to_id('dog') == 3
  assert vocab.word_to_id('axolotl') == 4
  assert [vocab.id_to_word(i) for i in range(5)] == vocab.words


def test_a_mark_at_the_start_is_no_part_of_a_word(tmp_path):
  plain, marked = (
    vocabulary.Vocabulary(_write(tmp_path, f'{mark}a 9\n<S> 5\n</S> 5'))
    for mark in ('', '\ufeff')
  )
  assert marked.words == plain.words == ['a', '<S>', '</S>', '<UNK>']


@pytest.mark.parametrize('word_id', [-1, -5, 5, 11999])
def test_ids_beyond_the_vocabulary_are_unknown(tmp_path, word_id):
  vocab = vocabulary.Vocabulary(_write(tmp_path, 'a 9\n<S> 5\n</S> 5\ndog 4\n'))
  assert vocab.id_to_word(word_id) == '<UNK>'


def test_unknown_word_in_the_file_keeps_its_line(tmp_path):
  vocab = vocabulary.Vocabulary(_write(tmp_path, '<UNK> 9\n<S> 5\n</S> 5\n'))
  assert vocab.words == ['<UNK>', '<S>', '</S>']
  assert vocab.unk_id == 0
  assert vocab.word_to_id('dog') == 0
  assert vocab.id_to_word(3) == '<UNK>'


def test_counts_may_be_missing(tmp_path):
  vocab = vocabulary.Vocabulary(_write(tmp_path, '<S>\n</S>\ndog\n'))
  assert vocab.words == ['<S>', '</S>', 'dog', '<UNK>']


def test_other_special_words(tmp_path):
  vocab = vocabulary.Vocabulary(
    _write(tmp_path, 'a 9\n[begin] 5\n[end] 5\n'),
    start_word='[begin]',
    end_word='[end]',
    unk_word='[?]',
  )
  assert (vocab.start_id, vocab.end_id, vocab.unk_id) == (1, 2, 3)
  assert vocab.id_to_word(99) == '[?]'


def test_utf8_whatever_the_locale_and_line_ends(tmp_path, monkeypatch):
  monkeypatch.setenv('LC_ALL', 'C')
  vocab = vocabulary.Vocabulary(
    _write(tmp_path, 'café 9\r\n<S> 5\r\n</S> 5\r\n\u201c 4\r\n')
  )
  assert vocab.words == ['café', '<S>', '</S>', '\u201c', '<UNK>']


def test_words_with_spaces_that_are_not_of_ascii(tmp_path):
  words = ['a\u00a0b', '\u3000', 'x\u2028y', 'n\u0085', '\u202fz']
  vocab = vocabulary.Vocabulary(
    _write(tmp_path, '\n'.join(f'{word} 5' for word in ['<S>', '</S>', *words]))
  )
  assert vocab.words == ['<S>', '</S>', *words, '<UNK>']
  assert [vocab.word_to_id(word) for word in words] == [2, 3, 4, 5, 6]


def test_fingerprint_is_of_the_words_in_their_order(tmp_path):
  def fingerprint(content):
    return vocabulary.Vocabulary(_write(tmp_path, content)).fingerprint

  first = fingerprint('<S> 5\n</S> 5\ndog 3')
  assert len(first) == 16 and int(first, 16)
  # hashlib.sha256(b'<S>\n</S>\ndog\n<UNK>'), for good.
  assert first == '107f560c7ddfcb14'
  assert first == fingerprint('<S>\n</S>\ndog\n')
  assert (
    first
    == vocabulary.Vocabulary(
      _write(tmp_path, '<S> 5\n</S> 5\ndog 3'), unk_word='rare'
    ).fingerprint
  )
  assert first == fingerprint('<S> 9\n</S> 9\ndog 9\n<UNK> 0\n')
  assert first == fingerprint("b'<S>' 5\nb'</S>' 5\nb'dog' 3")
  others = {
    first,
    *map(
      fingerprint,
      (
        '<S> 5\n</S> 5\ncat 3',
        '<S> 5\ndog 5\n</S> 3',
        '<S> 5\n</S> 5\ndog 3\ncat 3',
        '<S> 5\n</S> 5\n<UNK> 1\ndog 3',
      ),
    ),
  }
  assert len(others) == 5


def test_lines_of_bytes_literals(tmp_path):
  vocab = vocabulary.Vocabulary(
    _write(
      tmp_path,
      "b'a' 9\nb'<S>' 5\nb'</S>' 5\nb\"'s\" 4\nb'caf\\xc3\\xa9' 3\n"
      "b'back\\\\slash' 3\n",
    )
  )
  assert vocab.words == [
    'a',
    '<S>',
    '</S>',
    "'s",
    'café',
    'back\\slash',
    '<UNK>',
  ]
  assert vocab.start_id == 1


def test_one_word_like_a_bytes_literal_is_itself(tmp_path):
  vocab = vocabulary.Vocabulary(_write(tmp_path, "<S> 5\n</S> 5\nb'x' 4\n"))
  assert vocab.words[2] == "b'x'"


def test_bytes_literal_that_is_no_text(tmp_path):
  path = _write(tmp_path, "b'<S>' 5\nb'</S>' 5\nb'\\xff' 4\n")
  with pytest.raises(ValueError, match='cannot be decoded') as error:
    vocabulary.Vocabulary(path)
  assert path in str(error.value)


@pytest.mark.parametrize(
  'content, message',
  [
    ('', 'is empty'),
    ('\n \n', 'is empty'),
    ('a 9\n</S> 5\n', "start word '<S>'"),
    ('a 9\n<S> 5\n', "end word '</S>'"),
    ('a 9\n\n<S> 5\n</S> 5\n', 'line 2 of'),
    ('{"a": 9, "b": 4}\n', 'line 1 of'),
    ('<S> five\n</S> 5\n', 'line 1 of'),
    (b'\x89PNG\xff\xfe 4\n', 'not UTF-8'),
  ],
)
def test_unusable_files_are_refused_in_one_line(tmp_path, content, message):
  path = _write(tmp_path, content)
  with pytest.raises(ValueError, match=message) as error:
    vocabulary.Vocabulary(path)
  assert path in str(error.value)
  assert '\n' not in str(error.value)


def test_missing_file_is_refused(tmp_path):
  path = str(tmp_path / 'none.txt')
  with pytest.raises(ValueError, match='No such file') as error:
    vocabulary.Vocabulary(path)
  assert path in str(error.value)


def test_a_directory_is_refused(tmp_path):
  with pytest.raises(ValueError, match='Is a directory'):
    vocabulary.Vocabulary(str(tmp_path))


def test_check_fits_model(tmp_path):
  path = _write(tmp_path, 'a 9\n<S> 5\n</S> 5\n')
  vocab = vocabulary.Vocabulary(path)
  vocab.check_fits_model(4)
  vocab.check_fits_model(12000)
  with pytest.raises(ValueError) as error:
    vocab.check_fits_model(3)
  for part in (path, '4 words', 'of 3 '):
    assert part in str(error.value)


@pytest.mark.parametrize(
  'find, folder, size',
  [
    (testing.testdata_path, 'inference', 96),
    (testing.testdata_path, 'records', 79),
    (testing.reference_path, 'full2000', 1991),
  ],
)
def test_vocabularies_of_2016(find, folder, size):
  path = find(folder, 'word_counts.txt')
  with open(path, encoding='utf-8') as f:
    words = f.read().split()[::2]
  vocab = vocabulary.Vocabulary(path)
  assert len(vocab) == size
  assert vocab.words == words + ['<UNK>']


def test_unknown_words_come_with_near_spellings(tmp_path):
  (tmp_path / 'words').write_text('<S> 1\n</S> 1\nhound 1\n')
  vocab = vocabulary.Vocabulary(str(tmp_path / 'words'))
  assert vocab.unknown(['hound', 'Hounds', '<UNK>', 'zzz']) == [
    "'Hounds' (near it: hound)",
    "'zzz'",
  ]


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
