# SPDX-License-Identifier: Apache-2.0
"""Tests of tokenizer."""

import json
import os
import random
import subprocess
import sys

import nltk
import pytest

from im2txt import testing
from im2txt.text import tokenizer


@testing.needs_punkt()
@pytest.mark.parametrize(
  'caption, tokens',
  [
    ('A man. He sits at a table.', 'a man . he sits at a table .'),
    ('a dog at 5 p.m. in the U.S. park.', 'a dog at 5 p.m. in the u.s. park .'),
    ('The sign says "STOP"', "the sign says `` stop ''"),
    ("A man's hat isn't there", "a man 's hat is n't there"),
    ('cannot gimme', 'can not gim me'),
    ('a cat.a dog', 'a cat.a dog'),
    ('  Spaces \n', 'spaces'),
    ('', ''),
  ],
)
def test_tokens(caption, tokens):
  assert tokenizer.tokenize(caption) == tokens.split()


@testing.needs_punkt()
def test_plain_captions_are_as_by_nltk():
  rng = random.Random(1)
  words = [
    'a',
    'dog',
    't',
    's',
    'mr',
    'etc',
    'is',
    'not',
    'can',
    'cannot',
    'gimme',
    'gonna',
    'gotta',
    'lemme',
    'wanna',
    'more',
    'n',
    'd',
    'ye',
    'tis',
    'twas',
    'vs',
    'u',
    'p',
    'm',
    'no',
    'i',
    'e',
    '3',
    '1990s',
    '12',
    '1st',
  ]
  gaps = [' ', '-', ', ', ' , ', ' ', ' ', '  ', ',', ' -', '']
  ends = ['', '.', ' .', '. ', ' . ', ' ', '..', '!', '\n']
  plain = 0
  for _ in range(4000):
    caption = ''.join(
      rng.choice(words) + rng.choice(gaps) for _ in range(rng.randrange(6))
    )
    caption += rng.choice(words) + rng.choice(ends)
    plain += bool(tokenizer._PLAIN.fullmatch(caption))
    assert tokenizer.tokenize(caption) == nltk.word_tokenize(caption), caption
  assert plain > 500


@testing.needs_punkt()
def test_tokens_equal_those_of_2016():
  with open(
    testing.testdata_path('tokenizer', 'captions.json'), encoding='utf-8'
  ) as f:
    vectors = json.load(f)['captions']
  assert len(vectors) == 26
  for vector in vectors:
    assert tokenizer.tokenize(vector['caption']) == vector['tokens'], vector


@pytest.mark.parametrize(
  'name, caption, tokens',
  [
    (
      'unicode',
      'Ein Mädchen läuft über die STRASSE – Straße, 3,50 €.',
      'ein mädchen läuft über die strasse – straße , 3,50 € .',
    ),
    ('unicode', 'Mu\u0308ller', 'müller'),
    (
      'unicode',
      "L'été d\u2019hier n'est 'pas' là",
      "l'été d'hier n'est ' pas ' là",
    ),
    ('unicode', 'a t-shirt - 1,000.5 a.b 2.', 'a t-shirt - 1,000.5 a . b 2 .'),
    ('unicode', 'एक लड़का क्षेत्र में दौड़ता है।', 'एक लड़का क्षेत्र में दौड़ता है ।'),
    ('unicode', '\u200fرجلٌ يركب حصانًا، ٣ مرات؟', 'رجلٌ يركب حصانًا ، ٣ مرات ؟'),
    ('unicode', 'می\u200cخواهم\u200c', 'می\u200cخواهم'),
    ('unicode', 'So 👩\u200d👩\u200d👧❤️!', 'so 👩\u200d👩\u200d👧 ❤️ !'),
    ('unicode', 'a\u00a0b\u3000c\u2028d\u0085e\ufefff\u200b \n', 'a b c d e f'),
    ('characters', '一只 狗,在A1。\u3000跑', '一 只 狗 , 在 a 1 。 跑'),
    ('characters', 'か\u3099ある', 'が あ る'),
    ('characters', 'คนขี่ม้า', 'ค น ขี่ ม้ า'),
    ('characters', '\ufeff\u200f 👩\u200d👧 \n', '👩\u200d👧'),
    (
      'whitespace',
      'Ein Hund\u3000, läuft\u00a0.\u2028x\n',
      'Ein Hund , läuft . x',
    ),
    ('unicode', '', ''),
    ('characters', ' ', ''),
    ('whitespace', '\n', ''),
  ],
)
def test_other_languages(name, caption, tokens):
  # Not by str.split, which the test is about.
  assert tokenizer.tokenize(caption, name) == [
    token for token in tokens.split(' ') if token
  ]
  assert tokenizer.tokenize(tokens, name) == tokenizer.tokenize(caption, name)


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=testing.needs_punkt() if name == 'nltk' else ())
    for name in tokenizer.NAMES
  ],
)
def test_no_token_holds_a_space(name):
  spaces = [chr(i) for i in range(sys.maxunicode) if chr(i).isspace()]
  assert len(spaces) > 20
  for around in ('{}x{}y{}', '{}é\u0301{}1{}', '{}.{}\u0301{}'):
    for space in spaces:
      for token in tokenizer.tokenize(around.format(space, space, space), name):
        assert len(token.split()) == 1 and token == token.strip()


def test_names():
  assert tokenizer.NAMES == ['nltk', 'unicode', 'characters', 'whitespace']
  assert len({tokenizer.version(name) for name in tokenizer.NAMES}) == 4
  for call in (
    lambda: tokenizer.load('spacy'),
    lambda: tokenizer.tokenize('a', 'spacy'),
  ):
    with pytest.raises(
      ValueError,
      match="'spacy': give one of nltk, unicode, characters, whitespace",
    ):
      call()


def test_without_punctuation():
  assert tokenizer.without_punctuation(
    ['Größe, 3 – „ja“!', '…', "geht's"], 'unicode'
  ) == ['größe 3 ja', '', "geht's"]
  assert tokenizer.without_punctuation(
    ['一只狗。', '一<UNK>狗'], 'characters'
  ) == ['一 只 狗', '一 <unk> 狗']


# Runs the tokenizer where only the given NLTK_DATA can be found.
_ISOLATED = """
import sys, nltk.data
nltk.data.path[:] = sys.argv[1:]
from im2txt import testing
from im2txt.text import tokenizer
tokenizer.project_data_directory = lambda: "/nonexistent"
try:
  print("tokens", tokenizer.tokenize("A man. He sits"))
except ValueError as error:
  print("refused", error)
"""


def _isolated(tmp_path, *data_path):
  environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
  environment.pop('NLTK_DATA', None)
  environment.pop('BUILD_WORKSPACE_DIRECTORY', None)
  return subprocess.run(
    [sys.executable, '-c', _ISOLATED, *data_path],
    cwd=tmp_path,
    env=environment,
    stdout=subprocess.PIPE,
    text=True,
    check=True,
  ).stdout


def test_missing_data_is_refused_in_one_line(tmp_path):
  output = _isolated(tmp_path)
  assert output.startswith('refused ')
  assert output.count('\n') == 1
  assert 'scripts/setup.sh' in output and 'NLTK_DATA' in output
  assert tokenizer.tokenize('x', 'unicode') == ['x']


def test_incomplete_data_is_refused(tmp_path):
  english = tmp_path / 'nltk' / tokenizer.PUNKT_DIRECTORY
  english.mkdir(parents=True)
  (english / 'abbrev_types.txt').write_text('p.m\n')
  output = _isolated(tmp_path, str(tmp_path / 'nltk'))
  assert output.startswith('refused ')
  assert output.count('\n') == 1


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
