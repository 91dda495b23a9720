# SPDX-License-Identifier: Apache-2.0
"""Tests of beam_sweep and of the program sweep."""

import json
import sys

import numpy as np
import pytest
import tensorflow as tf

from im2txt import checkpoints
from im2txt import configuration
from im2txt import show_and_tell_model
from im2txt import sweep
from im2txt import testing
from im2txt.data import shards
from im2txt.evaluation import beam_sweep
from im2txt.evaluation import sweep_options
from im2txt.inference_utils import captioner as captioner_lib
from im2txt.inference_utils.search_config import SearchConfig
from im2txt.metrics import summary
from im2txt.text import vocabulary

_WORDS = ['<S>', '</S>', 'a', 'man', 'dog', 'runs']
_CAPTIONS = {7: ['a man runs', 'a man'], 3: ['a dog'], 5: ['a dog runs']}
_METRICS = ['bleu_1', 'mean_length']


class Captioner:
  """Stands in for a `Captioner`; its encoder reads the size of the file.

  Attributes:
    decoded: number of images decoded.
  """

  def __init__(self, directory, search=SearchConfig()):
    self.precision = 'float32'
    self.prefixes = [checkpoints.resolve(str(directory))]
    self.model = show_and_tell_model.ShowAndTellModel(
      configuration.ModelConfig(
        vocab_size=8, embedding_size=4, num_lstm_units=5
      ),
      with_inception=False,
    )
    checkpoints.Checkpoint(self.prefixes[0]).restore(self.model.named_variables)
    self.vocab = vocabulary.Vocabulary(str(directory / 'word_counts.txt'))
    self.decoder = captioner_lib.FeatureCaptioner(
      self.model, self.vocab, search
    )
    self.decoded = 0

  @property
  def encoder_fingerprints(self):
    return ['fingerprint of the one encoder']

  def decode(self, data, exif_orientation):
    assert not exif_orientation
    self.decoded += 1
    if data == b'damaged':
      raise ValueError('damaged')
    return len(data)

  def encode(self, images):
    return tf.stack(
      [
        np.random.default_rng(size).normal(size=[2048]).astype(np.float32) / 20
        for size in images
      ]
    )


@pytest.fixture(name='files')
def fixture_files(tmp_path):
  """A checkpoint, a vocabulary, images and captions in two formats."""
  (tmp_path / 'word_counts.txt').write_text(
    ''.join(f'{word} 5\n' for word in _WORDS)
  )
  tf.random.set_seed(1)
  model = show_and_tell_model.ShowAndTellModel(
    configuration.ModelConfig(
      vocab_size=8, embedding_size=4, num_lstm_units=5, initializer_scale=1.0
    ),
    with_inception=False,
  )
  model.logits_biases.assign([-9, 1, 1, 1, 0, 0, -9, -9])
  checkpoints.CheckpointManager(str(tmp_path)).save(model.named_variables)
  vocab = vocabulary.Vocabulary(str(tmp_path / 'word_counts.txt'))
  rows = []
  with shards.Writer(tmp_path / 'val-0') as writer:
    for image_id, captions in _CAPTIONS.items():
      data = testing.jpeg(image_id)
      (tmp_path / f'{image_id}.jpg').write_bytes(data)
      tokens = [['<S>', *caption.split(), '</S>'] for caption in captions]
      writer.write(
        shards.serialize_compact(
          image_id,
          data,
          [(t, [vocab.word_to_id(word) for word in t]) for t in tokens],
        )
      )
      rows.append(
        {
          'file': f'{image_id}.jpg',
          'image_id': image_id,
          'captions': captions,
          'split': 'train' if image_id == 3 else 'val',
        }
      )
  (tmp_path / 'captions.jsonl').write_text('\n'.join(map(json.dumps, rows)))
  return tmp_path


def make(files, captioner=None, **options):
  captioner = captioner or Captioner(files)
  images = beam_sweep.Images.of_shards(
    [str(files / 'val-0')], 0, captioner.vocab
  )
  return beam_sweep.Sweep(
    captioner=captioner,
    images=images,
    **{
      'directory': str(files / 'out'),
      'search': SearchConfig(max_caption_length=7),
      'metrics': _METRICS,
      'split': lambda captions: captions,
      **options,
    },
  )


def test_each_point_is_scored_with_its_own_search(files):
  captioner = Captioner(files)
  points = make(files, captioner).run([1, 4], [0.0, 2.0])
  assert list(points) == [(1, 0.0), (1, 2.0), (4, 0.0), (4, 2.0)]
  assert captioner.decoded == 3
  features = captioner.encode(
    [len(testing.jpeg(image_id)) for image_id in _CAPTIONS]
  )
  for (beam_size, factor), scores in points.items():
    found = captioner_lib.FeatureCaptioner(
      captioner.model, captioner.vocab, SearchConfig(beam_size, 7, factor)
    ).caption(features)
    expected = summary.summarize(
      _CAPTIONS,
      {i: [c.text for c in captions] for i, captions in zip(_CAPTIONS, found)},
      metrics=_METRICS,
      split=lambda captions: captions,
    )
    assert scores == {name: expected[name] for name in _METRICS}
  assert points[4, 2.0]['mean_length'] > points[4, 0.0]['mean_length']


