# SPDX-License-Identifier: Apache-2.0
"""Tests of curves."""

import sys
import time

import pytest
import tensorflow as tf

from im2txt.visualization import curves


def _log(directory, scalars, suffix='.z'):
  """Writes one event file; scalars is a list of (tag, step, value)."""
  writer = tf.summary.create_file_writer(str(directory), filename_suffix=suffix)
  with writer.as_default():
    for tag, step, value in scalars:
      tf.summary.scalar(tag, value, step=step)
    tf.summary.histogram('parameters/x', [1.0, 2.0], step=1)
  writer.close()


@pytest.fixture(name='folder')
def fixture_folder(tmp_path):
  _log(
    tmp_path / 'a' / 'train',
    [
      ('losses/smoothed_loss', 10, 3.0),
      ('losses/smoothed_loss', 20, 2.0),
      ('losses/batch_loss', 10, 7.0),
      ('learning_rate', 10, 2.0),
      ('learning_rate', 20, 1.0),
    ],
  )
  _log(
    tmp_path / 'a' / 'eval',
    [
      ('Perplexity', 20, 9.0),
      ('metrics/bleu_4', 20, 0.2),
      ('losses/cross_entropy', 20, 2.5),
    ],
  )
  _log(
    tmp_path / 'b',
    [('losses/smoothed_loss', 5, 4.0), ('metrics/cider', 5, 0.0)],
  )
  return tmp_path


def test_reads_scalars_only(folder):
  scalars = curves.read_scalars(folder / 'a' / 'train')
  assert {
    tag: [(step, value) for step, _, value in points]
    for tag, points in scalars.items()
  } == {
    'losses/smoothed_loss': [(10, 3.0), (20, 2.0)],
    'losses/batch_loss': [(10, 7.0)],
    'learning_rate': [(10, 2.0), (20, 1.0)],
  }


def test_reads_what_tensorflow_1_wrote(tmp_path):
  with tf.Graph().as_default():
    writer = tf.compat.v1.summary.FileWriter(str(tmp_path))
    writer.add_summary(
      tf.compat.v1.Summary(
        value=[
          tf.compat.v1.Summary.Value(tag='learning_rate', simple_value=0.5)
        ]
      ),
      3,
    )
    writer.close()
  ((_, _, value),) = curves.read_scalars(tmp_path)['learning_rate']
  assert value == 0.5


def test_resumed_run_goes_on_from_its_checkpoint(folder):
  directory = folder / 'a' / 'train'
  time.sleep(1.1)  # Files tell when they were begun to the second.
  _log(
    directory,
    [('losses/smoothed_loss', 15, 2.6), ('losses/smoothed_loss', 25, 1.5)],
    suffix='.a',
  )
  points = curves.read_scalars(directory)['losses/smoothed_loss']
  assert [(step, round(value, 3)) for step, _, value in points] == [
    (10, 3.0),
    (15, 2.6),
    (25, 1.5),
  ]


def test_file_that_is_being_written(folder):
  (path,) = (folder / 'b').iterdir()
  with open(path, 'r+b') as f:
    f.truncate(path.stat().st_size - 3)
  assert 'losses/smoothed_loss' in curves.read_scalars(folder / 'b')


def test_panels_and_curves(folder):
  runs = curves.find_runs([str(folder / 'a'), str(folder / 'b')])
  assert list(runs) == ['a/eval', 'a/train', 'b']
  axes = curves.draw(runs).axes
  assert [a.get_ylabel() for a in axes[::2]] == [
    'loss (nats per word)',
    'perplexity',
    'BLEU-4',
    'CIDEr',
    'learning rate',
  ]
  assert {a.get_xlabel() for a in axes[::2]} == {'step'}
  assert {a.get_xlabel() for a in axes[1::2]} == {'seconds'}
  lines = {
    line.get_label(): line.get_xydata().tolist() for line in axes[0].lines
  }
  assert lines == {
    'a/eval': [[20, 2.5]],
    'a/train': [[10, 3], [20, 2]],
    'b': [[5, 4]],
  }
  seconds = axes[1].lines[1].get_xdata()
  assert 0 <= seconds[0] <= seconds[1] < 360
  assert axes[2].get_yscale() == 'log'
  assert axes[6].get_yscale() == 'linear'


@pytest.mark.parametrize(
  'length, unit, expected',
  [
    (90, 'seconds', 90),
    (300, 'minutes', 5),
    (7000, 'minutes', 7000 / 60),
    (36000, 'hours', 10),
  ],
)
def test_time_is_in_a_unit_that_fits(length, unit, expected):
  axes = curves.draw(
    {
      'a': {
        'perplexity': [
          curves.Point(1, 50.0, 9.0),
          curves.Point(2, 50.0 + length, 8.0),
        ]
      },
      'b': {'perplexity': [curves.Point(1, 7.0, 9.0)]},
    }
  ).axes
  assert axes[1].get_xlabel() == unit
  assert axes[1].lines[0].get_xdata().tolist() == [0, expected]


def test_nothing_to_draw_is_told(folder, tmp_path):
  (tmp_path / 'empty').mkdir()
  with pytest.raises(ValueError, match='no event files .* in .*empty or below'):
    curves.find_runs([str(folder), str(tmp_path / 'empty')])
  with pytest.raises(ValueError, match='none of the scalars'):
    curves.draw({'x': {'global_norm': [curves.Point(1, 0.0, 1.0)]}})


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
