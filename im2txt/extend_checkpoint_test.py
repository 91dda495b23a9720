# SPDX-License-Identifier: Apache-2.0
"""Tests of extend_checkpoint."""

import json
import os
import shutil
import sys

import numpy as np
import pytest
import tensorflow as tf

from im2txt import checkpoints
from im2txt import configuration
from im2txt import extend_checkpoint
from im2txt import show_and_tell_model
from im2txt import testing
from im2txt.checkpoints import encoder_stamp
from im2txt.text import vocabulary
from im2txt.text import vocabulary_stamp

_OLD = ['<S>', '</S>', 'a', 'man', 'dog', 'runs']  # <UNK> is 6.
_NEW = [*_OLD, '<UNK>', 'zebra', 'sleeps', 'red']
_CONFIG = configuration.ModelConfig(
  vocab_size=7,
  embedding_size=6,
  num_lstm_units=5,
  batch_size=4,
  image_height=75,
  image_width=75,
  initializer_scale=0.5,
)
_ENCODER = encoder_stamp.Stamp('12ab', encoder_stamp.URL, 'file:///a')
_DECODER = ('seq_embedding/map', 'logits/weights', 'logits/biases')


def _write_words(path, words):
  path.write_text('\n'.join(f'{word} 5' for word in words))


def _stamp(path, **changes):
  vocab = vocabulary.Vocabulary(path)
  return vocabulary_stamp.Stamp(
    vocab.fingerprint, len(vocab), str(path), **changes
  )


@pytest.fixture(scope='module', name='files')
def fixture_files(tmp_path_factory):
  """A train directory and both vocabularies."""
  path = tmp_path_factory.mktemp('files')
  _write_words(path / 'old.txt', _OLD)
  _write_words(path / 'new.txt', _NEW)
  (path / 'train').mkdir()
  tf.random.set_seed(1)
  model = show_and_tell_model.ShowAndTellModel(_CONFIG)
  # Random Inceptions give features of thousands: too much for the LSTM.
  model.image_embedding_weights.assign(model.image_embedding_weights * 2e-5)
  model.global_step.assign(40)
  checkpoints.CheckpointManager(str(path / 'train')).save(model.named_variables)
  configuration.save(
    path / 'train',
    (_CONFIG, configuration.TrainingConfig(initial_learning_rate=0.25)),
  )
  encoder_stamp.save(path / 'train', _ENCODER)
  vocabulary_stamp.save(
    path / 'train', _stamp(path / 'old.txt', tokenizer='unicode')
  )
  return path


def _run(path, **changes):
  arguments = {
    'checkpoint_path': path / 'train',
    'vocab_file': path / 'old.txt',
    'new_vocab_file': path / 'new.txt',
    **changes,
  }
  with testing.flags_of(
    extend_checkpoint,
    *(f'--{name}={value}' for name, value in arguments.items()),
  ):
    extend_checkpoint.main([])


@pytest.fixture(scope='module', name='extended')
def fixture_extended(files):
  _run(files, output_dir=files / 'extended')
  return files / 'extended'


def _cross_entropies(directory, captions):
  """Scores captions of one image each, word by word, in rows."""
  checkpoint = checkpoints.Checkpoint(str(directory))
  config, _ = configuration.load(directory)
  model = show_and_tell_model.ShowAndTellModel(config, with_inception=False)
  checkpoint.restore(model.named_variables)
  # Images of different features, large enough to make a difference.
  features = (
    np.random.default_rng(0)
    .normal(0, 2e4, [len(captions), 2048])
    .astype(np.float32)
  )
  return [
    model.cross_entropies(
      row[np.newaxis], [ids[:-1]], [ids[1:]], [[1] * (len(ids) - 1)]
    ).numpy()
    for row, ids in zip(features, captions)
  ]