def test_goes_on_where_it_was(files, monkeypatch):
  calls = []
  summarize = summary.summarize

  def counted(*args, **kwargs):
    calls.append(kwargs['metrics'])
    if len(calls) == 3:
      raise KeyboardInterrupt
    return summarize(*args, **kwargs)

  monkeypatch.setattr(summary, 'summarize', counted)
  with pytest.raises(KeyboardInterrupt):
    make(files).run([1, 2], [0.0, 1.0])
  captioner = Captioner(files)
  again = make(files, captioner)
  assert list(again.points) == [(1, 0.0), (1, 1.0)]
  points = again.run([1, 2], [0.0, 1.0])
  assert len(points) == 4 and len(calls) == 5
  # Images are encoded once for all runs.
  assert captioner.decoded == 0
  # Another metric is added to the points; those that are there stay.
  more = make(files, metrics=['mean_length', 'vocabulary_used'])
  assert more.run([2], [0.0])[2, 0.0].keys() == {*_METRICS, 'vocabulary_used'}
  assert len(calls) == 6
  assert make(files).run([2], [0.0, 1.0])[2, 1.0] == points[2, 1.0]
  assert len(calls) == 6


def test_sweeps_share_the_features_of_an_encoder(files):
  class TwoEncoders(Captioner):
    @property
    def encoder_fingerprints(self):
      return [*super().encoder_fingerprints, 'fingerprint of another']

    def encode(self, images):
      first = super().encode(images)
      return tf.concat([first, first + 1], axis=1)

  def encoded(captioner, output_dir):
    before = captioner.decoded
    make(
      files,
      captioner,
      directory=str(files / output_dir),
      feature_dir=str(files / 'features'),
    )._encoded()
    return captioner.decoded - before

  assert encoded(Captioner(files), 'a') == 3
  # It takes one encoder more.
  assert encoded(TwoEncoders(files), 'b') == 3
  assert len(list((files / 'features').iterdir())) == 2
  ensemble = TwoEncoders(files)
  assert encoded(ensemble, 'c') == 0
  image_ids, features = make(
    files,
    ensemble,
    directory=str(files / 'd'),
    feature_dir=str(files / 'features'),
  )._encoded()
  assert image_ids.tolist() == list(_CAPTIONS)
  np.testing.assert_array_equal(
    features,
    ensemble.encode([len(testing.jpeg(image_id)) for image_id in _CAPTIONS]),
  )


def test_captions_are_kept(files):
  def sweep(**options):
    return make(files, **options).run([1, 2], [0.0])

  points = sweep()
  with pytest.raises(ValueError, match='captions-2-0.json .*--keep_captions'):
    beam_sweep.read_captions(str(files / 'out'), 2, 0.0)
  # Points that were scored without are searched again.
  assert sweep(keep_captions=True) == points
  kept = beam_sweep.read_captions(str(files / 'out'), 2, 0.0)
  assert list(kept) == list(_CAPTIONS)
  assert all(len(captions) == 2 for captions in kept.values())
  assert beam_sweep.read_points(str(files / 'out')) == points
  scores = summary.summarize(
    _CAPTIONS, kept, metrics=_METRICS, split=lambda captions: captions
  )
  assert {name: scores[name] for name in _METRICS} == points[2, 0.0]


def test_a_sweep_of_something_else_is_refused(files):
  make(files).run([1], [0.0])
  with pytest.raises(ValueError, match='sweep.json is of other search: give'):
    make(files, search=SearchConfig(max_caption_length=8))
  captioner = Captioner(files)
  captioner.precision = 'bfloat16'
  with pytest.raises(ValueError, match='is of other precision'):
    make(files, captioner)
  captioner = Captioner(files)
  images = beam_sweep.Images.of_captions_file(
    str(files / 'captions.jsonl'), str(files), 'val', 0
  )
  with pytest.raises(ValueError, match='is of other captions'):
    beam_sweep.Sweep(
      str(files / 'out'), captioner, images, SearchConfig(), _METRICS
    )
  captioner.model.global_step.assign(5)
  captioner.model.logits_biases.assign_add(tf.ones([8]))
  checkpoints.CheckpointManager(str(files)).save(
    captioner.model.named_variables
  )
  with pytest.raises(ValueError, match='is of other checkpoints'):
    make(files)


def test_damaged_files(files):
  make(files).run([1], [0.0])
  (features,) = (files / 'out').glob('features-*.npz')
  features.write_bytes(b'PK nonsense')
  captioner = Captioner(files)
  make(files, captioner).run([2], [0.0])
  assert captioner.decoded == 3
  (files / 'out' / 'sweep.json').write_text('{"points": [')
  with pytest.raises(ValueError, match='cannot read .*sweep.json .*delete it'):
    make(files)


