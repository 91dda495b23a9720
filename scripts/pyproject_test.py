# SPDX-License-Identifier: Apache-2.0
"""Tests of pyproject.toml: it agrees with the pins and with the programs."""

import ast
import pathlib
import re
import sys
import tomllib

import pytest

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_PROJECT = tomllib.loads((_ROOT / 'pyproject.toml').read_text('utf-8'))[
  'project'
]


def _versions(text):
  return tuple(int(part) for part in re.findall(r'\d+', text))


def _pins(file='requirements.txt'):
  """Returns {name: version} of a file of requirements."""
  lines = (_ROOT / file).read_text('utf-8').splitlines()
  return dict(line.split('==') for line in lines if '==' in line)


def _bounds():
  """Returns {name: lowest version} of what a user's installation brings."""
  found = [*_PROJECT['dependencies'], *_PROJECT['optional-dependencies']['cpu']]
  return dict(bound.split('>=') for bound in found)


def test_the_pinned_packages_are_those_of_the_project():
  assert sorted(_pins()) == sorted(_bounds())


@pytest.mark.parametrize('name', sorted(_bounds()))
def test_the_pinned_version_is_allowed(name):
  assert _versions(_pins()[name]) >= _versions(_bounds()[name])


def test_a_package_has_one_version():
  found = {}
  for path in _ROOT.glob('requirements*'):
    for line in path.read_text('utf-8').splitlines():
      if '==' in line and not line.startswith('#'):
        name, version = line.split('==')
        name = re.sub(r'[-_.]+', '-', name).lower()
        assert found.setdefault(name, version) == version, f'{path}: {line}'
  assert 'mkdocs' in found and 'tensorflow' in found


@pytest.mark.parametrize('extra', ['benchmark', 'int8', 'video'])
def test_optional_packages_are_pinned_likewise(extra):
  pins = _pins(f'requirements-{extra}.txt')
  bounds = dict(
    bound.split('>=') for bound in _PROJECT['optional-dependencies'][extra]
  )
  assert sorted(pins) == sorted(bounds)
  for name, bound in bounds.items():
    assert _versions(pins[name]) >= _versions(bound)


def test_the_extra_for_many_machines_is_pinned():
  (bound,) = _PROJECT['optional-dependencies']['beam']
  name, lowest = bound.split('>=')
  pins = _pins('requirements-beam.txt')
  assert _versions(pins[name]) >= _versions(lowest)


def test_each_program_has_a_console_script():
  tree = ast.parse((_ROOT / 'im2txt' / 'rooms.bzl').read_text('utf-8'))
  (programs,) = (
    ast.literal_eval(node.value)
    for node in tree.body
    if isinstance(node, ast.Assign)
    and ast.unparse(node.targets[0]) == 'PROGRAMS'
  )
  assert sorted(_PROJECT['scripts']) == sorted(
    'im2txt-' + program.replace('_', '-') for program in programs
  )


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
