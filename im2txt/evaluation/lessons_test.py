# SPDX-License-Identifier: Apache-2.0
"""Tests of lessons."""

import json
import math
import sys

import pytest

from im2txt.data import shards
from im2txt.evaluation import lessons
from im2txt.visualization import curves

_BLEU_4 = {
  'frozen-1': {3: 0.20, 20: 0.17},
  'frozen-2': {3: 0.22, 20: 0.18},
  'joint-1': {3: 0.21, 20: 0.19},
  'joint-2': {3: 0.25, 20: 0.21},
  'sampled-1': {3: 0.20, 20: 0.20},
  'sampled-2': {3: 0.22, 20: 0.23},
  'ensemble-without-1': {3: 0.25, 20: 0.2},
  'ensemble-without-2': {3: 0.24, 20: 0.2},
  'ensemble-all': {3: 0.27, 20: 0.2},
  'longer-1': {3: 0.22},
  'critical-1': {3: 0.26},
}
# Captions of images 5 and 6.
_N_BEST = {5: ['a dog runs', 'a cat'], 6: ['a man', 'a dog runs']}
_REFERENCES = {5: ['a dog runs on grass'], 6: ['a man sits']}
_TRAINING = {1: ['a dog runs', 'two men']}


@pytest.fixture(name='directory')
def fixture_directory(tmp_path):
  for name, bleu_4 in _BLEU_4.items():
    path = tmp_path / 'scores' / name
    path.mkdir(parents=True)
    points = [
      {
        'beam_size': beam,
        'length_normalization_factor': 0.0,
        'scores': {'bleu_4': value, 'cider': 2 * value},
      }
      for beam, value in bleu_4.items()
    ]
    (path / 'sweep.json').write_text(
      json.dumps({'measured_on': {}, 'points': points})
    )
    (path / 'captions-20-0.json').write_text(
      json.dumps([{'image_id': i, 'captions': of} for i, of in _N_BEST.items()])
    )
  # What other programs leave there.
  (tmp_path / 'scores' / 'features').mkdir()
  (tmp_path / 'shards').mkdir()
  for part, captions in (('train', _TRAINING), ('val', _REFERENCES)):
    path = tmp_path / 'shards' / f'{part}-00000-of-00001'
    with shards.Writer(path) as writer:
      for image_id, of in captions.items():
        for caption in of:
          tokens = ['<S>', *caption.split(), '</S>']
          writer.write(
            shards.serialize(image_id, b'', tokens, [0] * len(tokens))
          )
  return tmp_path


def cells(table, title):
  """Returns the cells of the row of a title, by those of the header."""
  header, _, *rows = [
    [cell.strip() for cell in line.strip('|').split('|')]
    for line in table.splitlines()
  ]
  (row,) = [row for row in rows if row[0] == title]
  return dict(zip(header, row))


def test_spread():
  found = lessons.Spread.of([1.0, 3.0])
  assert found == (2.0, math.sqrt(2), 2)
  assert found.text(1, 2) == '2.00 ± 1.41'
  assert lessons.Spread.of([0.165]).text(sign='+') == '+16.5'


def test_runs_are_compared_with_what_they_are_built_upon(directory):
  rows = lessons.read_rows(str(directory / 'scores'))
  assert list(rows) == [
    'frozen',
    'longer',
    'joint',
    'sampled',
    'ensemble-without',
    'ensemble-all',
    'critical',
  ]
  found = lessons.lessons_table(rows)
  joint = cells(found, '+ top blocks fine-tuned')
  assert joint['BLEU-4'] == '23.0 ± 2.8'
  # By seed: 1 and 3 points.
  assert joint['BLEU-4 gained'] == '+2.0 ± 1.4'
  assert joint['same sign'] == 'yes'
  assert joint['CIDEr'] == '0.460 ± 0.057'
  assert 'METEOR' not in joint
  sampled = cells(found, '+ scheduled sampling')
  assert sampled['BLEU-4 gained'] == '-2.0 ± 1.4'
  assert sampled['same sign'] == '**no**'
  # One without seed 1 has seed 2 alone, which has 22; without 2, 20.
  pair = cells(found, '+ ensemble of two')
  assert pair['BLEU-4 gained'] == '+3.5 ± 0.7'
  whole = cells(found, '+ ensemble of three')
  assert (whole['runs'], whole['BLEU-4'], whole['BLEU-4 gained']) == (
    '1',
    '27.0',
    '+6.0',
  )
  critical = cells(found, 'frozen, more steps, + self-critical')
  assert critical['BLEU-4 gained'] == '+4.0'
  frozen = cells(found, 'encoder frozen')
  assert frozen['BLEU-4 gained'] == frozen['same sign'] == ''


