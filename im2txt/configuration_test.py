# SPDX-License-Identifier: Apache-2.0
"""Tests of configuration."""

import dataclasses
import json
import sys

from absl import flags
import pytest

from im2txt import configuration

_DEFAULTS = (configuration.ModelConfig(), configuration.TrainingConfig())


def parse(*args):
  values = flags.FlagValues()
  configuration.define_flags(values)
  values(['program', *args])
  return values


def resolve(args, directory, defaults=None):
  return configuration.resolve(
    directory, configuration.given_by(parse(*args)), defaults
  )


def test_help_tells_defaults_and_what_a_name_may_be():
  values = parse()
  for config in _DEFAULTS:
    for field in dataclasses.fields(config):
      assert values[field.name].help.endswith(
        f' The default is {field.default!r}.'
      )
  assert (
    'SGD, as in 2016, or Adam, AdamW or Momentum' in values['optimizer'].help
  )
  assert 'or cosine' in values['learning_rate_schedule'].help


def test_flags_win_over_the_file_and_that_over_the_directory(tmp_path):
  configuration.save(
    tmp_path,
    configuration.replace(
      _DEFAULTS, {'vocab_size': 1, 'batch_size': 1, 'clip_gradients': 1}, 'x'
    ),
  )
  path = tmp_path / 'my.json'
  path.write_text(json.dumps({'vocab_size': 2, 'batch_size': 2}))
  model, training = resolve(
    [f'--hyperparameters={path}', '--vocab_size=3'], tmp_path
  )
  assert (model.vocab_size, model.batch_size) == (3, 2)
  assert training.clip_gradients == 1.0
  assert training.initial_learning_rate == 2.0


def test_a_flag_may_be_true_or_false(tmp_path):
  for given, expected in (
    ([], True),
    (['--allow_unknown_word=false'], False),
    (['--noallow_unknown_word'], False),
  ):
    model, _ = resolve(given, tmp_path)
    assert model.allow_unknown_word is expected


def test_defaults_count_where_nothing_else_is_said(tmp_path):
  def vocab_size(*args, directory=tmp_path / 'new'):
    return resolve(args, directory, {'vocab_size': 99})[0].vocab_size

  path = tmp_path / 'my.json'
  path.write_text('{"vocab_size": 2}')
  assert vocab_size() == 99
  assert vocab_size('--vocab_size=3') == 3
  assert vocab_size(f'--hyperparameters={path}') == 2
  configuration.save(tmp_path, _DEFAULTS)
  assert vocab_size(directory=tmp_path) == 12000


def test_saved_is_what_is_loaded(tmp_path):
  configs = configuration.replace(
    _DEFAULTS,
    {
      'vocab_size': 77,
      'initial_learning_rate': 0.5,
      'allow_unknown_word': False,
    },
    'test',
  )
  configuration.save(tmp_path, configs)
  assert configuration.load(tmp_path) == configs
  assert configuration.load(tmp_path / 'elsewhere') == _DEFAULTS


@pytest.mark.parametrize(
  'values, message',
  [
    ({'vocabulary': 3}, "unknown hyperparameter 'vocabulary'"),
    ({'vocab_size': 0}, 'vocab_size=0 must be above zero'),
    ({'vocab_size': 1.5}, 'of type int'),
    ({'vocab_size': True}, 'of type int'),
    ({'allow_unknown_word': 1}, 'of type bool'),
    ({'beam_size': 0}, 'beam_size=0 must be above zero'),
    ({'clip_gradients': 'x'}, 'of type float'),
    ({'lstm_dropout_keep_prob': 1.5}, r'must be in \(0, 1\]'),
    ({'initial_learning_rate': float('nan')}, '=nan must be a finite number'),
    ({'clip_gradients': float('inf')}, '=inf must be a finite number'),
    ({'clip_gradients': 10**400}, 'must be a finite number'),
    ({'image_height': 400}, 'from 75 to 346'),
    ({'image_width': 74}, 'from 75 to 346'),
    ({'optimizer': 3}, 'optimizer=3 must be of type str'),
    ({'weight_decay': -0.1}, 'weight_decay=-0.1 must be'),
    ({'moving_average_decay': 1.0}, 'moving_average_decay=1.0 must be below'),
    ({'moving_average_decay': -0.5}, 'moving_average_decay=-0.5 must be'),
    ({'momentum': 1.0}, 'momentum=1.0 must be below 1'),
    ({'label_smoothing': 1.0}, 'label_smoothing=1.0 must be below 1'),
    ({'scheduled_sampling_max': 1.5}, r'must be in \(0, 1\]'),
    ({'accumulate_steps': 0}, 'accumulate_steps=0 must be above zero'),
    ({'warmup_steps': -1}, 'warmup_steps=-1 must be'),
    ({'warmup_steps': 2.5}, 'of type int'),
    ({'cosine_decay_steps': 0}, 'cosine_decay_steps=0 must be above zero'),
  ],
)
def test_wrong_values_are_named(values, message):
  with pytest.raises(ValueError, match=message) as caught:
    configuration.replace(_DEFAULTS, values, 'my.json')
  assert 'my.json' in str(caught.value)


@pytest.mark.parametrize('text', ['{', '[1]', None])
def test_an_unreadable_file_is_named(tmp_path, text):
  path = tmp_path / 'h.json'
  if text is not None:
    path.write_text(text)
  with pytest.raises(ValueError, match='h.json'):
    resolve([f'--hyperparameters={path}'], tmp_path)


@pytest.mark.parametrize(
  'content',
  [
    b'',
    b'\0' * 90,
    b'\xff',
    b'[1]',
    b'[' * 100000,
    b'{"batch_size": 0}',
    b'{"x": 1}',
    b'{"batch_size": 1%s}' % (b'0' * 4000),
    b'{"%s": 1}' % (b'x' * 4000),
  ],
)
def test_a_damaged_one_beside_checkpoints_says_what_to_do(tmp_path, content):
  path = tmp_path / 'configuration.json'
  path.write_bytes(content)
  with pytest.raises(
    ValueError,
    match=(
      f'; copy {path} again from its origin, or remove it and give the '
      'values that are not defaults as flags$'
    ),
  ) as error:
    configuration.load(str(tmp_path))
  assert '\n' not in str(error.value) and len(str(error.value)) < 2000


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
