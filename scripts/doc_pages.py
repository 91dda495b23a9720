# SPDX-License-Identifier: Apache-2.0
"""The pages that people read, and what stands in them: links, anchors, code.

The same Markdown is read on GitHub and as a site. The tests and the site's hooks
share what is known of it here.
"""

from collections.abc import Callable
from collections.abc import Iterator
import pathlib
import re
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Pages of the site that do not lie in docs/, by their place in the repository.
OUTSIDE_DOCS = {
  'README.md': 'index.md',
  'CHANGELOG.md': 'changelog.md',
  'CITATION.cff': 'citation.cff',
  'CONTRIBUTING.md': 'contributing.md',
  'LICENSE': 'license.txt',
  'SECURITY.md': 'security.md',
  'data/README.md': 'data_directory.md',
  'data/flickr8k_coco/README.md': 'model_card.md',
  'data/photos/README.md': 'photos.md',
  'testdata/README.md': 'testdata.md',
}

_FENCE = re.compile(r'^( *)(```+)(\w*)[^\n]*\n(.*?)^\1\2 *$', re.M | re.S)
_LINK = re.compile(r'(?<=\]\()([^()\s]*(?:\([^()\s]*\)[^()\s]*)*)(?=\))')
_HEADING = re.compile(r'^#{1,6} +(.+?) *#*$', re.M)


class Block(NamedTuple):
  """A fenced block of code.

  Attributes:
    language: what stands behind the fence, or ''.
    line: number of its first line of code in the page, from 1.
    code: the lines.
  """

  language: str
  line: int
  code: str


def paths() -> list[str]:
  """Returns the paths of all pages in Markdown, relative to the repository."""
  docs = (f'docs/{path.name}' for path in ROOT.glob('docs/*.md'))
  return sorted([*(p for p in OUTSIDE_DOCS if p.endswith('.md')), *docs])


def read(path: str) -> str:
  return (ROOT / path).read_text('utf-8')


def blocks(text: str) -> Iterator[Block]:
  r"""Yields the fenced blocks of a page.

  >>> list(blocks('Say:\n\n```shell\nls\n```\n'))
  [Block(language='shell', line=4, code='ls\n')]
  """
  for match in _FENCE.finditer(text):
    first = text.count('\n', 0, match.start(4)) + 1
    yield Block(match[3], first, match[4])


def map_links(text: str, function: Callable[[str], str]) -> str:
  """Returns a page with the target of each link replaced by a function of it.

  What stands in code is left as it is.

  >>> map_links('[a](b.md) `[a](b.md)`', str.upper)
  '[a](B.MD) `[a](b.md)`'
  """
  parts = re.split(r'(^ *```.*?^ *```+ *$|`[^`\n]+`)', text, flags=re.M | re.S)
  parts[::2] = [_LINK.sub(lambda m: function(m[1]), p) for p in parts[::2]]
  return ''.join(parts)


def links(text: str) -> list[str]:
  """Returns the targets of all links and images of a page."""
  found: list[str] = []
  map_links(text, lambda link: found.append(link) or link)
  return found


def anchors(text: str) -> list[str]:
  """Returns the anchors that GitHub gives the headings of a page, in order.

  >>> anchors('# `b"a"`: lines of *word_counts.txt*')
  ['ba-lines-of-word_countstxt']
  """
  found: list[str] = []
  for title in _HEADING.findall(_FENCE.sub('', text)):
    title = re.sub(r'\[([^]]*)\]\([^)]*\)', r'\1', title).lower()
    slug = re.sub(r'[^\w\- ]', '', title).strip().replace(' ', '-')
    times = sum(re.fullmatch(rf'{slug}(-\d+)?', a) is not None for a in found)
    found.append(f'{slug}-{times}' if times else slug)
  return found