def test_all_but_the_rows_of_words_stays(files, extended):
  old, new = (
    checkpoints.Checkpoint(str(path)) for path in (files / 'train', extended)
  )
  assert new.prefix == f'{extended}/model.ckpt-40'
  assert len(new.shapes) == 383
  assert new.model_sizes() == {**old.model_sizes(), 'vocab_size': 10}
  for name in old.shapes:
    if name in _DECODER:
      continue
    np.testing.assert_array_equal(new.get(name), old.get(name))
    assert new.get(name).dtype == old.get(name).dtype
  model, training = configuration.load(extended)
  assert model.vocab_size == 10 and model.batch_size == 4
  assert training.initial_learning_rate == 0.25
  assert encoder_stamp.load(extended) == _ENCODER
  assert vocabulary_stamp.load(extended) == _stamp(
    files / 'new.txt', tokenizer='unicode'
  )


def test_captions_of_old_words_are_as_likely_as_before(files, extended):
  captions = [[0, 2, 3, 5, 1], [0, 2, 4, 1], [0, 5, 5, 2, 1], [0, 6, 3, 1]]
  before = _cross_entropies(files / 'train', captions)
  after = _cross_entropies(extended, captions)
  assert np.std(np.concatenate(before)) > 0.02
  # But the unknown word itself has given away a half.
  before[3][0] += np.log(2)
  for row, expected in zip(after, before):
    np.testing.assert_allclose(row, expected, atol=1e-5)


def test_training_goes_on_with_the_new_words(files, extended):
  data = files / 'data'
  data.mkdir()
  captions = [[0, 2, 7, 8, 1], [0, 2, 9, 4, 5, 1], [0, 2, 9, 7, 5, 1]]
  testing.write_shard(
    data / 'train',
    [(i, testing.jpeg(i), ids) for i, ids in enumerate(captions)],
  )
  vocabulary_stamp.save(data, _stamp(files / 'new.txt'))
  train_dir = files / 'trained'
  shutil.copytree(extended, train_dir)
  result = testing.run_program(
    'train',
    f'--input_file_pattern={data}/train',
    f'--train_dir={train_dir}',
    '--number_of_steps=80',
    '--batch_size=3',
    '--initial_learning_rate=1',
    f'--feature_cache_dir={data}/features',
    '--feature_views=0',
    '--random_seed=1',
  )
  assert result.returncode == 0, result.stderr
  assert f'resuming from {train_dir}/model.ckpt-40' in result.stderr
  assert 'not checked' not in result.stderr
  before, after = (
    _cross_entropies(path, captions) for path in (extended, train_dir)
  )
  for row, ids in enumerate(captions):
    for position, word in enumerate(ids[1:]):
      if word > 6:
        assert after[row][position] < before[row][position] - 0.5
  # They began alike and have parted.
  rows = checkpoints.Checkpoint(str(train_dir)).get('seq_embedding/map')[7:]
  assert min(np.abs(rows[i] - rows[i - 1]).max() for i in range(3)) > 0.01


def test_ids_that_were_no_word_s_are_used_first(files, tmp_path):
  checkpoint = checkpoints.Checkpoint(str(files / 'train'))
  values = {name: checkpoint.get(name) for name in checkpoint.shapes}
  del values['global_step']  # Some converters dropped it.
  values['seq_embedding/map'] = np.ones([12, 6], np.float32)
  values['logits/weights'] = np.ones([5, 12], np.float32)
  values['logits/biases'] = np.zeros([12], np.float32)
  checkpoints.write(str(tmp_path / 'model.ckpt-9'), values)
  _run(
    files,
    checkpoint_path=tmp_path / 'model.ckpt-9',
    output_dir=tmp_path / 'out',
  )
  extended = checkpoints.Checkpoint(str(tmp_path / 'out'))
  assert extended.model_sizes()['vocab_size'] == 12
  assert extended.global_step == 0 and 'global_step' in extended.shapes
  assert configuration.load(tmp_path / 'out')[0].vocab_size == 12
  biases = extended.get('logits/biases')
  np.testing.assert_allclose(biases[6], np.log(1 / 2), rtol=1e-6)
  np.testing.assert_allclose(biases[7:10], np.log(1 / 6), rtol=1e-6)
  assert not biases[[0, 1, 2, 3, 4, 5, 10, 11]].any()


