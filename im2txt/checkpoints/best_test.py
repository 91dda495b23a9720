# SPDX-License-Identifier: Apache-2.0
"""Tests of best_checkpoint."""

import dataclasses
import json
import os
import sys

import numpy as np
import pytest

from im2txt import checkpoints
from im2txt import configuration
from im2txt.checkpoints import best as best_checkpoint
from im2txt.checkpoints import encoder_stamp
from im2txt.runtime import files
from im2txt.text import vocabulary_stamp

_CONFIGS = (
  configuration.ModelConfig(vocab_size=77),
  configuration.TrainingConfig(),
)
_ENCODER = encoder_stamp.Stamp('12ab', encoder_stamp.URL, 'file:///a')


def _variables(step):
  return {'global_step': np.int32(step), 'x': np.float32([step, 0.5])}


@pytest.fixture(name='train_dir')
def fixture_train_dir(tmp_path):
  path = tmp_path / 'train'
  path.mkdir()
  configuration.save(path, _CONFIGS)
  encoder_stamp.save(path, _ENCODER)
  return path


def _kept(directory):
  """Returns the step of the checkpoint that others find there."""
  checkpoint = checkpoints.Checkpoint(str(directory))
  assert checkpoint.get('x').tolist() == [checkpoint.global_step, 0.5]
  return checkpoint.global_step


@pytest.mark.parametrize(
  'metric, values, steps',
  [
    ('cider', [0.2, 0.1, 0.2, 0.3, float('nan')], [1, 1, 1, 4, 4]),
    ('perplexity', [20.0, 21.0, 20.0, 9.0, float('inf')], [1, 1, 1, 4, 4]),
  ],
)
def test_keeps_the_best(train_dir, tmp_path, metric, values, steps):
  directory = tmp_path / 'eval' / 'best'
  best = best_checkpoint.BestCheckpoint(str(directory), metric, {})
  for step, (value, expected) in enumerate(zip(values, steps), start=1):
    kept = best.offer(value, _variables(step), str(train_dir))
    assert kept == (expected == step)
    assert _kept(directory) == expected
  assert configuration.load(directory) == _CONFIGS
  assert encoder_stamp.load(directory) == _ENCODER
  assert sorted(os.listdir(directory)) == [
    'best.json',
    'checkpoint',
    'configuration.json',
    'inception_v3.json',
    'model.ckpt-4.data-00000-of-00001',
    'model.ckpt-4.index',
  ]
  assert json.loads((directory / 'best.json').read_text()) == {
    'metric': metric,
    'value': values[3],
    'global_step': 4,
    'measured_on': {},
    'not_better': [5],
  }


def test_counts_the_checkpoints_since_the_best(train_dir, tmp_path):
  directory = tmp_path / 'best'

  def reopened():
    return best_checkpoint.BestCheckpoint(str(directory), 'cider', {})

  best = reopened()
  assert best.count_not_better() == 0
  counts = []
  for step, value in (
    (1, 0.3),
    (2, 0.2),
    (3, 0.3),
    (3, 0.1),  # Once more, as after a restart.
    (4, float('nan')),
    (5, 0.4),
    (5, 0.4),
    (2, 0.1),  # Of another run.
    (6, 0.4),
    (8, 0.1),
    (7, 0.1),  # Training was taken back to an earlier step.
  ):
    best.offer(value, _variables(step), str(train_dir))
    counts.append(best.count_not_better())
    best = reopened()
    assert best.count_not_better() == counts[-1]
  assert counts == [0, 1, 2, 2, 3, 0, 0, 0, 1, 2, 2]
  found = best_checkpoint.read(str(directory))
  assert (found.global_step, found.not_better) == (5, [6, 7])
  assert [found.count_not_better(step) for step in (5, 6, 7, 8)] == [0, 1, 2, 2]
  assert best_checkpoint.read(str(tmp_path)) is None


def test_reads_a_file_of_before_there_was_early_stopping(train_dir, tmp_path):
  directory = tmp_path / 'best'
  best_checkpoint.BestCheckpoint(str(directory), 'cider', {}).offer(
    0.5, _variables(3), str(train_dir)
  )
  path = directory / 'best.json'
  content = json.loads(path.read_text())
  del content['not_better']
  path.write_text(json.dumps(content))
  again = best_checkpoint.BestCheckpoint(str(directory), 'cider', {})
  assert again.count_not_better() == 0
  for wrong in ([2], ['4'], 4):
    path.write_text(json.dumps({**content, 'not_better': wrong}))
    with pytest.raises(ValueError, match='best.json .*not_better'):
      best_checkpoint.read(str(directory))


