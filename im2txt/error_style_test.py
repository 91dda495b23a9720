# SPDX-License-Identifier: Apache-2.0
"""Errors have one style: lower case, no full stop, "must" and not "should"."""

import ast
import os
import re
import sys

import pytest

_ROOT = os.path.dirname(os.path.abspath(__file__))
# Names that begin with a capital, wherever they stand.
_PROPER_NAMES = (
  'Adam',
  'Bazel',
  'COCO',
  'CUDA',
  'Inception',
  'Java',
  'NLTK',
  'Pillow',
  'Python',
  'SPICE',
  'TensorFlow',
)


def _text(node):
  """Returns the text of an expression; {} where it is known only later."""
  if isinstance(node, ast.Constant):
    return str(node.value)
  if isinstance(node, ast.JoinedStr):
    return ''.join(map(_text, node.values))
  if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
    return _text(node.left) + _text(node.right)
  return '{}'


def faults(source):
  """Returns (line, text) of what is raised in another style.

  >>> faults('raise ValueError("Bad value.")')
  [(1, 'Bad value.')]
  """
  found = []
  for node in ast.walk(ast.parse(source)):
    if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)):
      continue
    # Of an OSError with an errno, the second is the text.
    for argument in node.exc.args[:2]:
      text = _text(argument).strip()
      if (
        (re.match('[A-Z][a-z]', text) and not text.startswith(_PROPER_NAMES))
        or re.search(r'[^.]\.$', text)
        or re.search(r'\bshould\b', text)
      ):
        found.append((node.lineno, text))
  return found


@pytest.mark.parametrize(
  'text, is_good',
  [
    ('--steps=0 must be above zero', True),
    ('cannot read {}', True),
    ('Inception v3 is missing', True),
    ('and so on ...', True),
    ('Cannot read it', False),
    ('cannot read it.', False),
    ('it should be above zero', False),
  ],
)
def test_faults_are_found(text, is_good):
  assert bool(faults(f'raise ValueError({text!r})')) != is_good


def test_errors_have_one_style():
  found = []
  for folder, _, names in os.walk(_ROOT):
    for name in names:
      path = os.path.join(folder, name)
      if name.endswith('.py') and not name.endswith('_test.py'):
        with open(path, encoding='utf-8') as f:
          found += [
            f'{os.path.relpath(path, _ROOT)}:{line}: {text}'
            for line, text in faults(f.read())
          ]
  assert not found, '\n'.join(found)


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
