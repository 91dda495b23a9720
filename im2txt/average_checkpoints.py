# SPDX-License-Identifier: Apache-2.0
r"""Makes one model of several: each weight is the mean of theirs.

  average_checkpoints --checkpoint_path=joint_a,joint_b --output_dir=mean

The mean of models that were trained from one checkpoint, with other seeds or
learning rates, is often better than each of them, and as fast as one. So is the
mean of the last checkpoints of one training. Of models that were trained apart
from random weights it is worth nothing: caption with the ensemble of those.
"""

from collections.abc import Sequence

from absl import flags

from im2txt.checkpoints import averaging
from im2txt.runtime import flag_dataclasses
from im2txt.runtime import program

FLAGS = flags.FLAGS


def define_flags() -> None:
  flag_dataclasses.define_flags(averaging.AveragingOptions)


def main(_: Sequence[str]) -> None:
  program.require(FLAGS, 'checkpoint_path', 'output_dir')
  averaging.average(
    flag_dataclasses.from_flags(FLAGS, averaging.AveragingOptions)
  )


if __name__ == '__main__':
  program.run(main, define_flags)
