# SPDX-License-Identifier: Apache-2.0
"""Tests of checkpoints."""

import os
import shutil
import sys

import numpy as np
import pytest
import tensorflow as tf

from im2txt import checkpoints
from im2txt import testing

_KERNEL = 'lstm/basic_lstm_cell/kernel'
_BIAS = 'lstm/basic_lstm_cell/bias'


def values(step=7):
  rng = np.random.default_rng(0)
  shapes = {'seq_embedding/map': [5, 3], _KERNEL: [5, 8], _BIAS: [8]}
  result = {n: rng.normal(size=s).astype(np.float32)
            for n, s in shapes.items()}
  return {**result, 'global_step': np.int32(step)}


def variables(**replaced):
  return {n: tf.Variable(tf.zeros_like(v))
          for n, v in {**values(), **replaced}.items()}


def assert_restored(path, **kwargs):
  found = variables()
  checkpoint = checkpoints.Checkpoint(path)
  unused = checkpoint.restore(found)
  for name, value in values().items():
    np.testing.assert_array_equal(found[name], value)
    assert found[name].dtype == value.dtype
  assert checkpoint.global_step == 7
  assert checkpoint.model_sizes() == {
      'vocab_size': 5, 'embedding_size': 3, 'num_lstm_units': 2}
  assert unused == kwargs.get('unused', [])


@pytest.mark.parametrize('kernel, bias', [
    (_KERNEL, _BIAS),
    ('lstm/basic_lstm_cell/weights', 'lstm/basic_lstm_cell/biases'),
    ('lstm/BasicLSTMCell/Linear/Matrix', 'lstm/BasicLSTMCell/Linear/Bias'),
])
@pytest.mark.parametrize('version', [1, 2])
@pytest.mark.parametrize('step_type', [np.int32, np.int64])
def test_every_vintage_loads(tmp_path, kernel, bias, version, step_type):
  stored = values()
  stored[kernel] = stored.pop(_KERNEL)
  stored[bias] = stored.pop(_BIAS)
  stored['global_step'] = step_type(7)
  # Below the number in the name of the V2 data file.
  prefix = str(tmp_path / 'model.ckpt-0')
  with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    saver = tf.compat.v1.train.Saver(
        {n: tf.compat.v1.Variable(v) for n, v in stored.items()},
        write_version=version)
    session.run(tf.compat.v1.global_variables_initializer())
    saver.save(session, prefix)
  assert_restored(prefix)
  assert_restored(str(tmp_path))
  (tmp_path / 'checkpoint').unlink()
  assert_restored(str(tmp_path))


def test_a_tf1_saver_reads_what_we_write(tmp_path):
  prefix = checkpoints.CheckpointManager(str(tmp_path)).save(values())
  with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    graph = {n: tf.compat.v1.Variable(np.zeros_like(v))
             for n, v in values().items()}
    saver = tf.compat.v1.train.Saver(graph)
    saver.restore(session, tf.train.latest_checkpoint(str(tmp_path)))
    for name, value in values().items():
      np.testing.assert_array_equal(session.run(graph[name]), value)
  assert prefix.endswith('model.ckpt-7')


def test_a_directory_a_prefix_or_a_part_of_it(tmp_path):
  prefix = checkpoints.CheckpointManager(str(tmp_path)).save(values())
  for path in (str(tmp_path), prefix, prefix + '.index',
               prefix + '.data-00000-of-00001', prefix + '.meta'):
    assert_restored(path)


def test_a_moved_directory_still_has_a_latest(tmp_path):
  checkpoints.CheckpointManager(str(tmp_path)).save(values())
  moved = tmp_path.with_name(tmp_path.name + '_moved')
  tmp_path.rename(moved)
  assert_restored(str(moved))
  # Nor is the state file needed.
  (moved / 'checkpoint').unlink()
  assert_restored(str(moved))


