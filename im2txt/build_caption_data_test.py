# SPDX-License-Identifier: Apache-2.0
"""Tests of build_caption_data."""

import collections
import importlib.util
import json
import os
import shutil
import sys

from absl import flags
import pytest

from im2txt import build_caption_data
from im2txt import testing
from im2txt.data import journal
from im2txt.data import shards
from im2txt.runtime import files
from im2txt.runtime import storage
from im2txt.text import vocabulary
from im2txt.text import vocabulary_stamp

pytestmark = testing.needs_punkt()

_TOKENS = ''.join(
  f'{i}.jpg#{j}\tA {color} café number{i}.\n'
  for i in range(6)
  for j, color in enumerate(['red', 'blue'])
)


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
  """Builds without workers, but where a test undoes it."""
  testing.without_workers(monkeypatch)


@pytest.fixture(name='folder')
def fixture_folder(tmp_path):
  """Six pictures and their captions in the manner of Flickr8k."""
  (tmp_path / 'images').mkdir()
  for i in range(6):
    (tmp_path / 'images' / f'{i}.jpg').write_bytes(testing.jpeg(i))
  (tmp_path / 'x.token.txt').write_text(_TOKENS, encoding='utf-8')
  (tmp_path / 'train.txt').write_text('0.jpg\n2.jpg\n4.jpg\n')
  (tmp_path / 'val.txt').write_text('3.jpg\n')
  return tmp_path


def _flags(folder, **changes):
  values = {
    'captions_file': folder / 'x.token.txt',
    'train_list': folder / 'train.txt',
    'val_list': folder / 'val.txt',
    'image_dir': folder / 'images',
    'output_dir': folder / 'out',
    'train_shards': 2,
    'val_shards': 1,
    'test_shards': 1,
    'num_threads': 1,
    'num_workers': 1,
    'min_word_count': 1,
  }
  values.update(changes)
  return [
    f'--{name}={value}' for name, value in values.items() if value is not None
  ]


def _build(folder, **changes):
  with testing.flags_of(build_caption_data, *_flags(folder, **changes)):
    build_caption_data.main([])


def _parts(folder):
  """Returns {split: {image id: (JPEG bytes, list of captions)}}."""
  parts = collections.defaultdict(dict)
  for name in sorted(os.listdir(folder / 'out')):
    if '-of-' in name:
      for record in shards.read(str(folder / 'out' / name)):
        _, captions = parts[name.split('-')[0]].setdefault(
          record.image_id, (record.data, [])
        )
        captions.append(' '.join(record.tokens))
  return parts


def test_lists(folder, capsys, monkeypatch):
  monkeypatch.undo()
  _build(folder)
  testing.without_workers(monkeypatch)
  parts = _parts(folder)
  # Numbered in the order of the captions file, from 1.
  assert {split: sorted(images) for split, images in parts.items()} == {
    'train': [1, 3, 5],
    'val': [4],
  }
  data, captions = parts['train'][3]
  assert data == testing.jpeg(2)
  assert sorted(captions) == [
    '<S> a blue café number2 . </S>',
    '<S> a red café number2 . </S>',
  ]
  assert (folder / 'out' / 'word_counts.txt').read_text(encoding='utf-8').split(
    '\n'
  )[0] == '<S> 6'
  output = capsys.readouterr().out
  assert '2 images are in none of the lists' in output
  assert output.splitlines()[-1].endswith(
    "Finished processing all 2 image-caption pairs in data set 'val'."
  )
  with open(folder / 'out' / 'val_annotations.json', encoding='utf-8') as f:
    assert json.load(f) == {
      'images': [{'id': 4, 'file_name': '3.jpg'}],
      'annotations': [
        {'id': 1, 'image_id': 4, 'caption': 'A red café number3.'},
        {'id': 2, 'image_id': 4, 'caption': 'A blue café number3.'},
      ],
    }

  _build(folder)
  assert 'Everything is built' in capsys.readouterr().out
  # The same pictures under another split are other data.
  (folder / 'val.txt').write_text('1.jpg\n')
  _build(folder)
  assert sorted(_parts(folder)['val']) == [2]


