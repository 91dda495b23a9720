# SPDX-License-Identifier: Apache-2.0
"""Tests of the program export_model, by a process that has no im2txt."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from im2txt import testing

# Runs in the directory of the model.
_LOAD = """
import importlib.util, json, math, sys
assert importlib.util.find_spec('im2txt') is None, sys.path
import tensorflow as tf

images = [open(f'{i}.jpg', 'rb').read() for i in range(3)]
model = tf.saved_model.load('exported/10')
found = model.signatures['serving_default'](image_bytes=tf.constant(images))
captions = [
  [
    {'caption': caption.decode(), 'log_probability': float(log_probability)}
    for caption, log_probability in zip(*of_image)
  ]
  for of_image in zip(
    found['captions'].numpy(), found['log_probabilities'].numpy()
  )
]
vocabulary = model.vocabulary.asset_path.numpy().decode()

# As programs of 2016 did.
graph = tf.Graph()
with graph.as_default():
  graph_def = tf.compat.v1.GraphDef()
  graph_def.ParseFromString(open('exported/frozen_graph.pb', 'rb').read())
  tf.import_graph_def(graph_def, name='')
beams = []
with tf.compat.v1.Session(graph=graph) as session:
  for image in images:
    state = session.run('lstm/initial_state:0', {'image_feed:0': image})
    words, log_probability = [1], 0.0  # From <S> on.
    while words[-1] != 2 and len(words) < 20:
      softmax, state = session.run(
        ['softmax:0', 'lstm/state:0'],
        {'input_feed:0': words[-1:], 'lstm/state_feed:0': state},
      )
      words.append(int(softmax[0].argmax()))
      log_probability += math.log(softmax[0].max())
    beams.append([words, log_probability])
print(json.dumps([captions, beams, open(vocabulary).read()]))
"""


@pytest.fixture(scope='module', name='directory')
def fixture_directory(tmp_path_factory):
  path = tmp_path_factory.mktemp('model')
  testing.caption_model(path)
  for i in range(3):
    (path / f'{i}.jpg').write_bytes(testing.jpeg(i))
  return path


def _export(directory, *flags):
  result = testing.run_program(
    'export_model',
    f'--checkpoint_path={directory}',
    f'--export_dir={directory / "exported"}',
    *flags,
  )
  assert result.returncode == 0, result.stderr
  return result


def _captions(directory, *flags):
  result = testing.run_program(
    'run_inference',
    f'--checkpoint_path={directory}',
    '--output_format=json',
    *flags,
    *(directory / f'{i}.jpg' for i in range(3)),
  )
  return [json.loads(line)['captions'] for line in result.stdout.splitlines()]


def test_without_im2txt_it_gives_the_captions_of_run_inference(directory):
  written = _export(directory, '--batch_size=8').stderr
  # One line, and none of TensorFlow's.
  assert written.count('\n') == 1, written
  assert f'exported the checkpoint of step 10 to {directory}' in written
  _export(directory, '--format=frozen_graph')
  result = subprocess.run(
    # -I: without PYTHONPATH and the current directory.
    [sys.executable, '-I', '-c', _LOAD],
    cwd=directory,
    env={**os.environ, 'TF_CPP_MIN_LOG_LEVEL': '2'},
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 0, result.stderr
  captions, beams, vocabulary = json.loads(result.stdout)
  expected = _captions(directory)
  assert len(expected) == 3
  for found, wanted in zip(captions, expected, strict=True):
    assert [c['caption'] for c in found] == [c['caption'] for c in wanted]
    np.testing.assert_allclose(
      [c['log_probability'] for c in found],
      [c['log_probability'] for c in wanted],
      atol=1e-4,
    )
  words = vocabulary.splitlines()
  assert vocabulary == (directory / 'word_counts.txt').read_text('utf-8')
  greedy = _captions(directory, '--beam_size=1')
  for (ids, log_probability), (wanted,) in zip(beams, greedy, strict=True):
    assert wanted['caption'] == ' '.join(
      words[i].split()[0] if i < len(words) else '<UNK>'
      for i in ids[1 : -1 if ids[-1] == 2 else None]
    )
    np.testing.assert_allclose(
      log_probability, wanted['log_probability'], atol=1e-4
    )
  assert 'max_batch_size { value: 8 }' in (
    directory / 'exported' / 'batching_parameters.txt'
  ).read_text('utf-8')


def test_mistakes_are_told_in_one_line(directory, tmp_path):
  testing.assert_one_line_error(
    testing.run_program('export_model', f'--checkpoint_path={directory}'),
    '--export_dir',
  )
  (tmp_path / '7').mkdir()
  testing.assert_one_line_error(
    testing.run_program(
      'export_model',
      f'--checkpoint_path={directory}',
      f'--export_dir={tmp_path}',
      '--version=7',
    ),
    f'{tmp_path / "7"} exists: remove it, or give another --version',
  )


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
