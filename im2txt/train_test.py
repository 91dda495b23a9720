# SPDX-License-Identifier: Apache-2.0
"""Tests of the program train, run as its users run it.

The tests go through the life of one model, in the order of this file: each
goes on from the checkpoints of those before it.
"""

import glob
import json
import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from im2txt import checkpoints
from im2txt import testing
from im2txt.checkpoints import encoder_stamp
from im2txt.runtime import locks
from im2txt.text import vocabulary_stamp

# The smallest network around Inception v3, on its smallest images.
_SMALL = {
  'vocab_size': 20,
  'embedding_size': 6,
  'num_lstm_units': 5,
  'image_height': 75,
  'image_width': 75,
}
_STATE = (
  'lstm/basic_lstm_cell/kernel',
  'InceptionV3/Conv2d_1a_3x3/weights',
  'InceptionV3/Conv2d_1a_3x3/BatchNorm/moving_mean',
)


def _flags(**values):
  return [f'--{name}={value}' for name, value in values.items()]


def _steps(log):
  """Returns the numbers of the steps that were logged."""
  return [int(n) for n in re.findall(r'global step (\d+): loss', log)]


def _values(prefix, names=_STATE):
  checkpoint = checkpoints.Checkpoint(str(prefix))
  return [checkpoint.get(name) for name in names]


def _noise(log):
  """Returns the lines that are none of this project."""
  return [
    line
    for line in log.splitlines()
    if not re.match(r'[IW]\d{4} \S+ \d+ \w+\.py:\d+\] ', line)
    and ': finishing this step' not in line
  ]


def _files(directory):
  return {path.name: path.stat().st_mtime_ns for path in directory.iterdir()}


def _signal(process, pattern, *signals):
  """Sends signals once a line is logged; returns (status, standard error)."""
  log = testing.read_until(process, pattern)
  for number in signals:
    process.send_signal(number)
  log += testing.rest(process)
  return process.returncode, log


@pytest.fixture(scope='module', name='data')
def fixture_data(tmp_path_factory):
  """Returns the pattern of two shards; one record's image is no image."""
  path = tmp_path_factory.mktemp('data')
  records = [
    (i, testing.jpeg(i), [0, *range(2, 4 + i % 5), 1]) for i in range(7)
  ]
  vocabulary_stamp.save(path, vocabulary_stamp.Stamp('12ab', 20, '/words.txt'))
  testing.write_shard(path / 'train-00000-of-00002', records[:4])
  testing.write_shard(
    path / 'train-00001-of-00002', records[4:] + [(7, b'no image', [0, 2, 1])]
  )
  return f'{path}/train-?????-of-00002'


@pytest.fixture(scope='module', name='default')
def fixture_default(tmp_path_factory, data):
  """A train directory of the default configuration, after 2 steps.

  The shards do not tell their vocabulary, as those of 2016.
  """
  train_dir = tmp_path_factory.mktemp('default')
  unstamped = tmp_path_factory.mktemp('unstamped')
  for path in glob.glob(data):
    os.symlink(path, unstamped / os.path.basename(path))
  result = testing.run_program(
    'train',
    *_flags(
      input_file_pattern=f'{unstamped}/*',
      train_dir=train_dir,
      number_of_steps=2,
      feature_cache_dir=train_dir / 'features',
      feature_views=1,
      random_inception=True,
    ),
  )
  assert result.returncode == 0, result.stderr
  return train_dir


@pytest.fixture(scope='module', name='small')
def fixture_small(tmp_path_factory, data, default):
  """(train directory, log) of a small model stopped by SIGTERM.

  It starts from the Inception v3 of `default`, saves each step, and has its
  hyperparameters from a file and from flags, but the size of its vocabulary
  from the shards.
  """
  train_dir = tmp_path_factory.mktemp('small')
  given = train_dir.parent / 'given.json'
  given.write_text(
    json.dumps(
      {
        **{
          name: value for name, value in _SMALL.items() if name != 'vocab_size'
        },
        'batch_size': 32,
        'initial_learning_rate': 0.5,
      }
    )
  )
  process = subprocess.Popen(
    **testing.program(
      'train',
      *_flags(
        input_file_pattern=data,
        train_dir=train_dir,
        number_of_steps=100000,
        inception_checkpoint_file=default,
        save_interval_secs=0,
        hyperparameters=given,
        batch_size=4,
        max_checkpoints_to_keep=3,
      ),
    )
  )
  status, log = _signal(process, 'global step 5: loss', signal.SIGTERM)
  assert status == 128 + signal.SIGTERM, log
  return train_dir, log


