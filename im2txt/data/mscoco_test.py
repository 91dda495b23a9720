# SPDX-License-Identifier: Apache-2.0
"""Tests of mscoco and of the program build_mscoco_data."""

import collections
import dataclasses
import glob
import hashlib
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile

import numpy as np
from PIL import Image as PilImage
import pytest
import tensorflow as tf

from im2txt import testing
from im2txt.data import build as build_lib
from im2txt.data import build_options
from im2txt.data import caption_files
from im2txt.data import journal as journal_lib
from im2txt.data import jpeg_check
from im2txt.data import mscoco
from im2txt.data import shards
from im2txt.runtime import locks
from im2txt.runtime import workers as workers_lib
from im2txt.text import vocabulary
from im2txt.text import vocabulary_stamp


def _jpeg(seed, image_format='JPEG'):
  pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)
  buffer = io.BytesIO()
  PilImage.fromarray(pixels).save(buffer, image_format)
  return buffer.getvalue()


def _make_dataset(root, num_train=12, num_val=20):
  """Writes a data set in COCO's layout and returns Options for it."""
  colors = ['red', 'green', 'blue']
  number = 0
  for name, size in (('train', num_train), ('val', num_val)):
    directory = root / f'{name}2014'
    directory.mkdir(parents=True)
    images, annotations = [], []
    for i in range(size):
      number += 1
      file_name = f'{name}_{number:06d}.jpg'
      (directory / file_name).write_bytes(_jpeg(number))
      images.append({'id': number, 'file_name': file_name})
      for j in range(2):
        annotations.append(
          {
            'image_id': number,
            'id': 1000 * j + number,
            'caption': f'A {colors[(i + j) % 3]} café. It is number{number}.',
          }
        )
    random.Random(1).shuffle(annotations)
    (root / f'captions_{name}2014.json').write_text(
      json.dumps({'images': images, 'annotations': annotations})
    )
  return mscoco.Options(
    train_image_dir=str(root / 'train2014'),
    val_image_dir=str(root / 'val2014'),
    train_captions_file=str(root / 'captions_train2014.json'),
    val_captions_file=str(root / 'captions_val2014.json'),
    output_dir=str(root / 'out'),
    train_shards=4,
    val_shards=1,
    test_shards=2,
    num_threads=2,
    num_workers=2,
    word_counts_output_file=str(root / 'out' / 'word_counts.txt'),
  )


def _shards(directory):
  """Returns name -> bytes of the shards and the vocabulary in a directory."""
  names = [
    'word_counts.txt',
    *(
      name
      for name in os.listdir(directory)
      if re.fullmatch(r'(train|val|test)-\d{5}-of-\d{5}', name)
    ),
  ]
  contents = {}
  for name in names:
    with open(os.path.join(directory, name), 'rb') as f:
      contents[name] = f.read()
  return contents


def _records(path):
  """Returns [(image id, JPEG bytes, tokens, ids)] of a TFRecord file."""
  records = []
  for serialized in tf.data.TFRecordDataset(path).as_numpy_iterator():
    context, sequence = tf.io.parse_single_sequence_example(
      serialized,
      context_features={
        'image/image_id': tf.io.FixedLenFeature([], tf.int64),
        'image/data': tf.io.FixedLenFeature([], tf.string),
      },
      sequence_features={
        'image/caption': tf.io.FixedLenSequenceFeature([], tf.string),
        'image/caption_ids': tf.io.FixedLenSequenceFeature([], tf.int64),
      },
    )
    records.append(
      (
        int(context['image/image_id']),
        context['image/data'].numpy(),
        [token.decode() for token in sequence['image/caption'].numpy()],
        sequence['image/caption_ids'].numpy().tolist(),
      )
    )
  return records


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
  """Builds without workers, but those of `built` and where a test undoes it."""
  testing.without_workers(monkeypatch)


@pytest.fixture(scope='module', name='built')
def fixture_built(tmp_path_factory):
  """Options of a small data set that has been built by two workers."""
  options = _make_dataset(tmp_path_factory.mktemp('built'))
  mscoco.build(options)
  return options


# Against the 2016 program.


@pytest.fixture(scope='module', name='reference_build')
def fixture_reference_build(tmp_path_factory):
  root = tmp_path_factory.mktemp('reference')
  captions_files = []
  for name in ('train', 'val'):
    captions_files.append(
      testing.testdata_path('records', f'captions_{name}2014.json')
    )
    (root / name).mkdir()
    with open(captions_files[-1], encoding='utf-8') as f:
      for image in json.load(f)['images']:
        (root / name / image['file_name']).write_bytes(
          testing.numbered_jpeg(image['id'])
        )
  options = mscoco.Options(
    train_image_dir=str(root / 'train'),
    val_image_dir=str(root / 'val'),
    train_captions_file=captions_files[0],
    val_captions_file=captions_files[1],
    output_dir=str(root / 'out'),
    num_workers=1,
    word_counts_output_file=str(root / 'out' / 'word_counts.txt'),
  )
  mscoco.build(options)
  return options


