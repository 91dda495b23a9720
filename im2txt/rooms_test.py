# SPDX-License-Identifier: Apache-2.0
"""Which module may import which: arrows go down, never back."""

import ast
import os
import sys

import pytest

_ROOT = os.path.dirname(os.path.abspath(__file__))

# Module or folder -> what of this project it may import beside itself.
_ROOMS = {
    'files': set(),
    'locks': set(),
    'quiet_tensorflow': set(),
    'configuration': {'files'},
    'checkpoints': {'files'},
    'metrics': set(),
    'progress': set(),
    'caption_sheet': {'data.image_formats'},
    'vocabulary_stamp': {'files'},
    'encoder_stamp': {'files'},
    'inference_utils.vocabulary': set(),
    'inference_utils.search_config': {'configuration'},
    'data.image_formats': set(),
    'data': {'data.image_formats', 'data.shards', 'files',
             'inference_utils.vocabulary', 'locks', 'progress',
             'vocabulary_stamp'},
    'data.shards': {'progress'},
    'pretrained': {'checkpoints', 'configuration', 'data', 'encoder_stamp',
                   'files', 'inference_utils.vocabulary', 'locks', 'ops',
                   'progress', 'show_and_tell_model', 'vocabulary_stamp'},
    'ops': {'configuration', 'data.image_formats', 'data.shards',
            'encoder_stamp', 'files', 'locks', 'progress'},
    'stress': {'best_checkpoint', 'checkpoints', 'configuration', 'data',
               'data.image_formats', 'data.shards', 'encoder_stamp', 'files',
               'inference_utils', 'inference_utils.vocabulary', 'ops',
               'pretrained', 'vocabulary_stamp'},
    'training': set(),
    'show_and_tell_model': {'configuration', 'ops', 'training'},
    'best_checkpoint': {'checkpoints', 'configuration', 'encoder_stamp',
                        'files', 'inference_utils.search_config',
                        'vocabulary_stamp'},
    'caption_evaluator': {'caption_sheet', 'data', 'data.shards',
                          'inference_utils', 'inference_utils.search_config',
                          'metrics', 'progress'},
    'beam_sweep': {'checkpoints', 'data', 'data.shards', 'encoder_stamp',
                   'files', 'inference_utils', 'metrics', 'progress'},
    'inference_utils': {'checkpoints', 'configuration', 'data.image_formats',
                        'encoder_stamp', 'files', 'ops', 'show_and_tell_model',
                        'vocabulary_stamp'},
}


def _room(module):
  """Returns the longest of the rooms that a dotted name lies in, or None."""
  rooms = [room for room in _ROOMS if f'{module}.'.startswith(f'{room}.')]
  return max(rooms, key=len, default=None)


def _modules():
  """Yields (dotted name, path) of every module that is not a test."""
  for folder, _, names in os.walk(_ROOT):
    for name in names:
      if name.endswith('.py') and not name.endswith('_test.py'):
        path = os.path.join(folder, name)
        module = os.path.relpath(path, _ROOT)[:-len('.py')]
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


def _wrong_imports(modules):
  """Returns 'module imports module' for each that the rooms do not allow."""
  wrong = []
  for module, source in modules:
    room = _room(module)
    if room is None:  # A program.
      continue
    for imported in _imports(source):
      target = _room(imported)
      if target is None or target not in _ROOMS[room] | {room} and (
          not target.startswith(f'{room}.')):
        wrong.append(f'{module} imports {imported}')
  return sorted(wrong)


def test_arrows_go_down():
  modules = []
  for module, path in _modules():
    with open(path, encoding='utf-8') as f:
      modules.append((module, f.read()))
  assert {_room(module) for module, _ in modules} >= {
      'configuration', 'data', 'ops', 'inference_utils.vocabulary'}
  assert not _wrong_imports(modules)


@pytest.mark.parametrize('module, source, wrong', [
    ('ops.lstm', 'from im2txt.ops import loss', False),
    ('ops.lstm', 'from im2txt import configuration', False),
    ('ops.lstm', 'import im2txt.show_and_tell_model', True),
    ('ops.lstm', 'def f():\n  from im2txt import train', True),
    ('data.mscoco', 'from im2txt.inference_utils import vocabulary', False),
    ('data.mscoco', 'from im2txt.inference_utils.vocabulary import V', False),
    ('data.mscoco', 'from im2txt.inference_utils import captioner', True),
    ('inference_utils.captioner',
     'from im2txt.inference_utils import vocabulary', False),
    ('inference_utils.vocabulary',
     'from im2txt.inference_utils import captioner', True),
    ('train', 'from im2txt import show_and_tell_model', False),
])
def test_tells_a_wrong_import(module, source, wrong):
  assert bool(_wrong_imports([(module, source)])) == wrong


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
