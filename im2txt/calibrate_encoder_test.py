# SPDX-License-Identifier: Apache-2.0
"""Tests of the program calibrate_encoder, and of --precision=int8 after it."""

import json
import shutil
import sys

import pytest

from im2txt import testing
from im2txt.checkpoints import int8_stamp
from im2txt.data import shards


@pytest.fixture(scope='module', name='directory')
def fixture_directory(tmp_path_factory):
  """A model, and images in files and in a shard."""
  path = tmp_path_factory.mktemp('model')
  testing.caption_model(path)
  (path / 'photos').mkdir()
  with shards.Writer(path / 'val-00000-of-00001') as writer:
    for i in range(4):
      data = testing.jpeg(i)
      (path / 'photos' / f'{i}.jpg').write_bytes(data)
      for _ in range(2):  # Captions.
        writer.write(
          shards.serialize(i, data, ['<S>', 'cat', '</S>'], [1, 4, 2])
        )
  (path / 'photos' / '9.jpg').write_bytes(b'text')
  return path


def _calibrate(directory, *arguments):
  """Runs the program; returns its result and the content of the file."""
  result = testing.run_program(
    'calibrate_encoder', f'--checkpoint_path={directory}', *arguments
  )
  return result, json.loads((directory / int8_stamp.FILE_NAME).read_text())


def test_files_and_shards_give_the_same(directory):
  of_shards, found = _calibrate(
    directory, f'--input_file_pattern={directory}/val-*'
  )
  assert of_shards.returncode == 0, of_shards.stderr
  assert found['images'] == 4
  assert found['source'] == f'{directory}/val-*'
  of_files, expected = _calibrate(directory, directory / 'photos')
  assert of_files.returncode == 0, of_files.stderr
  assert expected['images'] == 4
  assert f'skipped {directory}/photos/9.jpg' in of_files.stderr
  assert found['largest'] == pytest.approx(expected['largest'], rel=1e-5)
  _, fewer = _calibrate(
    directory, f'--input_file_pattern={directory}/val-*', '--max_images=1'
  )
  assert fewer['images'] == 1


def test_mistakes_are_told_in_one_line(directory, tmp_path):
  arguments = f'--checkpoint_path={directory}'
  testing.assert_one_line_error(
    testing.run_program('calibrate_encoder', arguments),
    'give either --input_file_pattern or image files',
  )
  # Nothing is written without an image.
  for path in directory.iterdir():
    if path.is_file() and path.name != int8_stamp.FILE_NAME:
      shutil.copy(path, tmp_path)
  result = testing.run_program(
    'calibrate_encoder',
    f'--checkpoint_path={tmp_path}',
    directory / 'photos' / '9.jpg',
  )
  assert result.returncode == 1
  assert 'has no image that can be decoded' in result.stderr
  assert not (tmp_path / int8_stamp.FILE_NAME).exists()
  testing.assert_one_line_error(
    testing.run_program(
      'run_inference',
      f'--checkpoint_path={tmp_path}',
      '--precision=int8',
      directory / 'photos' / '0.jpg',
    ),
    f'--precision=int8 needs {tmp_path}/{int8_stamp.FILE_NAME}',
  )
  testing.assert_one_line_error(
    testing.run_program(
      'export_model',
      arguments,
      f'--export_dir={tmp_path}',
      '--precision=int8',
    ),
    '--format=saved_model has no --precision=int8: give float32 or bfloat16',
  )


def test_run_inference_captions_in_int8(directory):
  pytest.importorskip('openvino', reason='needs requirements-int8.txt')
  _calibrate(directory, directory / 'photos')
  lines = [
    testing.run_program(
      'run_inference',
      f'--checkpoint_path={directory}',
      f'--precision={precision}',
      directory / 'photos' / '0.jpg',
    ).stdout
    for precision in ('int8', 'float32')
  ]
  assert all('0)' in line for line in lines)
  assert lines[0] != lines[1]


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