@pytest.fixture(scope='module', name='failures')
def fixture_failures(tmp_path_factory, data):
  """Flags of runs that end early: dict from name to list."""
  path = tmp_path_factory.mktemp('failures')
  old = path / 'old'
  old.mkdir()
  checkpoints.CheckpointManager(str(old)).save(
    {
      'global_step': np.int32(3),
      'seq_embedding/map': np.zeros([20, 6], np.float32),
      'lstm/basic_lstm_cell/bias': np.zeros([20], np.float32),
      'lstm/basic_lstm_cell/kernel': np.zeros([11, 20], np.float32),
      'logits/weights': np.zeros([5, 20], np.float32),
    }
  )
  stamped = path / 'stamped'
  shutil.copytree(old, stamped)
  vocabulary_stamp.save(stamped, vocabulary_stamp.Stamp('34cd', 9, '/w.txt'))
  lost = path / 'lost'
  shutil.copytree(old, lost)
  os.truncate(lost / 'model.ckpt-3.index', 0)
  for name in ('configuration', 'vocabulary'):
    (path / name).mkdir()
    (path / name / f'{name}.json').write_bytes(b'\0' * 80)
  (path / 'in_use').mkdir()
  testing.write_shard(path / 'ids', [(1, testing.jpeg(), [0, 20, 1])] * 4)
  testing.write_shard(path / 'bytes', [(1, b'no image', [0, 2, 1])] * 4)
  common = dict(
    _SMALL,
    input_file_pattern=data,
    train_dir=path / 'new',
    batch_size=2,
    number_of_steps=1,
    random_inception=True,
  )
  with locks.hold(str(path / 'in_use'), 'train'):
    yield {
      'no files': _flags(**common | {'input_file_pattern': f'{path}/no*'}),
      'no train_dir': _flags(**common | {'train_dir': ''}),
      'no inception': _flags(
        **common, inception_checkpoint_file=path / 'inception_v3.ckpt'
      ),
      'empty inception': _flags(
        **common | {'random_inception': False}, inception_checkpoint_file=''
      ),
      'other size': _flags(**common | {'train_dir': old, 'vocab_size': 21}),
      'vocabulary': _flags(**common | {'train_dir': stamped}),
      'words': _flags(**common | {'vocab_size': 19}),
      'none whole': _flags(**common | {'train_dir': lost}),
      'configuration': _flags(**common | {'train_dir': path / 'configuration'}),
      'stamp': _flags(
        **common | {'input_file_pattern': f'{path}/vocabulary/*.json'}
      ),
      'in use': _flags(**common | {'train_dir': path / 'in_use'}),
      'both': _flags(
        **common, train_inception=True, feature_cache_dir=path / 'features'
      ),
      'groups': _flags(**common, captions_per_image=3),
      'groups of features': _flags(
        **common, captions_per_image=3, feature_cache_dir=path / 'features'
      ),
      'no cache': _flags(**common, self_critical=True),
      'samples': _flags(
        **common,
        self_critical=True,
        feature_cache_dir=path / 'features',
        samples_per_image=3,
      ),
      'undistorted': _flags(**common, feature_undistorted=True),
      'captions and samples': _flags(
        **common,
        self_critical=True,
        feature_cache_dir=path / 'features',
        samples_per_image=2,
        captions_per_image=2,
      ),
      'sampling': _flags(**common, scheduled_sampling='cubic'),
      'one sample': _flags(
        **common,
        self_critical=True,
        feature_cache_dir=path / 'features',
        samples_per_image=1,
      ),
      'patience': _flags(**common, early_stopping_patience=2),
      'word vectors': _flags(
        **common | {'train_dir': path / 'vectors'},
        word_vectors_file=path / 'none',
      ),
      'top': _flags(**common, train_inception_from='Mixed_7c'),
      'no vocabulary': _flags(
        **common,
        self_critical=True,
        feature_cache_dir=path / 'features',
        samples_per_image=2,
      ),
      'id': _flags(**common | {'input_file_pattern': path / 'ids'}),
      'no image': _flags(**common | {'input_file_pattern': path / 'bytes'}),
    }


def test_saves_the_variables_of_2016(default):
  assert {
    'checkpoint',
    'model.ckpt-2.index',
    'model.ckpt-2.data-00000-of-00001',
  } <= set(_files(default))
  assert (default / 'checkpoint').read_text() == (
    'model_checkpoint_path: "model.ckpt-2"\n'
    'all_model_checkpoint_paths: "model.ckpt-2"\n'
  )

  import tensorflow as tf

  reader = tf.train.load_checkpoint(str(default / 'model.ckpt-2'))
  types = reader.get_variable_to_dtype_map()
  found = {
    name: (shape, types[name].name)
    for name, shape in reader.get_variable_to_shape_map().items()
  }
  expected = {
    'image_embedding/weights': ([2048, 512], 'float32'),
    'seq_embedding/map': ([12000, 512], 'float32'),
    'lstm/basic_lstm_cell/kernel': ([1024, 2048], 'float32'),
    'lstm/basic_lstm_cell/bias': ([2048], 'float32'),
    'logits/weights': ([512, 12000], 'float32'),
    'logits/biases': ([12000], 'float32'),
    'global_step': ([], 'int32'),
  }
  expected.update(_variables_of_tf_slims_inception())
  assert len(expected) == 383
  assert found == expected
  assert reader.get_tensor('global_step') == 2


def _variables_of_tf_slims_inception():
  """Returns {name: (shape, dtype)} of tf-slim's own whole network's trunk."""
  import tensorflow as tf

  from im2txt.ops import slim_bridge

  slim = slim_bridge.tf_slim
  with tf.Graph().as_default():
    with slim.arg_scope([slim.conv2d], normalizer_fn=slim.batch_norm):
      slim_bridge.inception_v3_base(tf.zeros([1, 299, 299, 3]))
    return {
      v.op.name: (v.shape.as_list(), v.dtype.base_dtype.name)
      for v in tf.compat.v1.global_variables()
    }


def test_starts_from_the_inception_checkpoint_and_leaves_it_frozen(
  default, small
):
  assert f'Inception v3 initialized from {default}' in small[1]
  for found, expected in zip(_values(small[0])[1:], _values(default)[1:]):
    np.testing.assert_array_equal(found, expected)


