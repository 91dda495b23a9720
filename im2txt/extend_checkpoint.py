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
import dataclasses
import os

from absl import flags
from absl import logging
import numpy as np

from im2txt import checkpoints
from im2txt import configuration
from im2txt.checkpoints import encoder_stamp
from im2txt.ops import new_words
from im2txt.runtime import program
from im2txt.runtime import storage
from im2txt.text import vocabulary
from im2txt.text import vocabulary_stamp

FLAGS = flags.FLAGS


_ROWS = ('seq_embedding/map', 'logits/weights', 'logits/biases')


def define_flags() -> None:
  flags.DEFINE_string(
    'checkpoint_path',
    '',
    'Model checkpoint: a file prefix, or a directory (its latest is taken).',
  )
  flags.DEFINE_string(
    'vocab_file', '', 'Vocabulary the model was trained with.'
  )
  flags.DEFINE_string(
    'new_vocab_file',
    '',
    'Vocabulary that was made with --extend_vocab_file, from --vocab_file.',
  )
  flags.DEFINE_string(
    'output_dir', '', 'Directory for the new checkpoint, a train_dir.'
  )


def check_extends(
  old: vocabulary.Vocabulary, new: vocabulary.Vocabulary
) -> None:
  """Raises ValueError unless all words of `old` have the same id in `new`.

  Args:
    old: vocabulary of --vocab_file.
    new: vocabulary of --new_vocab_file.
  """
  for word_id, word in enumerate(old.words):
    if new.words[word_id : word_id + 1] != [word]:
      other = repr(new.words[word_id]) if word_id < len(new) else 'no word'
      raise ValueError(
        f'id {word_id} is {other} in --new_vocab_file={FLAGS.new_vocab_file} '
        f'and {word!r} in --vocab_file={FLAGS.vocab_file}: make the new file '
        f'with --extend_vocab_file={FLAGS.vocab_file}'
      )
  if len(new) == len(old):
    raise ValueError(
      f'--new_vocab_file={FLAGS.new_vocab_file} has no word that is not in '
      f'--vocab_file={FLAGS.vocab_file}: train the model further as it is'
    )


def is_new_or_unfinished(directory: str) -> bool:
  """Returns whether a directory is empty but for files of interrupted runs."""
  names = os.listdir(directory) if os.path.isdir(directory) else []
  own = (
    configuration.FILE_NAME,
    vocabulary_stamp.FILE_NAME,
    encoder_stamp.FILE_NAME,
  )
  # The state file is written last.
  return checkpoints.STATE_FILE not in names and all(
    name in own or name.startswith((f'{checkpoints.PREFIX}-', '.'))
    for name in names
  )


def main(_: Sequence[str]) -> None:
  program.require(
    FLAGS, 'checkpoint_path', 'vocab_file', 'new_vocab_file', 'output_dir'
  )
  storage.require_local('output_dir', FLAGS.output_dir)
  old = vocabulary.Vocabulary(FLAGS.vocab_file)
  new = vocabulary.Vocabulary(FLAGS.new_vocab_file)
  check_extends(old, new)
  trained = checkpoints.load(FLAGS.checkpoint_path)
  stamp = trained.check_vocabulary(old)
  assert stamp  # A vocabulary file always has one.
  checkpoint = trained.checkpoint
  if not is_new_or_unfinished(FLAGS.output_dir):
    raise ValueError(
      f'--output_dir={FLAGS.output_dir} must be empty: give another directory'
    )
  embedding_map, weights, biases = (checkpoint.get(name) for name in _ROWS)
  os.makedirs(FLAGS.output_dir, exist_ok=True)
  values = {name: checkpoint.get(name) for name in checkpoint.shapes}
  # Some converters dropped the step, and `train` needs it.
  values.setdefault('global_step', np.zeros([], np.int32))
  values.update(
    zip(
      _ROWS,
      new_words.add(
        embedding_map,
        weights,
        biases,
        old.unk_id,
        range(len(old), len(new)),
      ),
    )
  )
  model_config = dataclasses.replace(
    trained.model_config, vocab_size=len(values[_ROWS[0]])
  )
  configuration.save(FLAGS.output_dir, (model_config, trained.training_config))
  vocabulary_stamp.save(
    FLAGS.output_dir,
    dataclasses.replace(
      stamp,
      fingerprint=new.fingerprint,
      words=len(new),
      file=os.path.abspath(FLAGS.new_vocab_file),
    ),
  )
  encoder_stamp.copy(trained.directory, FLAGS.output_dir)
  # The checkpoint is saved last, so its directory is then complete.
  prefix = checkpoints.CheckpointManager(FLAGS.output_dir).save(values)
  logging.info(
    '%d new words, %d in all, in %s', len(new) - len(old), len(new), prefix
  )


if __name__ == '__main__':
  program.run(main, define_flags)
