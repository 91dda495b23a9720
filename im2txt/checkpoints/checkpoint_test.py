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
from im2txt.runtime import files

_KERNEL = 'lstm/basic_lstm_cell/kernel'
_BIAS = 'lstm/basic_lstm_cell/bias'


def values(step=7):
  rng = np.random.default_rng(0)
  shapes = {
    'seq_embedding/map': [5, 3],
    _KERNEL: [5, 8],
    _BIAS: [8],
    'logits/weights': [2, 5],
  }
  result = {n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}
  return {**result, 'global_step': np.int32(step)}


def variables(**replaced):
  return {
    n: tf.Variable(tf.zeros_like(v))
    for n, v in {**values(), **replaced}.items()
  }


def assert_restored(path, **kwargs):
  found = variables()
  checkpoint = checkpoints.Checkpoint(path)
  unused = checkpoint.restore(found)
  for name, value in values().items():
    np.testing.assert_array_equal(found[name], value)
    assert found[name].dtype == value.dtype
  assert checkpoint.global_step == 7
  assert checkpoint.model_sizes() == {
    'vocab_size': 5,
    'embedding_size': 3,
    'num_lstm_units': 2,
  }
  assert unused == kwargs.get('unused', [])


@pytest.mark.parametrize(
  'kernel, bias',
  [
    (_KERNEL, _BIAS),
    ('lstm/basic_lstm_cell/weights', 'lstm/basic_lstm_cell/biases'),
    ('lstm/BasicLSTMCell/Linear/Matrix', 'lstm/BasicLSTMCell/Linear/Bias'),
  ],
)
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
      write_version=version,
    )
    session.run(tf.compat.v1.global_variables_initializer())
    saver.save(session, prefix)
  assert_restored(prefix)
  assert_restored(str(tmp_path))
  (tmp_path / 'checkpoint').unlink()
  assert_restored(str(tmp_path))


def test_moving_averages_are_taken_where_the_variables_are_not(
  tmp_path, caplog
):
  average = '/ExponentialMovingAverage'
  stored = values()
  stored[f'lstm/basic_lstm_cell/biases{average}'] = stored.pop(_BIAS)
  stored[f'{_KERNEL}{average}'] = stored[_KERNEL] + 1
  prefix = str(tmp_path / 'model.ckpt-7')
  checkpoints.write(prefix, stored)
  assert_restored(prefix, unused=[f'{_KERNEL}{average}'])
  assert f'only moving averages of 1 variable(s): {_BIAS}' in caplog.text


def test_todays_name_is_taken_of_two(tmp_path, caplog):
  old = 'lstm/BasicLSTMCell/Linear/Matrix'
  prefix = str(tmp_path / 'model.ckpt-7')
  checkpoints.write(prefix, {**values(), old: values()[_KERNEL] + 1})
  assert_restored(prefix)
  assert f'{_KERNEL} and {old}: {_KERNEL} is taken' in caplog.text


def test_unknown_names_are_named_with_what_is_missing(tmp_path):
  stored = values()
  stored['lstm/lstm_cell/kernel'] = stored.pop(_KERNEL)
  stored['InceptionV3/Conv2d_1a_3x3/weights'] = np.ones([2], np.float32)
  stored['InceptionV3/Logits/biases'] = np.ones([2], np.float32)
  prefix = str(tmp_path / 'model.ckpt-7')
  checkpoints.write(prefix, stored)
  with pytest.raises(
    checkpoints.CheckpointError,
    match=rf'lacks 1 variable\(s\): {_KERNEL}; instead it has 2 variable\(s\)'
    ': InceptionV3/Conv2d_1a_3x3/weights, lstm/lstm_cell/kernel',
  ):
    checkpoints.Checkpoint(prefix).restore(variables())
  del stored[_BIAS]
  checkpoints.write(prefix, stored)
  with pytest.raises(
    checkpoints.CheckpointError,
    match=f'no variable {_BIAS}; instead it has 3 variable.*logits/weights, '
    'lstm/lstm_cell/kernel, seq_embedding/map',
  ):
    checkpoints.Checkpoint(prefix).model_sizes()


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_a_checkpoint_that_has_diverged_is_passed_over(tmp_path, caplog, value):
  manager = checkpoints.CheckpointManager(str(tmp_path))
  whole = manager.save(values())
  diverged = values(8)
  diverged[_BIAS][3] = value
  prefix = manager.save(diverged)
  assert checkpoints.Checkpoint(str(tmp_path)).prefix == whole
  assert f'{prefix}: {_BIAS} holds NaN or infinity' in caplog.text
  with pytest.raises(
    checkpoints.CheckpointError,
    match=f'{_BIAS} holds NaN or infinity: training diverged; give an earl',
  ):
    checkpoints.Checkpoint(prefix).restore(variables())