def test_tells_which_encoder_it_was_trained_on(default, small):
  # Nobody knows where the random weights of `default` are from.
  assert not (default / encoder_stamp.FILE_NAME).exists()
  values = checkpoints.Checkpoint(str(default))
  fingerprint = encoder_stamp.fingerprint(
    {
      name: values.get(name)
      for name in values.shapes
      if name.startswith('InceptionV3/')
    }
  )
  assert encoder_stamp.load(small[0]) == encoder_stamp.Stamp(
    fingerprint, encoder_stamp.FILE, f'{default}/model.ckpt-2'
  )
  assert (
    f'weights of source file ({default}/model.ckpt-2), fingerprint '
    f'{fingerprint[:16]}'
  ) in small[1]
  # As it is in caches of features, those made before there was the file too.
  cache = json.loads((default / 'features' / 'cache.json').read_text())
  assert cache['inception'] == fingerprint


def test_sigterm_finishes_the_step_and_saves_it(small):
  train_dir, log = small
  last = _steps(log)[-1]
  assert _steps(log) == list(range(1, last + 1))
  assert 'SIGTERM: finishing this step' in log
  assert _values(train_dir, ['global_step']) == [last]
  assert 'Traceback' not in log


def test_keeps_the_last_checkpoints(small):
  train_dir, log = small
  last = _steps(log)[-1]
  assert sorted(n for n in _files(train_dir) if n.endswith('.index')) == sorted(
    f'model.ckpt-{n}.index' for n in range(last - 2, last + 1)
  )
  assert (
    f'model_checkpoint_path: "model.ckpt-{last}"'
    in (train_dir / 'checkpoint').read_text()
  )


def test_stores_hyperparameters_the_defaults_with_file_and_flags(
  small, default
):
  stored = json.loads((small[0] / 'configuration.json').read_text())
  defaults = json.loads((default / 'configuration.json').read_text())
  assert stored == {
    **defaults,
    **_SMALL,
    'initial_learning_rate': 0.5,
    'batch_size': 4,
    'max_checkpoints_to_keep': 3,
  }
  assert defaults == {
    'vocab_size': 12000,
    'batch_size': 32,
    'image_height': 299,
    'image_width': 299,
    'initializer_scale': 0.08,
    'embedding_size': 512,
    'num_lstm_units': 512,
    'lstm_dropout_keep_prob': 0.7,
    'values_per_input_shard': 2300,
    'input_queue_capacity_factor': 2,
    'allow_unknown_word': True,
    'beam_size': 3,
    'length_normalization_factor': 0.0,
    'num_examples_per_epoch': 586363,
    'optimizer': 'SGD',
    'weight_decay': 0.0,
    'momentum': 0.9,
    'nesterov': False,
    'accumulate_steps': 1,
    'label_smoothing': 0.0,
    'scheduled_sampling': 'none',
    'scheduled_sampling_start_step': 0,
    'scheduled_sampling_half_steps': 500000,
    'scheduled_sampling_max': 0.25,
    'moving_average_decay': 0.0,
    'initial_learning_rate': 2.0,
    'learning_rate_schedule': 'staircase',
    'learning_rate_decay_factor': 0.5,
    'num_epochs_per_decay': 8.0,
    'schedule_start_step': 0,
    'warmup_steps': 0,
    'cosine_decay_steps': 1000000,
    'train_inception_learning_rate': 0.0005,
    'clip_gradients': 5.0,
    'max_checkpoints_to_keep': 5,
  }


def test_the_vocabulary_of_the_shards_is_that_of_the_checkpoints(small):
  assert vocabulary_stamp.load(small[0]) == vocabulary_stamp.Stamp(
    '12ab', 20, '/words.txt'
  )
  assert 'not checked' not in small[1]
  assert (
    '--vocab_size=20, the number of words of the vocabulary of the '
    'shards (/words.txt)'
  ) in small[1]


def test_log_lines(small):
  assert not _noise(small[1])
  found = re.findall(
    r'global step (\d+): loss = ([\d.]+) \(smoothed ([\d.]+), '
    r'([\d.]+) sec/step, ([\d.]+) examples/s, '
    r'[0-9]+% waiting for input, ETA (\S+), lr 0.5\)',
    small[1],
  )
  # The first step, which compiles, has no rate.
  assert [int(line[0]) for line in found] == _steps(small[1])[1:]
  losses = [float(n) for n in re.findall(r'loss = ([\d.]+)', small[1])]
  assert 0 < min(losses) and max(losses) < 10
  smoothed = weight = 0
  for i, loss in enumerate(losses):
    smoothed, weight = 0.99 * smoothed + 0.01 * loss, 0.99 * weight + 0.01
    if i:
      assert float(found[i - 1][2]) == pytest.approx(
        smoothed / weight, abs=2e-4
      )
  step, _, _, seconds, rate, eta = found[-1]
  assert float(rate) == pytest.approx(4 / float(seconds), rel=0.02, abs=0.1)
  hours, minutes = map(int, re.fullmatch(r'(\d+)h(\d+)m', eta).groups())
  assert 3600 * hours + 60 * minutes == pytest.approx(
    (100000 - int(step)) * float(seconds), rel=0.02, abs=120
  )


