# SPDX-License-Identifier: Apache-2.0
"""Tests of the benchmark's computations, not of how long anything takes."""

import math
import sys

import numpy as np
import pytest
import tensorflow as tf

from im2txt import configuration
from im2txt import testing
from im2txt.benchmarks import suite
from im2txt.benchmarks import training
from im2txt.inference_utils import captioner


def test_counts_operations():
  config = configuration.ModelConfig(
    vocab_size=7, embedding_size=2, num_lstm_units=3
  )
  # Products of [1, 2048] x [2, ...], 5 of [1, 5] x [5, 12], 4 of [1, 3] x
  # [3, 7]; each product of the last two kinds has two more going backwards.
  assert training.flops_per_caption(config, words=4) == (
    2 * (2 * 2048 * 2) + 3 * (5 * 2 * 5 * 12 + 4 * 2 * 3 * 7)
  )
  default = configuration.ModelConfig()
  assert default.vocab_size == 12000
  assert math.isclose(training.flops_per_caption(default), 0.61e9, rel_tol=0.01)


def test_random_model_captions_and_trains(tmp_path):
  config = configuration.ModelConfig(
    vocab_size=20, embedding_size=4, num_lstm_units=6, batch_size=4
  )
  tf.random.set_seed(1)  # Of some models the beam ends with one caption.
  suite.write_random_model(str(tmp_path), config)
  model = captioner.Captioner(str(tmp_path), str(tmp_path / 'word_counts.txt'))
  (captions,) = model.caption([model.decode(testing.jpeg())])
  assert len(captions) == 3
  assert all(math.isfinite(x.log_probability) for x in captions)
  assert math.isfinite(training.training_step(config)())
  assert math.isfinite(training.forward_pass(config)())


def test_measures_the_switches(tmp_path):
  config = configuration.ModelConfig(
    vocab_size=120, embedding_size=4, num_lstm_units=6, batch_size=10
  )
  benchmark = suite.Benchmark(str(tmp_path), 1, 0)
  benchmark.config = config
  benchmark.switches()
  shares = {
    name: result.get('share_of') for name, result in benchmark.results.items()
  }
  for kind, first in (
    ('training from features, ', 'no switch'),
    ('self-critical step, ', 'mean of the other samples'),
  ):
    names = [name for name in shares if name.startswith(kind)]
    assert names[0] == kind + first and shares[names[0]] is None
    assert len(names) > 2
    assert {shares[name] for name in names[1:]} == {kind + first}


def test_steps_to_measure_do_what_they_say(tmp_path):
  config = configuration.ModelConfig(
    vocab_size=120, embedding_size=4, num_lstm_units=6, batch_size=10
  )
  losses = {
    name: step() for name, step in training.switched_steps(config).items()
  }
  assert all(math.isfinite(loss) for loss in losses.values())
  found = training.self_critical_steps(config, str(tmp_path))
  rewards = found.pop('reward alone')()
  # Halves of captions of the references.
  assert len(rewards) == 10 and rewards.min() > 0
  assert all(norm() > 0 for norm in found.values())


def test_counts_convolutions():
  first = tf.zeros([3, 3, 2, 5])
  second = tf.zeros([1, 1, 5, 7])

  def encode(images):
    forked = tf.nn.relu(tf.nn.conv2d(images, first, 1, 'SAME'))
    return tf.nn.conv2d(forked, second, 2, 'SAME')

  forward, backward = training.convolution_flops(encode, [1, 8, 6, 2])
  one, other = 2 * 9 * 2 * 8 * 6 * 5, 2 * 5 * 4 * 3 * 7
  assert forward == one + other
  # No gradient of the images is needed.
  assert backward == one + 2 * other


def test_the_joint_step_trains_the_top_blocks():
  config = configuration.ModelConfig(
    vocab_size=20,
    embedding_size=4,
    num_lstm_units=6,
    batch_size=4,
    image_height=75,
    image_width=75,
  )
  name, step = next(training.joint_steps(config, captions_per_image=2))
  assert name == 'top blocks from their cached inputs, float32'
  loss = step.run()
  # The weight decay of two blocks comes on top of the loss of 20 words.
  assert math.log(20) < loss < math.log(20) + 4
  # Of two images, three times the products of 11 million weights at one place.
  assert list(step.flops) == [tf.float32]
  assert 2 * 3 * 2 * 8e6 < step.flops[tf.float32] < 2 * 3 * 2 * 12e6
  mixed = step._replace(flops={tf.float32: 100, tf.bfloat16: 300})
  assert mixed.limit({tf.float32: 10.0, tf.bfloat16: 20.0}) == 10 + 15


def test_joint_training_has_a_limit_of_its_own(tmp_path, monkeypatch):
  benchmark = suite.Benchmark(str(tmp_path), 1, 0)
  for dtype, rate in ('float32', 1), ('bfloat16', 4):
    benchmark.results[f'matrix products, {dtype}'] = {'value': rate}
  step = training.JointStep(
    lambda: None, {tf.float32: 3 * 10**9, tf.bfloat16: 4 * 10**9}
  )
  monkeypatch.setattr(
    training, 'joint_steps', lambda config, per_image: [('a step', step)]
  )
  benchmark.joint()
  name = 'joint training, a step, 4 per image'
  # 32 captions in 3 + 1 seconds.
  limit = benchmark.results[f'{name}, all at the rate of matrix products']
  assert limit == {'value': 8.0, 'unit': 'captions/s'}
  found = benchmark.results[name]
  assert found['share'] == pytest.approx(found['value'] / 8)


def test_ways_to_run_the_lstm_agree():
  config = configuration.ModelConfig(
    batch_size=3, embedding_size=4, num_lstm_units=6
  )
  found = {name: fn() for name, fn in training.lstm_variants(config).items()}
  outputs, gradients = found.pop('own gradient')
  keras, _ = found.pop('tf.keras')
  assert keras.shape == outputs.shape == (training.WORDS + 1, 3, 6)
  assert list(found) == ['BlockLSTM', 'unrolled']
  for name, (other, other_gradients) in found.items():
    np.testing.assert_allclose(other, outputs, rtol=1e-5, err_msg=name)
    for a, b in zip(other_gradients, gradients):
      np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6, err_msg=name)


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
