# SPDX-License-Identifier: Apache-2.0
"""Trains Show and Tell: an LSTM on Inception v3, which may be trained too."""

from collections.abc import Sequence
import contextlib
import os

from absl import flags

from im2txt import configuration
from im2txt.data import shards
from im2txt.runtime import distribution
from im2txt.runtime import flag_dataclasses
from im2txt.runtime import locks
from im2txt.runtime import program
from im2txt.runtime import storage
from im2txt.text import vocabulary_stamp
from im2txt.training import options as options_lib
from im2txt.training import trainer

FLAGS = flags.FLAGS


def define_flags() -> None:
  flag_dataclasses.define_flags(options_lib.TrainOptions)
  configuration.define_flags()


def main(_: Sequence[str]) -> int:
  program.require(FLAGS, 'input_file_pattern', 'train_dir')
  options = flag_dataclasses.from_flags(FLAGS, options_lib.TrainOptions)
  options.check()
  # Before TensorFlow starts: the processes of a cluster connect.
  replicas = distribution.make(options.distribution, options.slurm_port)
  files = shards.list_files(options.input_file_pattern)
  holders = vocabulary_stamp.of_shards(files)
  storage.require_local('train_dir', options.train_dir)
  with contextlib.ExitStack() as stack:
    stack.enter_context(replicas.naming_lost_workers())
    if replicas.is_chief:
      os.makedirs(options.train_dir, exist_ok=True)
      stack.enter_context(locks.hold(options.train_dir, 'train', '--train_dir'))
    return trainer.run(
      options, configuration.given_by(FLAGS), files, holders, replicas
    )


if __name__ == '__main__':
  program.run(main, define_flags)