def test_events_for_tensorboard(small):
  train_dir, log = small
  events = testing.read_events(str(train_dir))
  steps = _steps(log)
  for tag in (
    'losses/batch_loss',
    'losses/total_loss',
    'losses/smoothed_loss',
    'learning_rate',
    'global_norm',
  ):
    plugin, values = events[tag]
    assert (plugin, sorted(values)) == ('scalars', steps), tag
  losses = [float(n) for n in re.findall(r'loss = ([\d.]+)', log)]
  np.testing.assert_allclose(
    [events['losses/total_loss'][1][n] for n in steps], losses, atol=1e-4
  )
  # Without training Inception there is no weight decay.
  assert events['losses/total_loss'][1] == events['losses/batch_loss'][1]
  assert set(map(float, events['learning_rate'][1].values())) == {0.5}
  assert all(norm > 0 for norm in events['global_norm'][1].values())
  assert sorted(events['examples_per_sec'][1]) == steps[1:]
  waiting = events['waiting_for_input'][1]
  assert sorted(waiting) == steps[1:]
  assert all(0 <= share <= 1 for share in waiting.values())

  histograms = {tag for tag, (p, _) in events.items() if p == 'histograms'}
  assert histograms == {
    'parameters/' + name
    for name in (
      'image_embedding/weights',
      'seq_embedding/map',
      'logits/weights',
      'logits/biases',
      'lstm/basic_lstm_cell/kernel',
      'lstm/basic_lstm_cell/bias',
    )
  }
  counts = events['parameters/logits/weights'][1][1][:, 2]
  assert counts.sum() == 5 * 20

  (images,) = [v for p, v in events.values() if p == 'images']
  width, height, *encoded = images[1]
  assert (width, height, len(encoded)) == (b'75', b'75', 3)
  assert all(png.startswith(b'\x89PNG') for png in encoded)


@pytest.fixture(scope='module', name='resumed')
def fixture_resumed(small, data):
  """(train directory, step before, log) of `small` resumed, until SIGINT.

  Sizes come from the directory, and Inception's checkpoint is gone.
  """
  train_dir, log = small
  process = subprocess.Popen(
    **testing.program(
      'train',
      *_flags(
        input_file_pattern=data,
        train_dir=train_dir,
        number_of_steps=100000,
        inception_checkpoint_file='/deleted/since',
        log_every_n_steps=2,
      ),
    )
  )
  status, rest = _signal(process, 'global step', signal.SIGINT)
  assert status == 128 + signal.SIGINT, rest
  return train_dir, _steps(log)[-1], rest


def test_resumes_at_the_step_with_the_stored_hyperparameters(resumed, default):
  train_dir, before, log = resumed
  assert f'resuming from {train_dir}/model.ckpt-{before}' in log
  assert '--vocab_size=' not in log
  # The first even step is the first that is logged.
  assert _steps(log)[0] == before + 2 - before % 2
  assert 'lr 0.5)' in log
  # Inception is still what it was, and a step's clipped gradient moves no
  # weight by more than learning rate * clip_gradients. More steps than the one
  # logged may have been made before the signal came.
  old, new = _values(train_dir / f'model.ckpt-{before}'), _values(train_dir)
  for found, expected in zip(new[1:], _values(default)[1:]):
    np.testing.assert_array_equal(found, expected)
  steps = _values(train_dir, ['global_step'])[0] - before
  assert 0 < np.abs(new[0] - old[0]).max() <= 0.5 * 5.0 * steps


def test_sigint_saves_too(resumed):
  train_dir, before, log = resumed
  # Every second step is logged.
  (step,) = _values(train_dir, ['global_step'])
  assert step > before and step - _steps(log)[-1] in (0, 1)
  assert f'saved {train_dir}/model.ckpt-{step}' in log
  assert 'SIGINT: finishing this step' in log and 'Traceback' not in log


def _seed(train_dir):
  return json.loads((train_dir / 'random_seed.json').read_text())['random_seed']


def _assert_equal_to_the_bit(*prefixes):
  one, other = (checkpoints.Checkpoint(str(prefix)) for prefix in prefixes)
  assert set(one.shapes) == set(other.shapes)
  for name in one.shapes:
    np.testing.assert_array_equal(one.get(name), other.get(name), err_msg=name)


def test_a_run_from_images_that_was_stopped_ends_as_one_that_was_not(
  resumed, default, data, tmp_path
):
  """`resumed` was stopped twice, after steps that time decided."""
  train_dir, _, _ = resumed
  (step,) = _values(train_dir, ['global_step'])
  result = testing.run_program(
    'train',
    *_flags(
      **_SMALL,
      input_file_pattern=data,
      train_dir=tmp_path,
      number_of_steps=step,
      inception_checkpoint_file=default,
      batch_size=4,
      initial_learning_rate=0.5,
      random_seed=_seed(train_dir),
    ),
  )
  assert result.returncode == 0, result.stderr
  assert f'--random_seed={_seed(train_dir)}' in result.stderr
  assert result.stderr.count('image 7 in ') == 1
  _assert_equal_to_the_bit(
    tmp_path / f'model.ckpt-{step}', train_dir / f'model.ckpt-{step}'
  )


def test_nothing_to_do_at_the_last_step(resumed):
  train_dir, _, _ = resumed
  (step,) = _values(train_dir, ['global_step'])
  (train_dir / vocabulary_stamp.FILE_NAME).unlink()  # As of 2016.
  before = _files(train_dir)
  result = testing.run_program(
    'train',
    *_flags(
      input_file_pattern=f'{train_dir}/*',
      train_dir=train_dir,
      number_of_steps=step,
    ),
  )
  assert result.returncode == 0
  assert (
    f'--number_of_steps={step} is not above the current step {step} of '
    f'--train_dir={train_dir}'
  ) in result.stderr
  # No reason to refuse it, but to say so.
  assert result.stderr.count('not checked that the shards in') == 1
  assert _files(train_dir) == before


