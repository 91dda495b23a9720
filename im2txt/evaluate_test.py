# SPDX-License-Identifier: Apache-2.0
"""Tests of the program evaluate, run as its users run it."""

import functools
import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from im2txt import checkpoints
from im2txt import configuration
from im2txt import show_and_tell_model
from im2txt import testing
from im2txt.data import shards
from im2txt.evaluation import perplexity
from im2txt.inference_utils import captioner as captioner_lib
from im2txt.inference_utils import search_config
from im2txt.metrics import summary
from im2txt.ops import image_processing
from im2txt.runtime import locks
from im2txt.text import vocabulary_stamp

_CONFIG = configuration.ModelConfig(
  vocab_size=12,
  embedding_size=5,
  num_lstm_units=4,
  batch_size=4,
  image_height=75,
  image_width=75,
  initializer_scale=0.5,
)
# Image and word ids of each record, in the order of the shards.
_CAPTIONS = [
  (3, [0, 2, 3, 4, 1]),
  (1, [0, 5, 1]),
  (3, [0, 6, 7, 8, 9, 10, 11, 1]),
  (2, [0, 1]),
  (4, [0, 11, 2, 1]),
  (1, [0, 9, 4, 4, 1]),
  (5, [0, 3, 1]),
  (2, [0, 8, 2, 6, 1]),
  (6, [0, 7, 7, 1]),
]


@pytest.fixture(scope='module', name='data')
def fixture_data(tmp_path_factory):
  path = tmp_path_factory.mktemp('data')
  records = [(i, testing.jpeg(i), ids) for i, ids in _CAPTIONS]
  testing.write_shard(path / 'val-00000-of-00002', records[:4])
  # The ninth caption's image is followed by one that is no image.
  testing.write_shard(
    path / 'val-00001-of-00002', records[4:] + [(7, b'no image', [0, 2, 1])]
  )
  return f'{path}/val-?????-of-00002'


class _Model:
  """A model of random weights, and what it should score."""

  def __init__(self, seed=1):
    tf.random.set_seed(seed)
    self._model = show_and_tell_model.ShowAndTellModel(_CONFIG)
    # Random Inceptions give features of thousands: too much for the LSTM.
    self._model.image_embedding_weights.assign(
      self._model.image_embedding_weights * 2e-5
    )

  def save(self, train_dir, step):
    """Saves it as train would; the logits are scaled by the step."""
    train_dir.mkdir(exist_ok=True)
    configuration.save(train_dir, (_CONFIG, configuration.TrainingConfig()))
    values = dict(self._model.named_variables, global_step=np.int32(step))
    values['logits/weights'] = values['logits/weights'] * (step / 100)
    return checkpoints.CheckpointManager(str(train_dir)).save(values)

  def cross_entropies(self, captions, step):
    """Scores captions in NumPy, word by word."""
    w = {
      n: v.numpy().astype(np.float64)
      for n, v in self._model.decoder_variables.items()
    }
    w['logits/weights'] *= step / 100

    def lstm(x, c, h):
      i, j, f, o = np.split(
        np.concatenate([x, h]) @ w['lstm/basic_lstm_cell/kernel']
        + w['lstm/basic_lstm_cell/bias'],
        4,
      )
      c = c / (1 + np.exp(-f - 1)) + np.tanh(j) / (1 + np.exp(-i))
      return c, np.tanh(c) / (1 + np.exp(-o))

    found = []
    for image_id, ids in captions:
      image = image_processing.process_image(
        testing.jpeg(image_id), height=75, width=75
      )
      features = self._model.encode_images(image[tf.newaxis])[0].numpy()
      c, h = lstm(
        features @ w['image_embedding/weights'], np.zeros(4), np.zeros(4)
      )
      for word, target in zip(ids, ids[1:]):
        c, h = lstm(w['seq_embedding/map'][word], c, h)
        logits = h @ w['logits/weights'] + w['logits/biases']
        found.append(np.log(np.exp(logits).sum()) - logits[target])
    return found


