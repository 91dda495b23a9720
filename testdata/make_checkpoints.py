# SPDX-License-Identifier: Apache-2.0
"""Makes tiny checkpoints of every vintage, which every later version must load.

Usage, from the root of the project:

  python -m testdata.make_checkpoints [DIRECTORY]

A vintage is a directory of `testdata/checkpoints`, or of the one given. One
that is there already stays as it is: it shows that what was written then is
still read. So a new format gets a new vintage, and no old one is made again.

The vintages of TensorFlow 1.x are written by its own operations, `Save` and
`SaveV2`, without any code of im2txt.
"""

import glob
import os
import sys

import numpy as np
import tensorflow as tf

from im2txt import checkpoints
from im2txt import configuration
from im2txt import testing

_STEP = 7
_WORDS, _EMBEDDING, _UNITS = 6, 1, 3
_KERNEL = 'lstm/basic_lstm_cell/kernel'
_BIAS = 'lstm/basic_lstm_cell/bias'
_AVERAGE = '/ExponentialMovingAverage'

# What TensorFlow called the kernel and the bias of the LSTM: up to 0.12, up to
# 1.1, and from 1.2 on.
_LINEAR = ('lstm/BasicLSTMCell/Linear/Matrix', 'lstm/BasicLSTMCell/Linear/Bias')
_WEIGHTS = ('lstm/basic_lstm_cell/weights', 'lstm/basic_lstm_cell/biases')
_TODAY = (_KERNEL, _BIAS)


def expected_values():
  """Returns the decoder that all vintages hold, by today's names."""
  rng = np.random.default_rng(2016)
  shapes = {
    'image_embedding/weights': [2048, _EMBEDDING],
    'seq_embedding/map': [_WORDS, _EMBEDDING],
    _KERNEL: [_EMBEDDING + _UNITS, 4 * _UNITS],
    _BIAS: [4 * _UNITS],
    'logits/weights': [_UNITS, _WORDS],
    'logits/biases': [_WORDS],
  }
  return {
    name: rng.uniform(-1, 1, shape).astype(np.float32)
    for name, shape in shapes.items()
  }


def _stored(lstm_names, step_type=np.int32):
  """Returns the values under the names of a vintage."""
  values = expected_values()
  for today, name in zip(_TODAY, lstm_names):
    values[name] = values.pop(today)
  return {**values, 'global_step': step_type(_STEP)}


def _save_v1(directory, values):
  """One file; up to TensorFlow 0.11 the only format."""
  names = sorted(values)
  tf.raw_ops.Save(
    filename=os.path.join(directory, f'model.ckpt-{_STEP}'),
    tensor_names=names,
    data=[tf.constant(values[name]) for name in names],
  )


def _save_v2(directory, values, num_shards=1):
  """An index and data; `num_shards` as by Saver(sharded=True)."""
  prefix = os.path.join(directory, f'model.ckpt-{_STEP}')
  names = sorted(values)
  parts = []
  for shard in range(num_shards):
    part = f'{prefix}.part-{shard}' if num_shards > 1 else prefix
    some = names[shard::num_shards]
    tf.raw_ops.SaveV2(
      prefix=part,
      tensor_names=some,
      shape_and_slices=[''] * len(some),
      tensors=[tf.constant(values[name]) for name in some],
    )
    parts.append(part)
  if num_shards > 1:
    tf.raw_ops.MergeV2Checkpoints(
      checkpoint_prefixes=parts,
      destination_prefix=prefix,
      delete_old_dirs=False,
    )
    for path in glob.glob(glob.escape(prefix) + '.part-*'):
      os.remove(path)


def _v1_linear(directory):
  _save_v1(directory, _stored(_LINEAR))


def _v1_weights_int64(directory):
  _save_v1(directory, _stored(_WEIGHTS, np.int64))


def _v2_linear(directory):
  _save_v2(directory, _stored(_LINEAR))


def _v2_weights(directory):
  _save_v2(directory, _stored(_WEIGHTS))


def _v2_kernel(directory):
  """With the state file of a directory that has been moved since."""
  _save_v2(directory, _stored(_TODAY))
  prefix = f'/home/user/im2txt/model/train/model.ckpt-{_STEP}'
  with open(os.path.join(directory, 'checkpoint'), 'w', encoding='utf-8') as f:
    f.write(
      f'model_checkpoint_path: "{prefix}"\n'
      f'all_model_checkpoint_paths: "{prefix}"\n'
    )


def _v2_kernel_int64(directory):
  _save_v2(directory, _stored(_TODAY, np.int64))


def _v2_sharded(directory):
  _save_v2(directory, _stored(_TODAY), num_shards=2)


def _v2_moving_averages(directory):
  """Averages beside the weights: the weights are what is to be read."""
  values = _stored(_WEIGHTS)
  averages = {
    name + _AVERAGE: value + 1
    for name, value in values.items()
    if name != 'global_step'
  }
  _save_v2(directory, {**values, **averages})


def _v2_moving_averages_only(directory):
  """Averages in the place of the weights, which are what is to be read."""
  values = _stored(_TODAY)
  _save_v2(
    directory,
    {
      name + (_AVERAGE if name != 'global_step' else ''): value
      for name, value in values.items()
    },
  )


def _im2txt_2(directory):
  """What this project's `train --optimizer=Adam` writes, version 2.0."""
  values = expected_values()
  checkpoints.CheckpointManager(directory).save(
    {**values, 'global_step': np.int32(_STEP)},
    {
      'adam_updates': np.int64(_STEP),
      'logits/biases/Adam': values['logits/biases'] / 2,
      'logits/biases/Adam_1': values['logits/biases'] ** 2,
    },
  )
  configuration.save(
    directory,
    (
      configuration.ModelConfig(
        vocab_size=_WORDS, embedding_size=_EMBEDDING, num_lstm_units=_UNITS
      ),
      configuration.TrainingConfig(optimizer='Adam'),
    ),
  )


VINTAGES = {
  'v1_linear': _v1_linear,
  'v1_weights_int64': _v1_weights_int64,
  'v2_linear': _v2_linear,
  'v2_weights': _v2_weights,
  'v2_kernel': _v2_kernel,
  'v2_kernel_int64': _v2_kernel_int64,
  'v2_sharded': _v2_sharded,
  'v2_moving_averages': _v2_moving_averages,
  'v2_moving_averages_only': _v2_moving_averages_only,
  'im2txt_2.0': _im2txt_2,
}


def main(target):
  os.makedirs(target, exist_ok=True)
  for name, make in VINTAGES.items():
    directory = os.path.join(target, name)
    if os.path.exists(directory):
      print(f'{name} is there already')
      continue
    os.mkdir(directory)
    make(directory)
    print(f'made {name}')
  expected = os.path.join(target, 'expected.npz')
  if not os.path.exists(expected):
    np.savez_compressed(expected, **expected_values())


if __name__ == '__main__':
  main(sys.argv[1] if sys.argv[1:] else testing.testdata_path('checkpoints'))
