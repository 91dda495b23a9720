# SPDX-License-Identifier: Apache-2.0
"""Tests of devices, with a GPU that is not there."""

import sys
from types import SimpleNamespace

import pytest
import tensorflow as tf
from tensorflow.python.client import device_lib

from im2txt.benchmarks import devices
from im2txt.benchmarks import suite
from im2txt.benchmarks import timing


@pytest.fixture(name='gpus')
def fixture_gpus(monkeypatch):
  """Two GPUs of a name; yields what is told to TensorFlow about them."""
  told = []
  physical = ['/physical_device:GPU:0', '/physical_device:GPU:1']
  experimental = tf.config.experimental
  monkeypatch.setattr(
    tf.config,
    'list_physical_devices',
    lambda kind=None: physical if kind == 'GPU' else [],
  )
  monkeypatch.setattr(
    experimental,
    'get_device_details',
    lambda gpu: {
      physical[0]: {'device_name': 'Tesla X', 'compute_capability': (9, 0)}
    }[gpu],
  )
  monkeypatch.setattr(
    experimental,
    'set_memory_growth',
    lambda gpu, enabled: told.append((gpu, enabled)),
  )
  monkeypatch.setattr(experimental, 'reset_memory_stats', told.append)
  monkeypatch.setattr(
    experimental,
    'get_memory_info',
    lambda device: {'GPU:0': {'current': 10**9, 'peak': 3 * 10**9}}[device],
  )
  monkeypatch.setattr(
    device_lib,
    'list_local_devices',
    lambda: [
      SimpleNamespace(name=f'/device:{name}', memory_limit=limit)
      for name, limit in (('CPU:0', 1), ('GPU:0', 70 * 10**9), ('GPU:1', 2))
    ],
  )
  return told


@pytest.mark.parametrize('enabled', [True, False])
def test_a_gpu_is_named_with_its_precision(gpus, monkeypatch, enabled):
  monkeypatch.setattr(
    tf.config.experimental,
    'tensor_float_32_execution_enabled',
    lambda: enabled,
  )
  precision = 'TensorFloat-32' if enabled else 'float32'
  assert str(devices.find()) == (
    f'Tesla X, one of 2, 70.0 GB, float32 products in {precision}'
  )
  devices.prepare()
  assert gpus == [(f'/physical_device:GPU:{i}', True) for i in range(2)]


def test_the_table_has_the_gpu_its_rate_and_its_memory(
  gpus, tmp_path, monkeypatch, capsys
):
  sizes = []

  def rate(dtype, repeats, size=2048, products=1):
    sizes.append((dtype.name, size, products))
    return 1e14

  monkeypatch.setattr(timing, 'matmul_rate', rate)
  benchmark = suite.Benchmark(str(tmp_path), 1, 1)
  benchmark.machine()
  assert sizes == [('float32', 8192, 8), ('bfloat16', 8192, 8)]
  assert 'Tesla X, one of 2' in capsys.readouterr().out
  assert benchmark.results['device']['name'] == 'Tesla X'
  monkeypatch.setattr(
    suite.training,
    'joint_steps',
    lambda config, per_image: [
      ('a step', suite.training.JointStep(lambda: None, {tf.float32: 10**12}))
    ],
  )
  benchmark.joint()
  name = 'joint training, a step, 4 per image'
  assert benchmark.results[f'{name}, peak memory of the GPU'] == {
    'value': 3.0,
    'unit': 'GB',
  }
  limit = f'{name}, all at the rate of matrix products'
  assert benchmark.results[limit]['value'] == 3200
  assert gpus == ['GPU:0', 'GPU:0']


def test_without_a_gpu_the_processor_is_named():
  device = devices.find()
  assert not device.is_gpu and device.memory > 10**8 and device.count > 0
  assert f'{device.count} core(s)' in str(device)
  measured = []
  with devices.peak_memory(measured.append):
    pass
  assert not measured


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
