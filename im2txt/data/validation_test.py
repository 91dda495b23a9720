# SPDX-License-Identifier: Apache-2.0
"""Tests of validation and of the program validate_data."""

import dataclasses
import os
import sys

import pytest

from im2txt import testing
from im2txt.data import shards
from im2txt.data import validation
from im2txt.runtime import workers as workers_lib
from im2txt.text import vocabulary
from im2txt.text import vocabulary_stamp

# The ids are 0, 1, ...; <UNK>, which is not in the file, is 4.
_WORDS = ['<S>', '</S>', 'a', 'dog']


def _record(image_id, caption, data=None, ids=None):
  tokens = caption.split()
  return shards.serialize(
    image_id,
    testing.jpeg(image_id) if data is None else data,
    tokens,
    [_WORDS.index(token) if token in _WORDS else 4 for token in tokens]
    if ids is None
    else ids,
  )


def _write(path, *records):
  with shards.Writer(path) as writer:
    for record in records:
      writer.write(record)


@pytest.fixture(name='folder')
def fixture_folder(tmp_path):
  """Sound shards of two splits and their vocabulary."""
  (tmp_path / 'words.txt').write_text('\n'.join(f'{word} 9' for word in _WORDS))
  _write(
    tmp_path / 'train-00000-of-00002',
    _record(1, '<S> a dog </S>'),
    _record(2, '<S> a cat </S>'),
    _record(1, '<S> dog </S>'),
  )
  _write(tmp_path / 'train-00001-of-00002', _record(2, '<S> </S>'))
  _write(tmp_path / 'val-00000-of-00001', _record(3, '<S> a </S>'))
  return tmp_path


@pytest.fixture(scope='module', name='workers')
def fixture_workers():
  with workers_lib.Workers(1) as workers:
    yield workers


def _validate(folder, workers):
  return validation.validate(
    sorted(str(path) for path in folder.glob('*-of-*')),
    str(folder / 'words.txt'),
    ('<S>', '</S>', '<UNK>'),
    workers,
  )


def test_sound_shards(folder, workers):
  splits, problems = _validate(folder, workers)
  assert splits == {
    'train': validation.SplitCounts(
      shards=2, captions=4, images=2, words=5, unknown_words=1, empty_captions=1
    ),
    'val': validation.SplitCounts(shards=1, captions=1, images=1, words=1),
  }
  assert not problems.found


def test_sound_compact_shards(folder, workers):
  _write(
    folder / 'val-00000-of-00001',
    shards.serialize_compact(
      3,
      testing.jpeg(3),
      [
        (['<S>', 'a', '</S>'], [0, 2, 1]),
        (['<S>', 'a', 'cat', '</S>'], [0, 2, 4, 1]),
      ],
    ),
  )
  splits, problems = _validate(folder, workers)
  assert splits['val'] == validation.SplitCounts(
    shards=1, captions=2, images=1, words=3, unknown_words=1
  )
  assert not problems.found


_DAMAGE = {
  'ids of other words in a compact record': (
    shards.serialize_compact(
      9,
      testing.jpeg(9),
      [(['<S>', 'a', '</S>'], [0, 2, 1]), (['<S>', 'a', '</S>'], [0, 3, 1])],
    ),
    '1 captions with ids that are not those of their words: record 0 of ',
  ),
  'ids out of range': (
    _record(9, '<S> a </S>', ids=[0, 5, 1]),
    '1 captions with an id out of range: record 0 of ',
  ),
  'negative ids': (
    _record(9, '<S> a </S>', ids=[0, -1, 1]),
    '1 captions with an id out of range: record 0 of ',
  ),
  'ids of other words': (
    _record(9, '<S> a </S>', ids=[0, 3, 1]),
    '1 captions with ids that are not those of their words: record 0 of ',
  ),
  'no start word': (
    _record(9, 'a </S>'),
    '1 captions without the start word: record 0',
  ),
  'no end word': (
    _record(9, '<S> a'),
    '1 captions without the end word: record 0 of ',
  ),
  'half a JPEG': (
    _record(9, '<S> a </S>', data=testing.jpeg(9)[:-60]),
    '1 images that cannot be decoded: image 9 in record 0 of ',
  ),
  'no JPEG': (_record(9, '<S> a </S>', data=b'\x89PNG'), '(not a JPEG file)'),
  'an image of another split': (
    _record(9, '<S> a </S>', data=testing.jpeg(2)),
    '1 images in more than one split: test 9 = train 2',
  ),
  'an id of another image': (
    _record(2, '<S> a </S>', data=testing.jpeg(9)),
    '1 ids that more than one image has: 2',
  ),
  'no example': ([b'\xff'], '1 shards damaged: '),
}


