# SPDX-License-Identifier: Apache-2.0
"""Tests of feature_files."""

import os
import sys

import numpy as np
import pytest
import tensorflow as tf

from im2txt import checkpoints
from im2txt import configuration
from im2txt import show_and_tell_model
from im2txt import testing
from im2txt.input_pipeline import image_features
from im2txt.runtime import beam_workers
from im2txt.runtime import storage
from im2txt.training import feature_files


@pytest.fixture(name='arguments', scope='module')
def fixture_arguments(tmp_path_factory):
  """Seven small images, one of them damaged, and an Inception v3."""
  directory = tmp_path_factory.mktemp('features')
  testing.write_shard(
    directory / 'train-00000-of-00001',
    [
      (i, testing.jpeg(i) if i != 3 else b'damaged', [0, 2, 1])
      for i in range(7)
    ],
  )
  model = show_and_tell_model.ShowAndTellModel(
    configuration.ModelConfig(image_height=75, image_width=75)
  )
  return {
    'input_file_pattern': f'{directory}/train-*',
    'inception_checkpoint_file': checkpoints.CheckpointManager(
      str(directory / 'inception')
    ).save(model.named_variables),
    'image_height': 75,
    'image_width': 75,
    'feature_views': 1,
  }


def _one_model(make):
  """Returns a function that makes its model once: all have the same weights."""
  models = []

  def model(recipe):
    if not models:
      models.append(make(recipe))
    return models[0]

  return model


def _mean_colors(images):
  return tf.tile(tf.reduce_mean(images, [1, 2]), [1, 683])[:, :2048]


def _content(directory):
  result = {}
  for name in storage.listdir(directory):
    with storage.open_read(f'{directory}/{name}') as f:
      result[name] = f.read()
  return result


@pytest.fixture(name='of_one_process')
def fixture_of_one_process(arguments, tmp_path, monkeypatch):
  """Returns the files of a cache that this process filled, by name."""
  monkeypatch.setattr(image_features, 'IMAGES_PER_FILE', 3)
  # Inception would take minutes to say the same.
  monkeypatch.setattr(feature_files, '_model', _one_model(feature_files._model))
  monkeypatch.setattr(
    feature_files.setup, 'feature_encoder', lambda *_: _mean_colors
  )
  directory = str(tmp_path / 'here')
  data = feature_files.build(
    feature_files.CacheOptions(feature_cache_dir=directory, **arguments)
  )
  assert data.undecodable == [3]
  content = _content(directory)
  assert len([name for name in content if name.endswith('.npy')]) == 3
  return content


def test_a_cache_of_many_workers_is_that_of_one_process(
  arguments, of_one_process, tmp_path
):
  directory = str(tmp_path / 'there')
  options = feature_files.CacheOptions(feature_cache_dir=directory, **arguments)
  asked = []

  class Pool:
    def map(self, function, tasks):
      for task in tasks:
        asked.append(task[1])
        yield function(*task)

  feature_files.build(options, Pool())
  assert _content(directory) == of_one_process
  # Only what is missing is asked for again, here the first file.
  os.remove(f'{directory}/features-00000.npy')
  feature_files.build(options, Pool())
  assert asked == [0, 1, 2, 0]
  assert _content(directory) == of_one_process


def test_a_cache_that_beam_makes_in_a_store_is_the_same(
  arguments, of_one_process
):
  pytest.importorskip('apache_beam', reason='needs Apache Beam')
  store = 'ram://feature_files'
  data = feature_files.build(
    feature_files.CacheOptions(
      feature_cache_dir=store, runner='DirectRunner', **arguments
    )
  )
  assert _content(store) == of_one_process
  assert np.isnan(data.arrays[1][0]).all()


def test_a_missing_beam_is_told_before_work(arguments, monkeypatch):
  monkeypatch.setattr(beam_workers.importlib.util, 'find_spec', lambda _: None)
  with pytest.raises(ValueError, match='needs Apache Beam'):
    feature_files.build(
      feature_files.CacheOptions(
        feature_cache_dir='none', runner='FlinkRunner', **arguments
      )
    )


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
