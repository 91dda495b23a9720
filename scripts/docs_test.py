# SPDX-License-Identifier: Apache-2.0
"""Tests of the pages: links and anchors lead somewhere, and Python runs."""

import ast
import doctest
import importlib
import os
import re
import sys

import doc_pages
import pytest

_LINKS = [
  (path, link)
  for path in doc_pages.paths()
  for link in sorted(set(doc_pages.links(doc_pages.read(path))))
]
_ANCHORS = {
  path: doc_pages.anchors(doc_pages.read(path)) for path in doc_pages.paths()
}
_PYTHON = [
  pytest.param(block, id=f'{path}:{block.line}')
  for path in doc_pages.paths()
  for block in doc_pages.blocks(doc_pages.read(path))
  if block.language == 'python'
]


def test_pages_are_found():
  assert {'README.md', 'docs/data.md', 'docs/own_photos.md'} <= set(_ANCHORS)
  assert len(_LINKS) > 50 and len(_PYTHON) >= 3
  assert not doctest.testmod(doc_pages).failed


def fault(path, link):
  """Returns what is wrong with a link of a page, or None."""
  if re.match(r'\w+:', link):
    # Nobody is asked: a test must do without a network.
    return (
      None
      if re.match(r'https://[\w.-]+\.\w+(?:/|$)', link)
      else 'not an address'
    )
  file, _, anchor = link.partition('#')
  target = os.path.normpath(os.path.join(os.path.dirname(path), file))
  target = target if file else path
  if not (doc_pages.ROOT / target).is_file():
    return f'there is no {target}'
  if anchor and anchor not in _ANCHORS.get(target, []):
    return f'{target} has no heading #{anchor}'
  return None


def test_a_fault_is_found():
  assert fault('docs/data.md', 'training.md#switches') is None
  assert fault('docs/data.md', '#captions-files') is None
  assert fault('README.md', 'https://arxiv.org/abs/1609.06647') is None
  assert fault('docs/data.md', 'docs/training.md') == (
    'there is no docs/docs/training.md'
  )
  assert 'no heading' in fault('docs/data.md', 'training.md#switch')
  assert 'no heading' in fault('README.md', '#captions-files')
  assert fault('README.md', 'http:example') == 'not an address'


def test_links_lead_somewhere():
  faults = [
    f'{path}: {link}: {found}'
    for path, link in _LINKS
    if (found := fault(path, link))
  ]
  assert not faults, '\n'.join(faults)


def test_each_page_is_in_the_menu():
  config = doc_pages.read('mkdocs.yml')
  menu = re.findall(r'^ +- .+: (\S+\.md)$', config, re.MULTILINE)
  pages = [
    doc_pages.OUTSIDE_DOCS.get(path, path.removeprefix('docs/'))
    for path in doc_pages.paths()
  ]
  missing = sorted(set(pages) - set(menu))
  assert not missing, f'add to nav in mkdocs.yml: {missing}'
  assert sorted(menu) == sorted(pages)


def test_the_readme_is_short():
  assert doc_pages.read('README.md').count('\n') < 150


@pytest.mark.parametrize('block', _PYTHON)
def test_python_compiles_and_its_imports_resolve(block):
  tree = ast.parse(block.code)
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      for name in node.names:
        importlib.import_module(name.name)
    elif isinstance(node, ast.ImportFrom):
      module = importlib.import_module(node.module)
      for name in node.names:
        assert hasattr(module, name.name), ast.unparse(node)
  for names in re.findall(r'\btf((?:\.\w+)+)', block.code):
    found = importlib.import_module('tensorflow')
    for name in names.split('.')[1:]:
      found = getattr(found, name)


def test_the_example_of_captioning_runs(tmp_path, monkeypatch):
  from im2txt import testing
  from im2txt.inference_utils import library

  (code,) = (
    block.code
    for block in doc_pages.blocks(doc_pages.read('docs/captioning.md'))
    if block.language == 'python' and 'Captioner' in block.code
  )
  testing.caption_model(tmp_path)
  (tmp_path / 'holiday.jpg').write_bytes(testing.jpeg())
  monkeypatch.chdir(tmp_path)
  load = library.Captioner.load
  monkeypatch.setattr(library.Captioner, 'load', lambda: load(tmp_path))
  *statements, last = ast.parse(code).body
  names = {}
  exec(compile(ast.Module(statements, []), code, 'exec'), names)
  text = eval(compile(ast.Expression(last.value), code, 'eval'), names)
  assert isinstance(text, str)


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
