# SPDX-License-Identifier: Apache-2.0
"""Tests of the site's hooks: links, the drawing, and nothing from elsewhere."""

import re
import sys
import types

import pytest

pytest.importorskip('mkdocs', reason='scripts/setup.sh --docs installs mkdocs')

import site_hooks  # noqa: E402


def _page(path):
  return types.SimpleNamespace(file=types.SimpleNamespace(src_uri=path))


@pytest.mark.parametrize(
  'page, link, expected',
  [
    ('index.md', 'docs/data.md#captions-files', 'data.md#captions-files'),
    ('index.md', 'docs/photos.png', 'photos.png'),
    ('data.md', 'training.md', 'training.md'),
    ('data.md', '#captions-files', '#captions-files'),
    ('data.md', '../SECURITY.md', 'security.md'),
    ('model_card.md', '../../docs/captioning.md#a', 'captioning.md#a'),
    ('index.md', 'https://arxiv.org/abs/1', 'https://arxiv.org/abs/1'),
  ],
)
def test_links_are_those_of_the_site(page, link, expected):
  found = site_hooks.on_page_markdown(f'[a]({link}) `[b](c.md)`', _page(page))
  assert found == f'[a]({expected}) `[b](c.md)`'


def test_rooms_are_drawn_above_those_that_they_import():
  drawn = site_hooks.on_page_markdown(
    '```mermaid\ngraph TD\n  a --> b\n  b --> c\n  a --> d\n```\n',
    _page('a.md'),
  )
  assert 'mermaid' not in drawn and drawn.count('<path') == 3
  height = {
    name: int(y)
    for y, name in re.findall(r'<text x="\d+" y="(\d+)">(\w)', drawn)
  }
  assert height['a'] < height['b'] == height['d'] < height['c']


@pytest.mark.parametrize(
  'html, is_refused',
  [
    ('<script src="https://example.com/a.js">', True),
    ('<script defer src=//example.com/a.js>', True),
    ('<link rel="stylesheet" href="https://example.com/a.css">', True),
    ('<img alt="" src="http://example.com/a.png">', True),
    ('<a href="https://example.com/">', False),
    ('<link rel="canonical" href="https://example.com/">', False),
    ('<img src="photos.png">', False),
  ],
)
def test_nothing_is_loaded_from_elsewhere(html, is_refused):
  if is_refused:
    with pytest.raises(site_hooks.PluginError, match='a.md would load .*//ex'):
      site_hooks.on_post_page(html, _page('a.md'))
  else:
    assert site_hooks.on_post_page(html, _page('a.md')) == html


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
