# SPDX-License-Identifier: Apache-2.0
"""Makes sharded TFRecords and a vocabulary of MSCOCO, or of data like it.

The images are in train_image_dir and val_image_dir, and the captions in JSON
files as COCO publishes them. The program writes into output_dir:

  train-00000-of-00256 ... train-00255-of-00256
  val-00000-of-00004 ... val-00003-of-00004
  test-00000-of-00008 ... test-00007-of-00008

and vocabulary.json, which identifies the vocabulary. It writes the vocabulary
to word_counts_output_file, with a line `word count` per word. If a run is
interrupted, the same command resumes it.
"""

from collections.abc import Sequence

from absl import flags

from im2txt.data import mscoco
from im2txt.runtime import flag_dataclasses
from im2txt.runtime import program


def define_flags() -> None:
  flag_dataclasses.define_flags(mscoco.Options)


def options_from_flags() -> mscoco.Options:
  """Returns the options given by flags."""
  return flag_dataclasses.from_flags(flags.FLAGS, mscoco.Options)


def main(_: Sequence[str]) -> None:
  program.run_resumable(lambda: mscoco.build(options_from_flags()))


if __name__ == '__main__':
  program.run(main, define_flags)