@pytest.mark.parametrize(
  'words, part',
  [
    (
      ['<S>', '</S>', 'a', 'dog', 'man', 'runs', '<UNK>', 'red'],
      "^id 3 is 'dog' in .* and 'man' in .*--extend_vocab_file=",
    ),
    ([*_OLD, 'red', '<UNK>'], "^id 6 is 'red' in .* and '<UNK>' in"),
    (_OLD[:4], '^id 4 is .<UNK>. in'),
    (_OLD, 'has no word that is not in'),
    ([*_OLD, '<UNK>'], 'has no word that is not in'),
  ],
)
def test_vocabularies_that_extend_nothing(files, tmp_path, words, part):
  path = tmp_path / 'words.txt'
  _write_words(path, words)
  with pytest.raises(ValueError, match=part) as error:
    _run(files, new_vocab_file=path, output_dir=tmp_path / 'out')
  assert f'--new_vocab_file={path}' in str(error.value)
  assert f'--vocab_file={files}/old.txt' in str(error.value)
  assert not (tmp_path / 'out').exists()


def test_what_the_model_was_not_trained_with_is_refused(files, tmp_path):
  other = tmp_path / 'other.txt'
  _write_words(other, [*_OLD[:5], 'walks'])
  _write_words(tmp_path / 'new.txt', [*_OLD[:5], 'walks', '<UNK>', 'red'])
  with pytest.raises(ValueError) as error:
    _run(
      files,
      vocab_file=other,
      new_vocab_file=tmp_path / 'new.txt',
      output_dir=tmp_path / 'out',
    )
  for part in (
    f'the vocabulary file {other} (fingerprint ',
    f'{files}/train/model.ckpt-40 (fingerprint ',
    'old.txt)',
  ):
    assert part in str(error.value)
  _write_words(other, [*_OLD, 'more', 'words'])
  _write_words(tmp_path / 'new.txt', [*_OLD, 'more', 'words', '<UNK>', 'red'])
  with pytest.raises(ValueError, match='has 9 words'):
    _run(
      files,
      vocab_file=other,
      new_vocab_file=tmp_path / 'new.txt',
      output_dir=tmp_path / 'out',
    )


def test_nothing_is_written_over(files):
  with pytest.raises(ValueError, match='--output_dir=.* must be empty'):
    _run(files, output_dir=files / 'train')
  with open(files / 'train' / 'configuration.json', encoding='utf-8') as f:
    assert json.load(f)['vocab_size'] == 7
  assert len(os.listdir(files / 'train')) == 6


def test_what_an_interruption_left_is_completed(files, tmp_path):
  for name in ('whole', 'again'):
    (tmp_path / name).mkdir()
  _run(files, output_dir=tmp_path / 'whole')
  for path in (tmp_path / 'whole').iterdir():
    if path.name not in ('checkpoint', 'vocabulary.json'):
      (tmp_path / 'again' / path.name).write_bytes(path.read_bytes()[:99])
  (tmp_path / 'again' / '.model.ckpt-40.tmp.index').write_bytes(b'')
  _run(files, output_dir=tmp_path / 'again')
  assert {
    path.name: path.read_bytes() for path in (tmp_path / 'again').iterdir()
  } == {path.name: path.read_bytes() for path in (tmp_path / 'whole').iterdir()}
  # Not what somebody else has there.
  (tmp_path / 'other').mkdir()
  (tmp_path / 'other' / 'notes.txt').write_text('')
  with pytest.raises(ValueError, match='--output_dir=.* must be empty'):
    _run(files, output_dir=tmp_path / 'other')


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
