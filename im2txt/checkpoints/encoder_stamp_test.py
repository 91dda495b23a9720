# SPDX-License-Identifier: Apache-2.0
"""Tests of encoder_stamp."""

import dataclasses
import hashlib
import os
import sys

import numpy as np
import pytest
import tensorflow as tf

from im2txt.checkpoints import encoder_stamp

_STAMP = encoder_stamp.Stamp(
  'ab' * 32, encoder_stamp.PACKAGE, 'a-package==1', '12ab', True, 'MIT'
)
_VALUES = {'b': np.float32([[1, 2]]), 'a': np.float32([3])}
_FINGERPRINT = hashlib.sha256(
  b'a' + b'\x00\x00\x40\x40' + b'b' + b'\x00\x00\x80\x3f\x00\x00\x00\x40'
).hexdigest()


def test_fingerprint_is_of_names_and_values():
  assert encoder_stamp.fingerprint(_VALUES) == _FINGERPRINT
  assert (
    encoder_stamp.fingerprint(
      {name: tf.Variable(value) for name, value in _VALUES.items()}
    )
    == _FINGERPRINT
  )
  others = [
    {**_VALUES, 'a': np.float32([4])},
    {'a': _VALUES['a']},
    {'b': _VALUES['b'], 'c': _VALUES['a']},
  ]
  assert len({_FINGERPRINT, *map(encoder_stamp.fingerprint, others)}) == 4


def test_is_read_as_it_was_written(tmp_path):
  assert encoder_stamp.load(tmp_path) is None
  encoder_stamp.save(tmp_path, _STAMP)
  assert encoder_stamp.load(tmp_path) == _STAMP
  assert os.listdir(tmp_path) == ['inception_v3.json']
  assert str(_STAMP) == (
    'package (a-package==1, refitted), fingerprint abababababababab'
  )


@pytest.mark.parametrize(
  'content',
  [
    '',
    '[1]',
    '{"fingerprint": "1"}',
    '{"fingerprint": 1, "source": "file", "origin": "a"}',
  ],
)
def test_damage_is_told(tmp_path, content):
  (tmp_path / 'inception_v3.json').write_text(content)
  with pytest.raises(ValueError, match='inception_v3.json is damaged') as error:
    encoder_stamp.load(tmp_path)
  assert '\n' not in str(error.value)


def test_copy_takes_the_place_of_another(tmp_path):
  for name in 'ab':
    (tmp_path / name).mkdir()
  encoder_stamp.save(tmp_path / 'a', _STAMP)
  encoder_stamp.copy(tmp_path / 'a', tmp_path / 'b')
  assert encoder_stamp.load(tmp_path / 'b') == _STAMP
  encoder_stamp.remove(tmp_path / 'a')
  encoder_stamp.copy(tmp_path / 'a', tmp_path / 'b')
  assert encoder_stamp.load(tmp_path / 'b') is None


def test_a_checkpoint_has_what_the_file_tells_if_it_is_of_it(tmp_path):
  prefix = f'{tmp_path}/x.ckpt'
  unknown = encoder_stamp.Stamp(_FINGERPRINT, encoder_stamp.FILE, prefix)
  assert encoder_stamp.of_checkpoint(prefix, _VALUES) == unknown
  # Weights that were trained further; and once more.
  for stamp in (_STAMP, dataclasses.replace(_STAMP, fingerprint='0', base='1')):
    encoder_stamp.save(tmp_path, stamp)
    assert encoder_stamp.of_checkpoint(prefix, _VALUES) == dataclasses.replace(
      unknown, base=stamp.base or stamp.fingerprint
    )
  mine = encoder_stamp.Stamp(_FINGERPRINT, encoder_stamp.URL, 'file:///a')
  encoder_stamp.save(tmp_path, mine)
  assert encoder_stamp.of_checkpoint(prefix, _VALUES) == mine


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
