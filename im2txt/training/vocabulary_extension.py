# SPDX-License-Identifier: Apache-2.0
"""Adds words to a trained model, so that it can be trained further."""

import dataclasses
import os

from absl import logging
import numpy as np

from im2txt import checkpoints
from im2txt import configuration
from im2txt.checkpoints import encoder_stamp
from im2txt.checkpoints import trained_model
from im2txt.ops import new_words
from im2txt.runtime import storage
from im2txt.runtime.flag_dataclasses import field
from im2txt.text import vocabulary

# What has a row per word.
_ROWS = ('seq_embedding/map', 'logits/weights', 'logits/biases')


@dataclasses.dataclass(frozen=True)
class ExtensionOptions:
  """Which model gets which words. Each field is a flag of that name."""

  checkpoint_path: str = field(
    '', 'Model checkpoint: a file prefix, or a directory (its latest is taken).'
  )
  vocab_file: str = field('', 'Vocabulary the model was trained with.')
  new_vocab_file: str = field(
    '', 'Vocabulary that was made with --extend_vocab_file, from --vocab_file.'
  )
  output_dir: str = field('', 'Directory for the new checkpoint, a train_dir.')


def extend(options: ExtensionOptions) -> str:
  """Writes a checkpoint of the model with the new words, and what is beside it.

  Args:
    options: see `ExtensionOptions`; all are needed.

  Returns:
    The prefix of the new checkpoint.

  Raises:
    ValueError: the vocabularies or the model do not fit each other, or the
      directory has other files.
  """
  storage.require_local('output_dir', options.output_dir)
  old = vocabulary.Vocabulary(options.vocab_file)
  new = vocabulary.Vocabulary(options.new_vocab_file)
  _check_extends(old, new, options)
  trained = checkpoints.load(options.checkpoint_path)
  stamp = trained.check_vocabulary(old)
  trained_model.require_new(options.output_dir)
  checkpoint = trained.checkpoint
  values = {name: checkpoint.get(name) for name in checkpoint.shapes}
  # Some converters dropped the step, and `train` needs it.
  values.setdefault('global_step', np.zeros([], np.int32))
  embedding_map, weights, biases = (checkpoint.get(name) for name in _ROWS)
  values.update(
    zip(
      _ROWS,
      new_words.add(
        embedding_map, weights, biases, old.unk_id, range(len(old), len(new))
      ),
    )
  )
  model_config = dataclasses.replace(
    trained.model_config, vocab_size=len(values[_ROWS[0]])
  )
  prefix = trained_model.write(
    options.output_dir,
    values,
    configuration.Configs(model_config, trained.training_config),
    dataclasses.replace(
      stamp,
      fingerprint=new.fingerprint,
      words=len(new),
      file=os.path.abspath(options.new_vocab_file),
    ),
    encoder_stamp.load(trained.directory),
  )
  logging.info(
    '%d new words, %d in all, in %s', len(new) - len(old), len(new), prefix
  )
  return prefix


def _check_extends(
  old: vocabulary.Vocabulary,
  new: vocabulary.Vocabulary,
  options: ExtensionOptions,
) -> None:
  """Raises ValueError unless all words of `old` have the same id in `new`."""
  for word_id, word in enumerate(old.words):
    if new.words[word_id : word_id + 1] != [word]:
      other = repr(new.words[word_id]) if word_id < len(new) else 'no word'
      raise ValueError(
        f'id {word_id} is {other} in '
        f'--new_vocab_file={options.new_vocab_file} and {word!r} in '
        f'--vocab_file={options.vocab_file}: make the new file with '
        f'--extend_vocab_file={options.vocab_file}'
      )
  if len(new) == len(old):
    raise ValueError(
      f'--new_vocab_file={options.new_vocab_file} has no word that is not in '
      f'--vocab_file={options.vocab_file}: train the model further as it is'
    )
