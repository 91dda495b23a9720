# SPDX-License-Identifier: Apache-2.0
"""Which module may import which: arrows go down, never back."""

import ast
import os
import sys

import pytest

_ROOT = os.path.dirname(os.path.abspath(__file__))


def _declared():
  """Returns what rooms.bzl declares, a dict from name to value."""
  with open(os.path.join(_ROOT, 'rooms.bzl'), encoding='utf-8') as f:
    tree = ast.parse(f.read())
  return {
    node.targets[0].id: ast.literal_eval(node.value)
    for node in tree.body
    if isinstance(node, ast.Assign)
  }


# Of a program, see `_lines_of_logic`. One that needs more is a library.
_MOST_LINES = 100

_ROOMS = _declared()['ROOMS']
_PROGRAMS = _declared()['PROGRAMS']


def _place(module):
  """Returns the room, program or helper that a dotted name lies in."""
  return module.split('.')[0]


def _modules():
  """Yields (dotted name, path) of every module that is not a test."""
  for folder, _, names in os.walk(_ROOT):
    for name in names:
      if name.endswith('.py') and not name.endswith('_test.py'):
        path = os.path.join(folder, name)
        module = os.path.relpath(path, _ROOT)[: -len('.py')]
        yield module.replace(os.sep, '.').removesuffix('.__init__'), path


def _imports(source):
  """Yields the dotted names below im2txt that a module imports."""
  for node in ast.walk(ast.parse(source)):
    names = []
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      names = [f'{node.module}.{alias.name}' for alias in node.names]
    for name in names:
      if name.startswith('im2txt.'):
        yield name.removeprefix('im2txt.')


def _imported(modules):
  """Returns {room or program: rooms and programs that it imports}."""
  found = {}
  for module, source in modules:
    place = _place(module)
    found.setdefault(place, set()).update(
      _place(imported) for imported in _imports(source)
    )
    found[place].discard(place)
  return found


def _sources():
  modules = []
  for module, path in _modules():
    with open(path, encoding='utf-8') as f:
      modules.append((module, f.read()))
  return modules


def test_rooms_import_what_is_declared_and_nothing_else():
  imported = _imported(_sources())
  # What the package itself imports comes with every import.
  imported.pop('__init__', None)
  testing = imported.pop('testing')
  assert {place: sorted(targets) for place, targets in imported.items()} == {
    **_ROOMS,
    **_PROGRAMS,
  }
  assert sorted(testing) == _declared()['TESTING']


def test_arrows_go_down():
  """No room imports itself through others."""
  below = {room: set(targets) for room, targets in _ROOMS.items()}
  while any(below.values()):
    lowest = {room for room, targets in below.items() if not targets}
    assert lowest, f'these import each other: {sorted(below)}'
    below = {
      room: targets - lowest
      for room, targets in below.items()
      if room not in lowest
    }


def test_no_room_imports_a_program():
  for room, targets in _ROOMS.items():
    assert set(targets) <= set(_ROOMS), room


def _reads_flags(source):
  """Whether code takes a value out of FLAGS, `flags.FLAGS` or under its name.

  To name it is no reading: a function that defines flags has it as a default.
  """
  return any(
    isinstance(node, ast.Attribute | ast.Subscript)
    and ast.unparse(node.value).split('.')[-1] == 'FLAGS'
    for node in ast.walk(ast.parse(source))
  )


def test_no_room_reads_flags():
  readers = {module for module, source in _sources() if _reads_flags(source)}
  # It parses the flags of every program, and reads --debug.
  assert 'runtime.program' in readers
  for module in readers - {'runtime.program'}:
    assert module in _PROGRAMS, module


@pytest.mark.parametrize(
  'source, reads',
  [
    ('FLAGS.beam_size', True),
    ("flags.FLAGS['beam_size'].value", True),
    ('def define_flags(flag_values=flags.FLAGS):\n  pass', False),
    ('options = from_flags(FLAGS, Options)', False),
  ],
)
def test_finds_what_reads_flags(source, reads):
  assert _reads_flags(source) == reads


def _lines_of_logic(source):
  """Returns how many lines a program has beside what it tells and takes.

  The docstring is the text of --help, the imports are a line each by our style,
  and define_flags is a list. None of them is logic, which would belong to a
  room. All else counts, blank lines and comments too.
  """
  tree = ast.parse(source)
  others = [
    node
    for node in tree.body
    if isinstance(node, ast.Import | ast.ImportFrom)
    or (isinstance(node, ast.FunctionDef) and node.name == 'define_flags')
    or (node is tree.body[0] and ast.get_docstring(tree))
  ]
  return len(source.splitlines()) - sum(
    node.end_lineno - node.lineno + 1 for node in others
  )


def test_programs_are_thin():
  lines = {
    module: _lines_of_logic(source)
    for module, source in _sources()
    if module in _PROGRAMS
  }
  assert lines.keys() == _PROGRAMS.keys()
  assert {module: n for module, n in lines.items() if n > _MOST_LINES} == {}


def test_counts_lines_of_logic():
  source = '''"""Does something.

  program --flag
"""

import sys


def define_flags():
  pass


def main():
  pass
'''
  assert _lines_of_logic(source) == 7


def test_tests_that_are_named_exist():
  files = {
    os.path.relpath(os.path.join(folder, name), _ROOT)
    for folder, _, names in os.walk(_ROOT)
    for name in names
    if name.endswith('_test.py')
  }
  assert {f'{test}.py' for test in _declared()['TESTS']} <= files
  # A room's tests are one target.
  targets = {
    path.split(os.sep)[0] + '_test' if os.sep in path else path[: -len('.py')]
    for path in files
  }
  assert set(_declared()['LARGE_TESTS']) <= targets


@pytest.mark.parametrize(
  'module, source, imported',
  [
    ('ops.lstm', 'from im2txt.ops import loss', set()),
    ('ops.lstm', 'from im2txt import configuration', {'configuration'}),
    ('ops.lstm', 'import im2txt.show_and_tell_model', {'show_and_tell_model'}),
    ('ops.lstm', 'def f():\n  from im2txt import train', {'train'}),
    ('data.build', 'from im2txt.text.vocabulary import V', {'text'}),
    ('data.build', 'import im2txt\nimport numpy', set()),
  ],
)
def test_finds_imports(module, source, imported):
  assert _imported([(module, source)]) == {_place(module): imported}


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
