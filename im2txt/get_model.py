# SPDX-License-Identifier: Apache-2.0
"""Gets a trained model: the decoder of a package, joined to its encoder.

  get_model [--package_dir=DIR] [--inception_dir=DIR] [DIR]

DIR then has the files of a train directory: model.ckpt-N with the state file,
the configuration and word_counts.txt. The default of DIR is data/pretrained in
a checkout, and ~/im2txt/pretrained if im2txt was installed from a wheel. To use
the model:

  run_inference --checkpoint_path=DIR --vocab_file=DIR/word_counts.txt ...

`score` scores it, and `train --train_dir=DIR` trains it further. Files that
exist already stay as they are. If a run is interrupted, the same command
resumes it.
"""

from collections.abc import Sequence

from absl import app
from absl import flags

from im2txt.pretrained import caption_model
from im2txt.runtime import files
from im2txt.runtime import program

FLAGS = flags.FLAGS


def define_flags() -> None:
  flags.DEFINE_string(
    'package_dir',
    caption_model.DEFAULT_PACKAGE,
    'Directory made by package_model. The default is part of the project.',
  )
  flags.DEFINE_string(
    'inception_dir',
    '',
    'Directory of Inception v3, made by get_inception. If it is missing, '
    'Inception v3 is put there. The default is DIR.',
  )


def main(argv: Sequence[str]) -> None:
  if len(argv) > 2:
    raise app.UsageError('give one directory: get_model [flags] [DIR]')
  directory = argv[1] if argv[1:] else files.pretrained_directory()
  program.run_resumable(
    lambda: caption_model.get(
      directory, FLAGS.package_dir, FLAGS.inception_dir or None
    )
  )


if __name__ == '__main__':
  program.run(main, define_flags, takes_argument=True)