@pytest.fixture(scope='module', name='fine_tuned')
def fixture_fine_tuned(resumed, data):
  """(train directory, step before, log) of `resumed` with Inception trained.

  It saves a step, and gets two signals during the next, which takes seconds.
  """
  train_dir, _, _ = resumed
  (before,) = _values(train_dir, ['global_step'])
  process = subprocess.Popen(
    **testing.program(
      'train',
      *_flags(
        input_file_pattern=data,
        train_dir=train_dir,
        number_of_steps=1000,
        train_inception=True,
        save_interval_secs=0,
      ),
    )
  )
  status, log = _signal(process, 'saved ', signal.SIGINT, signal.SIGTERM)
  assert status == 128 + signal.SIGTERM, log
  return train_dir, before, log


def test_trains_inception_and_its_moving_averages(fine_tuned):
  train_dir, before, log = fine_tuned
  assert not _noise(log)
  assert 'lr 0.0005)' in log
  for name, old, new in zip(
    _STATE, _values(train_dir / f'model.ckpt-{before}'), _values(train_dir)
  ):
    assert np.abs(new - old).max() > 0, name
  events = testing.read_events(str(train_dir))
  total, batch = (
    events[f'losses/{name}_loss'][1][before + 1] for name in ('total', 'batch')
  )
  assert total > batch + 1  # The decay of 22 million random weights.
  assert 'parameters/InceptionV3/Conv2d_1a_3x3/weights' in events


def test_a_second_signal_leaves_without_saving(fine_tuned):
  train_dir, before, log = fine_tuned
  assert _steps(log) == [before + 1]
  assert log.count('saved') == 1 and 'Traceback' not in log
  assert _values(train_dir, ['global_step']) == [before + 1]


# Of the runs of `adam` and those that are compared with them.
_ADAM = {
  **_SMALL,
  'batch_size': 2,
  'accumulate_steps': 2,
  'optimizer': 'Adam',
  'initial_learning_rate': 0.01,
  'weight_decay': 0.1,
  'moving_average_decay': 0.9,
  'label_smoothing': 0.1,
  'scheduled_sampling': 'linear',
  'scheduled_sampling_half_steps': 5,
  'feature_views': 0,
  'random_inception': True,
  # Inputs of Mixed_7c come near the largest float16, 65504.
  'random_seed': 6,
}


@pytest.fixture(scope='module', name='adam')
def fixture_adam(tmp_path_factory, data):
  """(train directory, logs of two runs) of Adam with moving averages.

  From cached features, without distortions, with two batches per step and other
  switches; the second run goes on from the first.
  """
  train_dir = tmp_path_factory.mktemp('adam')
  logs = []
  for steps in 3, 5:
    result = testing.run_program(
      'train',
      *_flags(
        **_ADAM,
        input_file_pattern=data,
        train_dir=train_dir,
        number_of_steps=steps,
        feature_cache_dir=train_dir / 'features',
      ),
    )
    assert result.returncode == 0, result.stderr
    logs.append(result.stderr)
  return train_dir, logs


def test_adam_resumes_with_its_moments_and_averages(adam, default):
  train_dir, logs = adam
  assert _steps(logs[0]) == [1, 2, 3] and _steps(logs[1]) == [4, 5]
  assert 'start from scratch' not in ''.join(logs)
  # Checkpoints have the names of 2016, states lie beside them.
  decoder = (
    'image_embedding/weights',
    'seq_embedding/map',
    'lstm/basic_lstm_cell/kernel',
    'lstm/basic_lstm_cell/bias',
    'logits/weights',
    'logits/biases',
  )
  names = set(checkpoints.Checkpoint(str(default)).shapes)
  for step in 3, 5:
    checkpoint, state = (
      checkpoints.Checkpoint(str(train_dir / f'{stem}-{step}'))
      for stem in ('model.ckpt', 'training_state')
    )
    assert set(checkpoint.shapes) == names and len(names) == 383
    assert set(state.shapes) == {
      'adam_updates',
      'average_updates',
      *(
        f'{name}/{slot}'
        for name in decoder
        for slot in ('Adam', 'Adam_1', 'not_averaged')
      ),
    }
    # Counted through both runs: a state is restored whole or not at all.
    assert state.get('adam_updates') == state.get('average_updates') == step
    assert checkpoint.global_step == step
  before, after = (
    checkpoints.Checkpoint(str(train_dir / f'training_state-{step}'))
    for step in (3, 5)
  )
  average = checkpoints.Checkpoint(str(train_dir / 'model.ckpt-5'))
  for name in decoder:
    # The features of an untrained Inception may be next to nothing; then only
    # weight decay moves the image embedding.
    weights = after.get(f'{name}/not_averaged')
    assert 0 < np.abs(weights - average.get(name)).max() < 0.1, name
    # A second moment keeps 0.999 of itself, at least, per step.
    old, new = (state.get(f'{name}/Adam_1') for state in (before, after))
    assert (new >= old * 0.999**2 * (1 - 1e-5)).all(), name
    # Nor need features of an untrained Inception be above zero at all.
    assert old.max() > 0 or name == 'image_embedding/weights', name