def test_a_tf1_saver_reads_what_we_write(tmp_path):
  prefix = checkpoints.CheckpointManager(str(tmp_path)).save(values())
  with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    graph = {
      n: tf.compat.v1.Variable(np.zeros_like(v)) for n, v in values().items()
    }
    saver = tf.compat.v1.train.Saver(graph)
    saver.restore(session, tf.train.latest_checkpoint(str(tmp_path)))
    for name, value in values().items():
      np.testing.assert_array_equal(session.run(graph[name]), value)
  assert prefix.endswith('model.ckpt-7')


def test_a_directory_a_prefix_or_a_part_of_it(tmp_path):
  prefix = checkpoints.CheckpointManager(str(tmp_path)).save(values())
  for path in (
    str(tmp_path),
    prefix,
    prefix + '.index',
    prefix + '.data-00000-of-00001',
    prefix + '.meta',
  ):
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
    'checkpoint',
    'model.ckpt-3.data-00000-of-00001',
    'model.ckpt-3.index',
    'model.ckpt-4.data-00000-of-00001',
    'model.ckpt-4.index',
  ]
  state = tf.train.get_checkpoint_state(str(tmp_path))
  assert [os.path.basename(p) for p in state.all_model_checkpoint_paths] == [
    'model.ckpt-3',
    'model.ckpt-4',
  ]


def _state(value):
  return {
    'adam_updates': np.int64(value),
    'logits/weights/Adam': np.full([2, 3], value, np.float32),
  }


def _slots():
  return {
    name: tf.Variable(tf.zeros_like(value)) for name, value in _state(1).items()
  }


def test_training_state_lies_beside_its_checkpoint_and_goes_with_it(tmp_path):
  manager = checkpoints.CheckpointManager(str(tmp_path), max_to_keep=2)
  for step in (1, 2, 3):
    prefix = manager.save(values(step), _state(step))
  assert prefix == str(tmp_path / 'model.ckpt-3')
  assert sorted(os.listdir(tmp_path)) == ['checkpoint'] + [
    f'{stem}-{step}.{end}'
    for stem in ('model.ckpt', 'training_state')
    for step in (2, 3)
    for end in ('data-00000-of-00001', 'index')
  ]
  # The checkpoint holds what it would without it.
  assert set(checkpoints.Checkpoint(prefix).shapes) == set(values())
  for step in (2, 3):
    slots = _slots()
    assert checkpoints.restore_training_state(
      str(tmp_path / f'model.ckpt-{step}'), slots
    )
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
  with pytest.raises(
    checkpoints.CheckpointError,
    match=r'training_state-2 .*Adam \[2, 3\].*\[4\]',
  ):
    checkpoints.restore_training_state(
      state, {'logits/weights/Adam': tf.Variable(tf.zeros([4]))}
    )
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
  tmp_path,
):
  prefix = checkpoints.CheckpointManager(str(tmp_path)).save(values())
  found = variables(extra=np.zeros(2, np.float32))
  with pytest.raises(checkpoints.CheckpointError, match='lacks.*extra'):
    checkpoints.Checkpoint(prefix).restore(found)
  found = variables(**{_BIAS: np.zeros(12, np.float32)})
  with pytest.raises(
    checkpoints.CheckpointError, match=r'bias \[8\] \(the model has \[12\]\)'
  ):
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
    {'InceptionV3/x/weights': np.zeros(2), 'global_step': np.int64(0)}
  )
  with pytest.raises(
    checkpoints.CheckpointError, match='--inception_checkpoint_file'
  ):
    checkpoints.Checkpoint(prefix).model_sizes()


