# SPDX-License-Identifier: Apache-2.0
"""Tests of averaging."""

import numpy as np
import pytest

from im2txt import checkpoints
from im2txt import configuration
from im2txt.checkpoints import averaging
from im2txt.checkpoints import encoder_stamp
from im2txt.text import vocabulary_stamp

_CONFIGS = configuration.Configs(
  configuration.ModelConfig(vocab_size=5, embedding_size=3, num_lstm_units=2),
  configuration.TrainingConfig(initial_learning_rate=0.25),
)
_WEIGHTS = 'InceptionV3/Mixed_7c/Branch_0/Conv2d_0a_1x1/weights'
_BASE = encoder_stamp.Stamp('ba5e', encoder_stamp.PACKAGE, 'a package')
_VOCABULARY = vocabulary_stamp.Stamp('f00d', 5, 'word_counts.txt')


def _write(directory, value, step=7, encoder=_BASE, vocab=_VOCABULARY, **other):
  """Writes a train directory whose weights all have one value."""
  directory.mkdir()
  values = {
    name: np.full(shape, value, np.float32)
    for name, shape in {
      'seq_embedding/map': [5, 3],
      'lstm/basic_lstm_cell/kernel': [5, 8],
      'lstm/basic_lstm_cell/bias': [8],
      'logits/weights': [2, 5],
      'logits/biases': [5],
      _WEIGHTS: [1, 1, 2, 3],
      **other,
    }.items()
  }
  configuration.save(directory, _CONFIGS)
  if vocab:
    vocabulary_stamp.save(directory, vocab)
  if encoder:
    encoder_stamp.save(directory, encoder)
  checkpoints.CheckpointManager(str(directory)).save(
    {**values, 'global_step': np.array(step, np.int32)}
  )
  return str(directory)


def _average(*directories):
  """Averages models into the directory `mean` beside the first."""
  output = directories[0].rpartition('/')[0] + '/mean'
  averaging.average(averaging.AveragingOptions(','.join(directories), output))
  return output


def test_every_weight_is_the_mean_of_all_models(tmp_path):
  output = _average(
    _write(tmp_path / 'a', 1.0, step=7),
    _write(tmp_path / 'b', 1 + 2**-23, step=9),
    _write(tmp_path / 'c', -0.5, step=8),
  )
  mean = checkpoints.Checkpoint(output)
  assert mean.prefix == f'{output}/model.ckpt-9'
  assert mean.global_step == 9
  # TensorFlow 1.x restores nothing of another type.
  assert mean.get('global_step').dtype == np.int32
  for name in mean.shapes.keys() - {'global_step'}:
    # Summed in float32 it would be 0.5.
    assert np.all(mean.get(name) == np.float32((1.5 + 2**-23) / 3)), name
    assert mean.get(name).dtype == np.float32
  assert configuration.load(output) == _CONFIGS
  assert vocabulary_stamp.load(output) == _VOCABULARY
  assert encoder_stamp.load(output) == _BASE


def test_encoders_that_parted_have_the_base_that_they_came_from(tmp_path):
  stamps = [
    encoder_stamp.Stamp(name, encoder_stamp.FILE, name, base='ba5e')
    for name in 'ab'
  ]
  output = _average(
    _write(tmp_path / 'a', 1, encoder=stamps[0]),
    _write(tmp_path / 'b', 2, encoder=stamps[1]),
  )
  stamp = encoder_stamp.load(output)
  assert stamp.base == 'ba5e'
  assert stamp.fingerprint == encoder_stamp.fingerprint(
    {_WEIGHTS: np.full([1, 1, 2, 3], 1.5, np.float32)}
  )


@pytest.mark.parametrize(
  'changes, message',
  [
    (
      {'vocab': vocabulary_stamp.Stamp('0ff', 5, 'other.txt')},
      'not of one vocabulary: .*/a/model.ckpt-7 .*/b/model.ckpt-7 .*: give '
      '--checkpoint_path models of one vocabulary',
    ),
    (
      {'encoder': encoder_stamp.Stamp('0ff', encoder_stamp.FILE, 'other')},
      'the encoders of .*/a/model.ckpt-7 and .*/b/model.ckpt-7 were trained '
      'from other weights',
    ),
    (
      {_WEIGHTS: [1, 1, 4, 3]},
      _WEIGHTS + r' is \[1, 1, 2, 3\] in .*/a/model.ckpt-7 and \[1, 1, 4, 3\] '
      'in .*/b/model.ckpt-7: give --checkpoint_path models of one size',
    ),
    ({'more': [1]}, r'more is missing in .*/a/model.ckpt-7 and \[1\] in .*/b/'),
  ],
)
def test_models_that_do_not_fit(tmp_path, changes, message):
  one = _write(tmp_path / 'a', 1)
  with pytest.raises(ValueError, match=message):
    _average(one, _write(tmp_path / 'b', 1, **changes))
  assert not (tmp_path / 'mean').exists()


@pytest.mark.parametrize('order', ['ab', 'ba'])
def test_models_of_which_nothing_is_known(tmp_path, order):
  _write(tmp_path / 'a', 1, encoder=None, vocab=None)
  _write(tmp_path / 'b', 1)
  output = _average(*(str(tmp_path / name) for name in order))
  # The unknown encoder may have come from another one.
  assert encoder_stamp.load(output) is None
  assert vocabulary_stamp.load(output) == _VOCABULARY


def test_models_without_a_step(tmp_path):
  for name in 'ab':
    values = checkpoints.Checkpoint(_write(tmp_path / name, 1))
    checkpoints.write(
      str(tmp_path / f'{name}.ckpt'),
      {n: values.get(n) for n in values.shapes if n != 'global_step'},
    )
  mean = checkpoints.Checkpoint(
    _average(str(tmp_path / 'a.ckpt'), str(tmp_path / 'b.ckpt'))
  )
  assert mean.get('global_step') == 0
  assert mean.get('global_step').dtype == np.int32


def test_one_checkpoint_is_not_enough(tmp_path):
  one = _write(tmp_path / 'a', 1)
  for paths in ([one], [one, one + '/model.ckpt-7']):
    with pytest.raises(ValueError, match='is one checkpoint: give two or more'):
      _average(*paths)


def test_a_directory_with_other_files_is_refused(tmp_path):
  paths = [_write(tmp_path / name, 1) for name in 'ab']
  (tmp_path / 'mean').mkdir()
  # What an interrupted run left is written anew.
  (tmp_path / 'mean' / 'configuration.json').write_text('{')
  (tmp_path / 'mean' / 'inception_v3.json').write_text('{')
  _average(*paths)
  with pytest.raises(ValueError, match='--output_dir=.* must be empty'):
    _average(*paths)