@testing.needs_punkt()
def test_every_shard_has_the_bytes_of_the_2016_program(reference_build):
  with open(
    testing.testdata_path('records', 'shards.json'), encoding='utf-8'
  ) as f:
    expected = json.load(f)['shards']
  assert len(expected) == 256 + 4 + 8
  built = _shards(reference_build.output_dir)
  assert sorted(built) == sorted([*expected, 'word_counts.txt'])
  different = {
    name
    for name, shard in expected.items()
    if hashlib.sha256(built[name]).hexdigest() != shard['sha256']
  }
  # Which images they hold tells more than their digests.
  for name in sorted(different):
    path = os.path.join(reference_build.output_dir, name)
    assert [i for i, *_ in _records(path)] == expected[name]['image_ids'], name
  assert not different


@testing.needs_punkt()
def test_vocabulary_file_is_that_of_the_2016_program(reference_build):
  with open(testing.testdata_path('records', 'word_counts.txt'), 'rb') as f:
    expected = f.read()
  with open(reference_build.word_counts_output_file, 'rb') as f:
    assert f.read() == expected


def test_serialize_writes_what_the_2016_program_wrote():
  path = testing.testdata_path('training', 'batch8.tfrecord')
  originals = list(tf.data.TFRecordDataset(path).as_numpy_iterator())
  assert len(originals) == 8
  for original, fields in zip(originals, _records(path)):
    example = tf.train.SequenceExample.FromString(original)
    ours = b''.join(shards.serialize(*fields))
    assert tf.train.SequenceExample.FromString(ours) == example
    assert ours == example.SerializeToString(deterministic=True)


# Parts.


def test_serialize_round_trip(tmp_path):
  path = str(tmp_path / 'x')
  record = (2**40, b'\xff\xd8\0', ['<S>', 'café', '</S>'], [1, 77, 2])
  with shards.Writer(path) as writer:
    writer.write(shards.serialize(*record))
  assert _records(path) == [record]


@pytest.mark.parametrize(
  'num_pairs, num_shards, num_threads',
  [(1425, 256, 8), (25, 4, 8), (50, 8, 8), (3, 8, 8), (0, 4, 2), (7, 1, 8)],
)
def test_shard_ranges_cover_everything_once(num_pairs, num_shards, num_threads):
  ranges = build_lib.shard_ranges(num_pairs, num_shards, num_threads)
  assert len(ranges) == num_shards
  assert [i for start, end in ranges for i in range(start, end)] == list(
    range(num_pairs)
  )


def test_shard_ranges_are_cut_twice():
  # Once in two parts, [0, 5) and [5, 11), then each in two.
  assert build_lib.shard_ranges(11, 4, 2) == [(0, 2), (2, 5), (5, 8), (8, 11)]
  assert build_lib.shard_ranges(7, 4, 2) == [(0, 1), (1, 3), (3, 5), (5, 7)]


def test_split_is_by_image():
  train = [build_lib.Image(i, '', ['x']) for i in range(3)]
  val = [build_lib.Image(i, '', ['x']) for i in range(100, 130)]
  names, images, shards = zip(
    *mscoco.split_datasets(train, val, mscoco.Options())
  )
  assert names == ('train', 'val', 'test')
  assert shards == (256, 4, 8)
  assert [len(part) for part in images] == [3 + 25, 2, 3]
  assert [image for part in images for image in part] == train + val


def test_shuffling_leaves_the_global_generator_alone():
  images = [build_lib.Image(i, f'{i}.jpg', ['a', 'b']) for i in range(10)]
  random.seed(7)
  state = random.getstate()
  pairs = build_lib.shuffled_examples(images, 'pairs')
  assert random.getstate() == state
  random.seed(12345)
  expected = [(i, [caption]) for i in range(10) for caption in 'ab']
  random.shuffle(expected)
  assert [(pair.image_id, pair.captions) for pair in pairs] == expected


def test_a_compact_example_is_an_image():
  images = [build_lib.Image(i, f'{i}.jpg', ['a', 'b']) for i in range(10)]
  before = list(images)
  shuffled = build_lib.shuffled_examples(images, 'compact')
  assert images == before != shuffled
  assert sorted(shuffled) == images


