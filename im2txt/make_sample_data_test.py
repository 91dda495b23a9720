# SPDX-License-Identifier: Apache-2.0
"""Tests of make_sample_data: what it makes is what the programs download."""

import sys

import pytest

from im2txt import testing


def test_prepare_takes_it(tmp_path):
  source = tmp_path / 'source'
  make = [
    'make_sample_data',
    '--num_train_images=20',
    '--num_val_images=20',
    str(source),
  ]
  result = testing.run_program(*make)
  assert result.returncode == 0, result.stderr
  result = testing.run_program(
    'download_and_preprocess_mscoco',
    f'--base_url=file://{source}',
    '--train_shards=2',
    '--num_threads=2',
    str(tmp_path / 'mscoco'),
  )
  assert result.returncode == 0, result.stderr
  assert result.stdout.splitlines()[-1].endswith(
    "Finished processing all 10 image-caption pairs in data set 'test'."
  )
  assert (tmp_path / 'mscoco' / 'train-00001-of-00002').exists()
  assert '<S> 185\n' in (tmp_path / 'mscoco' / 'word_counts.txt').read_text()

  # Made once.
  before = (source / 'zips' / 'val2014.zip').stat().st_mtime_ns
  assert testing.run_program(*make).returncode == 0
  assert (source / 'zips' / 'val2014.zip').stat().st_mtime_ns == before


@pytest.mark.parametrize(
  'arguments, message',
  [(['--num_val_images=3', 'x'], '--num_val_images=3'), ([], 'one directory')],
)
def test_refuses(arguments, message):
  result = testing.run_program('make_sample_data', *arguments)
  assert result.returncode == 1
  assert message in result.stderr + result.stdout


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