def test_beams(directory):
  found = lessons.beam_table(lessons.read_rows(str(directory / 'scores')))
  frozen = cells(found, 'encoder frozen')
  assert frozen['BLEU-4, beam 20'] == '17.5 ± 0.7'
  assert frozen['CIDEr, beam 3'] == '0.420 ± 0.028'
  sampled = cells(found, '+ scheduled sampling')
  assert sampled['same sign'] == '**no**'
  joint = cells(found, '+ top blocks fine-tuned')
  assert joint['same sign'] == 'yes'
  assert 'self-critical' not in found


def test_a_gain_within_its_spread_is_none():
  assert lessons.agreement(None) == ''
  assert lessons.agreement(lessons.Spread(1.0, 2.0, 3)) == 'within the spread'
  assert lessons.agreement(lessons.Spread(1.0, math.nan, 1)) == 'yes'


def test_the_program_writes_tables_and_plot(directory, capsys):
  assert lessons.main([f'--directory={directory}']) == 0
  text = (directory / 'lessons.md').read_text()
  assert capsys.readouterr().out.startswith(text)
  parts = dict(
    part.split('\n\n', 1) for part in text.strip().split('## ') if part
  )
  novelty = cells(parts['Novelty, beam 20'], '+ top blocks fine-tuned')
  assert novelty['best captions in the training set'] == '50.0 ± 0.0 %'
  assert novelty['new ones of the best 15'] == '50.0 ± 0.0 %'
  n_best = parts['N-best captions of sampled, beam 20']
  assert '| 5 | a dog runs<br>**a cat** |' in n_best
  assert '| 6 | **a man**<br>a dog runs |' in n_best
  assert (directory / 'lessons.png').read_bytes().startswith(b'\x89PNG')


def test_nothing_to_tabulate_is_told(tmp_path, capsys):
  with pytest.raises(SystemExit):
    lessons.main([f'--directory={tmp_path}'])
  assert f'no scores in {tmp_path}/scores' in capsys.readouterr().err


def point(step, value):
  return curves.Point(step, float(step), value)


def test_draws_the_loss_where_joint_training_begins():
  frozen = {
    '1': {'losses/smoothed_loss': [point(10, 5.0), point(90, 3.25)]},
    '2': {'losses/smoothed_loss': [point(90, 3.5)]},
  }
  joint = {
    '1': {
      'losses/smoothed_loss': [point(100, 3.25), point(110, 3.0)],
      'losses/batch_loss': [point(100, 2.0), point(110, 2.5)],
      'losses/total_loss': [point(100, 2.125), point(110, 2.75)],
    }
  }
  _, near = lessons.draw_switch(frozen, joint).axes
  lines = [line.get_xydata().tolist() for line in near.get_lines()]
  assert lines[:3] == [
    [[10, 5.0], [90, 3.25]],
    [[100, 3.25], [110, 3.0]],
    [[100, 3.375], [110, 3.25]],
  ]
  assert near.get_xlim() == (70, 110)
  # What is far from the switch does not count.
  assert near.get_ylim() == pytest.approx((2.95, 3.425))


def test_draws_a_point_for_each_run(directory):
  bleu_4, cider = lessons.draw(
    lessons.read_rows(str(directory / 'scores'))
  ).axes
  assert (bleu_4.get_xlabel(), cider.get_xlabel()) == ('BLEU-4', 'CIDEr')
  runs = [
    x
    for line in bleu_4.get_lines()
    if line.get_marker() == '|' and line.get_linestyle() == 'None'
    for x in line.get_xdata()
  ]
  for value in (20, 22, 17, 18, 27):
    assert any(x == pytest.approx(value) for x in runs)


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