def test_vocabulary_by_count_then_first_seen(tmp_path):
  path = str(tmp_path / 'words.txt')
  options = mscoco.Options(min_word_count=2, word_counts_output_file=path)
  captions = [
    ['<S>', *text.split(), '</S>']
    for text in ('z y x', 'y z once', 'z twice twice')
  ]
  train = build_lib.Dataset('train', [build_lib.Image(1, '', captions)], 1)
  vocab = build_lib.create_vocabulary(train, options)
  with open(path, encoding='utf-8') as f:
    assert f.read() == '<S> 3\nz 3\n</S> 3\ny 2\ntwice 2'
  assert vocab.words == ['<S>', 'z', '</S>', 'y', 'twice', '<UNK>']
  assert os.listdir(tmp_path) == ['words.txt']


def test_an_extended_vocabulary_begins_with_the_old_one(tmp_path):
  old = tmp_path / 'old.txt'
  old.write_text('a 9\n<S> 8\n</S> 8\ngone 7', encoding='utf-8')
  options = mscoco.Options(
    min_word_count=2,
    extend_vocab_file=str(old),
    word_counts_output_file=str(tmp_path / 'new.txt'),
  )
  captions = [
    ['<S>', *text.split(), '</S>']
    for text in ('new rare a', 'newer new', 'newer new')
  ]
  train = build_lib.Dataset('train', [build_lib.Image(1, '', captions)], 1)
  vocab = build_lib.create_vocabulary(train, options)
  assert (tmp_path / 'new.txt').read_text(encoding='utf-8') == (
    'a 1\n<S> 3\n</S> 3\ngone 0\n<UNK> 0\nnew 3\nnewer 2'
  )
  assert vocab.unk_id == 4 == vocab.word_to_id('rare')
  # And once more: <UNK> stays where it is.
  options = dataclasses.replace(
    options,
    min_word_count=1,
    extend_vocab_file=str(tmp_path / 'new.txt'),
    word_counts_output_file=str(tmp_path / 'newer.txt'),
  )
  assert build_lib.create_vocabulary(train, options).words == [
    *vocab.words,
    'rare',
  ]


# Whole builds.


@testing.needs_punkt()
def test_every_pair_once_with_its_own_image(built):
  seen = collections.Counter()
  ids_of = collections.defaultdict(set)
  for path in glob.glob(os.path.join(built.output_dir, '*-of-*')):
    for image_id, data, tokens, _ in _records(path):
      assert data == _jpeg(image_id)
      assert tokens[0] == '<S>' and tokens[-1] == '</S>'
      assert f'number{image_id}' in tokens
      seen[image_id] += 1
      ids_of[os.path.basename(path).split('-')[0]].add(image_id)
  assert seen == {i: 2 for i in range(1, 33)}
  assert ids_of == {'train': set(range(1, 30)), 'val': {30}, 'test': {31, 32}}


@testing.needs_punkt()
def test_output_does_not_depend_on_the_number_of_workers(
  built, tmp_path, monkeypatch
):
  for number in 1, 0:  # One worker, and none but this process.
    output = str(tmp_path / str(number))
    if number:
      monkeypatch.undo()
    else:
      testing.without_workers(monkeypatch)
    mscoco.build(
      dataclasses.replace(
        built,
        num_workers=1,
        output_dir=output,
        word_counts_output_file=os.path.join(output, 'word_counts.txt'),
      )
    )
    assert _shards(output) == _shards(built.output_dir)


@testing.needs_punkt()
def test_compact_shards_hold_the_same_with_each_image_once(built, tmp_path):
  options = dataclasses.replace(
    built,
    layout='compact',
    output_dir=str(tmp_path),
    word_counts_output_file=str(tmp_path / 'word_counts.txt'),
  )
  mscoco.build(options)
  contents = _shards(tmp_path)
  same = _shards(built.output_dir)
  assert contents.keys() == same.keys()
  assert contents['word_counts.txt'] == same['word_counts.txt']
  for split, num_images in (('train', 29), ('val', 1), ('test', 2)):
    groups = [
      group
      for name in sorted(contents)
      if name.startswith(split)
      for group in shards.read_grouped(str(tmp_path / name))
    ]
    assert len({group[0].image_id for group in groups}) == num_images
    assert len(groups) == num_images
    assert sorted(tuple(r) for group in groups for r in group) == sorted(
      record
      for name in same
      if name.startswith(split)
      for record in _records(os.path.join(built.output_dir, name))
    )


def _zip_directory(directory, compression):
  """Makes x.zip of the directory x, which is moved away; returns its path."""
  path = directory + '.zip'
  with zipfile.ZipFile(path, 'w', compression) as archive:
    for name in sorted(os.listdir(directory)):
      archive.write(
        os.path.join(directory, name), f'{os.path.basename(directory)}/{name}'
      )
  shutil.move(directory, directory + '.away')
  return path