def test_a_run_from_features_that_was_stopped_ends_as_one_that_was_not(
  adam, data, tmp_path
):
  result = testing.run_program(
    'train',
    *_flags(
      **_ADAM,
      input_file_pattern=data,
      train_dir=tmp_path,
      number_of_steps=5,
      feature_cache_dir=tmp_path / 'features',
    ),
  )
  assert result.returncode == 0, result.stderr
  for stem in 'model.ckpt-5', 'training_state-5':
    _assert_equal_to_the_bit(tmp_path / stem, adam[0] / stem)


def test_events_of_the_switches(adam):
  events = {
    tag: list(map(float, values.values()))
    for tag, (plugin, values) in testing.read_events(str(adam[0])).items()
    if plugin == 'scalars'
  }
  # A tenth per step, up to the largest share of 0.25.
  np.testing.assert_allclose(
    events['sampling_probability'], [0, 0.1, 0.2, 0.25, 0.25], atol=1e-6
  )
  assert len(events['losses/smoothing_loss']) == 5
  assert any(events['losses/smoothing_loss'])
  # What smoothing adds is in neither.
  assert events['losses/total_loss'] == events['losses/batch_loss']


def _evaluate(train_dir, data, eval_dir, **flags):
  """Returns (what best.json holds, log) of a run of evaluate."""
  result = testing.run_program(
    'evaluate',
    *_flags(
      input_file_pattern=data,
      checkpoint_dir=train_dir,
      eval_dir=eval_dir,
      min_global_step=0,
      best_metric='perplexity',
      feature_cache_dir=eval_dir / 'features',
      **flags,
    ),
  )
  assert result.returncode == 0, result.stderr
  best = json.loads((eval_dir / 'best' / 'best.json').read_text())
  return best, result.stderr


def test_stops_early_by_what_evaluate_found(adam, data, tmp_path_factory):
  """In a copy of the directory of `adam`."""
  train_dir = tmp_path_factory.mktemp('early') / 'train'
  eval_dir = train_dir.parent / 'eval'
  shutil.copytree(adam[0], train_dir)

  def train(number_of_steps, patience):
    result = testing.run_program(
      'train',
      *_flags(
        input_file_pattern=data,
        train_dir=train_dir,
        number_of_steps=number_of_steps,
        feature_cache_dir=train_dir / 'features',
        feature_views=0,
        save_interval_secs=0,
        # It unlearns.
        initial_learning_rate=100.0,
        early_stopping_patience=patience,
        eval_dir=eval_dir,
      ),
    )
    assert result.returncode == 0, result.stderr
    stops = [
      line for line in result.stderr.splitlines() if 'stopping at' in line
    ]
    return _steps(result.stderr), stops

  best, _ = _evaluate(train_dir, data, eval_dir, run_once=True)
  assert best['global_step'] == 5
  assert train(6, patience=1) == ([6], [])
  # It would watch until step 6, and ends for another reason.
  best, log = _evaluate(
    train_dir, data, eval_dir, early_stopping_patience=1, number_of_steps=6
  )
  assert (best['global_step'], best['not_better']) == (5, [6])
  assert '--early_stopping_patience=1 reached' in log
  # Given again, it stops at once, and takes no step.
  steps, (line,) = train(100, patience=1)
  assert steps == []
  assert 'early stopping at step 6: none of the 1 checkpoint(s)' in line
  assert (
    f'since step 5 is better than its perplexity of {best["value"]:.4f}'
    in (line)
  )
  # As if evaluate found more while it trains.
  (eval_dir / 'best' / 'best.json').write_text(
    json.dumps({**best, 'not_better': [6, 7]})
  )
  steps, (line,) = train(100, patience=2)
  assert steps == [7] and 'early stopping at step 7: none of the 2' in line
  assert _values(train_dir, ['global_step']) == [7]


def test_trains_the_top_blocks_alone(adam, data, tmp_path_factory):
  """From the cached inputs of the block, and then from images."""
  train_dir = tmp_path_factory.mktemp('top')
  for path in adam[0].glob('model.ckpt-5.*'):
    shutil.copy(path, train_dir)
  log = ''
  for step, cached in (
    (7, {'feature_cache_dir': train_dir / 'inputs', 'feature_views': 1}),
    (8, {}),
  ):
    result = testing.run_program(
      'train',
      *_flags(
        **_SMALL,
        **cached,
        input_file_pattern=data,
        train_dir=train_dir,
        number_of_steps=step,
        batch_size=4,
        train_inception=True,
        train_inception_from='Mixed_7c',
        initial_learning_rate=0.5,
        train_inception_learning_rate=0.1,
        learning_rate_schedule='cosine',
        schedule_start_step=5,
        cosine_decay_steps=4,
      ),
    )
    assert result.returncode == 0, result.stderr
    log += result.stderr
  assert _steps(log) == [6, 7, 8]
  # The schedule begins at step 5: 1, 0.85 and 0.5 of the rate.
  assert 'lr 0.5)' in log and 'lr 0.426777)' in log and 'lr 0.25)' in log
  features = np.load(train_dir / 'inputs' / 'features-00000.npy')
  assert features.shape == (8, 2, 1, 1, 2048) and features.dtype == np.float16
  before, between, after = (
    checkpoints.Checkpoint(str(train_dir / f'model.ckpt-{step}'))
    for step in (5, 7, 8)
  )
  for old, new in (before, between), (between, after):
    changed = {
      name
      for name in old.shapes
      if not np.array_equal(old.get(name), new.get(name))
    }
    # In an untrained network a shift may have no effect on any image, and
    # features be next to nothing.
    assert {
      name
      for name in changed
      if not name.endswith(('/beta', 'image_embedding/weights'))
    } == {
      name
      for name in old.shapes
      if name.startswith('InceptionV3/Mixed_7c/')
      and name.endswith('/weights')
      or not name.startswith(('InceptionV3/', 'image_embedding/'))
    }
    assert all(
      '/Mixed_7c/' in name for name in changed if name.endswith('/beta')
    )


