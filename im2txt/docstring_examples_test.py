# SPDX-License-Identifier: Apache-2.0
"""The examples in docstrings give what they say."""

import doctest
import importlib
import os
import sys

import pytest

from im2txt import testing

_ROOT = os.path.dirname(os.path.abspath(__file__))
# Examples that need the data of NLTK's tokenizer.
_NEEDS_PUNKT = ['text.tokenizer']


def _modules_with_examples():
  """Returns the dotted names below im2txt; only these are imported."""
  found = []
  for folder, _, names in os.walk(_ROOT):
    for name in names:
      path = os.path.join(folder, name)
      if name.endswith('.py') and not name.endswith('_test.py'):
        with open(path, encoding='utf-8') as f:
          if '>>> ' in f.read():
            module = os.path.relpath(path, _ROOT)[: -len('.py')]
            found.append(module.replace(os.sep, '.').removesuffix('.__init__'))
  return sorted(found)


_MODULES = _modules_with_examples()


def test_examples_are_found():
  assert {
    'checkpoints.locating',
    'metrics.ptb_tokenizer',
    'text.tokenizer',
  } <= set(_MODULES)


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(
      name, marks=(testing.needs_punkt() if name in _NEEDS_PUNKT else ())
    )
    for name in _MODULES
  ],
)
def test_examples(name):
  failed, tried = doctest.testmod(
    importlib.import_module(f'im2txt.{name}'), optionflags=doctest.REPORT_NDIFF
  )
  assert tried
  assert not failed, 'see the output above'


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
