# SPDX-License-Identifier: Apache-2.0
"""Draws the curves of training runs from their TensorBoard event files.

  plot --logdirs=data/model,data/other_model --output=curves.png

The panels are loss, perplexity, BLEU-4, CIDEr and learning rate, each against
the step and against the time since the start of the run. Panels without data
are omitted. Directories are searched recursively, so the directory of a model
gives the curves of its train and eval directories.
"""

from collections.abc import Sequence

from absl import flags

from im2txt.runtime import files
from im2txt.runtime import program
from im2txt.visualization import curves

FLAGS = flags.FLAGS


def define_flags() -> None:
  flags.DEFINE_string(
    'logdirs',
    '',
    'Directories with event files, searched recursively, separated by commas.',
  )
  flags.DEFINE_string('output', '', 'PNG file to write.')


def main(_: Sequence[str]) -> None:
  program.require(FLAGS, 'logdirs', 'output')
  result = curves.draw(curves.find_runs(files.split_names(FLAGS.logdirs)))
  files.write_figure(FLAGS.output, result)
  print(f'Wrote {FLAGS.output}')


if __name__ == '__main__':
  program.run(main, define_flags)
