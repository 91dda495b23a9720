# SPDX-License-Identifier: Apache-2.0
"""Tests of benchmark: what it counts and draws, not how long anything takes."""

import math
import os
import subprocess
import sys

from PIL import Image
import pytest

from im2txt import configuration
from im2txt import testing

# Modules of two programs in one process would define the same flags twice.
_CODE = """
import math, sys
from absl import flags
from im2txt import benchmark, configuration
flags.FLAGS(['benchmark'])
directory = sys.argv[1]
"""


def run(tmp_path, code):
  result = subprocess.run(
      [sys.executable, '-c', _CODE + code, str(tmp_path)],
      env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
      capture_output=True, text=True, check=False)
  assert result.returncode == 0, result.stderr
  return result.stdout


def test_counts_operations(tmp_path):
  found = float(run(tmp_path, """
config = configuration.ModelConfig(
    vocab_size=7, embedding_size=2, num_lstm_units=3)
print(benchmark.flops_per_caption(config, words=4))
"""))
  # Products of [1, 2048] x [2, ...], 5 of [1, 5] x [5, 12], 4 of [1, 3] x
  # [3, 7]; each product of the last two kinds has two more going backwards.
  assert found == 2 * (2 * 2048 * 2) + 3 * (5 * 2 * 5 * 12 + 4 * 2 * 3 * 7)
  default = configuration.ModelConfig()
  assert default.vocab_size == 12000
  assert math.isclose(float(run(tmp_path, """
print(benchmark.flops_per_caption(configuration.ModelConfig()))
""")), 0.61e9, rel_tol=0.01)


def test_random_model_captions_and_trains(tmp_path):
  (tmp_path / 'a.jpg').write_bytes(testing.jpeg())
  out = run(tmp_path, """
benchmark.tf.random.set_seed(1)
config = configuration.ModelConfig(
    vocab_size=20, embedding_size=4, num_lstm_units=6, batch_size=4)
benchmark.write_random_model(directory, config)
from im2txt.inference_utils import captioner
c = captioner.Captioner(directory, directory + '/word_counts.txt')
with open(directory + '/a.jpg', 'rb') as f:
  captions, = c.caption([c.decode(f.read())])
print(all(math.isfinite(x.log_probability) for x in captions), len(captions))
print(math.isfinite(benchmark.training_step(config)()))
print(math.isfinite(benchmark.forward_pass(config)()))
""")
  assert out.split() == ['True', '3', 'True', 'True']


def test_ways_to_run_the_lstm_agree(tmp_path):
  out = run(tmp_path, """
import numpy as np
config = configuration.ModelConfig(
    batch_size=3, embedding_size=4, num_lstm_units=6)
found = {name: fn() for name, fn in benchmark.lstm_variants(config).items()}
outputs, gradients = found.pop('own gradient')
keras, _ = found.pop('tf.keras')
assert keras.shape == outputs.shape == (benchmark.WORDS + 1, 3, 6)
for name, (other, other_gradients) in found.items():
  np.testing.assert_allclose(other, outputs, rtol=1e-5, err_msg=name)
  for a, b in zip(other_gradients, gradients):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6, err_msg=name)
  print(name)
""")
  assert out.split() == ['BlockLSTM', 'unrolled']


def test_measures_preparing(tmp_path):
  run(tmp_path, """
flags.FLAGS.num_prepared, flags.FLAGS.num_images = 80, 32
bench = benchmark.Benchmark(directory, 1)
benchmark.statistics.median = lambda values: next(iter(values))
bench.preparing()
for name in ('reading and decoding JPEGs', 'preparing pairs, 5 captions an image',
             'preparing compact, 5 captions an image'):
  assert bench.results[name]['unit'] == 'images/s', bench.results
""")


def test_draws(tmp_path):
  run(tmp_path, """
benchmark.draw({
    'captioning, parts': {'unit': 'ms an image', 'a': 1.0, 'b': 2.0},
    'training step, parts': {'unit': 'ms a caption', 'c': 3.0},
    'growth': {'captioning: x': [(1, 2.0)], 'training: y': [(1, 2.0)]},
}, directory)
""")
  for name in ('time.png', 'growth.png'):
    with Image.open(tmp_path / name) as image:
      assert image.format == 'PNG' and image.width > 200


def test_reports_the_status_and_memory_of_a_process(tmp_path):
  out = run(tmp_path, """
print(*benchmark.run_process(
    [sys.executable, '-c', 'x = bytearray(10**8); print("end")']))
try:
  benchmark.run_process([sys.executable, '-c', 'raise SystemExit("boom")'])
except ValueError as e:
  print('boom' in str(e))
""").split()
  assert float(out[0]) > 0 and 1e8 < int(out[1]) < 3e8
  assert out[2:] == ['end', 'True']


@pytest.mark.parametrize('flag, message', [
    ('--num_images=1', '--num_images=1'),
    ('--num_prepared=3', '--num_prepared=3'),
    ('--checkpoint_path=x', '--vocab_file')])
def test_refuses(tmp_path, flag, message):
  result = subprocess.run(
      [sys.executable, '-m', 'im2txt.benchmark', f'--output_dir={tmp_path}',
       flag], env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
      capture_output=True, text=True, check=False)
  assert result.returncode == 1 and message in result.stderr


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
