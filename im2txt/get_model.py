# SPDX-License-Identifier: Apache-2.0
"""Gets a trained model: the encoder, and the decoder of a package joined to it.

  get_model [--package_dir=DIR] [--inception_dir=DIR] DIR

Leaves in DIR what a train directory has: model.ckpt-N with the state file, the
configuration and word_counts.txt. So

  run_inference --checkpoint_path=DIR --vocab_file=DIR/word_counts.txt ...

captions with it, score scores it, and `train --train_dir=DIR` goes on from it.
What is there already is left alone; an interrupted run is completed when the
same command is run again.
"""

from absl import app
from absl import flags

from im2txt.pretrained import caption_model
from im2txt.runtime import program

FLAGS = flags.FLAGS


def define_flags():
  flags.DEFINE_string(
    'package_dir',
    caption_model.DEFAULT_PACKAGE,
    'Directory that package_model made; the default comes with the project.',
  )
  flags.DEFINE_string(
    'inception_dir',
    '',
    'Directory of Inception v3: what get_inception left, or where to put it. '
    'DIR unless given.',
  )


def main(argv):
  if len(argv) != 2:
    raise app.UsageError('Give one directory: get_model [flags] DIR')
  program.run_resumable(
    lambda: caption_model.get(
      argv[1], FLAGS.package_dir, FLAGS.inception_dir or None
    )
  )


if __name__ == '__main__':
  program.run(main, define_flags, takes_argument=True)