@testing.needs_punkt()
def test_images_in_archives_give_the_same_files(
  built, tmp_path, capsys, monkeypatch
):
  options = _make_dataset(tmp_path)
  options = dataclasses.replace(
    options,
    train_image_dir=_zip_directory(options.train_image_dir, zipfile.ZIP_STORED),
    val_image_dir=_zip_directory(options.val_image_dir, zipfile.ZIP_DEFLATED),
  )
  mscoco.build(options)
  assert _shards(options.output_dir) == _shards(built.output_dir)
  capsys.readouterr()
  mscoco.build(options)
  assert 'Everything is built' in capsys.readouterr().out
  # An image that is damaged within the archive is left out.
  with open(options.train_image_dir, 'r+b') as f:
    f.seek(f.read().index(_jpeg(2)) + 500)
    f.write(b'damage')
  os.remove(os.path.join(options.output_dir, journal_lib.JOURNAL))
  monkeypatch.undo()  # This process has the archive open, as it was.
  mscoco.build(options)
  output = capsys.readouterr().out
  assert re.search('Skipping .*train2014.zip/train_000002.jpg: .*CRC', output)
  assert '32 images, 1 cannot be decoded' in output


@testing.needs_punkt()
def test_finished_build_is_left_alone(built, capsys):
  def times():
    return {
      path: os.stat(path).st_mtime_ns
      for path in glob.glob(os.path.join(built.output_dir, '*'))
    }

  before = times()
  mscoco.build(built)
  assert times() == before
  lines = capsys.readouterr().out.splitlines()
  assert [re.sub(r'^[-\d]+ [\d:.]+: ', '', line) for line in lines[-3:]] == [
    "Finished processing all 58 image-caption pairs in data set 'train'.",
    "Finished processing all 2 image-caption pairs in data set 'val'.",
    "Finished processing all 4 image-caption pairs in data set 'test'.",
  ]


@testing.needs_punkt()
def test_the_stamp_of_the_vocabulary_lies_beside_the_shards(built):
  vocab = vocabulary.Vocabulary(built.word_counts_output_file)
  assert vocabulary_stamp.load(built.output_dir) == vocabulary_stamp.Stamp(
    vocab.fingerprint, len(vocab), built.word_counts_output_file, 'nltk'
  )
  assert (
    vocab.fingerprint
    == vocabulary.Vocabulary(
      os.path.join(built.output_dir, 'word_counts.txt')
    ).fingerprint
  )


@testing.needs_punkt()
def test_another_tokenizer_or_old_vocabulary_is_another_build(
  built, tmp_path, capsys
):
  options = dataclasses.replace(
    built,
    output_dir=str(tmp_path),
    tokenizer='whitespace',
    word_counts_output_file=str(tmp_path / 'word_counts.txt'),
  )
  mscoco.build(options)
  assert vocabulary_stamp.load(tmp_path).tokenizer == 'whitespace'
  assert 'A' in {
    token
    for path in glob.glob(str(tmp_path / '*-of-*'))
    for _, _, tokens, _ in _records(path)
    for token in tokens
  }
  first = vocabulary_stamp.load(tmp_path).fingerprint
  # From before there were stamps, so of a tokenizer that nobody knows.
  old = tmp_path / 'old' / 'word_counts.txt'
  old.parent.mkdir()
  shutil.copy(built.word_counts_output_file, old)
  options = dataclasses.replace(options, extend_vocab_file=str(old))
  mscoco.build(options)
  assert vocabulary_stamp.load(tmp_path).fingerprint != first
  assert {'A', 'café.', 'café'} <= set(
    vocabulary.Vocabulary(options.word_counts_output_file).words
  )

  # A finished build of before there were stamps gets one, and nothing else.
  stamp = tmp_path / vocabulary_stamp.FILE_NAME
  content = stamp.read_bytes()
  before = os.stat(tmp_path / 'train-00000-of-00004').st_mtime_ns
  stamp.write_text('damaged')
  capsys.readouterr()
  mscoco.build(options)
  assert 'Everything is built' in capsys.readouterr().out
  assert stamp.read_bytes() == content
  assert os.stat(tmp_path / 'train-00000-of-00004').st_mtime_ns == before


@testing.needs_punkt()
def test_an_old_vocabulary_is_never_written_over(built):
  options = dataclasses.replace(
    built, extend_vocab_file=built.word_counts_output_file
  )
  with pytest.raises(ValueError, match='--extend_vocab_file=.* written over'):
    mscoco.build(options)
  with pytest.raises(ValueError, match='give --tokenizer=nltk'):
    mscoco.build(
      dataclasses.replace(
        options, tokenizer='unicode', word_counts_output_file='/tmp/other'
      )
    )
  options = dataclasses.replace(options, extend_vocab_file='/nowhere')
  with pytest.raises(ValueError, match='/nowhere'):
    mscoco.build(options)


