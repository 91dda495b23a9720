# SPDX-License-Identifier: Apache-2.0
"""Tests of the program fit_confidence, and of what run_inference makes of it."""

import json
import sys

import pytest

from im2txt import testing


@pytest.fixture(scope='module', name='directory')
def fixture_directory(tmp_path_factory):
  """A model, shards of eight images with captions, and two images."""
  path = tmp_path_factory.mktemp('model')
  testing.caption_model(path)
  captions = ['a dog', 'a cat', 'a cat dog', 'über dog']
  (path / 'captions.tsv').write_text(
    'file\tcaption\tsplit\n'
    + ''.join(
      f'{i}.jpg\t{captions[i % 4]}\tval\n{i}.jpg\t{captions[i % 3]}\tval\n'
      for i in range(8)
    )
    + '8.jpg\ta dog\ttrain\n',
    'utf-8',
  )
  for i in range(9):
    (path / f'{i}.jpg').write_bytes(testing.jpeg(i))
  return path


def _run(name, *flags):
  result = testing.run_program(name, *flags)
  assert result.returncode == 0, result.stderr
  return result


@pytest.fixture(scope='module', name='fitted')
def fixture_fitted(directory):
  with pytest.MonkeyPatch.context() as patch:
    testing.without_workers(patch)
    _run(
      'build_caption_data',
      f'--val_captions_file={directory / "captions.tsv"}',
    )


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
