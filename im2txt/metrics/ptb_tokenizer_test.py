# SPDX-License-Identifier: Apache-2.0
"""Tests of ptb_tokenizer."""

import json
import os
import random
import shutil
import subprocess
import sys

import pytest

from im2txt import testing
from im2txt.metrics import ptb_tokenizer

needs_java = pytest.mark.skipif(
  not shutil.which('java'), reason='Java is not installed'
)

# As pycocoevalcap has them.
_PUNCTUATION = [
  "''",
  "'",
  '``',
  '`',
  '-LRB-',
  '-RRB-',
  '-LCB-',
  '-RCB-',
  '.',
  '?',
  '!',
  ',',
  ':',
  '-',
  '--',
  '...',
  ';',
]

# What Java's program answers, punctuation left out.
_EXAMPLES = {
  'A man (in red) says "hi"; two': 'a man -lrb- in red -rrb- says hi two',
  "It's the U.S. army's show.": "it 's the u.s. army 's show",
  'A cat.a dog': 'a cat.a dog',
  'tic-tac -- toe...': 'tic-tac toe',
  "Cannot, won't, WANNA": "can not wo n't wan na",
  "cannot's wannabe gonna-be": "cannot 's wannabe gonna-be",
  "they'll he'd I'm we've": "they 'll he 'd i 'm we 've",
  "rock 'n' roll, rock'n'roll": "rock 'n' roll rock 'n' roll",
  "y'all o'clock O'Neil's ma'am": "y' all o'clock o'neil 's ma'am",
  "dogs' '90s 90's '05 '055": "dogs '90s 90 's '05 055",
  'it\u2019s \u201cnew\u201d don\u2019t': "it 's new do n't",
  'Dr. Smith Jr. etc. of Elm St.': 'dr. smith jr. etc. of elm st.',
  'B. Smith, plan B. The end': 'b. smith plan b the end',
  'no. 5, no. five': 'no. 5 no five',
  'grass., then': 'grass. then',
  'at 5:30pm 12:30 p.m. 24/7': 'at 5:30 pm 12:30 p.m. 24/7',
  '1,000 3.5 1/2 1 1/2 \xbd 10%': '1,000 3.5 1/2 1\xa01/2 1/2 10 %',
  '6\'2" $5.50 \xa35 #1 #tag @me': '6 2 $ 5.50 # 5 # 1 #tag @me',
  'and/or w/ B&W AT&T a & b': 'and/or w / b&w at&t a & b',
  'wow!! what?? :) <3 a!b': 'wow !! what ?? :-rrb- < 3 a!b',
  'see www.foo.com or a@b.com.': 'see www.foo.com or a@b.com',
  '<UNK> [x] {y} *z*': '<unk> -lsb- x -rsb- -lcb- y -rcb- * z *',
  'Caf\xe9 na\xefve \u732b \U0001f600': 'caf\xe9 na\xefve \u732b',
  'Ph.D. T-shirts, x-ray_y': 'ph.d. t-shirts x-ray_y',
  '': '',
  '.': '',
  ' a\u2028b\n': 'a b',
}

_WORDS = """a the man woman two dogs running on grass in front of building red
    T-shirt black-and-white Dog The A He They People U.S. D.C. TV tv etc. Mr.
    St. no. No. p.m. J. b. B. A. 5 12 2nd 1990s 3.5 1,000 1/2 10% $5 #1 24/7
    12:30 5ft don't can't isn't it's they're we'll I'm cannot gonna o'clock
    y'all 'n' '90s dogs' rock'n'roll O'Neil and/or w/ & B&W R&B "quoted"
    'quoted' (red) - -- ... ! !! ? ; : , . :) ;-) http://foo.com/x a@b.com
    #tag @user caf\xe9 it\u2019s \u201cso\u201d \u2013 \u2026 \xbd \xa35 \xb0
    <UNK> mother-in-law's jack-o-lantern Jr. Ph.D. dog.The e.g. a.m. x.y.z
    """.split()
