# SPDX-License-Identifier: Apache-2.0
"""Tests of caption_files."""

import json
import sys

import pytest

from im2txt.data import caption_files
from im2txt.data.caption_files import Entry

_COCO = {
  'images': [
    {'id': 42, 'file_name': 'b.jpg', 'split': 'val'},
    {'id': 7, 'file_name': 'a.jpg'},
  ],
  'annotations': [
    {'image_id': 7, 'caption': 'Un café, la nuit.'},
    {'image_id': 42, 'caption': 'a dog'},
    {'image_id': 7, 'caption': 'a cup'},
  ],
}

_KARPATHY = {
  'dataset': 'coco',
  'images': [
    {
      'filepath': 'val2014',
      'filename': 'b.jpg',
      'cocoid': 42,
      'imgid': 0,
      'split': 'restval',
      'sentences': [{'raw': 'A dog.', 'tokens': ['a', 'dog']}, {'raw': 'Dogs'}],
    },
    {'filename': 'a.jpg', 'imgid': 1, 'split': 'test', 'sentences': []},
  ],
}

# What is in the file -> its Entries.
_FORMATS = {
  'coco': (
    json.dumps(_COCO),
    [
      Entry(42, 'b.jpg', ['a dog'], 'val'),
      Entry(7, 'a.jpg', ['Un café, la nuit.', 'a cup']),
    ],
  ),
  'coco with string ids': (
    json.dumps(_COCO).replace(': 42', ': "42"'),
    [
      Entry(42, 'b.jpg', ['a dog'], 'val'),
      Entry(7, 'a.jpg', ['Un café, la nuit.', 'a cup']),
    ],
  ),
  'karpathy': (
    json.dumps(_KARPATHY, indent=1),
    [
      Entry(42, 'val2014/b.jpg', ['A dog.', 'Dogs'], 'restval'),
      Entry(1, 'a.jpg', [], 'test'),
    ],
  ),
  'flickr8k': (
    'b_1.jpg#0\tA dog , running .\nb_1.jpg#1\tTwo "dogs"\nx.jpg.1#0\tA cat\r\n',
    [
      Entry(None, 'b_1.jpg', ['A dog , running .', 'Two "dogs"']),
      Entry(None, 'x.jpg.1', ['A cat']),
    ],
  ),
  'flickr8k with line ends of Unicode': (
    'b.jpg#0\tA\u2028dog\u0085\u2029runs\nb.jpg#1\tTwo\x1cdogs\n',
    [Entry(None, 'b.jpg', ['A\u2028dog\u0085\u2029runs', 'Two\x1cdogs'])],
  ),
  'flickr30k': (
    'image_name| comment_number| comment\nb.jpg| 0| A dog , running .\n'
    'b.jpg| 4   A dog | runs .\n\nc.jpg| 0| 2\u2028cats\r\n',
    [
      Entry(None, 'b.jpg', ['A dog , running .', 'A dog | runs .']),
      Entry(None, 'c.jpg', ['2\u2028cats']),
    ],
  ),
  'csv': (
    '\ufefffile,caption\r\nb.jpg,"A dog, running\nfast ""now"""\r\n'
    'a.jpg,猫\r\nb.jpg,Dogs\r\n',
    [
      Entry(None, 'b.jpg', ['A dog, running\nfast "now"', 'Dogs']),
      Entry(None, 'a.jpg', ['猫']),
    ],
  ),
  'csv with more columns': (
    ',image_id,split,image,caption\n0,5,dev,b.jpg,x\n1,4,train,a.jpg,y\n',
    [Entry(5, 'b.jpg', ['x'], 'dev'), Entry(4, 'a.jpg', ['y'], 'train')],
  ),
  'jsonl': (
    '{"file": "b.jpg", "caption": "A \\"dog\\"", "image_id": 3}\n\n'
    '{"file": "b.jpg", "caption": "Hund", "image_id": 3}\n',
    [Entry(3, 'b.jpg', ['A "dog"', 'Hund'])],
  ),
  'jsonl with lists, and half an emoji': (
    '{"file_name": "b.jpg", '
    '"captions": ["A dog \\ud83d", "\\ud83d\\ude00"]}\n'
    '{"filename": "a.jpg", "caption": ["x"]}\n',
    [
      Entry(None, 'b.jpg', ['A dog \ufffd', '\U0001f600']),
      Entry(None, 'a.jpg', ['x']),
    ],
  ),
  'json array': (
    '[{"image": "b.jpg", "caption": "A dog", "image_id": "5"},\n'
    ' {"image": "a.jpg", "caption": ["x", "y"], "image_id": 6}]',
    [Entry(5, 'b.jpg', ['A dog']), Entry(6, 'a.jpg', ['x', 'y'])],
  ),
  'karpathy with string ids': (
    json.dumps(_KARPATHY).replace(': 42', ': "42"').replace(': 1,', ': "1",'),
    [
      Entry(42, 'val2014/b.jpg', ['A dog.', 'Dogs'], 'restval'),
      Entry(1, 'a.jpg', [], 'test'),
    ],
  ),
  'jsonl of one line': (
    '{"file": "b.jpg", "caption": "x", "split": "val"}',
    [Entry(None, 'b.jpg', ['x'], 'val')],
  ),
}


