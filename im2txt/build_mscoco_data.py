# SPDX-License-Identifier: Apache-2.0
"""Makes the sharded TFRecords and the vocabulary of MSCOCO (or data like it).

The pictures are in train_image_dir and val_image_dir; the captions in JSON
files as COCO publishes them. Written into output_dir:

  train-00000-of-00256 ... train-00255-of-00256
  val-00000-of-00004 ... val-00003-of-00004
  test-00000-of-00008 ... test-00007-of-00008

and vocabulary.json, which tells their vocabulary from others; and that, a line
`word count` each, into word_counts_output_file.
An interrupted run goes on where it stopped when it is started again.
"""

from absl import flags

from im2txt.data import mscoco
from im2txt.runtime import flag_dataclasses
from im2txt.runtime import program


def define_flags():
  flag_dataclasses.define_flags(mscoco.Options)


def options_from_flags():
  """Returns the mscoco.Options that the flags say."""
  return flag_dataclasses.from_flags(flags.FLAGS, mscoco.Options)


def main(_):
  program.run_resumable(lambda: mscoco.build(options_from_flags()))


if __name__ == '__main__':
  program.run(main, define_flags)
