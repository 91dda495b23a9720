#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Draws the rooms of im2txt/rooms.bzl into docs/architecture.md.

The picture has an arrow per import, without those that follow from others. The
table has the first line of each room's docstring.
"""

import ast
from collections.abc import Mapping
from collections.abc import Sequence
import pathlib
import re

_ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = _ROOT / 'docs' / 'architecture.md'

Rooms = Mapping[str, Sequence[str]]


def read_rooms() -> Rooms:
  """Returns the rooms, and the rooms that each imports."""
  tree = ast.parse((_ROOT / 'im2txt' / 'rooms.bzl').read_text('utf-8'))
  for node in tree.body:
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == 'ROOMS':
      return ast.literal_eval(node.value)
  raise ValueError('rooms.bzl has no ROOMS')


def _below(room: str, rooms: Rooms) -> set[str]:
  """Returns all rooms that a room imports, directly or through others."""
  return set(rooms[room]).union(*(_below(r, rooms) for r in rooms[room]))


def arrows(rooms: Rooms) -> list[tuple[str, str]]:
  """Returns the imports that do not follow from others.

  >>> arrows({'a': ['b', 'c'], 'b': ['c'], 'c': []})
  [('a', 'b'), ('b', 'c')]
  """
  found = []
  for room, targets in sorted(rooms.items()):
    implied = set().union(*(_below(target, rooms) for target in targets))
    found += [(room, target) for target in sorted(set(targets) - implied)]
  return found


def _purpose(room: str) -> str:
  """Returns the first line of what a room says of itself."""
  path = _ROOT / 'im2txt' / room / '__init__.py'
  if not path.exists():
    path = _ROOT / 'im2txt' / f'{room}.py'
  docstring = ast.get_docstring(ast.parse(path.read_text('utf-8')))
  if not docstring:
    raise ValueError(f'{path} has no docstring')
  return docstring.splitlines()[0]


def drawn(page: str, rooms: Rooms) -> str:
  """Returns the page with the picture and the table of these rooms."""
  picture = ''.join(f'  {a} --> {b}\n' for a, b in arrows(rooms))
  table = ''.join(
    f'| `{room}` | {_purpose(room)} |\n' for room in sorted(rooms)
  )
  page = re.sub(
    r'(?<=```mermaid\ngraph TD\n).*?(?=```)',
    lambda _: picture,
    page,
    flags=re.DOTALL,
  )
  return re.sub(
    r'(?<=\| room \| what is in it \|\n\| --- \| --- \|\n)(\|.*\n)+',
    lambda _: table,
    page,
  )


def main() -> None:
  PAGE.write_text(drawn(PAGE.read_text('utf-8'), read_rooms()), 'utf-8')


if __name__ == '__main__':
  main()