@pytest.mark.parametrize('name', _DAMAGE)
def test_tells_what_is_wrong(folder, workers, name):
  record, expected = _DAMAGE[name]
  _write(folder / 'test-00000-of-00001', record)
  _, problems = _validate(folder, workers)
  lines = problems.lines()
  assert len(lines) == 1
  assert expected in lines[0]


def test_missing_shards(folder, workers):
  os.remove(folder / 'train-00001-of-00002')
  _, problems = _validate(folder, workers)
  assert problems.lines() == [
    f'1 shards missing: {folder}/train-00001-of-00002'
  ]


def test_empty_shards(folder, workers):
  # Of more shards than captions some are empty, as in 2016.
  for number in range(5):
    _write(folder / f'test-0000{number}-of-00005')
  _write(folder / 'test-00001-of-00005', _record(9, '<S> a </S>'))
  _, problems = _validate(folder, workers)
  assert not problems.found
  (folder / 'train-00001-of-00002').write_bytes(b'')
  _, problems = _validate(folder, workers)
  assert problems.lines() == [f'1 shards empty: {folder}/train-00001-of-00002']
  os.remove(folder / 'train-00000-of-00002')
  _write(folder / 'train-00000-of-00002')
  _, problems = _validate(folder, workers)
  assert '2 shards empty' in problems.lines()[0]


def test_mostly_unknown_words(folder, workers):
  _write(
    folder / 'test-00000-of-00001',
    _record(9, '<S> an axolotl </S>'),
    _record(9, '<S> a </S>'),
  )
  _, problems = _validate(folder, workers)
  (line,) = problems.lines()
  assert 'unknown words: test (67%; make the shards with a lower --min' in line


def test_a_shard_cut_short(folder, workers):
  path = folder / 'train-00000-of-00002'
  with open(path, 'r+b') as f:
    f.truncate(path.stat().st_size - 5)
  splits, problems = _validate(folder, workers)
  assert splits['train'].captions == 3  # Two of three, and one elsewhere.
  assert (
    f'{path} is damaged or not a shard, after 2 good records'
    in (problems.lines()[0])
  )


def test_many_are_counted_and_a_few_named(folder, workers):
  _write(
    folder / 'test-00000-of-00001',
    *(_record(10 + i, 'a </S>') for i in range(9)),
  )
  _, problems = _validate(folder, workers)
  (line,) = problems.lines()
  assert line.startswith('9 captions without') and line.endswith(', ...')


def _program(folder, *arguments):
  return testing.run_program(
    'validate_data',
    '--num_workers=1',
    f'--input_file_pattern={folder}/train-*-of-*,{folder}/val-*-of-*',
    f'--vocab_file={folder}/words.txt',
    *arguments,
  )


def test_program_and_its_status(folder, monkeypatch):
  process = _program(folder)
  assert process.returncode == 0
  assert process.stdout.splitlines() == [
    'train: 2 shards, 4 captions, 2 images, 5 words, 1 unknown words, 1 '
    'empty captions',
    'val: 1 shards, 1 captions, 1 images, 1 words, 0 unknown words, 0 empty '
    'captions',
    'Nothing is wrong.',
  ]
  _write(folder / 'val-00000-of-00001', _record(3, '<S> a'))
  testing.without_workers(monkeypatch)
  process = _program(folder)
  assert process.returncode == 1
  assert process.stdout.splitlines()[-1] == (
    'WRONG: 1 captions without the end word: record 0 of '
    f'{folder}/val-00000-of-00001'
  )


def test_shards_that_say_they_are_of_another_vocabulary(folder, workers):
  vocab = vocabulary.Vocabulary(folder / 'words.txt')
  stamp = vocabulary_stamp.Stamp(
    vocab.fingerprint, len(vocab), '/made/with.txt'
  )
  vocabulary_stamp.save(folder, stamp)
  assert not _validate(folder, workers)[1].found
  vocabulary_stamp.save(
    folder, dataclasses.replace(stamp, fingerprint='0123456789abcdef')
  )
  _, problems = _validate(folder, workers)
  (line,) = problems.lines()
  given = f'{folder}/words.txt (fingerprint {stamp.fingerprint}, 5 words)'
  for part in (
    '1 directories with shards of another vocabulary',
    f'the shards in {folder} (fingerprint 0123456789abcdef, 5 words '
    'of /made/with.txt)',
    given,
  ):
    assert part in line


def test_program_refuses_another_vocabulary(folder):
  process = _program(folder, '--start_word=start')
  assert process.returncode == 1
  assert process.stdout == ''
  assert "no line for the start word 'start'" in process.stderr


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