@pytest.fixture(scope='module', name='model')
def fixture_model():
  return _Model()


@pytest.fixture(scope='module', name='build_network')
def fixture_build_network():
  """Builds a network of each configuration once."""
  return functools.cache(show_and_tell_model.ShowAndTellModel)


@pytest.fixture(name='one_network')
def fixture_one_network(model, build_network, monkeypatch):
  """What is evaluated gets all its weights from checkpoints.

  So evaluations may share a network. That of `model` is another.
  """
  monkeypatch.setattr(show_and_tell_model, 'ShowAndTellModel', build_network)


@pytest.fixture(scope='module', name='train_dir')
def fixture_train_dir(tmp_path_factory, model):
  path = tmp_path_factory.mktemp('train')
  model.save(path, 900)
  model.save(path, 1000)
  return path


def _flags(**values):
  return [f'--{name}={value}' for name, value in values.items()]


@pytest.mark.usefixtures('one_network')
@pytest.mark.parametrize(
  'flags, captions',
  [
    # Fewer than there are, of a batch size that divides neither.
    (['--num_eval_examples=5', '--eval_batch_size=3'], _CAPTIONS[:5]),
    # All that are good, and no more; the last batch of four holds one.
    (['--num_eval_examples=9'], _CAPTIONS),
    # More than there are; the broken image is left out.
    ([], _CAPTIONS),
  ],
)
def test_scores_each_requested_caption_once(
  data, train_dir, model, tmp_path, flags, captions
):
  expected = model.cross_entropies(captions, 1000)
  # The images and the words make a difference, so that the mean tells.
  one, other = (model.cross_entropies([(i, [0, 1])], 1000) for i in (1, 2))
  assert np.std(expected) > 0.1 and abs(one[0] - other[0]) > 0.005
  result = testing.run_program(
    'evaluate',
    *flags,
    *_flags(
      input_file_pattern=data,
      checkpoint_dir=train_dir,
      eval_dir=tmp_path,
      run_once=True,
      min_global_step=1000,
    ),
  )
  assert result.returncode == 0, result.stderr
  perplexity, nats, words, count = re.search(
    r'global step 1000: perplexity = ([\d.]+) \(([\d.]+) nats per word, '
    r'(\d+) words of (\d+) captions',
    result.stderr,
  ).groups()
  assert int(words) == len(expected) and int(count) == len(captions)
  assert float(nats) == pytest.approx(np.mean(expected), abs=2e-4)
  assert float(perplexity) == pytest.approx(np.exp(np.mean(expected)), rel=2e-4)
  assert ('1 image(s) skipped: ids 7\n' in result.stderr) == (not flags)

  events = testing.read_events(str(tmp_path))
  assert set(events) == {'Perplexity', 'losses/cross_entropy'}
  for tag, value in (
    ('Perplexity', np.exp(np.mean(expected))),
    ('losses/cross_entropy', np.mean(expected)),
  ):
    plugin, values = events[tag]
    assert plugin == 'scalars' and list(values) == [1000]
    assert values[1000] == pytest.approx(value, rel=2e-4)


@pytest.mark.usefixtures('one_network')
def test_the_result_with_cached_features_is_exactly_that_without(
  data, train_dir, model, tmp_path
):
  files = shards.list_files(data)
  cache = str(tmp_path / 'features')

  def run(*args):
    return perplexity.PerplexityEvaluator(files, *args).evaluate(str(train_dir))

  for num_examples in (5, 9, 100):
    expected = run(num_examples, 3)
    assert run(num_examples, 3, cache) == expected
  # Joint training changes Inception: never silently evaluated as it was.
  other = tmp_path / 'other'
  model.save(other, 1000)
  prefix = checkpoints.resolve(str(other))
  checkpoint = checkpoints.Checkpoint(prefix)
  values = {name: checkpoint.get(name) for name in checkpoint.shapes}
  values['InceptionV3/Conv2d_1a_3x3/weights'] += 1e-3
  checkpoints.write(prefix, values)
  with pytest.raises(ValueError, match='made from other Inception v3 weights'):
    perplexity.PerplexityEvaluator(files, 5, 3, cache).evaluate(str(other))