@testing.needs_punkt()
@pytest.mark.parametrize(
  'name, refused',
  [
    ('train-00000-of-00002', True),
    ('test-00000-of-00008', True),
    # What is of this build, and what is no shard.
    ('train-00003-of-00004', False),
    ('train-00000-of-00002.txt', False),
    ('.train-00000-of-00002.tmp', False),
    ('other-00000-of-00002', False),
  ],
)
def test_shards_of_another_build_are_not_left_with_this_vocabulary(
  built, tmp_path, name, refused
):
  output = tmp_path / 'out'
  output.mkdir()
  (output / name).write_bytes(b'old')
  options = dataclasses.replace(
    built,
    output_dir=str(output),
    word_counts_output_file=str(output / 'word_counts.txt'),
  )
  if not refused:
    mscoco.build(options)
    assert _shards(str(output)) == _shards(built.output_dir)
    assert not list(output.glob('.*.tmp'))
    return
  with pytest.raises(
    ValueError,
    match=(
      rf'--output_dir={output} holds 1 shard\(s\) of another build '
      rf'\({name}\), .*: remove them, or give another --output_dir'
    ),
  ):
    mscoco.build(options)
  assert os.listdir(output) == [name]


@testing.needs_punkt()
def test_a_second_build_in_one_directory_is_refused(built):
  with locks.hold(built.output_dir, 'build'):
    with pytest.raises(
      ValueError,
      match=f'--output_dir={built.output_dir} is '
      'in use: build runs there already',
    ):
      mscoco.build(built)
  mscoco.build(built)


@testing.needs_punkt()
@pytest.mark.parametrize(
  'damage',
  [b'\xff\xfe', b'[' * 100000 + b'\n5\n{"a": 1}\n["file"]\n'],
  ids=range(2),
)
def test_a_damaged_journal_is_as_none(built, tmp_path, damage):
  output = tmp_path / 'out'
  shutil.copytree(built.output_dir, output)
  (output / journal_lib.JOURNAL).write_bytes(damage)
  mscoco.build(
    dataclasses.replace(
      built,
      output_dir=str(output),
      word_counts_output_file=str(output / 'word_counts.txt'),
    )
  )
  assert _shards(str(output)) == _shards(built.output_dir)


@testing.needs_punkt()
def test_goes_on_where_it_stopped(built, tmp_path, capsys):
  output = str(tmp_path / 'out')
  options = dataclasses.replace(
    built,
    output_dir=output,
    word_counts_output_file=os.path.join(output, 'word_counts.txt'),
  )
  mscoco.build(options)
  whole = _shards(output)
  # As if killed: a journal cut short within its last line, shards that are
  # not in it, one that is but was changed, and one that was being written.
  journal = os.path.join(output, journal_lib.JOURNAL)
  with open(journal, encoding='utf-8') as f:
    text = f.read()
  with open(journal, 'w', encoding='utf-8') as f:
    f.write(text[: text.index('train-00002') + 3])
  changed = os.path.join(output, 'train-00001-of-00004')
  with open(changed, 'ab') as f:
    f.write(b'x')
  with open(os.path.join(output, '.test-00000-of-00002.tmp'), 'wb') as f:
    f.write(b'half')
  kept = os.path.join(output, 'train-00000-of-00004')
  before = os.stat(kept).st_mtime_ns
  capsys.readouterr()
  mscoco.build(options)
  assert '1 of 4 shards' in capsys.readouterr().out
  assert os.stat(kept).st_mtime_ns == before
  assert _shards(output) == whole
  assert not glob.glob(os.path.join(output, '.*.tmp'))
  # The mended journal is as good as a new one.
  capsys.readouterr()
  mscoco.build(options)
  assert 'Everything is built' in capsys.readouterr().out