def test_images_of_a_captions_file(files):
  def images(split, max_images=0):
    return beam_sweep.Images.of_captions_file(
      str(files / 'captions.jsonl'), str(files), split, max_images
    )

  assert images('').references == _CAPTIONS
  assert list(images('', 2).references) == [7, 3]
  val = images('val')
  assert val.references == {7: _CAPTIONS[7], 5: _CAPTIONS[5]}
  assert [
    [(i, len(data)) for i, data in batch] for batch in val.batches(1)
  ] == [[(i, len(testing.jpeg(i)))] for i in (7, 5)]
  with pytest.raises(ValueError, match='no image .* of --split=test'):
    images('test')


def test_damaged_images_are_left_out(files):
  (files / '3.jpg').write_bytes(b'damaged')
  images = beam_sweep.Images.of_captions_file(
    str(files / 'captions.jsonl'), str(files), '', 0
  )
  points = beam_sweep.Sweep(
    str(files / 'out'),
    Captioner(files),
    images,
    SearchConfig(),
    ['distinct_captions'],
    lambda captions: captions,
  ).run([1], [0.0])
  assert points[1, 0.0]['distinct_captions'] <= 2
  for image_id in _CAPTIONS:
    (files / f'{image_id}.jpg').write_bytes(b'damaged')
  with pytest.raises(ValueError, match='no image that can be decoded'):
    beam_sweep.Sweep(
      str(files / 'new'), Captioner(files), images, SearchConfig(), _METRICS
    ).run([1], [0.0])


_POINTS = {
  (1, 0.0): {'cider': 0.5},
  (1, 0.7): {'cider': 0.25},
  (10, 0.0): {'cider': 0.75},
  (10, 0.7): {},
}


def test_tables():
  assert beam_sweep.tables(_POINTS, ['cider']).split('\n') == [
    'cider, by length normalization factor',
    '              0     0.7',
    'beam 1   0.5000  0.2500',
    'beam 10  0.7500       -',
  ]


def test_draw():
  (axes,) = beam_sweep.draw(_POINTS, ['cider']).axes
  assert axes.get_ylabel() == 'cider'
  assert [
    (line.get_label(), line.get_xydata().tolist()) for line in axes.get_lines()
  ] == [('0', [[1, 0.5], [10, 0.75]]), ('0.7', [[1, 0.25]])]


@pytest.fixture(name='run')
def fixture_run(files, monkeypatch, capsys):
  """Runs the program; returns what it prints."""
  monkeypatch.setattr(
    sweep.captioner_lib,
    'Captioner',
    lambda path, vocab_file, search, precision: Captioner(files, search),
  )

  def run(**arguments):
    arguments = {
      'checkpoint_path': files,
      'output_dir': files / 'out',
      'vocab_file': files / 'word_counts.txt',
      **arguments,
    }
    with testing.flags_of(sweep, *(f'--{k}={v}' for k, v in arguments.items())):
      sweep.main([])
    return capsys.readouterr().out

  return run


def test_program(run, files):
  flags_of_points = {
    'beam_sizes': '1,3',
    'length_normalization_factors': '0,1',
    'metrics': 'mean_length',
    'max_caption_length': 7,
    'feature_dir': files / 'features',
    'keep_captions': True,
  }
  printed = run(input_file_pattern=files / 'val-0', **flags_of_points)
  assert [line.split()[:2] for line in printed.splitlines()[1:4]] == [
    ['0', '1'],
    ['beam', '1'],
    ['beam', '3'],
  ]
  assert (files / 'out' / 'sweep.png').read_bytes().startswith(b'\x89PNG')
  assert len(list((files / 'out').glob('captions-*.json'))) == 4
  assert len(list((files / 'features').iterdir())) == 1
  # The captions file has the same captions: the sweep is finished already.
  before = (files / 'out' / 'sweep.json').read_bytes()
  assert (
    run(
      captions_file=files / 'captions.jsonl', image_dir=files, **flags_of_points
    )
    == printed
  )
  assert (files / 'out' / 'sweep.json').read_bytes() == before


@pytest.mark.parametrize(
  'arguments, message',
  [
    ({}, 'give either --captions_file or --input_file_pattern'),
    ({'beam_sizes': '1,0'}, '--beam_sizes=1,0: beam_size=0 must be 1'),
    ({'beam_sizes': 'x'}, '--beam_sizes=x: invalid literal'),
    ({'length_normalization_factors': ''}, 'is empty: give one number'),
    ({'metrics': 'cidre'}, "'cidre' must be one of bleu_1"),
    ({'required_words': 'zebra'}, "'zebra' is not a word of the vocabulary"),
  ],
)
def test_wrong_flags_are_refused(run, files, arguments, message):
  if arguments:
    arguments['input_file_pattern'] = files / 'val-0'
  with pytest.raises(ValueError, match=message):
    run(**arguments)


def test_options():
  options = sweep_options.SweepOptions(
    beam_sizes=('2', '1', '2'), captions_file='a'
  )
  assert options.sizes() == [2, 1]
  with pytest.raises(ValueError, match='--image_dir is required'):
    options.check()


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