@pytest.mark.parametrize(
  'name, shape',
  [
    ('seq_embedding/map', [15]),
    ('seq_embedding/map', [5, 3, 1]),
    ('seq_embedding/map', [0, 3]),
    ('seq_embedding/map', [5, 10**6]),
    (_BIAS, []),
    (_BIAS, [9]),
    (_BIAS, [2, 4]),
    (_BIAS, [10**6]),
    (_KERNEL, [8, 5]),
    ('logits/weights', [5]),
  ],
)
def test_shapes_of_no_model(tmp_path, name, shape):
  """Variables of the sizes that these tell could take any memory."""
  prefix = checkpoints.CheckpointManager(str(tmp_path)).save(
    {**values(), name: np.zeros(shape, np.float32)}
  )
  with pytest.raises(
    checkpoints.CheckpointError,
    match='not of im2txt: these shapes do not go together: '
    r'seq_embedding/map \[',
  ):
    checkpoints.Checkpoint(prefix).model_sizes()


@pytest.mark.parametrize('step', [np.zeros([2], np.int64), np.complex64(1)])
def test_a_step_that_is_no_number(tmp_path, step):
  prefix = str(tmp_path / 'model.ckpt-7')
  checkpoints.write(prefix, {**values(), 'global_step': step})
  with pytest.raises(checkpoints.CheckpointError, match='its global_step is '):
    checkpoints.Checkpoint(prefix).global_step


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


# Falling back ----------------------------------------------------------------


def _write_v1(path, step=7):
  with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    saver = tf.compat.v1.train.Saver(
      {n: tf.compat.v1.Variable(v) for n, v in values(step).items()},
      write_version=1,
    )
    session.run(tf.compat.v1.global_variables_initializer())
    saver.save(session, str(path), write_meta_graph=False)


def _flip(path, place):
  content = bytearray(path.read_bytes())
  content[place] ^= 0x10
  path.write_bytes(content)


def _empty(path):
  path.write_bytes(b'')