def test_keeps_the_last(tmp_path):
  manager = checkpoints.CheckpointManager(str(tmp_path), max_to_keep=2)
  for step in (1, 2, 3):
    manager.save(values(step))
  # A resumed run goes on counting.
  manager = checkpoints.CheckpointManager(str(tmp_path), max_to_keep=2)
  manager.save(values(4))
  assert sorted(os.listdir(tmp_path)) == [
      'checkpoint', 'model.ckpt-3.data-00000-of-00001', 'model.ckpt-3.index',
      'model.ckpt-4.data-00000-of-00001', 'model.ckpt-4.index']
  state = tf.train.get_checkpoint_state(str(tmp_path))
  assert [os.path.basename(p) for p in state.all_model_checkpoint_paths] == [
      'model.ckpt-3', 'model.ckpt-4']


def _state(value):
  return {'adam_updates': np.int64(value),
          'logits/weights/Adam': np.full([2, 3], value, np.float32)}


def _slots():
  return {name: tf.Variable(tf.zeros_like(value))
          for name, value in _state(1).items()}


def test_training_state_lies_beside_its_checkpoint_and_goes_with_it(tmp_path):
  manager = checkpoints.CheckpointManager(str(tmp_path), max_to_keep=2)
  for step in (1, 2, 3):
    prefix = manager.save(values(step), _state(step))
  assert prefix == str(tmp_path / 'model.ckpt-3')
  assert sorted(os.listdir(tmp_path)) == ['checkpoint'] + [
      f'{stem}-{step}.{end}' for stem in ('model.ckpt', 'training_state')
      for step in (2, 3) for end in ('data-00000-of-00001', 'index')]
  # The checkpoint holds what it would without it.
  assert set(checkpoints.Checkpoint(prefix).shapes) == set(values())
  for step in (2, 3):
    slots = _slots()
    assert checkpoints.restore_training_state(
        str(tmp_path / f'model.ckpt-{step}'), slots)
    for name, value in _state(step).items():
      np.testing.assert_array_equal(slots[name], value)
  # A run that has no state goes on deleting that of those before.
  manager.save(values(4), {})
  manager.save(values(5))
  assert not list(tmp_path.glob('training_state*'))


def test_without_all_of_the_training_state_nothing_is_assigned(tmp_path):
  manager = checkpoints.CheckpointManager(str(tmp_path))
  without, state = manager.save(values(1)), manager.save(values(2), _state(2))
  slots = _slots()
  assert checkpoints.restore_training_state(without, slots) is False
  slots['average_updates'] = tf.Variable(0, dtype=tf.int64)
  assert checkpoints.restore_training_state(state, slots) is False
  assert not any(np.any(slot.numpy()) for slot in slots.values())
  # What nobody asked for is passed over.
  del slots['average_updates'], slots['logits/weights/Adam']
  assert checkpoints.restore_training_state(state, slots)
  assert slots['adam_updates'].numpy() == 2
  with pytest.raises(checkpoints.CheckpointError,
                     match=r'training_state-2 .*Adam \[2, 3\].*\[4\]'):
    checkpoints.restore_training_state(
        state, {'logits/weights/Adam': tf.Variable(tf.zeros([4]))})
  os.truncate(tmp_path / 'training_state-2.data-00000-of-00001', 3)
  with pytest.raises(checkpoints.CheckpointError, match='training_state-2 is'):
    checkpoints.restore_training_state(state, _slots())


def test_a_training_state_is_no_checkpoint(tmp_path):
  checkpoints.write(str(tmp_path / 'training_state-9'), _state(9))
  with pytest.raises(checkpoints.NoCheckpointYetError):
    checkpoints.resolve(str(tmp_path))
  checkpoints.write(str(tmp_path / 'model.ckpt-7'), values(7))
  assert checkpoints.resolve(str(tmp_path)) == str(tmp_path / 'model.ckpt-7')
  assert_restored(str(tmp_path))