@testing.needs_punkt()
def test_damaged_images_are_left_out_named_and_counted(tmp_path, capsys):
  options = _make_dataset(tmp_path)
  mscoco.build(options)
  paths = sorted(glob.glob(os.path.join(options.output_dir, '*-of-*')))
  sound = {path: _records(path) for path in paths}

  directory = tmp_path / 'train2014'
  damaged = {
    1: _jpeg(1)[:-40],
    2: b'',
    3: _jpeg(3, 'PNG'),
    4: b'\xff\xd8 no picture',
  }
  for image_id, content in damaged.items():
    (directory / f'train_{image_id:06d}.jpg').write_bytes(content)
  os.remove(directory / 'train_000005.jpg')
  os.mkdir(directory / 'train_000005.jpg')  # Cannot be read by anyone.
  (directory / 'train_000006.jpg').write_bytes(_jpeg(6) + b'harmless')
  capsys.readouterr()
  mscoco.build(options)
  output = capsys.readouterr().out
  for image_id in range(1, 6):
    assert re.search(f'Skipping .*train_{image_id:06d}.jpg: .+', output)
  assert 'train_000006' not in output
  assert '32 images, 5 cannot be decoded' in output
  assert (
    'Skipped 10 image-caption pairs of 5 images that cannot be decoded '
    "in data set 'train'"
  ) in output
  assert 'Removed 7 shards' in output  # They were of the sound images.
  for path in paths:
    assert [(i, ids) for i, _, _, ids in _records(path)] == [
      (i, ids) for i, _, _, ids in sound[path] if i not in range(1, 6)
    ]


def test_nothing_is_made_of_a_data_set_without_a_good_image(tmp_path):
  options = _make_dataset(tmp_path)
  for part in 'train', 'val':
    for path in (tmp_path / f'{part}2014').iterdir():
      path.write_bytes(_jpeg(1, 'PNG'))
  with pytest.raises(
    ValueError,
    match=(
      "none of the 29 images of data set 'train' .*not a JPEG file but PNG"
    ),
  ):
    mscoco.build(options)
  assert not glob.glob(os.path.join(options.output_dir, '*-of-*'))
  assert not os.path.exists(options.word_counts_output_file)


def _arguments(options):
  return [
    f'--{name}={value}' for name, value in dataclasses.asdict(options).items()
  ]


def _children(pid):
  """Returns the ids of the processes that `pid` started."""
  children = []
  for path in glob.glob('/proc/[0-9]*/stat'):
    try:
      with open(path, encoding='utf-8') as f:
        fields = f.read().rpartition(')')[2].split()
    except OSError:
      continue
    if int(fields[1]) == pid and fields[0] != 'Z':
      children.append(int(path.split('/')[2]))
  return children


def _wait_until(condition, seconds=300):
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end, 'nothing happened'
    time.sleep(0.05)


@testing.needs_punkt()
@pytest.mark.parametrize('how', [signal.SIGINT, signal.SIGKILL])
def test_interrupted_program_ends_cleanly_with_its_workers(
  built, tmp_path, how
):
  output = str(tmp_path / 'out')
  options = dataclasses.replace(
    built,
    output_dir=output,
    train_shards=20000,
    num_workers=1,
    word_counts_output_file=os.path.join(output, 'word_counts.txt'),
  )
  process = subprocess.Popen(
    **testing.program('build_mscoco_data', *_arguments(options)),
    start_new_session=True,
  )
  _wait_until(lambda: glob.glob(os.path.join(output, 'train-*')))
  workers = _children(process.pid)
  assert workers
  if how == signal.SIGINT:
    os.killpg(process.pid, how)  # As from a terminal: to every process.
  else:
    process.kill()
  _, errors = process.communicate(timeout=60)
  if how == signal.SIGINT:
    assert process.returncode == 130
    assert errors.splitlines()[-1] == (
      'Interrupted; the same command goes on from here.'
    )
    assert 'Traceback' not in errors
    assert not glob.glob(os.path.join(output, '.*.tmp'))
  _wait_until(
    lambda: not any(os.path.exists(f'/proc/{pid}') for pid in workers)
  )
  written = len(glob.glob(os.path.join(output, 'train-*')))
  assert 0 < written < 20000


# Refusals, before any work.


def _edit_captions(options, edit):
  with open(options.train_captions_file, encoding='utf-8') as f:
    content = json.load(f)
  edit(content)
  with open(options.train_captions_file, 'w', encoding='utf-8') as f:
    json.dump(content, f)


def _write_captions(text):
  def apply(options):
    with open(options.train_captions_file, 'w', encoding='latin-1') as f:
      f.write(text)

  return apply


def _captions(edit):
  return lambda options: _edit_captions(options, edit)


