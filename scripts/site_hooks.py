# SPDX-License-Identifier: Apache-2.0
"""What mkdocs does beside its own to make the site of pages for GitHub.

Pages outside docs/ join the site without a copy, links between pages are those of
the site, the drawing of the rooms is an image, and nothing is loaded from
elsewhere.
"""

from collections.abc import Sequence
import html
import os
import pathlib
import re
from typing import Any

import doc_pages
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File
from mkdocs.structure.files import Files

# What a page loads while it is read. Links that a reader may follow are none.
_LOADED = re.compile(
  r'<(?:script|img|iframe|source|link(?![^>]*rel="?(?:canonical|prev|next)))'
  r'\b[^>]*?\b(?:src|href)="?((?:https?:)?//[^\s">]+)'
)
_GRAPH = re.compile(r'^```mermaid\ngraph TD\n(.*?)^```$', re.M | re.S)

# Of the drawing, in pixels.
_ROW, _LETTER, _HEIGHT, _GAP = 74, 8, 30, 22


def on_files(files: Files, config: Any) -> Files:
  for source, page in doc_pages.OUTSIDE_DOCS.items():
    path = doc_pages.ROOT / source
    files.append(File.generated(config, page, abs_src_path=str(path)))
  return files


def _source(page: str) -> str:
  """Returns where a page of the site lies in the repository."""
  sources = {page: source for source, page in doc_pages.OUTSIDE_DOCS.items()}
  return sources.get(page, f'docs/{page}')


def _site_link(link: str, source: str) -> str:
  """Returns a link of a page in the repository as one of the site."""
  path, hash_sign, anchor = link.partition('#')
  if not path or re.match(r'\w+:', path):
    return link
  path = os.path.normpath(os.path.join(os.path.dirname(source), path))
  path = doc_pages.OUTSIDE_DOCS.get(path, os.path.relpath(path, 'docs'))
  return path + hash_sign + anchor


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
  source = _source(page.file.src_uri)
  markdown = doc_pages.map_links(markdown, lambda a: _site_link(a, source))
  return _GRAPH.sub(lambda match: _drawn(match[1]), markdown)


def _rows(arrows: Sequence[tuple[str, str]]) -> list[list[str]]:
  """Returns names in rows, such that arrows go down, with few crossings."""
  names = sorted({name for arrow in arrows for name in arrow})
  depth = dict.fromkeys(names, 0)
  for _ in names:
    for upper, lower in arrows:
      depth[lower] = max(depth[lower], depth[upper] + 1)
  rows = [
    [name for name in names if depth[name] == row]
    for row in range(max(depth.values()) + 1)
  ]
  for _ in range(8):  # Each name goes to the middle of its neighbours.
    place = {
      name: (i + 0.5) / len(row) for row in rows for i, name in enumerate(row)
    }
    near = {
      name: [place[b if a == name else a] for a, b in arrows if name in (a, b)]
      for name in names
    }
    for row in rows:
      row.sort(key=lambda name: sum(near[name]) / len(near[name]))
  return rows


def _drawn(graph: str) -> str:
  """Returns an SVG of lines `a --> b`.

  GitHub draws these lines by itself. Material would load a program for it from
  another server.
  """
  arrows = re.findall(r'(\w+) --> (\w+)', graph)
  rows = _rows(arrows)
  widths = [
    sum(len(name) * _LETTER + 20 + _GAP for name in row) - _GAP for row in rows
  ]
  width, height = max(widths) + 4, (len(rows) - 1) * _ROW + _HEIGHT + 4
  middle, boxes = {}, []
  for i, row in enumerate(rows):
    x = (width - widths[i]) / 2
    y = i * _ROW + 2
    for name in row:
      size = len(name) * _LETTER + 20
      middle[name] = (x + size / 2, y)
      boxes.append(
        f'<rect x="{x:.0f}" y="{y}" width="{size}" height="{_HEIGHT}" rx="5"/>'
        f'<text x="{x + size / 2:.0f}" y="{y + 20}">{html.escape(name)}</text>'
      )
      x += size + _GAP
  lines = []
  for upper, lower in arrows:
    x, y = middle[upper][0], middle[upper][1] + _HEIGHT
    to_x, to_y = middle[lower]
    lines.append(
      f'<path d="M{x:.0f} {y} C{x:.0f} {y + 30} {to_x:.0f} {to_y - 30} '
      f'{to_x:.0f} {to_y}"/><polygon points="{to_x - 4:.0f},{to_y - 8} '
      f'{to_x + 4:.0f},{to_y - 8} {to_x:.0f},{to_y}"/>'
    )
  label = '; '.join(f'{upper} imports {lower}' for upper, lower in arrows)
  return (
    f'<div class="rooms"><svg viewBox="0 0 {width:.0f} {height}" role="img" '
    f'aria-label="{html.escape(label)}">{"".join(lines)}{"".join(boxes)}'
    '</svg></div>'
  )


def on_post_page(output: str, page: Any, **_: Any) -> str:
  elsewhere = _LOADED.findall(output)
  if elsewhere:
    raise PluginError(
      f'{page.file.src_uri} would load {elsewhere[0]}: the site must be '
      'complete without a network'
    )
  return output


def on_post_build(config: Any) -> None:
  for path in pathlib.Path(config.site_dir).rglob('*.css'):
    for url in re.findall(
      r'url\([\'"]?((?:https?:)?//[^)]+)', path.read_text()
    ):
      raise PluginError(f'{path} would load {url}')
