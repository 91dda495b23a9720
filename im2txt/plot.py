# SPDX-License-Identifier: Apache-2.0
"""Draws the curves of training runs from their TensorBoard event files.

  plot --logdirs=data/model,data/other_model --output=curves.png

Loss, perplexity, BLEU-4, CIDEr and learning rate, each against the step and
against the time since a run began; panels without data are omitted.
Directories are searched recursively, so that of a model gives the curves of its
train and its eval directory.
"""

from absl import flags

from im2txt.runtime import files
from im2txt.runtime import program
from im2txt.visualization import curves

FLAGS = flags.FLAGS


def define_flags():
  flags.DEFINE_string(
    'logdirs',
    '',
    'Directories with event files in or below them, separated by commas.',
  )
  flags.DEFINE_string('output', '', 'PNG file to write.')


def main(_):
  program.require(FLAGS, 'logdirs', 'output')
  result = curves.draw(curves.find_runs(files.split_names(FLAGS.logdirs)))
  with files.replacing(FLAGS.output) as temporary:
    result.savefig(temporary, format='png', dpi=100)
  print(f'Wrote {FLAGS.output}')


if __name__ == '__main__':
  program.run(main, define_flags)