_BROKEN_INPUT = {
  'no image directory': (
    lambda o: shutil.rmtree(o.val_image_dir),
    ['--val_image_dir', 'val2014'],
  ),
  'no captions file': (
    lambda o: os.remove(o.val_captions_file),
    ['--val_captions_file', 'captions_val2014.json', 'No such file'],
  ),
  'half a captions file': (
    _write_captions('{"images": [{"id": 1'),
    ['is not JSON', '--train_captions_file'],
  ),
  'not even text': (_write_captions('\x89PNG\xff'), ['is not JSON']),
  'a list': (_write_captions('[1, 2]'), ['no list "images"']),
  'no images': (_captions(lambda c: c.pop('images')), ['no list "images"']),
  'no annotations': (
    _captions(lambda c: c.pop('annotations')),
    ['no list "annotations"'],
  ),
  'an image without a name': (
    _captions(lambda c: c['images'][0].pop('file_name')),
    ['KeyError', 'file_name'],
  ),
  'a caption that is no text': (
    _captions(lambda c: c['annotations'][0].update(caption=None)),
    ['caption None'],
  ),
  'two images with one id': (
    _captions(lambda c: c['images'].append(c['images'][0])),
    ['more than one image with the id 1'],
  ),
  'one id in both files': (
    _captions(
      lambda c: (
        c['images'].append({'id': 13, 'file_name': 'x.jpg'}),
        c['annotations'].append({'image_id': 13, 'caption': 'x'}),
      )
    ),
    [
      '--val_captions_file',
      '1 image id(s) of --train_captions_file',
      'such as 13: ',
    ],
  ),
  'annotations without an image': (
    _captions(lambda c: c['images'].pop()),
    ['2 annotations', 'that it does not list: 12, 12'],
  ),
  'missing images': (
    lambda o: [
      os.remove(os.path.join(o.train_image_dir, f'train_{i:06d}.jpg'))
      for i in range(2, 7)
    ],
    [
      '5 of 12 images are missing',
      'train_000002.jpg',
      'train_000004.jpg, ',
      '--train_image_dir',
    ],
  ),
}


@testing.needs_punkt()
@pytest.mark.parametrize('case', _BROKEN_INPUT)
def test_unusable_input_is_refused_in_one_line_before_any_work(tmp_path, case):
  options = _make_dataset(tmp_path)
  damage, parts = _BROKEN_INPUT[case]
  damage(options)
  with pytest.raises(ValueError) as error:
    mscoco.build(options)
  for part in parts:
    assert part in str(error.value)
  assert '\n' not in str(error.value)
  assert not os.path.exists(options.output_dir)


@pytest.mark.parametrize(
  'changes, part',
  [
    ({'train_shards': 7}, '--train_shards=7 is not divisible by'),
    ({'test_shards': 0}, '--test_shards=0 '),
    ({'num_threads': 0}, '--num_threads=0 '),
    ({'num_workers': -1}, '--num_workers=-1 '),
    ({'start_word': 'two words'}, "--start_word='two words'"),
    ({'end_word': ''}, "--end_word=''"),
    ({'end_word': '<S>'}, 'is another special word too'),
    ({'min_word_count': 59}, 'more than the 58 captions'),
  ],
)
@testing.needs_punkt()
def test_unusable_flags_are_refused(tmp_path, changes, part):
  options = dataclasses.replace(_make_dataset(tmp_path), **changes)
  with pytest.raises(ValueError) as error:
    mscoco.build(options)
  assert part in str(error.value)
  assert not os.path.exists(options.output_dir)


@testing.needs_punkt()
def test_unwritable_output_is_refused(tmp_path):
  options = _make_dataset(tmp_path)
  (tmp_path / 'file').write_text('')
  options = dataclasses.replace(
    options, output_dir=str(tmp_path / 'file' / 'out')
  )
  with pytest.raises(ValueError, match='--output_dir') as error:
    mscoco.build(options)
  assert 'Not a directory' in str(error.value)


@testing.needs_punkt()
def test_too_small_a_disk_is_refused(tmp_path, monkeypatch):
  options = _make_dataset(tmp_path)
  usage = collections.namedtuple('usage', 'total used free')
  monkeypatch.setattr(build_lib.shutil, 'disk_usage', lambda _: usage(9, 0, 9))
  with pytest.raises(ValueError, match='0.0 GB are free'):
    mscoco.build(options)


def test_program_ends_with_one_line_and_status_1(tmp_path):
  options = _make_dataset(tmp_path)
  result = testing.run_program(
    'build_mscoco_data',
    *_arguments(dataclasses.replace(options, train_shards=7)),
  )
  assert result.returncode == 1
  assert result.stdout == ''
  assert result.stderr.startswith('error: --train_shards=7 ')
  assert result.stderr.count('\n') == 1


def test_images_without_a_caption_are_left_out(tmp_path, capsys):
  options = _make_dataset(tmp_path)
  _edit_captions(
    options, lambda content: content['annotations'].__delitem__(slice(None, 3))
  )
  with open(options.train_captions_file, encoding='utf-8') as f:
    captioned = {entry['image_id'] for entry in json.load(f)['annotations']}
  images = mscoco.load_images('train', options.train_captions_file, 'x')
  assert {image.image_id for image in images} == captioned
  assert ('have no caption' in capsys.readouterr().out) == (len(captioned) < 12)


