# SPDX-License-Identifier: Apache-2.0
r"""Computes the Inception features of shards before training.

  build_feature_cache --input_file_pattern=DIR/train-?????-of-00256 \
    --inception_checkpoint_file=inception_v3.ckpt --feature_cache_dir=DIR

`train` does the same before its first step, in one process. This program can
use many machines: see --runner. Give `train` the same flags afterwards. If a
run is interrupted, the same command resumes it.
"""

from collections.abc import Sequence

from absl import flags

from im2txt.runtime import flag_dataclasses
from im2txt.runtime import program
from im2txt.training import feature_files

FLAGS = flags.FLAGS


def define_flags() -> None:
  flag_dataclasses.define_flags(feature_files.CacheOptions)


def build() -> None:
  """Builds the cache."""
  program.require(
    FLAGS,
    'input_file_pattern',
    'inception_checkpoint_file',
    'feature_cache_dir',
  )
  feature_files.build(
    flag_dataclasses.from_flags(FLAGS, feature_files.CacheOptions)
  )


def main(_: Sequence[str]) -> None:
  program.run_resumable(build)


if __name__ == '__main__':
  program.run(main, define_flags)
