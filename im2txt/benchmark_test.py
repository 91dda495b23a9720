# SPDX-License-Identifier: Apache-2.0
"""Tests of benchmark: the flags that it refuses."""

import sys

from absl import flags
import pytest

from im2txt import benchmark
from im2txt import testing


@pytest.mark.parametrize(
  'flag, message',
  [
    ('--num_images=1', 'num_images'),
    ('--num_prepared=3', '--num_prepared=3'),
    ('--checkpoint_path=x', '--vocab_file'),
  ],
)
def test_refuses(tmp_path, flag, message):
  with pytest.raises((ValueError, flags.Error), match=message):
    with testing.flags_of(benchmark, f'--output_dir={tmp_path}', flag):
      benchmark.main([])


def test_two_programs_can_be_imported_into_one_process():
  from im2txt import evaluate
  from im2txt import score
  from im2txt import train

  for module in (evaluate, score, train):
    with testing.flags_of(module):
      assert 'vocab_file' in flags.FLAGS
  assert 'vocab_file' not in flags.FLAGS


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