@pytest.mark.parametrize(
  'name', ['../x.jpg', 'a/../../x.jpg', '/etc/passwd', 'a/..', 'a\0.jpg']
)
def test_a_captions_file_names_no_file_outside_of_its_directory(name):
  with pytest.raises(ValueError) as error:
    build_lib.captioned(
      [
        caption_files.Entry(1, 'a..b/x.jpg', ['x']),
        caption_files.Entry(2, name, ['x']),
      ],
      'images',
      'captions.json',
    )
  assert str(error.value) == (
    '1 file names of captions.json are not of files in images: '
    f'{ascii(name)}; give names below the image directory, without ".."'
  )


def test_blank_captions_are_left_out_and_counted(capsys):
  def entry(number, *captions):
    return caption_files.Entry(number, f'{number}.jpg', list(captions))

  images = build_lib.captioned(
    [entry(1, 'x', ' \t\n'), entry(2), entry(3, '', '\u3000'), entry(4, ' y ')],
    'a',
    'some file',
  )
  assert images == [
    build_lib.Image(1, 'a/1.jpg', ['x']),
    build_lib.Image(4, 'a/4.jpg', [' y ']),
  ]
  blank, without = capsys.readouterr().out.splitlines()
  assert blank.endswith(': 3 captions of some file are blank: left out.')
  assert without.endswith(': 2 images of some file have no caption: left out.')


@pytest.mark.parametrize(
  'records, most, num_threads, number',
  [
    (0, 256, 8, 1),
    (12, 256, 8, 1),
    (4100, 4, 8, 2),
    (9000, 4, 8, 4),
    (15000, 256, 8, 4),
    (30000, 256, 8, 8),
    (145000, 256, 8, 72),
    (586000, 256, 8, 256),
    (10**7, 256, 8, 256),
    (145000, 256, 5, 70),
  ],
)
def test_the_number_of_shards_suits_the_data(
  records, most, num_threads, number
):
  options = build_options.BuildOptions(num_threads=num_threads)
  assert build_options.suitable_shards(records, most, options) == number
  # As the flags may be.
  build_options.check_options(
    dataclasses.replace(
      options,
      train_shards=number,
      **({} if num_threads == 8 else {'test_shards': 5}),
    )
  )


def test_warns_where_many_words_are_unknown(tmp_path, capsys):
  def warnings(text, **changes):
    options = mscoco.Options(
      min_word_count=2,
      word_counts_output_file=str(tmp_path / 'words.txt'),
      **changes,
    )
    captions = [['<S>', *line.split(), '</S>'] for line in text.split('/')]
    build_lib.create_vocabulary(
      build_lib.Dataset('train', [build_lib.Image(1, '', captions)], 1), options
    )
    return [
      line for line in capsys.readouterr().out.splitlines() if 'Warning' in line
    ]

  assert not warnings('a a a a a/a a a a b')
  (line,) = warnings('a a a a a/a a a b c')
  assert '20% of the words of the training captions' in line
  assert 'become <UNK>: give a smaller --min_word_count than 2' in line


def test_images_that_are_stored_turned_are_counted(tmp_path, capsys):
  workers = workers_lib.Workers(1)
  paths = [str(tmp_path / f'{i}.jpg') for i in range(4)]
  for orientation, path in enumerate(paths):
    exif = PilImage.Exif()
    exif[274] = orientation
    PilImage.new('RGB', (6, 4)).save(path, exif=exif)
  assert not jpeg_check.find_undecodable(workers, paths)
  output = capsys.readouterr().out
  assert '2 images are stored lying or upside down' in output
  assert f'({paths[2]}, {paths[3]})' in output
  assert not jpeg_check.find_undecodable(workers, paths[:2])
  assert 'Warning' not in capsys.readouterr().out


def test_why_undecodable(monkeypatch, capfd):
  assert jpeg_check.why_undecodable(testing.jpeg()) is None
  assert jpeg_check.why_undecodable(testing.jpeg()[:-300])
  damaged = testing.jpeg().replace(b'\xff\xc4', b'\xff\x02', 1)
  assert jpeg_check.why_undecodable(damaged)
  # Neither libjpeg nor TensorFlow has a say.
  assert not capfd.readouterr().err
  png = io.BytesIO()
  PilImage.new('RGB', (5, 5)).save(png, 'PNG')
  assert jpeg_check.why_undecodable(png.getvalue()) == 'not a JPEG file but PNG'
  assert jpeg_check.why_undecodable(b'text') == 'not a JPEG file'
  testing.set_largest_image(monkeypatch, 40 * 60 - 1)
  assert 'too large, 60 x 40' in jpeg_check.why_undecodable(testing.jpeg())


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
