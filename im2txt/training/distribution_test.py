# SPDX-License-Identifier: Apache-2.0
"""Tests of training on several devices and in several processes."""

import glob
import re
import shutil
import signal
import sys
import time

import numpy as np
import pytest

from im2txt import checkpoints
from im2txt import configuration
from im2txt import testing
from im2txt.runtime import distribution
from im2txt.stress import programs
from im2txt.text import vocabulary_stamp
from im2txt.training import options as options_lib
from im2txt.training import setup

_SECONDS = 300
_TWO_DEVICES = {'im2txt.runtime.distribution.CPU_DEVICES': 2}


@pytest.fixture(scope='module', name='directory')
def fixture_directory(tmp_path_factory):
  """A directory with two shards; one record's image is no image."""
  path = tmp_path_factory.mktemp('distribution')
  records = [
    (i % 6, testing.jpeg(i % 6), [0, *range(2, 4 + i % 5), 1])
    for i in range(13)
  ]
  records.insert(2, (7, b'no image', [0, 2, 1]))
  vocabulary_stamp.save(path, vocabulary_stamp.Stamp('12ab', 20, '/w.txt'))
  testing.write_shard(path / 'train-00000-of-00002', records[:5])
  testing.write_shard(path / 'train-00001-of-00002', records[5:])
  return path


def flags(directory, train_dir, steps, **values):
  """Returns the arguments of a run of a small model from features."""
  values = {
    'input_file_pattern': f'{directory}/train-?????-of-00002',
    'train_dir': train_dir,
    'feature_cache_dir': directory / 'features',
    'feature_views': 1,
    'number_of_steps': steps,
    'random_inception': True,
    'embedding_size': 6,
    'num_lstm_units': 5,
    'image_height': 75,
    'image_width': 75,
    # Two or three captions per replica.
    'batch_size': 5,
    'accumulate_steps': 2,
    'label_smoothing': 0.1,
    'scheduled_sampling': 'linear',
    'scheduled_sampling_half_steps': 10,
    'moving_average_decay': 0.9,
    'initial_learning_rate': 0.5,
    'clip_gradients': 0.5,
    'random_seed': 5,
    **values,
  }
  return [f'--{name}={value}' for name, value in values.items()]


def losses(log):
  """Returns the logged losses by step."""
  found = re.findall(r'global step (\d+): loss = (\S+)', log)
  return {int(step): float(loss) for step, loss in found}


def assert_equal_training(train_dir, other, step):
  one, two = (
    checkpoints.Checkpoint(f'{path}/model.ckpt-{step}')
    for path in (train_dir, other)
  )
  assert set(one.shapes) == set(two.shapes)
  for name in one.shapes:
    np.testing.assert_allclose(
      one.get(name), two.get(name), rtol=1e-4, atol=1e-6, err_msg=name
    )


@pytest.fixture(scope='module', name='one')
def fixture_one(directory):
  """(train directory, losses by step) of a run of one process to step 9.

  There are checkpoints from step 5 on.
  """
  train_dir = directory / 'one'
  result = testing.run_program(
    'train', *flags(directory, train_dir, 9, save_interval_secs=0)
  )
  assert result.returncode == 0, result.stderr
  found = losses(result.stderr)
  assert sorted(found) == list(range(1, 10)) and len(set(found.values())) > 5
  return train_dir, found


def test_two_devices_go_on_as_one(directory, one):
  train_dir, expected = one
  other, cache = directory / 'two_devices', directory / 'cache of two'
  shutil.copytree(
    train_dir, other, ignore=shutil.ignore_patterns('*-[6789].*', 'events*')
  )
  (other / 'checkpoint').write_text('model_checkpoint_path: "model.ckpt-5"\n')
  log = directory / 'two_devices.log'
  process = programs.Program(
    'train',
    [
      *flags(directory, other, 9, feature_cache_dir=cache),
      '--distribution=mirrored',
    ],
    str(log),
    _TWO_DEVICES,
  )
  assert process.wait(_SECONDS) == 0, process.text()
  assert 'using 2 device(s)' in process.text()
  assert losses(process.text()) == pytest.approx(
    {step: expected[step] for step in range(6, 10)}, abs=2e-4
  )
  assert_equal_training(train_dir, other, 9)
  # Two devices have filled it.
  features, expected = (
    np.load(path / 'features-00000.npy')
    for path in (cache, directory / 'features')
  )
  np.testing.assert_allclose(features, expected, rtol=1e-4)


def _wait_for(processes, pattern):
  """Waits until the first process logs a line, while all run."""
  end = time.monotonic() + _SECONDS
  while not re.search(pattern, processes[0].text()):
    assert time.monotonic() < end, processes[0].text()
    for process in processes:
      assert process.is_running(), process.text()
    time.sleep(0.02)


def test_two_processes_train_as_one_and_all_stop_when_one_is_told_to(
  directory, one, tmp_path
):
  """One process goes on from where two were stopped."""
  train_dir, expected = one
  other = tmp_path / 'two_processes'
  args = [*flags(directory, other, 10**6), '--save_interval_secs=0']
  workers = programs.start_workers(2, args, str(tmp_path))
  _wait_for(workers, 'global step 3: ')
  workers[1].send(signal.SIGTERM)
  statuses = [worker.wait(_SECONDS) for worker in workers]
  logs = [worker.text() for worker in workers]
  assert statuses == [128 + signal.SIGTERM] * 2, logs
  found = losses(logs[0])
  step = max(found)
  assert f'saved {other}/model.ckpt-{step}\n' in logs[0]
  assert [found[i + 1] for i in range(3)] == pytest.approx(
    [expected[i + 1] for i in range(3)], abs=2e-4
  )
  # Only the chief writes.
  assert 'saved' not in logs[1] and not losses(logs[1])
  assert len(glob.glob(f'{other}/events.out.*')) == 1
  for path in other, train_dir:
    result = testing.run_program('train', *flags(directory, path, step + 2))
    assert result.returncode == 0, result.stderr
  assert_equal_training(train_dir, other, step + 2)


def test_multi_worker_needs_workers(directory, monkeypatch):
  for variable in 'TF_CONFIG', 'SLURM_STEP_NODELIST':
    monkeypatch.delenv(variable, raising=False)
  train_dir = directory / 'never'
  args = [*flags(directory, train_dir, 1), '--distribution=multi_worker']
  testing.assert_one_line_error(
    testing.run_program('train', *args), '--distribution=multi_worker', 'srun'
  )
  assert not train_dir.exists()


class _Strategy:
  """Knows the number of replicas only."""

  num_replicas_in_sync = 6


@pytest.mark.parametrize(
  'values, part',
  [
    ({'captions_per_image': 2}, 'has 5 image.*--batch_size=12'),
    ({'self_critical': True}, '--self_critical .*--distribution=one'),
  ],
)
def test_what_six_devices_cannot_share_is_refused(values, part):
  with pytest.raises(ValueError, match=part):
    setup.check_replicas(
      options_lib.TrainOptions(**values),
      configuration.ModelConfig(batch_size=10),
      [],
      distribution.Replicas(_Strategy()),
    )


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
