# SPDX-License-Identifier: Apache-2.0
"""Watches a train directory and evaluates each new checkpoint.

Perplexity always; with --metrics also BLEU, CIDEr and so on of captions that it
writes. All goes to the log and to TensorBoard.
"""

import os

from absl import flags

# Before TensorFlow, which im2txt keeps quiet while it is imported.
from im2txt.runtime import program
from im2txt.runtime import storage
from im2txt.evaluation import options as options_lib
from im2txt.evaluation import watcher
from im2txt.inference_utils import search_config
from im2txt.runtime import flag_dataclasses

FLAGS = flags.FLAGS


def define_flags() -> None:
  flag_dataclasses.define_flags(options_lib.EvaluateOptions)
  search_config.define_flags()


def main(_: list[str]) -> None:
  program.require(FLAGS, 'input_file_pattern', 'checkpoint_dir', 'eval_dir')
  options = flag_dataclasses.from_flags(FLAGS, options_lib.EvaluateOptions)
  options.check()
  storage.require_local('eval_dir', options.eval_dir)
  os.makedirs(options.eval_dir, exist_ok=True)
  watcher.run(options, search_config.from_flags(FLAGS))


if __name__ == '__main__':
  program.run(main, define_flags)