def _truncate(path):
  os.truncate(path, path.stat().st_size * 2 // 3)


_DAMAGE = {
  'missing': lambda path: path.unlink(),
  'empty': _empty,
  'truncated': _truncate,
  'flipped': lambda path: _flip(path, 30),
  'garbage': lambda path: path.write_bytes(b'garbage' * 99),
}


@pytest.fixture(name='saved')
def fixture_saved(tmp_path):
  """A directory with checkpoints of the steps 1 to 3."""
  manager = checkpoints.CheckpointManager(str(tmp_path))
  for step in (1, 2, 3):
    manager.save(values(step), _state(step))
  return tmp_path


@pytest.mark.parametrize('part', ['index', 'data-00000-of-00001'])
@pytest.mark.parametrize('damage', _DAMAGE)
@pytest.mark.parametrize('state_file', [True, False])
def test_a_damaged_newest_one_is_passed_over(
  saved, caplog, damage, part, state_file
):
  if not state_file:
    (saved / 'checkpoint').unlink()
  _DAMAGE[damage](saved / f'model.ckpt-3.{part}')
  checkpoint = checkpoints.Checkpoint(str(saved))
  assert checkpoint.prefix == str(saved / 'model.ckpt-2')
  assert checkpoint.passed_over == [str(saved / 'model.ckpt-3')]
  (line,) = [r.getMessage() for r in caplog.records]
  assert '\n' not in line
  assert line.endswith(f': using {saved}/model.ckpt-2 instead')
  if damage in ('missing', 'empty'):
    assert f'model.ckpt-3.{part} is {damage}' in line
  assert (damage == 'missing') == ('missing' in line)
  # One that was named is no other.
  assert f'{saved}/model.ckpt-3' in error(saved / 'model.ckpt-3')


def test_a_flipped_byte_anywhere_is_found(tmp_path):
  """Or it changes nothing."""
  prefix = checkpoints.CheckpointManager(str(tmp_path / 'v2')).save(values())
  _write_v1(tmp_path / 'model.ckpt-7')
  harmless = total = 0
  for whole in (
    prefix + '.index',
    prefix + '.data-00000-of-00001',
    str(tmp_path / 'model.ckpt-7'),
  ):
    with open(whole, 'rb') as f:
      content = f.read()
    for place in range(len(content)):
      total += 1
      with open(whole, 'wb') as f:
        f.write(
          content[:place]
          + bytes([content[place] ^ 0x40])
          + content[place + 1 :]
        )
      if not checkpoints.fault(
        whole.removesuffix('.index').removesuffix('.data-00000-of-00001')
      ):
        assert_restored(whole)
        harmless += 1
    with open(whole, 'wb') as f:
      f.write(content)
    assert_restored(whole)
  assert harmless < 0.1 * total and total > 500


def test_a_damaged_v1_file_is_passed_over(tmp_path):
  for step in (2, 10):
    _write_v1(tmp_path / f'model.ckpt-{step}', step)
  _flip(tmp_path / 'model.ckpt-10', 40)
  assert checkpoints.resolve(str(tmp_path)) == str(tmp_path / 'model.ckpt-2')


def test_all_that_are_passed_over_are_told_in_one_line(saved, caplog):
  _empty(saved / 'model.ckpt-3.index')
  _truncate(saved / 'model.ckpt-2.data-00000-of-00001')
  assert checkpoints.resolve(str(saved)) == str(saved / 'model.ckpt-1')
  (line,) = [r.getMessage() for r in caplog.records]
  assert 'model.ckpt-3.index is empty; ' in line
  assert 'model.ckpt-2 is truncated' in line


def test_none_whole_is_not_none_yet(saved, tmp_path_factory):
  for path in saved.glob('model.ckpt-*.index'):
    _empty(path)
  checkpoint = saved / 'checkpoint'
  for change in (
    lambda: None,
    checkpoint.unlink,
    # The data alone: the index is lost.
    lambda: [p.unlink() for p in saved.glob('*.index')],
    # Put aside by an earlier run.
    lambda: [p.rename(f'{p}.damaged') for p in saved.glob('*.data-*')],
    lambda: (
      [p.unlink() for p in saved.iterdir()]
      and checkpoint.write_text('model_checkpoint_path: "model.ckpt-3"')
    ),
  ):
    change()
    with pytest.raises(checkpoints.CheckpointError) as caught:
      checkpoints.resolve(str(saved))
    assert type(caught.value) is checkpoints.CheckpointError
    message = str(caught.value)
    assert message.startswith(f'no whole checkpoint in directory {saved} (')
    assert message.endswith('or give another directory')
    assert '\n' not in message
  # As after a first save that was interrupted between its two names.
  other = tmp_path_factory.mktemp('other')
  for name in ('model.ckpt-1.data-00000-of-00001', '.model.ckpt-1.tmp.index'):
    (other / name).touch()
  with pytest.raises(checkpoints.NoCheckpointYetError):
    checkpoints.resolve(str(other))


def test_another_model_beside_it_is_not_taken_instead(saved):
  checkpoints.write(str(saved / 'inception_v3.ckpt'), {'a': np.zeros(2)})
  for path in saved.glob('model.ckpt-*.index'):
    _empty(path)
  with pytest.raises(checkpoints.CheckpointError, match='no whole checkpoint'):
    checkpoints.resolve(str(saved))


@pytest.mark.parametrize(
  'content',
  [
    b'',
    b'\0' * 100,
    b'\xff\xfe\x80',
    b'garbage',
    b'model_checkpoint_path: "',
    b'model_checkpoint_path: ""',
    b'all_model_checkpoint_paths: "model.ckpt-1"',
    b'{"a": 1}',
    b'model_checkpoint_path: 7',
  ],
  ids=range(9),
)
def test_a_damaged_state_file_is_as_a_missing_one(saved, caplog, content):
  (saved / 'checkpoint').write_bytes(content)
  assert checkpoints.resolve(str(saved)) == str(saved / 'model.ckpt-3')
  assert [r.getMessage() for r in caplog.records] == [
    f'{saved}/checkpoint is damaged: taken as missing'
  ]
  # It is written anew, and those that it named are deleted in their turn.
  manager = checkpoints.CheckpointManager(str(saved), max_to_keep=2)
  manager.take_over(str(saved / 'model.ckpt-3'), [])
  assert tf.train.latest_checkpoint(str(saved)) == str(saved / 'model.ckpt-3')
  manager.save(values(4))
  assert sorted(p.name for p in saved.glob('*.index')) == [
    'model.ckpt-3.index',
    'model.ckpt-4.index',
    'training_state-3.index',
  ]


def test_a_save_that_was_interrupted_before_the_state_file_is_named(saved):
  (saved / 'checkpoint').unlink()
  for _ in range(2):
    checkpoint = checkpoints.Checkpoint(str(saved))
    manager = checkpoints.CheckpointManager(str(saved), max_to_keep=1)
    manager.take_over(checkpoint.prefix, checkpoint.passed_over)
    assert tf.train.latest_checkpoint(str(saved)) == str(saved / 'model.ckpt-3')
  # But not deleted: without a state file it may be the user's own.
  for step in (4, 5):
    manager.save(values(step))
  assert sorted(p.name for p in saved.glob('model*.index')) == [
    'model.ckpt-1.index',
    'model.ckpt-2.index',
    'model.ckpt-3.index',
    'model.ckpt-5.index',
  ]


def test_what_a_killed_save_left_does_not_get_a_name(tmp_path):
  for name in ('.data-00000-of-00001.tempstate123', '.index.tempstate4'):
    (tmp_path / f'.model.ckpt-1.tmp{name}').write_bytes(b'half')
  checkpoints.write(f'{tmp_path}/model.ckpt-1', values(1))
  assert sorted(p.name for p in tmp_path.iterdir()) == [
    'model.ckpt-1.data-00000-of-00001',
    'model.ckpt-1.index',
  ]


def test_a_copied_directory_has_its_own(saved, tmp_path_factory):
  copy = tmp_path_factory.mktemp('copy')
  for directory in ('/on/another/machine', saved):
    (saved / 'checkpoint').write_text(
      f'model_checkpoint_path: "{directory}/model.ckpt-2"\n'
      f'all_model_checkpoint_paths: "{directory}/model.ckpt-1"\n'
      f'all_model_checkpoint_paths: "{directory}/model.ckpt-2"\n'
    )
    shutil.copytree(saved, copy, dirs_exist_ok=True)
    assert checkpoints.resolve(str(copy)) == str(copy / 'model.ckpt-2')
  checkpoints.CheckpointManager(f'{copy}/', max_to_keep=1).save(values(4))
  assert {p.name for p in copy.glob('model*.index')} == {
    'model.ckpt-3.index',
    'model.ckpt-4.index',
  }
  assert len(list(saved.glob('model*.index'))) == 3
  # What lies somewhere else is taken from there, and never deleted.
  other = tmp_path_factory.mktemp('other')
  shutil.copy(saved / 'checkpoint', other)
  assert checkpoints.resolve(str(other)) == str(saved / 'model.ckpt-2')
  checkpoints.CheckpointManager(str(other), max_to_keep=1).save(values(5))
  assert checkpoints.resolve(str(saved)) == str(saved / 'model.ckpt-2')


def test_a_damaged_training_state_matters_to_training_alone(saved):
  _flip(saved / 'training_state-3.data-00000-of-00001', 12)
  assert checkpoints.resolve(str(saved)) == str(saved / 'model.ckpt-3')
  checkpoint = checkpoints.Checkpoint(str(saved), training_state=True)
  assert checkpoint.prefix == str(saved / 'model.ckpt-2')
  for path in saved.glob('training_state-*.index'):
    _empty(path)
  with pytest.raises(
    checkpoints.CheckpointError,
    match=(
      f'index is empty; .*; remove {saved}/training_state-3\\.\\* to go on '
      'from the weights alone, copy a whole one'
    ),
  ):
    checkpoints.newest_whole(str(saved), training_state=True)
  # Without one at all it is as of an optimizer that has none.
  for path in saved.glob('training_state-3.*'):
    path.unlink()
  checkpoint = checkpoints.Checkpoint(str(saved), training_state=True)
  assert checkpoint.prefix == str(saved / 'model.ckpt-3')


def test_a_trainer_goes_on_from_what_is_whole(saved, caplog):
  _truncate(saved / 'model.ckpt-3.data-00000-of-00001')
  found = checkpoints.Checkpoint(str(saved), training_state=True)
  manager = checkpoints.CheckpointManager(str(saved), max_to_keep=2)
  manager.take_over(found.prefix, found.passed_over)
  caplog.clear()
  # From now on it is as if there had been no other.
  assert checkpoints.resolve(str(saved)) == str(saved / 'model.ckpt-2')
  assert tf.train.latest_checkpoint(str(saved)) == str(saved / 'model.ckpt-2')
  assert not caplog.records
  damaged = {
    'model.ckpt-3.data-00000-of-00001.damaged',
    'model.ckpt-3.index.damaged',
    'training_state-3.index.damaged',
    'training_state-3.data-00000-of-00001.damaged',
  }
  assert {p.name for p in saved.glob('*-3.*')} == damaged
  for step in (3, 4):  # The step of the damaged one again.
    manager = checkpoints.CheckpointManager(str(saved), max_to_keep=2)
    manager.save(values(step))
    assert checkpoints.Checkpoint(str(saved)).global_step == step
  assert {p.name for p in saved.iterdir()} == damaged | {
    'checkpoint',
    *(
      f'model.ckpt-{step}.{end}'
      for step in (3, 4)
      for end in ('data-00000-of-00001', 'index')
    ),
  }


def test_what_interrupted_saves_left_is_removed(saved, caplog):
  caplog.set_level('INFO')
  kept = sorted(p.name for p in saved.iterdir())
  for name in (
    # Of TensorFlow's own names, and of ours.
    'model.ckpt-4.data-00000-of-00001.tempstate7483',
    'training_state-4.index.tempstate12',
    '.checkpoint.tmp',
    '.configuration.json.tmp',
    '.model.ckpt-5.tmp.index',
    '.model.ckpt-5.tmp.data-00000-of-00001',
    '.training_state-5.tmp.data-00000-of-00001.tempstate34',
    # Between its two names; and its training state before it.
    'model.ckpt-5.data-00000-of-00001',
    'training_state-5.index',
    'training_state-5.data-00000-of-00001',
    # In the midst of being deleted.
    'model.ckpt-0.data-00000-of-00001',
  ):
    (saved / name).write_bytes(b'12345')
  others = [
    '.hidden',
    'notes.tempstate1',
    'model.ckpt-9.meta',
    '.a.tmp',
    'training_state',
    'model.ckpt-8.index.damaged',
  ]
  for name in others:
    (saved / name).touch()
  checkpoints.remove_leftovers(str(saved))
  assert sorted(p.name for p in saved.iterdir()) == sorted(kept + others)
  assert [r.getMessage() for r in caplog.records] == [
    f'removed what interrupted saves left in {saved}: 11 file(s), 0.0 MB'
  ]
  caplog.clear()
  checkpoints.remove_leftovers(str(saved))
  assert not caplog.records


def test_data_whose_index_may_come_back_are_no_leftovers(saved):
  (saved / 'model.ckpt-2.index').unlink()
  before = set(saved.iterdir())
  checkpoints.remove_leftovers(str(saved))  # The state file names it.
  assert set(saved.iterdir()) == before
  (saved / 'checkpoint').unlink()
  checkpoints.remove_leftovers(str(saved))
  assert set(saved.iterdir()) == before - {saved / 'checkpoint'}


def test_a_step_saved_again_has_no_other_training_state(saved):
  manager = checkpoints.CheckpointManager(str(saved))
  manager.save(values(3))
  assert not list(saved.glob('training_state-3*'))
  manager.save(values(2), _state(5))
  assert (
    checkpoints.Checkpoint(str(saved / 'training_state-2')).get('adam_updates')
    == 5
  )


class _PowerCut(BaseException):
  """Ends a process as a power cut does: nothing is put in order."""


def test_at_every_moment_of_a_save_there_is_a_whole_checkpoint(
  tmp_path, monkeypatch
):
  """Ends a save before each of its changes to the directory."""
  calls = []

  def counted(function):
    def call(*args):
      calls.append(function.__name__)
      if len(calls) > allowed:
        raise _PowerCut
      return function(*args)

    return call

  whole = tmp_path / 'whole'
  manager = checkpoints.CheckpointManager(str(whole), max_to_keep=2)
  for step in (1, 2):
    manager.save(values(step), _state(step))
  found = []
  allowed = 0
  while not found or len(calls) > allowed:
    allowed = len(found)
    directory = tmp_path / str(allowed)
    shutil.copytree(whole, directory)
    manager = checkpoints.CheckpointManager(str(directory), max_to_keep=2)
    calls.clear()
    with monkeypatch.context() as patch:
      patch.setattr(os, 'replace', counted(os.replace))
      patch.setattr(os, 'remove', counted(os.remove))
      try:
        manager.save(values(3), _state(3))
      except _PowerCut:
        pass
    checkpoint = checkpoints.Checkpoint(str(directory), training_state=True)
    assert not checkpoint.passed_over
    step = checkpoint.global_step
    assert (
      checkpoints.Checkpoint(
        checkpoints.training_state_prefix(checkpoint.prefix)
      ).get('adam_updates')
      == step
    )
    found.append(step)
    manager = checkpoints.CheckpointManager(str(directory), max_to_keep=2)
    manager.take_over(checkpoint.prefix, [])
    manager.save(values(step + 1), _state(step + 1))
    assert not [p.name for p in directory.iterdir() if p.name[0] == '.']
    # Only one whose name the state file did not get yet can be too much.
    assert len(list(directory.glob('model.ckpt-*.index'))) in (2, 3)
    for path in directory.glob('*.data-*'):
      assert directory / f'{path.name.split(".data")[0]}.index' in set(
        directory.iterdir()
      )
  assert found[0] == 2 and found[-1] == 3 and found == sorted(found)
  # 5 names, and 4 files of the oldest that go.
  assert len(found) > 9


def test_what_a_save_needs_is_on_the_disk_when_the_state_file_names_it(
  tmp_path, monkeypatch
):
  calls = []
  sync, replace, remove = files.sync, os.replace, os.remove
  monkeypatch.setattr(
    files,
    'sync',
    lambda path: (calls.append(('sync', os.path.basename(path))), sync(path)),
  )
  monkeypatch.setattr(
    os,
    'replace',
    lambda old, new: (
      calls.append(('name', os.path.basename(new))),
      replace(old, new),
    ),
  )
  monkeypatch.setattr(
    os,
    'remove',
    lambda path: (
      remove(path),
      calls.append(('remove', os.path.basename(path))),
    ),
  )
  manager = checkpoints.CheckpointManager(str(tmp_path), max_to_keep=1)
  manager.save(values(1), _state(1))
  calls.clear()
  manager.save(values(2), _state(2))
  directory = ('sync', tmp_path.name)
  expected = []
  for stem in ('training_state-2', 'model.ckpt-2'):
    ends = ('data-00000-of-00001', 'index')
    expected += [('sync', f'.{stem}.tmp.{end}') for end in ends]
    expected += [('name', f'{stem}.{end}') for end in ends] + [directory]
  expected += [('sync', '.checkpoint.tmp'), ('name', 'checkpoint'), directory]
  expected += [
    ('remove', f'{stem}-1.{end}')
    for stem in ('model.ckpt', 'training_state')
    for end in ('index', 'data-00000-of-00001')
  ]
  assert calls == expected


@pytest.mark.parametrize('version', [1, 2])
def test_a_path_that_is_a_pattern(tmp_path, version):
  directory = tmp_path / 'run [1] *?{a}\\'
  directory.mkdir()
  (tmp_path / 'run 1').mkdir()
  if version == 1:
    _write_v1(directory / 'model.ckpt-7')
  else:
    manager = checkpoints.CheckpointManager(str(directory), max_to_keep=1)
    for step in (6, 7):
      manager.save(values(step), _state(step))
    assert len(list(directory.iterdir())) == 5
    slots = _slots()
    assert checkpoints.restore_training_state(
      str(directory / 'model.ckpt-7'), slots
    )
  for path in (directory, directory / 'model.ckpt-7'):
    assert_restored(str(path))
  os.truncate(
    directory / ('model.ckpt-7' if version == 1 else 'model.ckpt-7.index'), 30
  )
  assert f'{directory}/model.ckpt-7 is truncated' in error(
    directory / 'model.ckpt-7'
  )


def test_a_place_that_cannot_be_written_is_an_os_error(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(OSError, match='cannot write checkpoint'):
    checkpoints.write(str(tmp_path / 'file' / 'model.ckpt-1'), values())


@pytest.mark.parametrize(
  'name',
  [
    'small_noinception.ckpt',
    'small_noinception_midnames.ckpt',
    'small_noinception_oldnames.ckpt',
    'small_noinception_v1.ckpt',
  ],
)
def test_the_files_of_the_2016_program_load(name):
  expected = np.load(testing.reference_path('model_small', 'weights.npz'))
  found = {n: tf.Variable(np.zeros_like(expected[n])) for n in expected.files}
  checkpoints.Checkpoint(testing.reference_path('model_small', name)).restore(
    found
  )
  for n in expected.files:
    np.testing.assert_array_equal(found[n], expected[n])


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