def test_is_remembered(train_dir, tmp_path):
  directory = tmp_path / 'best'
  best_checkpoint.BestCheckpoint(str(directory), 'cider', {}).offer(
    0.5, _variables(3), str(train_dir)
  )
  # What a save that was killed leaves.
  for name in (
    'model.ckpt-4.data-00000-of-00001',
    'model.ckpt-3.data-00000-of-00001.tempstate1',
    '.model.ckpt-4.tmp.index',
  ):
    (directory / name).write_text('half')
  again = best_checkpoint.BestCheckpoint(str(directory), 'cider', {})
  assert not [
    name
    for name in os.listdir(directory)
    if 'ckpt-4' in name or 'tempstate' in name
  ]
  assert not again.offer(0.4, _variables(5), str(train_dir))
  assert _kept(directory) == 3
  assert again.offer(0.6, _variables(6), str(train_dir))
  assert _kept(directory) == 6
  with pytest.raises(ValueError, match='by cider, not by --best_metric=bleu_4'):
    best_checkpoint.BestCheckpoint(str(directory), 'bleu_4', {})
  # One whose checkpoint somebody has damaged or removed counts no more.
  os.truncate(directory / 'model.ckpt-6.data-00000-of-00001', 3)
  assert best_checkpoint.BestCheckpoint(str(directory), 'cider', {}).offer(
    0.2, _variables(6), str(train_dir)
  )
  assert _kept(directory) == 6
  (directory / 'model.ckpt-6.index').unlink()
  assert best_checkpoint.BestCheckpoint(str(directory), 'cider', {}).offer(
    0.1, _variables(7), str(train_dir)
  )
  for content in (
    '{',
    '[]',
    '{"metric": "cider"}',
    '{"metric": "cider", "value": null, "global_step": 7}',
    # More than a float can hold, nested too deeply, and a step
    # or flags that are none.
    '{"metric": "cider", "value": 1%s, "global_step": 7}' % ('0' * 400),
    '{"metric": "cider", "value": 1e400, "global_step": 7}',
    '[' * 100_000,
    '{"metric": "cider", "value": 0.5, "global_step": "../7"}',
    '{"metric": "cider", "value": 0.5, "global_step": -7}',
    '{"metric": "cider", "value": 0.5, "global_step": 7, "measured_on": [1]}',
  ):
    (directory / 'best.json').write_text(content)
    with pytest.raises(ValueError, match='best.json .*delete it') as error:
      best_checkpoint.BestCheckpoint(str(directory), 'cider', {})
    assert '\n' not in str(error.value)


def test_one_of_before_the_flag_allowed_the_unknown_word(train_dir, tmp_path):
  directory = str(tmp_path / 'best')
  best_checkpoint.BestCheckpoint(directory, 'cider', {}).offer(
    0.5, _variables(3), str(train_dir)
  )
  defaults = {'allow_unknown_word': True}
  best_checkpoint.BestCheckpoint(
    directory, 'cider', {'allow_unknown_word': True}, defaults
  )
  with pytest.raises(
    ValueError, match='--allow_unknown_word=True, not .*False'
  ):
    best_checkpoint.BestCheckpoint(
      directory, 'cider', {'allow_unknown_word': False}, defaults
    )


def test_a_failed_save_leaves_the_best_before(train_dir, tmp_path, monkeypatch):
  directory = tmp_path / 'best'
  best = best_checkpoint.BestCheckpoint(str(directory), 'cider', {})

  def fail(prefix, _):
    (directory / f'{os.path.basename(prefix)}.data-00000-of-00001').write_text(
      'half'
    )
    raise OSError('disk full')

  def offer_in_vain(step):
    with monkeypatch.context() as patch:
      patch.setattr('im2txt.checkpoints.manager.write', fail)
      with pytest.raises(OSError, match='disk full'):
        best.offer(0.6, _variables(step), str(train_dir))

  offer_in_vain(2)
  assert sorted(os.listdir(directory)) == [
    'configuration.json',
    'inception_v3.json',
  ]
  best.offer(0.5, _variables(3), str(train_dir))
  names = sorted(os.listdir(directory))
  offer_in_vain(4)
  assert sorted(os.listdir(directory)) == names
  assert _kept(directory) == 3
  assert best.offer(0.55, _variables(5), str(train_dir))
  assert _kept(directory) == 5


def test_the_best_before_stays_until_the_new_one_is_noted(
  train_dir, tmp_path, monkeypatch
):
  directory = tmp_path / 'best'

  write_json = files.write_json

  def fail(path, *args):
    if path.endswith('best.json'):
      raise kind('now')
    write_json(path, *args)

  # A full disk, and a kill, after which nothing is put in order.
  for kind in (OSError, KeyboardInterrupt):
    best = best_checkpoint.BestCheckpoint(str(directory), 'cider', {})
    best.offer(0.5, _variables(3), str(train_dir))
    with monkeypatch.context() as patch:
      patch.setattr(files, 'write_json', fail)
      with pytest.raises(kind):
        best.offer(0.6, _variables(4), str(train_dir))
    if kind is OSError:
      assert _kept(directory) == 3
  again = best_checkpoint.BestCheckpoint(str(directory), 'cider', {})
  assert _kept(directory) == 3
  assert not again.offer(0.4, _variables(5), str(train_dir))
  assert again.offer(0.6, _variables(6), str(train_dir))
  assert _kept(directory) == 6


def test_values_of_other_images_are_not_compared(train_dir, tmp_path):
  directory = str(tmp_path / 'best')
  best_checkpoint.BestCheckpoint(directory, 'cider', {'images': 5}).offer(
    0.5, _variables(3), str(train_dir)
  )
  best_checkpoint.BestCheckpoint(directory, 'cider', {'images': 5})
  with pytest.raises(ValueError, match='with --images=5, not --images=6: '):
    best_checkpoint.BestCheckpoint(directory, 'cider', {'images': 6})


def test_what_belongs_to_it_comes_along(train_dir, tmp_path):
  stamp = vocabulary_stamp.Stamp('12ab', 7, 'words.txt')
  vocabulary_stamp.save(train_dir, stamp)
  best = best_checkpoint.BestCheckpoint(str(tmp_path / 'best'), 'cider', {})
  best.offer(0.5, _variables(3), str(train_dir))
  assert vocabulary_stamp.load(tmp_path / 'best') == stamp
  larger = (dataclasses.replace(_CONFIGS[0], vocab_size=78), _CONFIGS[1])
  configuration.save(train_dir, larger)
  (train_dir / 'vocabulary.json').unlink()
  best.offer(0.6, _variables(4), str(train_dir))
  assert configuration.load(tmp_path / 'best') == larger
  assert vocabulary_stamp.load(tmp_path / 'best') is None


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
