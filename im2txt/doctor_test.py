# SPDX-License-Identifier: Apache-2.0
"""Tests of doctor with a real encoder; diagnosis/doctor_test has its checks."""

import sys

import pytest

from im2txt import testing
from im2txt.data import shards


def test_a_model_that_nobody_has_trained(tmp_path):
  testing.caption_model(tmp_path)
  tokens, ids = ['<S>', 'a', 'dog', '</S>'], [1, 0, 3, 2]
  with shards.Writer(tmp_path / 'train-00000-of-00001') as writer:
    for number in range(4):
      writer.write(shards.serialize(number, testing.jpeg(number), tokens, ids))
  result = testing.run_program(
    'doctor',
    f'--train_dir={tmp_path}',
    f'--input_file_pattern={tmp_path}/train-*',
    '--max_images=4',
  )
  assert result.returncode == 1, result.stderr
  lines = dict(
    reversed(line.split(': ')[:2]) for line in result.stdout.splitlines()[:-1]
  )
  assert lines['encoder'] == 'finding'
  assert lines['vocabulary'] == lines['checkpoints'] == 'healthy'
  assert lines['learning_rate'] == lines['loss'] == lines['input'] == 'left out'
  # 10 steps of 32 captions; there are 4.
  assert 'healthy: steps: 10 steps of 32 captions are 80 passes' in (
    result.stdout
  )
  # All checks of captions were done, whatever they found.
  assert {'preprocessing', 'image', 'captions', 'repetition'} <= {
    check for check, kind in lines.items() if kind != 'left out'
  }


@pytest.mark.parametrize(
  'arguments, parts',
  [
    ([], ['--train_dir is required']),
    (['--train_dir=/nowhere'], ['--train_dir=/nowhere is not a directory']),
    (
      ['--train_dir=.', '--input_file_pattern=/nowhere/train-*'],
      ['--input_file_pattern=/nowhere/train-*', 'no file matches'],
    ),
  ],
)
def test_mistakes_are_told_in_one_line(arguments, parts):
  testing.assert_one_line_error(
    testing.run_program('doctor', *arguments), *parts
  )


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