# Deletes the files of step 800 just before they are opened and the weights of
# step 900 just after, as a train that saves a newer one may do.
_DELETE = """
import glob, os
from im2txt.checkpoints import reader
open_reader = reader.open_reader
def open_and_delete(prefix):
  if prefix.endswith('-800'):
    for name in glob.glob(prefix + '.*'):
      os.remove(name)
  opened = open_reader(prefix)
  if prefix.endswith('-900'):
    for name in glob.glob(prefix + '.data-*'):
      os.remove(name)
  return opened
reader.open_reader = open_and_delete
"""


def test_watches_until_the_last_step(data, model, tmp_path):
  train_dir, eval_dir = tmp_path / 'train', tmp_path / 'eval'
  process = subprocess.Popen(
    **testing.program(
      'evaluate',
      *_flags(
        input_file_pattern=data,
        checkpoint_dir=train_dir,
        eval_dir=eval_dir,
        eval_interval_secs=1,
        min_global_step=800,
        number_of_steps=2000,
      ),
      code=_DELETE,
    )
  )
  log = testing.read_until(process, 'no checkpoint')
  train_dir.mkdir()
  log += testing.read_until(process, f'no checkpoint in directory {train_dir}')
  model.save(train_dir, 700)
  log += testing.read_until(process, 'passing over .*step 700')
  model.save(train_dir, 800)
  log += testing.read_until(process, 'train/model.ckpt-800')
  model.save(train_dir, 900)
  log += testing.read_until(process, 'ckpt-900.data-.* is missing')
  model.save(train_dir, 1000)
  log += testing.read_until(process, 'global step 1000: perplexity')
  log += testing.read_until(process, 'no checkpoint newer than step 1000')
  model.save(train_dir, 2000)
  log += testing.rest(process)
  assert process.returncode == 0, log
  assert '--number_of_steps=2000 reached' in log
  assert 'Traceback' not in log
  assert re.findall(r'global step (\d+): perplexity', log) == ['1000', '2000']
  # Neither has a stamp, which is said once.
  assert log.count('not checked that the shards in') == 1
  # Images are only encoded again when Inception's weights have changed.
  assert log.count('image(s) skipped: ids 7') == 1
  values = testing.read_events(str(eval_dir))['Perplexity'][1]
  assert list(values) == [1000, 2000]
  for step, value in values.items():
    assert value == pytest.approx(
      np.exp(np.mean(model.cross_entropies(_CAPTIONS, step))), rel=2e-4
    )


def _expected_scores(train_dir, vocab_file, metrics):
  """Scores the captions that the images get from their bytes."""
  captioner = captioner_lib.Captioner(
    str(train_dir),
    str(vocab_file),
    search_config.SearchConfig(beam_size=2, max_caption_length=7),
  )
  references = {}
  for image_id, ids in _CAPTIONS:
    references.setdefault(image_id, []).append(captioner.decoder.text(ids))
  found = captioner.caption(
    [captioner.decode(testing.jpeg(image_id)) for image_id in references]
  )
  n_best = dict(zip(references, ([c.text for c in f] for f in found)))
  return summary.summarize(references, n_best, metrics=metrics)


