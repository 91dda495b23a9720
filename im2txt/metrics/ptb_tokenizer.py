# SPDX-License-Identifier: Apache-2.0
"""The Penn Treebank tokenizer of COCO's evaluation, without Java.

COCO's evaluation code runs the PTBTokenizer of Stanford CoreNLP 3.4.1 on
captions, lower-cases the tokens and removes punctuation. Scores depend on the
tokens, so this module must give the same ones. ptb_tokenizer_test.py compares
the two if Java is installed. They differ for telephone numbers, some runs of
signs, and scripts that the program of 2014 does not know.

At each place the rule with the longest match wins, lookahead included. Among
equally long matches, the first rule wins.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import functools
import re
import unicodedata

# Increase this when the tokens of any caption change.
VERSION = '1'

# Letters, digits, commas and a full stop at the end: nine captions of ten.
_PLAIN = re.compile(
  r'[a-z]+[0-9]*(?:(?:-| , |, | )[a-z]+[0-9]*)*(?P<stop> ?\.)?'
)
_PLAIN_WORD = re.compile(r'[A-Za-z]+(?=\s)')
_TWO_WORDS = (
  ('can', 'not'),
  ('gim', 'me'),
  ('gon', 'na'),
  ('got', 'ta'),
  ('lem', 'me'),
  ('wan', 'na'),
)
_NOT_ONE_WORD = re.compile(
  r'\b(?:%s)\b' % '|'.join(map(''.join, _TWO_WORDS)), re.IGNORECASE
)

# Abbreviations that keep their full stop: those that may end a phrase, and
# those that stand before a name.
_ABBREVIATIONS = """
    al co ct ga jr ky md mo rd rt sq sr va vt ala apr aug bhd cos dak dec esq
    est etc ext feb fla fri inc ind jan jul jun kan ltd mar mon neb nev nov oct
    plc sep seq sys tel thu tue wed wis wyo ariz assn bldg blvd bros colo conn
    corp intl kans mich minn mont okla penn sept tenn tues univ wisc calif
    thurs bancorp""".split()
_TITLES = """
    adj adm adv alex assoc asst atty attys ave brig capt cf cie cmdr col comdr
    cpl dept det dr drs elec ens ft gen gov govs hon insp invt jos lieut lt maj
    messrs mlle mme mr mrs ms msgr mt natl pfc ph pres prof profs pvt rep reps
    rev sen sens sfc sgt spc st ste supt supts treas vs wm""".split()
# Abbreviations only if they are capitalized, and only if they are not in
# capitals.
_CAPITALIZED = 'ark az del ill la mass miss ore pa tex wash'.split()
_UNCAPITALIZED = 'ppte pptes ppty pptys pte ptes pty ptys'.split()
_UNCAPITALIZED_TITLES = 'mfg mtg'.split()
_BEFORE_NUMBERS = 'art ca fig figs no nos op pp prop'.split()
# Before one of these, a single letter with a full stop ends a sentence.
_SENTENCE_STARTS = """
    A About According After An As At But Earlier He Her Here However If In It
    Last Many More Now Once One Other Our She Since So Some Such That The Their
    Then There These They This We What When While Yet You""".split()
_FILES = """
    bat bmp c cgi class cpp dll doc docx exe gif gz h htm html jar java jpeg jpg
    mov mp3 pdf php pl png ppt ps py sql tar txt wav x xml zip""".split()
# Words with an apostrophe that the rules would split.
_WHOLE = """
    c'mon cap'n d'ya d'ye dunkin' e'er j' d' l' ma'am nat'l o'clock o'er ol'
    s'mores somethin'""".split()

_PUNCTUATION = frozenset(
  ("''", "'", '``', '`', '.', '?', '!', ',', ':', '-', '--', '...', ';')
)
_REPLACED = {
  '(': '-lrb-',
  ')': '-rrb-',
  '[': '-lsb-',
  ']': '-rsb-',
  '{': '-lcb-',
  '}': '-rcb-',
  '"': "''",
  '\xab': '``',
  '\xbb': "''",
  '\u2018': '`',
  '\u2019': "'",
  '\u201b': '`',
  '\u201c': '``',
  '\u201d': "''",
  '\u2039': '`',
  '\u203a': "'",
  '\u2013': '--',
  '\u2014': '--',
  '\u2010': '',
  '\u2011': '',
  '\u2012': '',
  '\u2015': '--',
  '\u2026': '...',
  '\xa2': 'cents',
  '\xa3': '#',
  '\xa4': '$',
  '\u20a0': '$',
  '\u20ac': '$',
  '\xbc': '1/4',
  '\xbd': '1/2',
  '\xbe': '3/4',
  '\u2153': '1/3',
  '\u2154': '2/3',
  '&amp;': '&',
  '&gt;': '>',
  '&lt;': '<',
  '&mdash;': '--',
  '&md;': '--',
  '&ndash;': '--',
  '&quot;': "''",
  '&apos;': "'",
}
# What is removed from words, what stands between tokens, and the categories of
# characters that are no token.
_SOFT_HYPHEN = '\xad'
_SPACES = re.compile(r'(?:\s|\u200b|&nbsp;)*')
_NOTHING = frozenset(('Cc', 'Cf', 'Cn', 'Co', 'Cs', 'Mn', 'Mc', 'Me'))


def tokenize(captions: Sequence[str]) -> list[str]:
  """Tokenizes captions as COCO's evaluation does.

  >>> tokenize(['A man, riding.', "It isn't red (it's 5'4)"])
  ['a man riding', "it is n't red -lrb- it 's 5 4 -rrb-"]

  Args:
    captions: the captions. Their order matters a little, as in COCO's code: if
      one ends in "B." or "no.", the first word of the next caption decides
      whether the full stop stays.

  Returns:
    The tokens of each caption, joined by blanks. A blank in a token, such as
    "1 1/2", is U+00A0.
  """
  lines = [
    ' '.join(caption.replace(_SOFT_HYPHEN, '').split()) for caption in captions
  ]
  tokenized, following = [], ''
  for line in reversed(lines):
    tokens = _plain(line.lower())
    if tokens is None:
      tokens = ' '.join(_tokens(line, following))
    tokenized.append(tokens)
    following = line or following
  return tokenized[::-1]


def _plain(line: str) -> str | None:
  """Returns the tokens of a simple caption; None if it is not simple."""
  match = _PLAIN.fullmatch(line)
  if not match or _NOT_ONE_WORD.search(line):
    return None
  if match['stop']:
    line = line[: match.start('stop')]
    last = line[line.rfind(' ') + 1 :]
    if not match['stop'].startswith(' ') and (
      len(last) == 1 or last in _with_stop()
    ):
      return None
  return line.replace(' ,', '').replace(',', '')


@functools.lru_cache(maxsize=None)
def _with_stop() -> frozenset[str]:
  """Returns all words that may keep a full stop at the end of a caption."""
  return frozenset(
    _ABBREVIATIONS
    + _TITLES
    + _CAPITALIZED
    + _UNCAPITALIZED
    + _UNCAPITALIZED_TITLES
    + _BEFORE_NUMBERS
  )


def _tokens(line: str, following: str) -> Iterator[str]:
  """Yields the tokens of a caption except punctuation.

  Args:
    line: the caption.
    following: the next caption that is not empty.
  """
  text = f'{line}\n{following}\n'
  position = _after_spaces(text, 0)
  while position < len(line):
    match = _PLAIN_WORD.match(text, position)
    if match and not _NOT_ONE_WORD.fullmatch(match[0]):
      end = match.end()
    else:
      match = max(
        filter(None, (rule.match(text, position) for rule in _rules())),
        key=re.Match.end,
      )
      end = match.end('token' if 'token' in match.re.groupindex else 0)
    token = _normalized(text[position:end].lower())
    if token and token not in _PUNCTUATION:
      yield token
    position = _after_spaces(text, end)


def _after_spaces(text: str, position: int) -> int:
  match = _SPACES.match(text, position)
  assert match  # The pattern matches the empty string too.
  return match.end()


def _normalized(token: str) -> str:
  """Returns a token as the Treebank writes it; '' if it is no token."""
  if token in _REPLACED:
    return _REPLACED[token]
  if len(token) == 1 and (
    token > '\uffff' or (unicodedata.category(token) in _NOTHING)
  ):
    return ''
  if token[0] == '.' and not token.strip('.') and len(token) > 1:
    return '...'
  if token[0] == '-' and not token.strip('-') and 1 < len(token) < 5:
    return '--'
  if token[0] in ':;=<>':
    token = token.replace('(', '-lrb-').replace(')', '-rrb-')
  if _CONTRACTION.fullmatch(token):
    token = re.sub('\u2019|&apos;', "'", token)
  return token.replace(' ', '\xa0').replace('&amp;', '&')


_APOSTROPHE = r"(?:['\u2019]|&apos;)"
_CONTRACTION = re.compile(rf'{_APOSTROPHE}(?:s|m|d|re|ve|ll)|n{_APOSTROPHE}t')


@functools.lru_cache(maxsize=None)
def _rules() -> list[re.Pattern[str]]:
  """Returns patterns. A group marks the token if it is not the whole match."""
  # Superscripts, fractions and other numbers of Python are not letters.
  numbers = r'\xb2\xb3\xb9\xbc-\xbe\u2070-\u2089\u2150-\u218f\u2460-\u24ff'
  letter = rf'[^\W\d_{numbers}]'
  sign = rf'[^\W_{numbers}]'
  mark = r'[\u0300-\u036f]|&[aeiouAEIOU](?:acute|grave|uml);'
  word = rf'(?:{sign}|{mark})+'
  dotted = rf'{letter}{sign}*(?:[.!?]{letter}{sign}*)+'  # dog.The
  apostrophe = "['\u2019]"
  tag = r'</?[A-Za-z!?_][^<>\\\n]*>'
  part = f'(?:[dDoOlL]{apostrophe}{sign}{sign}+|{word})'  # O'Neil

  def any_of(words: Sequence[str], *cases: Callable[[str], str]) -> str:
    words = [case(word) for word in words for case in cases or [str]]
    return '(?:%s)' % '|'.join(sorted(words, key=len, reverse=True)).replace(
      "'", apostrophe
    )

  starts = any_of(_SENTENCE_STARTS, str, str.upper)
  some_case = [
    any_of(_CAPITALIZED, str.capitalize, str.upper),
    any_of(_UNCAPITALIZED, str, str.capitalize),
  ]
  return [
    # Contractions come first, because words may match equally long.
    *(
      _any_case(rf'(?P<token>{first}){second}') for first, second in _TWO_WORDS
    ),
    _any_case(rf'(?P<token>{word}){_APOSTROPHE}(?:s|m|d|re|ve|ll)(?!{letter})'),
    _any_case(rf'(?P<token>{letter}*(?!n){letter})n(?:{_APOSTROPHE}|`)t'),
    _any_case(rf'n(?:{_APOSTROPHE}|`)t'),
    _any_case(rf'{_APOSTROPHE}(?:s|m|d|re|ve|ll)(?!{letter})'),
    _any_case(r"(?P<token>'t)(?:is|was)"),
    _any_case(rf'{apostrophe}(?:em|cause|till?|n{apostrophe}|n(?=\s)|[2-9]0s)'),
    # Words.
    _any_case(any_of(_WHOLE)),
    _any_case(rf'(?P<token>y{apostrophe}){letter}'),
    re.compile(rf'(?P<token>{apostrophe}){letter}{letter}'),
    re.compile(rf'[A-HJ-XZn]{apostrophe}{letter}{{2,}}'),
    re.compile(rf'{letter}+[aeiouyAEIOUY]{apostrophe}[aeiouA-Z]{letter}*'),
    re.compile(rf'{part}(?:[-_\u2010\u2011]{part})*'),
    re.compile(rf'{word}(?:-{word})*(?:/{word}(?:-{word})*)+'),
    re.compile(dotted),
    # Full stops that belong to a word.
    _any_case(rf'(?P<token>{any_of(_ABBREVIATIONS)}\.)[\s\S]{{2}}'),
    *(re.compile(rf'(?P<token>{words}\.)[\s\S]{{2}}') for words in some_case),
    _any_case(rf'{any_of(_ABBREVIATIONS + _TITLES)}\.'),
    re.compile(rf'{any_of(_UNCAPITALIZED_TITLES, str, str.capitalize)}\.'),
    _any_case(rf'(?P<token>{any_of(_BEFORE_NUMBERS)}\.)\s*\d'),
    _any_case(r'ph\.d\.'),
    re.compile(rf'(?P<token>[A-Za-z])\.\s+(?:{starts}|M[RrSs]\.|{tag})\s'),
    re.compile(r'[A-Za-z]\.'),
    re.compile(rf'(?:{letter}\.){{2,}}(?:-{word})*'),
    re.compile(rf'{word}(?:[.,]{word})*[.,]?(?:-{word})+'),
    re.compile(rf'(?P<token>(?:{word}(?:[-_]{word})*|{dotted})\.)[,;:]'),
    # Numbers.
    re.compile(r'[-+]?(?:\d*(?:[.,:]\d+)+(?:-\d+)?|\d+)'),
    re.compile(r'\d{1,4} \d{1,4}/\d{1,4}'),
    re.compile(r"(?P<token>'\d\d)\s"),
    # Addresses and files.
    _any_case(
      r'(?:https?://[^\s"<>]*\.|www\.(?=\w))[^\s"<>]*[^\s"<>.,;:!?)\']'
    ),
    re.compile(r'[A-Za-z0-9][^\s"<>|()]*@(?:[^\s"<>|().]+\.)*[^\s"<>|().]+'),
    _any_case(rf'{word}\.{any_of(_FILES)}(?!{sign})'),
    re.compile(rf'#{letter}+|@[A-Za-z_]\w*'),
    # Signs.
    re.compile(r'[A-Z]+(?:(?:[&+]|&amp;)[A-Z]+)+|[CcFf]#|C\+\+|[A-Z]+\$'),
    re.compile(tag),
    _any_case(r'&(?:amp|lt|gt|quot|apos|mdash|ndash|md);|&#\d+;'),
    re.compile(
      rf"[<>]?[:;=]['*o-]?[()DdPpO@|\\\[\]{{](?!{sign})|[-'<>^]_[-'<>^]"
    ),
    re.compile(r"''|``|-{5,}|-{2,4}|\.{3,}|\*+|_+|#+|@+|[!?]+"),
    re.compile(r'\S'),
  ]


def _any_case(pattern: str) -> re.Pattern[str]:
  return re.compile(pattern, re.IGNORECASE)
