# SPDX-License-Identifier: Apache-2.0
"""Tests of docs/captioning.ipynb: it runs."""

import json
import os
import sys

import matplotlib
import pytest

from im2txt import checkpoints
from im2txt import testing
from im2txt.runtime import files

# Photos lie beside the file itself, which is elsewhere than Bazel's link to it.
_NOTEBOOK = os.path.realpath(
  os.path.join(
    os.path.dirname(os.path.dirname(os.path.dirname(__file__))),
    'docs',
    'captioning.ipynb',
  )
)


@pytest.fixture(name='model')
def fixture_model(tmp_path, monkeypatch):
  """The shipped model, or one of random weights where it was not got."""
  shipped = files.pretrained_directory()
  if os.path.exists(os.path.join(shipped, checkpoints.STATE_FILE)):
    return
  testing.caption_model(tmp_path)
  monkeypatch.setattr(files, 'pretrained_directory', lambda: str(tmp_path))


def test_the_cells_run_in_order(model, monkeypatch, capsys):
  del model
  matplotlib.use('Agg')
  monkeypatch.chdir(os.path.dirname(_NOTEBOOK))
  with open(_NOTEBOOK, encoding='utf-8') as f:
    cells = json.load(f)['cells']
  sources = [
    ''.join(cell['source']) for cell in cells if cell['cell_type'] == 'code'
  ]
  assert len(sources) > 4
  names = {}
  for number, source in enumerate(sources):
    exec(compile(source, f'cell {number}', 'exec'), names)  # pylint: disable=exec-used
  printed = capsys.readouterr().out
  assert 'missing.jpg - [Errno 2] No such file' in printed
  assert all(len(captions) for captions in names['captions'])


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