def test_metrics_of_each_checkpoint(model, tmp_path, monkeypatch):
  train_dir, eval_dir = tmp_path / 'train', tmp_path / 'eval'
  vocab_file = tmp_path / 'word_counts.txt'
  words = ['<S>', '</S>', *'abcdefghi', '<UNK>']
  vocab_file.write_text(''.join(f'{word} 5\n' for word in words[:-1]))
  with shards.Writer(tmp_path / 'val-00000-of-00001') as writer:
    for image_id in [*dict(_CAPTIONS), 7]:
      writer.write(
        shards.serialize_compact(
          image_id,
          testing.jpeg(image_id) if image_id < 7 else b'no image',
          [
            ([words[i] for i in ids], ids)
            for i, ids in [*_CAPTIONS, (7, [0, 2, 1])]
            if i == image_id
          ],
        )
      )
  # Without Java, so that scores are there at once.
  monkeypatch.setenv('PATH', '')
  process = subprocess.Popen(
    **testing.program(
      'evaluate',
      *_flags(
        input_file_pattern=tmp_path / 'val-*',
        checkpoint_dir=train_dir,
        eval_dir=eval_dir,
        eval_interval_secs=1,
        min_global_step=0,
        number_of_steps=2000,
        metrics='bleu_1,cider,meteor,mean_length',
        best_metric='bleu_1',
        beam_size=2,
        max_caption_length=7,
        train_file_pattern=tmp_path / 'val-*',
        ranking_images=5,
      ),
    )
  )
  model.save(train_dir, 1000)
  expected = [_expected_scores(train_dir, vocab_file, ['bleu_1', 'cider'])]
  log = testing.read_until(process, 'no checkpoint newer than step 1000')
  # Another Inception, so that images are to be encoded again.
  _Model(seed=3).save(train_dir, 2000)
  expected += [_expected_scores(train_dir, vocab_file, ['bleu_1', 'cider'])]
  log += testing.rest(process)
  assert process.returncode == 0, log
  assert 'no meteor: Java' in log and 'no spice' not in log
  assert log.count('image(s) skipped: ids 7') == 2

  found = testing.read_events(str(eval_dir))
  assert set(found) == {
    'Perplexity',
    'losses/cross_entropy',
    'metrics/bleu_1',
    'metrics/cider',
    'metrics/mean_length',
    'samples/captions',
    'samples/page',
    'metrics/best_in_training',
    'metrics/n_best_in_training',
    'metrics/ranking_images',
    'metrics/ranking_captions',
    *(
      f'metrics/{way}_{measure}'
      for way in ('image_to_caption', 'caption_to_image')
      for measure in ('recall_1', 'recall_5', 'recall_10', 'median_rank')
    ),
  }
  assert found['metrics/ranking_captions'][1] == {1000: 5, 2000: 5}
  assert found['metrics/caption_to_image_recall_5'][1] == {1000: 1, 2000: 1}
  assert all(
    0 <= share <= 1 for share in found['metrics/n_best_in_training'][1].values()
  )
  for values in expected:
    assert values['images'] == 6
  # One is better, so that it shows which is kept.
  assert abs(expected[0]['bleu_1'] - expected[1]['bleu_1']) > 0.01
  for name in ('bleu_1', 'cider'):
    plugin, values = found[f'metrics/{name}']
    assert plugin == 'scalars' and list(values) == [1000, 2000]
    assert list(values.values()) == pytest.approx(
      [scores[name] for scores in expected]
    )
    assert re.findall(rf'{name} = ([\d.]+)', log) == [
      f'{scores[name]:.4f}' for scores in expected
    ]
  plugin, pages = found['samples/page']
  assert plugin == 'images' and list(pages) == [1000, 2000]
  assert pages[1000][0] == pages[2000][0] == b'838'  # Four columns.
  table = found['samples/captions'][1][2000].item().decode()
  assert re.findall(r'image (\d)', table) == ['3', '1', '2', '4', '5', '6']
  assert table.splitlines()[2].endswith(' | a b c<br>e f g h i &lt;UNK&gt;')

  best = max(range(2), key=lambda i: expected[i]['bleu_1'])
  kept = checkpoints.Checkpoint(str(eval_dir / 'best'))
  assert kept.global_step == (best + 1) * 1000
  assert (
    _expected_scores(eval_dir / 'best', vocab_file, ['bleu_1', 'cider'])
    == expected[best]
  )


def test_an_interrupt_is_no_error(data, tmp_path):
  process = subprocess.Popen(
    **testing.program(
      'evaluate',
      *_flags(
        input_file_pattern=data,
        checkpoint_dir=tmp_path / 'none',
        eval_dir=tmp_path / 'eval',
      ),
    )
  )
  testing.read_until(process, 'no checkpoint at')
  process.send_signal(signal.SIGINT)
  rest = testing.rest(process)
  assert process.returncode == 128 + signal.SIGINT
  assert 'Traceback' not in rest


