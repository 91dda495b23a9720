# SPDX-License-Identifier: Apache-2.0
r"""Adds words to a trained model.

First make shards of the new data, with a vocabulary that extends the old one.
Every word that the model knows keeps its id:

  build_caption_data --extend_vocab_file=old/word_counts.txt \
      --output_dir=new ...

Then extend the model, and train it further with `train --train_dir=extended`:

  extend_checkpoint --checkpoint_path=model/train \
      --vocab_file=old/word_counts.txt \
      --new_vocab_file=new/word_counts.txt --output_dir=extended

Captions of old words are as likely as before. New words start with a part of
the probability of the unknown word. The step stays the same, and so does the
decayed learning rate. To raise it, give `train` an --initial_learning_rate.
"""

from collections.abc import Sequence

from absl import flags

from im2txt.runtime import flag_dataclasses
from im2txt.runtime import program
from im2txt.training import vocabulary_extension

FLAGS = flags.FLAGS


def define_flags() -> None:
  flag_dataclasses.define_flags(vocabulary_extension.ExtensionOptions)


def main(_: Sequence[str]) -> None:
  program.require(
    FLAGS, 'checkpoint_path', 'vocab_file', 'new_vocab_file', 'output_dir'
  )
  vocabulary_extension.extend(
    flag_dataclasses.from_flags(FLAGS, vocabulary_extension.ExtensionOptions)
  )


if __name__ == '__main__':
  program.run(main, define_flags)