def test_a_shard_that_breaks_in_training_costs_no_step(default, tmp_path):
  shard = tmp_path / 'train-00000-of-00001'
  testing.write_shard(
    shard, [(i, testing.jpeg(i), [0, 2, 3, 1]) for i in range(6)]
  )
  process = subprocess.Popen(
    **testing.program(
      'train',
      *_flags(
        **_SMALL,
        input_file_pattern=shard,
        train_dir=tmp_path / 'train',
        inception_checkpoint_file=default,
        number_of_steps=100000,
        batch_size=2,
      ),
    )
  )
  log = testing.read_until(process, 'global step 2: loss')
  with open(shard, 'r+b') as f:
    f.truncate(100)
  log += testing.rest(process)
  assert process.returncode == 1, log
  assert f'of {shard}; make the shards again' in log.splitlines()[-1]
  assert 'Traceback' not in log
  last = _steps(log)[-1]
  assert _values(tmp_path / 'train', ['global_step']) == [last] and last >= 2


@pytest.fixture(scope='module', name='described')
def fixture_described(tmp_path_factory):
  """Returns a directory of shards with their vocabulary."""
  path = tmp_path_factory.mktemp('described')
  (path / 'word_counts.txt').write_text(
    '<S> 9\n</S> 9\n' + ''.join(f'w{i} 1\n' for i in range(2, 19))
  )
  caption = [2, 3, 4, 5]
  for image in range(4):
    testing.write_shard(
      path / f'shard-{image}',
      [
        (image, testing.jpeg(image), [0, *caption[image:], 6 + image, 1])
        for _ in range(2)
      ],
    )
  return path


def test_self_critical_training(adam, described, tmp_path_factory):
  """It goes on from a model, here that of `adam`, in another directory."""
  train_dir = tmp_path_factory.mktemp('self_critical')
  for path in adam[0].glob('*-5.*'):
    shutil.copy(path, train_dir)

  def run(directory):
    return testing.run_program(
      'train',
      *_flags(
        **_SMALL,
        input_file_pattern=f'{described}/shard-*',
        train_dir=directory,
        number_of_steps=11,
        batch_size=8,
        samples_per_image=4,
        max_sample_length=6,
        self_critical=True,
        initial_learning_rate=0.1,
        save_interval_secs=0,
        feature_cache_dir=train_dir / 'features',
        feature_views=0,
      ),
    )

  result = run(train_dir)
  assert result.returncode == 0, result.stderr
  assert _steps(result.stderr) == list(range(6, 12))
  # The loss is the negative mean CIDEr-D.
  rewards = [
    -float(loss) for loss in re.findall(r'loss = (-?[\d.]+) \(', result.stderr)
  ]
  assert len(rewards) == 6 and 0 < max(rewards) and min(rewards) >= 0
  assert max(rewards) < 10
  events = testing.read_events(str(train_dir))
  np.testing.assert_allclose(
    [-events['losses/batch_loss'][1][step] for step in range(6, 12)],
    rewards,
    atol=1e-4,
  )
  assert any(norm > 0 for norm in events['global_norm'][1].values())
  old, new = _values(adam[0]), _values(train_dir)
  assert np.abs(new[0] - old[0]).max() > 0
  np.testing.assert_array_equal(new[1], old[1])
  # As a run that was killed after step 9.
  stopped = tmp_path_factory.mktemp('stopped')
  for path in train_dir.glob('*'):
    if re.search('(-9[.].*|json)$', path.name):
      shutil.copy(path, stopped)
  again = run(stopped)
  assert again.returncode == 0, again.stderr
  assert _steps(again.stderr) == [10, 11]
  _assert_equal_to_the_bit(
    stopped / 'model.ckpt-11', train_dir / 'model.ckpt-11'
  )


def test_greedy_baseline_from_word_vectors(described, tmp_path):
  vectors = tmp_path / 'vectors.txt'
  vectors.write_text(
    'the 1 1 1 1 1 1\n' + ''.join(f'w{i} {i} 0 0 0 0 1\n' for i in range(9, 30))
  )
  train_dir = tmp_path / 'train'
  result = testing.run_program(
    'train',
    *_flags(
      **_SMALL,
      input_file_pattern=f'{described}/shard-*',
      vocab_file=described / 'word_counts.txt',
      train_dir=train_dir,
      number_of_steps=1,
      batch_size=2,
      accumulate_steps=2,
      self_critical=True,
      self_critical_baseline='greedy',
      samples_per_image=1,
      max_sample_length=4,
      word_vectors_file=vectors,
      initial_learning_rate=1e-9,
      label_smoothing=0.1,
      feature_cache_dir=tmp_path / 'features',
      feature_views=0,
      random_inception=True,
    ),
  )
  assert result.returncode == 0, result.stderr
  assert f'the embeddings of 10 of 20 words are from {vectors}' in result.stderr
  assert '--label_smoothing and --scheduled_sampling have no effect' in (
    result.stderr
  )
  (embeddings,) = _values(train_dir, ['seq_embedding/map'])
  np.testing.assert_allclose(
    embeddings[9:19], [[i, 0, 0, 0, 0, 1] for i in range(9, 19)], atol=1e-6
  )
  assert 0 < np.abs(embeddings[:9]).max() <= 0.08
  assert 'greedy_reward' in testing.read_events(str(train_dir))