def _copy_to_store(folder, root):
  """Copies what `_flags` name to a store; returns the flags that differ."""
  for path in folder.rglob('*'):
    if path.is_file():
      target = f'{root}/{path.relative_to(folder)}'
      storage.makedirs(os.path.dirname(target))
      with files.replacing(target) as temporary:
        shutil.copy(path, temporary)
  return {
    name: f'{root}/{value}'
    for name, value in {
      'captions_file': 'x.token.txt',
      'train_list': 'train.txt',
      'val_list': 'val.txt',
      'image_dir': 'images',
      'output_dir': 'out',
    }.items()
  }


def _content(directory):
  """Returns {name: bytes} of what does not name the directory itself."""
  result = {}
  for name in storage.listdir(directory):
    if name not in (journal.JOURNAL, vocabulary_stamp.FILE_NAME):
      with storage.open_read(f'{directory}/{name}') as f:
        result[name] = f.read()
  return result


@pytest.mark.parametrize('runner', ['local', 'DirectRunner'])
def test_a_store_gets_what_a_disk_gets(runner, folder, capsys):
  """Byte for byte: all input and output are on a store, by either way."""
  if runner != 'local':
    pytest.importorskip('apache_beam', reason='needs Apache Beam')
  root = f'ram://build_{runner}'
  on_store = _copy_to_store(folder, root)
  _build(folder)
  expected = _content(folder / 'out')
  assert len(expected) == 6

  _build(folder, runner=runner, **on_store)
  assert _content(f'{root}/out') == expected
  assert vocabulary_stamp.load(f'{root}/out').fingerprint == (
    vocabulary_stamp.load(folder / 'out').fingerprint
  )

  # What is done is not done again, and what is missing is.
  storage.remove(f'{root}/out/train-00001-of-00002')
  capsys.readouterr()
  _build(folder, runner=runner, **on_store)
  output = capsys.readouterr().out
  assert "1 of 2 shards of data set 'train' are there already" in output
  assert _content(f'{root}/out') == expected
  _build(folder, runner=runner, **on_store)
  assert 'Everything is built' in capsys.readouterr().out


def test_beam_reads_images_of_an_archive(folder):
  pytest.importorskip('apache_beam', reason='needs Apache Beam')
  root = 'ram://build_archive'
  shutil.make_archive(folder / 'pictures', 'zip', folder, 'images')
  on_store = _copy_to_store(folder, root)
  _build(folder)
  on_store['image_dir'] = f'{root}/pictures.zip'
  _build(folder, runner='DirectRunner', **on_store, layout='pairs')
  assert _content(f'{root}/out') == _content(folder / 'out')


@pytest.mark.skipif(not shutil.which('java'), reason='needs Java')
def test_spark_writes_the_same_files(folder, monkeypatch):
  name = 'beam_pyspark_runner.pyspark_runner'
  why = 'needs requirements-beam.txt and requirements-spark.txt'
  pytest.importorskip('apache_beam', reason=why)
  spark = pytest.importorskip('pyspark.sql', reason=why).SparkSession
  pytest.importorskip(name, reason=why)
  monkeypatch.setenv('PYTHONPATH', os.pathsep.join(sys.path))
  monkeypatch.setenv('PYSPARK_PYTHON', sys.executable)
  monkeypatch.setenv(
    'PYSPARK_SUBMIT_ARGS',
    '--master local[2] --conf spark.default.parallelism=2 '
    '--conf spark.ui.enabled=false pyspark-shell',
  )
  (folder / 'images' / '4.jpg').write_bytes(b'no image')
  _build(folder)
  try:
    _build(folder, runner=f'{name}.PySparkRunner', output_dir=folder / 'spark')
  finally:
    spark.builder.getOrCreate().stop()
  assert _content(folder / 'spark') == _content(folder / 'out')
  assert vocabulary_stamp.load(folder / 'spark').fingerprint == (
    vocabulary_stamp.load(folder / 'out').fingerprint
  )