def _write(tmp_path, content):
  path = tmp_path / 'captions'
  path.write_bytes(content.encode('utf-8'))
  return str(path)


@pytest.mark.parametrize('name', _FORMATS)
def test_formats(tmp_path, name):
  content, entries = _FORMATS[name]
  assert caption_files.read(_write(tmp_path, content), '--f') == entries


def test_read_coco_takes_no_other(tmp_path):
  path = _write(tmp_path, json.dumps(_COCO))
  assert caption_files.read_coco(path, '--f') == caption_files.read(path, '--f')
  with pytest.raises(ValueError, match='no list "annotations"'):
    caption_files.read_coco(_write(tmp_path, json.dumps(_KARPATHY)), '--f')


@pytest.mark.parametrize(
  'content, part',
  [
    ('', 'no captions'),
    ('{"images": [{"id": 1', 'is not JSON'),
    ('{"images": []}\x00', 'is not JSON'),
    ('{"annotations": []}', 'no list "images"'),
    (
      '{"images": [{"filename": "a.jpg", "split": "val"}]}',
      "KeyError: 'sentences'",
    ),
    ('{"images": [1]}', 'AttributeError'),
    ('{"file": "a.jpg"}', 'line 1 '),
    ('{"file": "a.jpg", "caption": "x"}\n{"file"', 'line 2 '),
    ('{"file": "a.jpg", "caption": "x"}\n[1]', 'line 2 '),
    ('{"file": "a.jpg", "caption": 3}', 'line 1 '),
    ('[{"image": "a.jpg", "caption": "x"}, {"image": "a.jpg"}]', 'entry 2 '),
    ('[1]', 'entry 1 '),
    ('[' * 100000, 'is not JSON'),
    (
      '[{"image": "a.jpg", "caption": "x", "image_id": -1}]',
      'entry 1 .*image id -1, not a number from 0',
    ),
    (
      '[{"image": "a.jpg", "caption": "x", "image_id": "9999999999999999999"}]',
      'image id 9999999999999999999, not a number from 0',
    ),
    (
      '{"images": [{"filename": "a.jpg", "split": "val", "imgid": "one"}]}',
      "image id 'one', not a number",
    ),
    ('a.jpg#0\tx\nb.jpg x\n', 'line 2 '),
    ('image_name| comment_number| comment\na.jpg| x\n', 'line 2 '),
    ('file,caption\na.jpg,a man, a dog\n', 'line 2 '),
    ('file,caption\na.jpg,x\nb.jpg\n', 'line 3 '),
    ('file,caption\na.jpg,"x\n', 'line 2 '),
    ('name,text\na.jpg,x\n', 'line 2 '),
    ('file,caption,image_id\na.jpg,x,y\n', 'line 2 '),
    ('file,caption,split\na.jpg,x,val\na.jpg,y,test\n', 'another split'),
  ],
)
def test_damaged_files_are_refused(tmp_path, content, part):
  path = _write(tmp_path, content)
  with pytest.raises(ValueError, match=part) as error:
    caption_files.read(path, '--the_flag')
  assert path in str(error.value) and '--the_flag' in str(error.value)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  'read',
  [
    caption_files.read,
    caption_files.read_coco,
    caption_files.read_references,
    caption_files.read_results,
  ],
)
@pytest.mark.parametrize(
  'content',
  [
    '%s',
    '[%s]',
    '{"images": %s, "annotations": []}',
    '[{"image": "a.jpg", "image_id": %s, "caption": "x"}]',
    '[{"image": "a.jpg", "image_id": 1, "caption": %s}]',
    '{"images": [{"id": %s, "file_name": "a.jpg"}], "annotations": []}',
  ],
)
@pytest.mark.parametrize('depth', [900, 100_000])
@pytest.mark.parametrize('start, end', ['[]', ('{"a": ', '}')])
def test_what_is_nested_deeply(tmp_path, read, content, depth, start, end):
  path = _write(tmp_path, content % f'{start * depth}1{end * depth}')
  with pytest.raises(ValueError) as error:
    read(path, '--the_flag')
  assert path in str(error.value)
  # Nor is what is found there repeated at length.
  assert '\n' not in str(error.value) and len(str(error.value)) < 600