def test_missing_and_misshapen_variables_are_named_and_nothing_assigned(
    tmp_path):
  prefix = checkpoints.CheckpointManager(str(tmp_path)).save(values())
  found = variables(extra=np.zeros(2, np.float32))
  with pytest.raises(checkpoints.CheckpointError, match='lacks.*extra'):
    checkpoints.Checkpoint(prefix).restore(found)
  found = variables(**{_BIAS: np.zeros(12, np.float32)})
  with pytest.raises(checkpoints.CheckpointError,
                     match=r'bias \[8\] \(the model has \[12\]\)'):
    checkpoints.Checkpoint(prefix).restore(found)
  assert not np.any(found[_KERNEL].numpy())


def test_unknown_variables_are_returned_but_not_inceptions_heads(tmp_path):
  stored = values()
  stored['InceptionV3/Logits/Conv2d_1c_1x1/biases'] = np.zeros(3, np.float32)
  stored['beta1_power'] = np.float32(0.9)
  prefix = checkpoints.CheckpointManager(str(tmp_path)).save(stored)
  assert_restored(prefix, unused=['beta1_power'])


def test_not_an_im2txt_checkpoint(tmp_path):
  prefix = checkpoints.CheckpointManager(str(tmp_path)).save(
      {'InceptionV3/x/weights': np.zeros(2), 'global_step': np.int64(0)})
  with pytest.raises(checkpoints.CheckpointError,
                     match='--inception_checkpoint_file'):
    checkpoints.Checkpoint(prefix).model_sizes()


def error(path):
  """Opens a checkpoint, reads all of it; returns the error's one line."""
  with pytest.raises(checkpoints.CheckpointError) as caught:
    checkpoints.Checkpoint(str(path)).restore(variables())
  assert '\n' not in str(caught.value)
  return str(caught.value)


def test_what_is_wrong_is_said(tmp_path):
  with pytest.raises(checkpoints.NoCheckpointYetError):
    checkpoints.resolve(str(tmp_path))
  assert 'no checkpoint at' in error(tmp_path / 'model.ckpt-9')
  prefix = checkpoints.CheckpointManager(str(tmp_path)).save(values())
  data, index = prefix + '.data-00000-of-00001', prefix + '.index'
  whole = tmp_path / 'whole'
  whole.mkdir()
  for name in (data, index):
    shutil.copy(name, whole)

  os.truncate(data, os.path.getsize(data) // 2)
  assert 'truncated' in error(prefix)
  os.remove(data)
  assert f'{data} is missing' in error(prefix)
  # What is there when listed and gone when opened, like a link to nowhere.
  os.symlink(tmp_path / 'nowhere', data)
  assert f'cannot read {data}' in error(prefix)
  os.remove(data)
  with open(data, 'w', encoding='utf-8') as f:
    f.write('version https://git-lfs.github.com/spec/v1\noid sha256:12\n')
  assert 'Git-LFS pointer' in error(prefix)
  shutil.copy(whole / os.path.basename(data), data)
  os.truncate(index, 10)
  assert 'truncated' in error(prefix)
  os.remove(index)
  assert f'{index} is missing' in error(prefix)
  text = tmp_path / 'text'
  text.write_text('not a checkpoint')
  assert 'not a TensorFlow checkpoint' in error(text)


def test_a_place_that_cannot_be_written_is_an_os_error(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(OSError, match='cannot write checkpoint'):
    checkpoints.write(str(tmp_path / 'file' / 'model.ckpt-1'), values())


@pytest.mark.parametrize('name', [
    'small_noinception.ckpt', 'small_noinception_midnames.ckpt',
    'small_noinception_oldnames.ckpt', 'small_noinception_v1.ckpt'])
def test_the_files_of_the_2016_program_load(name):
  expected = np.load(testing.reference_path('model_small', 'weights.npz'))
  found = {n: tf.Variable(np.zeros_like(expected[n])) for n in expected.files}
  checkpoints.Checkpoint(
      testing.reference_path('model_small', name)).restore(found)
  for n in expected.files:
    np.testing.assert_array_equal(found[n], expected[n])


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