def test_a_missing_beam_is_told_before_work(folder, monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda _: None)
  with pytest.raises(ValueError, match='--runner=SparkRunner needs Apache'):
    _build(folder, runner='SparkRunner')
  assert not (folder / 'out').exists()


def test_splits_of_the_file(folder):
  images = [
    {
      'filename': f'{i}.jpg',
      'filepath': 'images',
      'imgid': i,
      'sentences': [{'raw': f'number {i}'}],
      'split': split,
    }
    for i, split in enumerate(['train', 'restval', 'val', 'test'])
  ]
  (folder / 'dataset.json').write_text(json.dumps({'images': images}))
  _build(
    folder,
    captions_file=folder / 'dataset.json',
    train_list=None,
    val_list=None,
    image_dir=folder,
    word_counts_output_file=folder / 'words.txt',
  )
  assert {
    split: sorted(images) for split, images in _parts(folder).items()
  } == {'train': [0, 1], 'val': [2], 'test': [3]}
  assert (folder / 'words.txt').exists()


def test_a_file_for_each_part(folder):
  (folder / 'val').mkdir()
  (folder / 'val' / '0.jpg').write_bytes(testing.jpeg(77))
  (folder / 'train.csv').write_text('file,caption\n0.jpg,a\n1.jpg,b\n')
  (folder / 'val.jsonl').write_text('{"file": "0.jpg", "caption": "c"}\n')
  _build(
    folder,
    captions_file=None,
    train_list=None,
    val_list=None,
    train_captions_file=folder / 'train.csv',
    val_captions_file=folder / 'val.jsonl',
    val_image_dir=folder / 'val',
  )
  assert _parts(folder) == {
    'train': {
      1: (testing.jpeg(0), ['<S> a </S>']),
      2: (testing.jpeg(1), ['<S> b </S>']),
    },
    'val': {3: (testing.jpeg(77), ['<S> c </S>'])},
  }


def test_shards_suit_the_data_unless_given(folder, capsys):
  (folder / 'val.csv').write_text('file,caption\n3.jpg,x\n5.jpg," "\n')
  (folder / 'train.csv').write_text('file,caption\n1.jpg,a\n2.jpg,b\n')
  _build(
    folder,
    captions_file=None,
    train_list=None,
    val_list=None,
    train_captions_file=folder / 'train.csv',
    val_captions_file=folder / 'val.csv',
    num_threads=8,
    train_shards=None,
    val_shards=2,
    test_shards=None,
  )
  assert sorted(
    name for name in os.listdir(folder / 'out') if '-of-' in name
  ) == ['train-00000-of-00001', 'val-00000-of-00002', 'val-00001-of-00002']
  output = capsys.readouterr().out
  assert (
    'The train split has 1 shard(s), train-?????-of-00001: '
    '--train_shards is not given\n'
  ) in output
  assert 'The val split' not in output
  assert '1 captions of the val split are blank' in output
  annotations = json.loads(
    (folder / 'out' / 'val_annotations.json').read_text()
  )
  assert [entry['file_name'] for entry in annotations['images']] == ['3.jpg']


_LANGUAGES = {
  # Captions of two images, and a caption that ids must give back.
  'German': (
    'unicode',
    [
      'Ein Mädchen läuft über die Straße.',
      'EIN MÄDCHEN läuft\u00a0über Gras, geht\u2019s?',
    ],
    'ein mädchen läuft über die straße .',
  ),
  'Hindi': (
    'unicode',
    ['एक लड़का क्षेत्र में दौड़ता है।', 'एक कुत्ता दौड़ता\u2028है।'],
    'एक लड़का क्षेत्र में दौड़ता है ।',
  ),
  'Arabic': (
    'unicode',
    ['رجلٌ يركب حصانًا، في الصحراء.', '\u200fولد يركب دراجة.'],
    'رجلٌ يركب حصانًا ، في الصحراء .',
  ),
  'Chinese': (
    'characters',
    ['一只狗在\u3000草地上。', '两只狗！'],
    '一 只 狗 在 草 地 上 。',
  ),
  'Thai': ('characters', ['คนขี่ม้า', 'คนกำลังวิ่ง'], 'ค น ขี่ ม้ า'),
  'split': (
    'whitespace',
    ['Ein Hund , läuft .', 'A\u00a0B'],
    'Ein Hund , läuft .',
  ),
}