def test_what_cannot_be_read(tmp_path):
  with pytest.raises(ValueError, match='--f the path'):
    caption_files.read(str(tmp_path / 'nowhere'), '--f')
  (tmp_path / 'latin').write_bytes('file,caption\na,caf\xe9\n'.encode('latin1'))
  with pytest.raises(ValueError, match='latin .--f. is not .* UTF-8'):
    caption_files.read(str(tmp_path / 'latin'), '--f')


def test_numbers_only_what_has_none():
  a, b = Entry(None, 'a', ['x']), Entry(None, 'b', ['y'])
  assert [e.image_id for e in caption_files.numbered([b, a])] == [1, 2]
  with_ids = [a._replace(image_id=9), b._replace(image_id=0)]
  assert caption_files.numbered(with_ids) == with_ids
  with pytest.raises(ValueError, match='1 images have no image_id, .* b'):
    caption_files.numbered([with_ids[0], b])
  with pytest.raises(ValueError, match='another image has too, such as 9'):
    caption_files.numbered([with_ids[0], b._replace(image_id=9)])


def test_split_by_field():
  names = ['train', 'restval', 'Val', 'dev', 'test']
  entries = [Entry(i, f'{i}', ['x'], name) for i, name in enumerate(names)]
  assert caption_files.split_by_field(entries, 'f') == {
    'train': entries[:2],
    'val': entries[2:4],
    'test': entries[4:],
  }
  for split, part in (('', 'no split'), ('extra', "'extra', not one of")):
    with pytest.raises(ValueError, match=part):
      caption_files.split_by_field([Entry(1, 'a', ['x'], split)], 'f')


def test_split_by_lists(tmp_path):
  entries = [Entry(i, f'dir/{i}.jpg', ['x']) for i in range(4)]
  entries.append(Entry(4, 'a b.jpg', ['x']))
  names = _write(tmp_path, '3.jpg\r\ndir/0.jpg\n\na b.jpg ')
  lists = {
    'train': ('--t', caption_files.read_list(names, '--t')),
    'test': ('--e', ['1.jpg']),
  }
  assert caption_files.split_by_lists(entries, lists) == (
    {
      'train': [entries[0], entries[3], entries[4]],
      'val': [],
      'test': [entries[1]],
    },
    1,
  )
  with pytest.raises(ValueError, match='--e: 3.jpg is in the list of another'):
    caption_files.split_by_lists(entries, {**lists, 'test': ('--e', ['3.jpg'])})
  with pytest.raises(ValueError, match='--e has 2 names .*: 8.jpg, 9.jpg'):
    caption_files.split_by_lists(
      entries, {**lists, 'test': ('--e', ['8.jpg', '1.jpg', '9.jpg'])}
    )
  with pytest.raises(ValueError, match='--t=.* is empty'):
    caption_files.read_list(_write(tmp_path, '\n'), '--t')


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