_ENDS = ('.', '', ' .', '!', '...', '.)')


def _java(captions):
  """Returns the tokens of captions by Stanford's program, as COCO has them."""
  from pycocoevalcap.tokenizer import ptbtokenizer

  jar = os.path.join(
    os.path.dirname(ptbtokenizer.__file__),
    ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR,
  )
  process = subprocess.run(
    [
      'java',
      '-cp',
      jar,
      'edu.stanford.nlp.process.PTBTokenizer',
      '-preserveLines',
      '-lowerCase',
      '-encoding',
      'UTF-8',
    ],
    input=''.join(
      ' '.join(caption.split()) + '\n' for caption in captions
    ).encode('utf-8'),
    capture_output=True,
    check=True,
  )
  return [
    ' '.join(
      token
      for token in line.rstrip(' ').split(' ')
      if token not in _PUNCTUATION
    )
    for line in process.stdout.decode('utf-8').split('\n')[:-1]
  ]


def _differences(captions):
  """Returns captions that Java's program splits otherwise, with both."""
  ours, theirs = ptb_tokenizer.tokenize(captions), _java(captions)
  assert len(ours) == len(theirs) == len(captions)
  return [
    different
    for different in zip(captions, theirs, ours)
    if different[1] != different[2]
  ]


@pytest.mark.parametrize('caption', _EXAMPLES)
def test_examples(caption):
  assert ptb_tokenizer.tokenize([caption]) == [_EXAMPLES[caption]]


@needs_java
def test_examples_are_what_java_says():
  assert _java(list(_EXAMPLES)) == list(_EXAMPLES.values())


def test_the_next_caption_matters_to_a_last_letter():
  assert ptb_tokenizer.tokenize(['plan B.', '', 'The dog', 'plan B.', 'a']) == [
    'plan b',
    '',
    'the dog',
    'plan b.',
    'a',
  ]


@needs_java
def test_next_captions_matter_to_java_as_well():
  assert not _differences(
    [
      f'plan {last}'
      for last in ('B.', 'b.', 'U.S.', 'no.', 'fig.', 'etc.')
      for _ in range(2)
    ]
    + ['The dog']
  )
  for following in ('The dog', 'the dog', 'A man', 'Two', '5 dogs', ''):
    assert not _differences(['plan B.', following, 'no.', following])


@needs_java
def test_equals_java_on_generated_captions():
  random_ = random.Random(1)
  captions = [
    ' '.join(random_.choices(_WORDS, k=random_.randint(1, 14)))
    + random_.choice(_ENDS)
    for _ in range(5000)
  ]
  assert not _differences(captions)


@needs_java
def test_equals_java_on_abbreviations():
  # Of two letters all, and those that are any.
  letters = 'abcdefghijklmnopqrstuvwxyz'
  words = [a + b for a in letters for b in letters]
  words += sorted(ptb_tokenizer._with_stop())
  assert not _differences(
    [
      form % case(word)
      for form in (
        'x %s. y',
        'x %s. The',
        'x %s.',
        'x %s.z',
        'x %s.-y',
        'x %s. 5',
        "%s's",
        'x %s., y',
      )
      for case in (str, str.capitalize, str.upper)
      for word in words
    ]
  )


@needs_java
def test_equals_java_on_captions_of_data_sets():
  captions = []
  for parts in (
    ('flickr8k', 'captions_train.json'),
    ('flickr8k', 'captions_val.json'),
    ('coco_mini', 'captions_train.json'),
    ('coco_mini', 'captions_val.json'),
    ('coco_photos', 'captions.json'),
  ):
    with open(testing.reference_path('..', *parts), encoding='utf-8') as f:
      captions += [a['caption'] for a in json.load(f)['annotations']]
  assert len(captions) > 30000
  assert not _differences(captions)


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
