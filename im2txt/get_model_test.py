# SPDX-License-Identifier: Apache-2.0
"""Tests of the programs package_model and get_model, one after the other."""

import json
import os
import sys

import pytest
import tensorflow as tf

from im2txt import checkpoints
from im2txt import configuration
from im2txt import show_and_tell_model
from im2txt import testing
from im2txt.checkpoints import encoder_stamp
from im2txt.pretrained import inception
from im2txt.text import vocabulary
from im2txt.text import vocabulary_stamp

_CONFIG = configuration.ModelConfig(
  vocab_size=7,
  embedding_size=6,
  num_lstm_units=5,
  batch_size=4,
  image_height=75,
  image_width=75,
)


@pytest.fixture(scope='module', name='made')
def fixture_made(tmp_path_factory):
  """A directory with the model in `train`, its encoder in `inception`."""
  path = tmp_path_factory.mktemp('made')
  tf.random.set_seed(1)
  model = show_and_tell_model.ShowAndTellModel(_CONFIG)
  model.image_embedding_weights.assign(model.image_embedding_weights * 2e-5)
  model.global_step.assign(40)
  for name in ('train', 'inception'):
    (path / name).mkdir()
  checkpoints.CheckpointManager(str(path / 'train')).save(model.named_variables)
  configuration.save(path / 'train', (_CONFIG, configuration.TrainingConfig()))
  (path / 'words.txt').write_text(
    ''.join(f'{word} 5\n' for word in '<S> </S> a man dog runs'.split())
  )
  vocab = vocabulary.Vocabulary(str(path / 'words.txt'))
  vocabulary_stamp.save(
    path / 'train',
    vocabulary_stamp.Stamp(vocab.fingerprint, 7, str(path / 'words.txt')),
  )
  # As if got from a place that is no more.
  encoder = model.inception.named_variables
  checkpoints.write(f'{path}/inception/{inception.CHECKPOINT}', encoder)
  encoder_stamp.save(
    path / 'inception',
    encoder_stamp.Stamp(
      encoder_stamp.fingerprint(encoder), 'url', 'file:///nonexistent.tar.gz'
    ),
  )
  return path


def _package(made, **changes):
  flags = {
    'checkpoint_path': made / 'train',
    'vocab_file': made / 'words.txt',
    'output_dir': made / 'package',
    'inception_dir': made / 'inception',
    **changes,
  }
  return testing.run_program(
    'package_model', *(f'--{name}={value}' for name, value in flags.items())
  )


@pytest.fixture(scope='module', name='got')
def fixture_got(made):
  (made / 'scores.json').write_text('{"cider": 0.5}')
  result = _package(made, scores_file=made / 'scores.json')
  assert result.returncode == 0, result.stderr
  assert 'the model of step 40 is in' in result.stderr
  manifest = json.loads((made / 'package' / 'model.json').read_text())
  assert manifest['scores'] == {'cider': 0.5}
  result = testing.run_program(
    'get_model',
    f'--package_dir={made}/package',
    f'--inception_dir={made}/inception',
    made / 'got',
  )
  assert result.returncode == 0, result.stderr
  assert f'The model is {made}/got/model.ckpt-40' in result.stdout
  return made / 'got'


def test_captions_and_trains_on(got, tmp_path):
  (tmp_path / 'a.jpg').write_bytes(testing.jpeg())
  result = testing.run_program(
    'run_inference',
    f'--checkpoint_path={got}',
    f'--vocab_file={got}/word_counts.txt',
    f'--input_files={tmp_path}/a.jpg',
  )
  assert result.returncode == 0, result.stderr
  assert result.stdout.startswith('Captions for image a.jpg:\n  0) ')
  assert 'not checked' not in result.stderr
  testing.write_shard(
    tmp_path / 'train-00000-of-00001',
    [(i, testing.jpeg(i), [0, 2, 3, 1]) for i in range(8)],
  )
  result = testing.run_program(
    'train',
    f'--train_dir={got}',
    '--number_of_steps=41',
    f'--input_file_pattern={tmp_path}/train-00000-of-00001',
  )
  assert result.returncode == 0, result.stderr
  assert f'resuming from {got}/model.ckpt-40' in result.stderr
  assert os.path.exists(got / 'model.ckpt-41.index')


def test_get_model_refuses_in_one_line(made, got, tmp_path):
  del got
  testing.assert_one_line_error(
    testing.run_program('get_model', f'--package_dir={tmp_path}', tmp_path),
    f'--package_dir={tmp_path} is not a package',
  )
  # The encoder's place is gone.
  testing.assert_one_line_error(
    testing.run_program(
      'get_model', f'--package_dir={made}/package', tmp_path / 'a'
    ),
    'file:///nonexistent.tar.gz: ',
  )
  result = testing.run_program('get_model', 'one', 'two')
  assert result.returncode == 1
  assert 'give one directory' in result.stdout + result.stderr


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'checkpoint_path': ''}, '--checkpoint_path is required'),
    ({'inception_dir': ''}, 'give --inception_dir the directory'),
    ({'scores_file': '/nonexistent'}, '--scores_file=/nonexistent cannot be'),
  ],
)
def test_package_model_refuses_in_one_line(made, tmp_path, changes, message):
  testing.assert_one_line_error(
    _package(made, output_dir=tmp_path / 'p', **changes), message
  )
  assert not (tmp_path / 'p').exists()


@pytest.mark.parametrize(
  'content, message',
  [
    ('[1]', 'must hold a JSON object'),
    ('{"cider": NaN}', 'NaN is not a JSON number'),
  ],
)
def test_scores_must_be_an_object_of_numbers(made, tmp_path, content, message):
  (tmp_path / 'scores.json').write_text(content)
  testing.assert_one_line_error(
    _package(
      made, output_dir=tmp_path / 'p', scores_file=tmp_path / 'scores.json'
    ),
    message,
  )


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