def test_goes_on_from_the_newest_whole_checkpoint(adam, data, tmp_path_factory):
  """In a copy of the directory of `adam`, whose newest is cut short."""
  train_dir = tmp_path_factory.mktemp('damaged') / 'run [1]'
  shutil.copytree(adam[0], train_dir)
  damaged = train_dir / 'model.ckpt-5.data-00000-of-00001'
  os.truncate(damaged, damaged.stat().st_size // 2)
  for name in ('model.ckpt-6.index.tempstate12', 'training_state-6.index'):
    (train_dir / name).touch()
  result = testing.run_program(
    'train',
    *_flags(
      input_file_pattern=data,
      train_dir=train_dir,
      number_of_steps=5,
      feature_cache_dir=train_dir / 'features',
      feature_views=0,
      save_interval_secs=0,
      max_checkpoints_to_keep=2,
    ),
  )
  assert result.returncode == 0, result.stderr
  assert not _noise(result.stderr)
  (line,) = [
    line for line in result.stderr.splitlines() if line.endswith(' instead')
  ]
  assert f'{train_dir}/model.ckpt-5 is truncated, damaged' in line
  assert line.endswith(f': using {train_dir}/model.ckpt-3 instead')
  assert f'resuming from {train_dir}/model.ckpt-3' in result.stderr
  assert 'start from scratch' not in result.stderr
  assert f'interrupted saves left in {train_dir}: 2 file(s)' in result.stderr
  assert _steps(result.stderr) == [4, 5]
  assert checkpoints.Checkpoint(str(train_dir)).global_step == 5
  names = set(_files(train_dir))
  assert {
    f'{stem}-{step}.index'
    for stem in ('model.ckpt', 'training_state')
    for step in (4, 5)
  } == {n for n in names if n.endswith('.index')}
  assert f'{damaged.name}.damaged' in names
  assert not any(name.startswith('.') for name in names)
  # As if nothing had happened.
  _assert_equal_to_the_bit(train_dir / 'model.ckpt-5', adam[0] / 'model.ckpt-5')


@pytest.mark.parametrize(
  'name, parts',
  [
    ('no files', ['--input_file_pattern=', 'no file matches']),
    ('no train_dir', ['--train_dir is required']),
    ('no inception', ['no checkpoint at', 'inception_v3.ckpt']),
    (
      'empty inception',
      ['--inception_checkpoint_file is required', '--random_inception'],
    ),
    (
      'other size',
      [
        '--vocab_size=21',
        'old/model.ckpt-3 has 20',
        'use --vocab_size=20 or another --train_dir',
      ],
    ),
    (
      'vocabulary',
      [
        'the shards in ',
        '/data0 (fingerprint 12ab, 20 words of ',
        'stamped/model.ckpt-3 (fingerprint 34cd, 9 words of /w.txt',
        'another --train_dir',
      ],
    ),
    (
      'words',
      [
        'the shards has 20 words (/words.txt)',
        '--vocab_size=19;',
        'use --vocab_size=20',
      ],
    ),
    (
      'none whole',
      [
        'no whole checkpoint in directory',
        'lost (',
        'model.ckpt-3.index is empty',
        'give another directory',
      ],
    ),
    (
      'configuration',
      [
        'configuration/configuration.json',
        'Expecting value',
        'copy',
        'or remove it',
      ],
    ),
    (
      'stamp',
      [
        'vocabulary/vocabulary.json is damaged',
        'copy it again',
        'or remove it',
      ],
    ),
    (
      'in use',
      [
        '--train_dir=',
        'in_use is in use: train runs there already',
        f'(process {os.getpid()} on ',
        'give another --train_dir',
      ],
    ),
    ('both', ['--feature_cache_dir', '--train_inception']),
    ('groups', ['--captions_per_image=3 does not divide --batch_size=2']),
    (
      'groups of features',
      ['--captions_per_image=3 does not divide --batch_size=2'],
    ),
    ('no cache', ['--self_critical needs --feature_cache_dir']),
    ('samples', ['--samples_per_image=3 does not divide --batch_size=2']),
    ('undistorted', ['--feature_undistorted needs --feature_cache_dir']),
    (
      'captions and samples',
      ['--captions_per_image=2 has no effect', '--samples_per_image'],
    ),
    (
      'sampling',
      ['--scheduled_sampling=cubic must be one of none, linear, exponential'],
    ),
    (
      'one sample',
      ['--samples_per_image=1', '--self_critical_baseline=greedy'],
    ),
    ('patience', ['--early_stopping_patience needs --eval_dir']),
    (
      'word vectors',
      [
        '--word_vectors_file needs the vocabulary of the shards',
        '--vocab_file',
      ],
    ),
    ('top', ['--train_inception_from=Mixed_7c needs --train_inception']),
    ('no vocabulary', ['data0/word_counts.txt', '--vocab_file']),
    ('id', ['image 1: its caption holds word id', '--vocab_size=']),
    ('no image', ['none of the 1 image(s) in', 'can be decoded']),
  ],
)
def test_one_line_says_what_is_wrong(failures, name, parts):
  result = testing.run_program('train', *failures[name])
  testing.assert_one_line_error(result, *parts)


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