@pytest.mark.parametrize('language', _LANGUAGES)
def test_languages(folder, language):
  name, captions, tokens = _LANGUAGES[language]
  (folder / 'x.csv').write_text(
    'file,caption\n'
    + ''.join(f'{i}.jpg,"{caption}"\n' for i, caption in enumerate(captions)),
    encoding='utf-8',
  )
  _build(
    folder,
    captions_file=None,
    train_list=None,
    val_list=None,
    train_captions_file=folder / 'x.csv',
    tokenizer=name,
  )
  path = folder / 'out' / 'word_counts.txt'
  vocab = vocabulary.Vocabulary(path)
  assert path.read_bytes().count(b'\n') == len(vocab) - 2
  records = sorted(
    record
    for shard in ('0', '1')
    for record in shards.read(
      str(folder / 'out' / f'train-0000{shard}-of-00002')
    )
  )
  for record in records:
    assert vocab.unk_id not in record.ids
    assert [vocab.id_to_word(i) for i in record.ids] == record.tokens
  assert records[0].tokens == ['<S>', *tokens.split(), '</S>']
  # What is printed is what was read, but for case and spaces.
  stamp = vocabulary_stamp.load(folder / 'out')
  assert (stamp.fingerprint, stamp.words, stamp.tokenizer) == (
    vocab.fingerprint,
    len(vocab),
    name,
  )
  assert stamp.separator.join(tokens.split()) == (
    ''.join(captions[0].split()) if name == 'characters' else tokens
  )


def test_unknown_tokenizers_are_refused(folder):
  with pytest.raises(
    flags.Error, match=r'nltk\|unicode\|characters\|whitespace'
  ):
    _build(folder, tokenizer='spacy')


def test_numbers_out_of_range_are_refused(folder):
  with pytest.raises(
    flags.Error, match='--train_shards=0: 0 is not a positive'
  ):
    _build(folder, train_shards=0)


@pytest.mark.parametrize(
  'changes, part',
  [
    ({'captions_file': None}, 'give either --captions_file'),
    ({'train_captions_file': 'x'}, 'give either --captions_file'),
    (
      {'captions_file': None, 'train_captions_file': 'x'},
      '--train_list needs --captions_file',
    ),
    ({'train_list': None}, 'no image is in the train split'),
    ({'train_list': None, 'val_list': None}, '0.jpg is in no split'),
    ({'image_dir': None}, 'give --image_dir or --train_image_dir'),
    (
      {'image_dir': '/nowhere'},
      '--train_image_dir=/nowhere: there is no such dir',
    ),
  ],
)
def test_refused_before_any_work(folder, changes, part):
  with pytest.raises(ValueError, match=part):
    _build(folder, **changes)
  assert not (folder / 'out').exists()


def test_one_picture_in_two_parts_is_refused(folder):
  (folder / 'one.csv').write_text('file,caption\n0.jpg,a\n')
  with pytest.raises(ValueError, match='more than once: .*0.jpg'):
    _build(
      folder,
      captions_file=None,
      train_list=None,
      val_list=None,
      train_captions_file=folder / 'one.csv',
      val_captions_file=folder / 'one.csv',
    )


def test_input_is_never_written_over(folder):
  (folder / 'out').mkdir()
  path = folder / 'out' / 'train_annotations.json'
  path.write_text(_TOKENS, encoding='utf-8')
  with pytest.raises(ValueError, match='would be overwritten'):
    _build(folder, captions_file=path)
  assert path.read_text(encoding='utf-8') == _TOKENS


def test_program_ends_with_one_line_and_status_1(folder):
  process = testing.run_program(
    'build_caption_data', *_flags(folder, captions_file='/nowhere')
  )
  assert process.returncode == 1
  assert process.stdout == ''
  assert process.stderr.startswith('error: cannot read the captions file /now')
  assert process.stderr.count('\n') == 1


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