@pytest.mark.usefixtures('one_network')
def test_passes_over_a_damaged_checkpoint(data, train_dir, tmp_path):
  damaged = tmp_path / 'run [1]'
  shutil.copytree(train_dir, damaged)
  os.truncate(damaged / 'model.ckpt-1000.data-00000-of-00001', 5000)
  result = testing.run_program(
    'evaluate',
    *_flags(
      input_file_pattern=data,
      checkpoint_dir=damaged,
      run_once=True,
      eval_dir=tmp_path / 'eval',
      min_global_step=0,
      num_eval_examples=2,
    ),
  )
  assert result.returncode == 0, result.stderr
  assert (
    len(
      re.findall(
        r'model\.ckpt-1000 is truncated.*: using '
        r'\S+ \[1\]/model\.ckpt-900 instead\n',
        result.stderr,
      )
    )
    == 1
  )
  assert 'global step 900: perplexity' in result.stderr
  # Only a trainer puts a directory in order.
  assert {p.name for p in damaged.iterdir()} == {
    p.name for p in train_dir.iterdir()
  }


@pytest.fixture(scope='module', name='failures')
def fixture_failures(tmp_path_factory, data, train_dir, model):
  """Flags of runs that fail: dict from name to list."""
  path = tmp_path_factory.mktemp('failures')
  testing.write_shard(path / 'ids', [(1, testing.jpeg(), [0, 12, 1])])
  for name, fingerprint in (('stamped', '12ab'), ('shards', '34cd')):
    model.save(path / name, 1000)
    vocabulary_stamp.save(
      path / name, vocabulary_stamp.Stamp(fingerprint, 12, '/words.txt')
    )
  testing.write_shard(path / 'shards' / 'val', [(1, testing.jpeg(), [0, 1])])
  common = dict(
    input_file_pattern=data, checkpoint_dir=train_dir, eval_dir=path / 'eval'
  )
  (path / 'in_use').mkdir()
  with locks.hold(str(path / 'in_use'), 'best'):
    yield {
      name: _flags(**common | flags)
      for name, flags in {
        'no files': {'input_file_pattern': path / 'no'},
        'never': {'number_of_steps': 1000},
        'no checkpoint': {'checkpoint_dir': path / 'no', 'run_once': True},
        'vocabulary': {
          'input_file_pattern': path / 'shards' / 'val',
          'checkpoint_dir': path / 'stamped',
          'min_global_step': 0,
        },
        'id': {'input_file_pattern': path / 'ids', 'min_global_step': 0},
        'no words': {'metrics': 'cider'},
        'no metrics': {'ranking_images': 5},
        'in use': {'eval_dir': path / 'in_use', 'best_metric': 'perplexity'},
      }.items()
    }


@pytest.mark.parametrize(
  'name, parts',
  [
    ('no files', ['--input_file_pattern=', 'no file matches']),
    ('never', ['--number_of_steps=1000', '--min_global_step=5000']),
    ('no checkpoint', ['no checkpoint at', 'failures0/no']),
    (
      'vocabulary',
      [
        'the shards in ',
        'failures0/shards (fingerprint 34cd, 12 ',
        'stamped/model.ckpt-1000 (fingerprint 12ab, 12 words',
        'give shards',
      ],
    ),
    ('id', ['word id 12', 'vocabulary size 12']),
    ('no metrics', ['--ranking_images needs --metrics']),
    (
      'in use',
      [
        '--eval_dir=',
        'in_use is in use',
        f'process {os.getpid()} on',
        'another --eval_dir',
      ],
    ),
    ('no words', ['no ', 'word_counts.txt: give --vocab_file']),
  ],
)
def test_one_line_says_what_is_wrong(failures, name, parts):
  result = testing.run_program('evaluate', *failures[name])
  testing.assert_one_line_error(result, *parts)


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
