# SPDX-License-Identifier: Apache-2.0
"""Tests of caption_file: what a later run finds, and what it mends."""

import csv
import json
import os
import sys

import pytest

from im2txt.folders import caption_file
from im2txt.runtime import files

_STATE = files.State(7, 8)
# A comma, a quote, a line end, and a byte that is no UTF-8.
_NAMES = ['/p/a, "b".jpg', '/p/two\nlines.jpg', os.fsdecode(b'/p/\xff\\.jpg')]
_FORMATS = pytest.mark.parametrize('suffix', ['.jsonl', '.csv'])


def _record(name, text='a dog', **more):
  captions = [
    {'caption': text, 'probability': 0.5, 'log_probability': -0.69}
  ] * bool(text)
  return {'image': name, 'captions': captions, **more}


def _video(name, times):
  return [_record(name, f'at {time}', time=time) for time in times]


def _write(path, names, model='m'):
  with caption_file.CaptionFile(str(path), model) as captions:
    for name in names:
      if not captions.recorded(name, _STATE):
        captions.add(name, _STATE, [_record(name)])
    return captions.num_captioned


@_FORMATS
def test_goes_on_after_a_kill_at_any_place(tmp_path, suffix):
  path = tmp_path / f'captions{suffix}'
  assert _write(path, _NAMES) == 3
  with caption_file.CaptionFile(str(path), 'm') as captions:
    captions.add('/p/c.mp4', _STATE, _video('/p/c.mp4', [0.0, 2.5]))
  whole = path.read_bytes()
  for length in range(0, len(whole), 17):
    path.write_bytes(whole[:length])
    with caption_file.CaptionFile(str(path), 'm') as captions:
      # The rest is cut off, with all frames of a video that misses one.
      assert whole.startswith(path.read_bytes())
      done = [bool(captions.recorded(name, _STATE)) for name in _NAMES]
      assert done == sorted(done, reverse=True)
      assert not captions.recorded('/p/c.mp4', _STATE)
      for name, is_done in zip(_NAMES, done):
        if not is_done:
          captions.add(name, _STATE, [_record(name)])
      captions.add('/p/c.mp4', _STATE, _video('/p/c.mp4', [0.0, 2.5]))
    assert path.read_bytes() == whole
  assert _write(path, _NAMES) == 5


def test_json_lines(tmp_path):
  path = tmp_path / 'captions.jsonl'
  with caption_file.CaptionFile(str(path), 'm') as captions:
    captions.add(_NAMES[2], _STATE, [_record(_NAMES[2], error='bad', text='')])
    captions.add('c.mp4', _STATE, _video('c.mp4', [0.0, 2.5]))
  lines = [json.loads(line) for line in path.read_text('utf-8').splitlines()]
  state = {'size': 7, 'mtime_ns': 8, 'model': 'm'}
  assert lines[0] == {
    'image': _NAMES[2],
    'captions': [],
    'error': 'bad',
    **state,
  }
  assert os.fsencode(lines[0]['image']) == b'/p/\xff\\.jpg'
  assert [
    (line['time'], line['frame'], line['frames']) for line in lines[1:]
  ] == [(0.0, 0, 2), (2.5, 1, 2)]


def test_csv_is_read_by_others(tmp_path):
  path = tmp_path / 'captions.CSV'
  _write(path, _NAMES)
  with caption_file.CaptionFile(str(path), 'm') as captions:
    captions.add(
      'd.jpg', _STATE, [_record('d.jpg', '', abstained_at_confidence=0.25)]
    )
  with open(path, encoding='utf-8', newline='') as f:
    rows = list(csv.DictReader(f))
  assert [row['image'] for row in rows] == [
    *_NAMES[:2],
    '/p/\\udcff\\.jpg',
    'd.jpg',
  ]
  assert [row['caption'] for row in rows] == [*['a dog'] * 3, '']
  assert rows[0]['probability'] == '0.5' and rows[3]['confidence'] == '0.25'


@_FORMATS
def test_another_state_or_model_is_captioned_again(tmp_path, suffix):
  path = str(tmp_path / f'captions{suffix}')
  _write(path, ['a.jpg', 'b.jpg'])
  with caption_file.CaptionFile(path, 'm') as captions:
    # However the name is given.
    assert captions.recorded(os.path.abspath('a.jpg'), _STATE)
    assert captions.recorded('./a.jpg', _STATE).caption == 'a dog'
    assert not captions.recorded('a.jpg', files.State(7, 9))
    assert not captions.recorded('a.jpg', None)
  with caption_file.CaptionFile(path, 'n') as captions:
    assert not captions.recorded('a.jpg', _STATE)
    captions.add('a.jpg', _STATE, [_record('a.jpg', 'a cat')])
    assert captions.recorded('a.jpg', _STATE).caption == 'a cat'
    assert captions.num_captioned == 1
  with caption_file.CaptionFile(path, 'm') as captions:
    assert not captions.recorded('a.jpg', _STATE)  # The last line counts.
    assert captions.recorded('b.jpg', _STATE)


@_FORMATS
def test_errors_are_written_once(tmp_path, suffix):
  path = tmp_path / f'captions{suffix}'
  for _ in range(2):
    with caption_file.CaptionFile(str(path), 'm') as captions:
      for name, state in (('damaged', _STATE), ('gone', None)):
        if not captions.recorded(name, state):
          captions.add(name, state, [_record(name, '', error=f'is {name}')])
      assert captions.recorded('damaged', _STATE).error == 'is damaged'
      assert not captions.recorded('gone', _STATE)  # It may be there again.
      assert captions.num_captioned == 0
    assert path.read_text().count('is gone') == 1
    assert path.read_text().count('is damaged') == 1


@pytest.mark.parametrize(
  'name, content, number',
  [
    ('a.jsonl', b'my notes', 1),
    ('a.jsonl', b'{"image": "a.jpg"}\n', 1),
    ('a.jsonl', b'{"image": 1, "captions": {}}\n', 1),
    ('a.csv', b'image,caption\na,b\n', 1),
    ('a.csv', b'a thesis', 1),
    ('a.jsonl', b'{"image": "' + b'a' * (1 << 20), 1),
  ],
)
def test_files_of_others_are_refused_and_stay(tmp_path, name, content, number):
  path = tmp_path / name
  path.write_bytes(content)
  with pytest.raises(ValueError, match=f'{name}: line {number} is none'):
    with caption_file.CaptionFile(str(path), 'm'):
      pass
  assert path.read_bytes() == content


def test_a_row_whose_quote_is_lost_hides_no_other(tmp_path):
  path = tmp_path / 'a.csv'
  _write(path, [_NAMES[0], 'b.jpg', 'c.jpg'])
  content = path.read_bytes().replace(b'"/p/a', b'/p/a')
  path.write_bytes(content)
  with pytest.raises(ValueError, match='line 2 is none'):
    _write(path, [])
  assert path.read_bytes() == content


def test_two_do_not_write_at_once(tmp_path):
  path = str(tmp_path / 'a.jsonl')
  with caption_file.CaptionFile(path, 'm'):
    with pytest.raises(ValueError, match='in use'):
      _write(path, [])
  _write(path, [])
  assert os.listdir(tmp_path) == ['a.jsonl']


def test_the_suffix_is_checked_before_work():
  with pytest.raises(
    ValueError, match='--output_file=captions.txt: its suffix'
  ):
    caption_file.check_name('captions.txt')


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
