# SPDX-License-Identifier: Apache-2.0
"""Tests of evaluating and scoring on several devices."""

import json
import re
import sys

import numpy as np
import pytest

from im2txt import checkpoints
from im2txt import testing
from im2txt.data import shards
from im2txt.metrics import caption_scores
from im2txt.stress import programs

_SECONDS = 300
_WORDS = ['a', '<S>', '</S>', 'dog', 'cat', 'über']
_CAPTIONS = ['a dog', 'über cat a', 'dog', 'a cat a dog', 'cat', 'a a über']


def _without_java():
  """In the place of `caption_scores.unavailable`: METEOR starts slowly."""
  return {'meteor': 'left out', 'spice': 'left out'}


@pytest.fixture(scope='module', name='directory')
def fixture_directory(tmp_path_factory):
  """A model whose captions depend on the image, and a shard of five images."""
  path = tmp_path_factory.mktemp('devices')
  testing.caption_model(path, _WORDS)
  model = checkpoints.Checkpoint(str(path))
  values = {name: model.get(name) for name in model.shapes}
  values['logits/weights'] = values['logits/weights'] * 60
  checkpoints.write(str(path / 'model.ckpt-10'), values)
  with shards.Writer(path / 'val-00000-of-00001') as writer:
    for number, caption in enumerate(_CAPTIONS):
      tokens = ['<S>', *caption.split(), '</S>']
      writer.write(
        shards.serialize(
          number % 5,
          testing.jpeg(number % 5),
          tokens,
          [_WORDS.index(token) for token in tokens],
        )
      )
  return path


def _on_one_and_two(program, directory, args):
  """Runs a program on one device and on two; returns what they log."""
  args = [
    f'--{name}={value}'
    for name, value in {
      'input_file_pattern': directory / 'val-00000-of-00001',
      'vocab_file': directory / 'word_counts.txt',
      **args,
    }.items()
  ]
  one, two = ([arg.format(number) for arg in args] for number in 'ab')
  process = programs.Program(
    program,
    [*two, '--distribution=mirrored'],
    str(directory / 'log'),
    {
      'im2txt.runtime.distribution.CPU_DEVICES': 2,
      'im2txt.metrics.caption_scores.unavailable': _without_java,
    },
  )
  result = testing.run_program(program, *one)
  assert result.returncode == 0, result.stderr
  assert process.wait(_SECONDS) == 0, process.text()
  assert 'using 2 device(s)' in process.text()
  return result.stderr, process.text()


def test_evaluate_on_two_devices_is_as_on_one(directory):
  logs = _on_one_and_two(
    'evaluate',
    directory,
    {
      'checkpoint_dir': directory,
      'eval_dir': directory / 'eval-{}',
      # The last batch of captions has one.
      'eval_batch_size': 5,
      'metrics': 'bleu_1,cider',
      'best_metric': 'perplexity',
      'run_once': True,
      'min_global_step': 0,
    },
  )
  found = [
    re.findall(
      r'step 10: perplexity = [\d.]+ \(([\d.]+) nats per word, (\d+ words of 6)'
      r'|step 10: (bleu_1 = [\d.]+, cider = [\d.]+ \(5 images)',
      log,
    )
    for log in logs
  ]
  (one, metrics), (two, other) = found
  assert float(two[0]) == pytest.approx(float(one[0]), abs=1e-4)
  assert two[1] == one[1] and other == metrics
  texts = [
    testing.read_events(directory / f'eval-{name}')['samples/captions'][1][10]
    for name in 'ab'
  ]
  assert texts[0] == texts[1]
  captions = re.findall(r'\nimage \d \| (.*) \|', texts[0].item().decode())
  assert len(captions) == 5 and len(set(captions)) > 3


def test_score_on_two_devices_is_as_on_one(directory, monkeypatch):
  monkeypatch.setattr(caption_scores, 'unavailable', _without_java)
  _on_one_and_two(
    'score',
    directory,
    {
      'checkpoint_path': directory,
      # The last batch has one image.
      'inference_batch_size': 2,
      'resamples': 0,
      'ranking': True,
      'sample': True,
      'output_json': directory / 'scores-{}.json',
      'results_output': directory / 'results-{}.json',
    },
  )
  one, two = (
    json.loads((directory / f'scores-{name}.json').read_text()) for name in 'ab'
  )
  assert one.keys() == two.keys()
  for scores in one, two:
    # In nats: the exponential of a model as sharp as this enlarges rounding.
    scores['perplexity'] = np.log(scores['perplexity'])
  np.testing.assert_allclose([*two.values()], [*one.values()], rtol=1e-5)
  one, two = (
    json.loads((directory / f'results-{name}.json').read_text())
    for name in 'ab'
  )
  assert one == two and len({entry['caption'] for entry in one}) > 2


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
