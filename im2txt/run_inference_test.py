# SPDX-License-Identifier: Apache-2.0
"""Tests of the program run_inference, run as its users run it."""

import functools
import io
import json
import math
import os
import re
import signal
import subprocess
import sys

from PIL import Image
import pytest
import tensorflow as tf

from im2txt import checkpoints
from im2txt import configuration
from im2txt import show_and_tell_model
from im2txt import testing
from im2txt.folders import sidecar
from im2txt.inference_utils import captioner as captioner_lib
from im2txt.inference_utils import search_config

_WORDS = ['a', '<S>', '</S>', 'dog', 'cat', 'über']


def _encode(mode, kind, **options):
  image = Image.open(io.BytesIO(testing.jpeg(5))).convert(mode)
  out = io.BytesIO()
  image.save(out, kind, **options)
  return out.getvalue()


@pytest.fixture(scope='module', name='files')
def fixture_files(tmp_path_factory):
  """A directory with images, a vocabulary and a model of random weights."""
  path = tmp_path_factory.mktemp('files')
  for name, data in {
    'rgb.jpg': testing.jpeg(1),
    'other.jpg': testing.jpeg(2),
    'png.png': _encode('RGB', 'PNG'),
    'grey.jpg': _encode('L', 'JPEG'),
    'cmyk.jpg': _encode('CMYK', 'JPEG'),
    'x[1].jpg': testing.jpeg(3),
    'x1.jpg': testing.jpeg(4),
    'broken.jpg': testing.jpeg(1)[:100],
    'empty.jpg': b'',
  }.items():
    (path / name).write_bytes(data)
  exif = Image.Exif()
  exif[274] = 6
  for name, options in (('turned.jpg', {'exif': exif}), ('a,b.webp', {})):
    Image.open(io.BytesIO(testing.jpeg(6))).save(path / name, **options)
  (path / 'huge.jpg').write_bytes(
    testing.claim_size(
      _encode('RGB', 'JPEG', progressive=True), 20000, 20000, b'\xff\xc2'
    )
  )
  (path / 'folder').mkdir()
  for name, data in (
    ('2.jpg', testing.jpeg(7)),
    ('1.JPG', testing.jpeg(8)),
    ('notes.txt', b''),
  ):
    (path / 'folder' / name).write_bytes(data)
  (path / 'bare').mkdir()
  (path / 'words').write_text(''.join(f'{w} 1\n' for w in _WORDS))
  (path / 'large').write_text(
    ''.join(f'{w} 1\n' for w in [*_WORDS, 'b', 'c', 'd'])
  )
  config = configuration.ModelConfig(
    vocab_size=8,
    embedding_size=5,
    num_lstm_units=4,
    image_height=75,
    image_width=75,
    initializer_scale=0.5,
  )
  configuration.save(path, (config, configuration.TrainingConfig()))
  # What the tests ask of the captions holds for these weights.
  tf.random.set_seed(1)
  model = show_and_tell_model.ShowAndTellModel(config)
  model.global_step.assign(10)
  # Random Inceptions give features of thousands, which would saturate the LSTM.
  model.image_embedding_weights.assign(model.image_embedding_weights * 2e-5)
  checkpoints.CheckpointManager(str(path)).save(model.named_variables)
  # Below a name that is a pattern, with one that is newer and damaged.
  (path / 'run [1]').mkdir()
  for part in ('index', 'data-00000-of-00001'):
    os.link(
      path / f'model.ckpt-10.{part}', path / 'run [1]' / f'model.ckpt-10.{part}'
    )
    (path / 'run [1]' / f'model.ckpt-11.{part}').touch()
  os.link(path / 'configuration.json', path / 'run [1]' / 'configuration.json')
  return path


def _run(checkpoint, vocab_file, input_files, *arguments, given=''):
  return testing.run_program(
    'run_inference',
    f'--checkpoint_path={checkpoint}',
    f'--vocab_file={vocab_file}',
    f'--input_files={input_files}',
    *arguments,
    given=given,
  )


@pytest.fixture(scope='module', name='runs')
def fixture_runs(files):
  """Returns a function that runs a program on `files`, by the run's name."""

  def all_of(*names):
    return ','.join(f'{files}/{name}' for name in names)

  words = files / 'words'
  prefix = files / 'model.ckpt-10'
  runs = {
    'text': (
      files,
      words,
      all_of(
        'rgb.jpg',
        'broken.jpg',
        'x[1].jpg',
        'missing.jpg',
        'empty.jpg',
        '[gc]*.jpg',
        'png.png',
        'none*',
      ),
      '--inference_batch_size=3',
    ),
    'json': (
      f'{prefix}.index',
      words,
      all_of('rgb.jpg', 'x[1].jpg'),
      '--output_format=json',
      '--beam_size=2',
      '--max_caption_length=4',
    ),
    'data': (
      f'{prefix}.data-00000-of-00001',
      words,
      all_of('other.jpg'),
      '--length_normalization_factor=1',
      '--beam_size=1',
    ),
    'known': (
      files,
      words,
      all_of('rgb.jpg', 'other.jpg'),
      '--noallow_unknown_word',
    ),
    'ensemble': (f'{prefix},{files}', '', all_of('rgb.jpg', 'other.jpg')),
    'damaged': (files / 'run [1]', words, all_of('rgb.jpg')),
    'no file': (prefix, words, all_of('missing.jpg', 'none*')),
    'beam': (prefix, words, all_of('rgb.jpg'), '--beam_size=0'),
    'vocabulary': (prefix, files / 'large', all_of('rgb.jpg')),
    'no flag': ('', words, all_of('rgb.jpg')),
    'arguments': (
      files,
      '',
      '',
      files / 'turned.jpg',
      files / 'a,b.webp',
      '--beam_size',
      '2',
      files / 'huge.jpg',
      files / 'folder',
      '-',
      f'{files}/rgb.jpg,{files}/other.jpg',
      files / 'bare',
    ),
    'stored': (
      files,
      words,
      '',
      files / 'turned.jpg',
      '--exif_orientation=false',
    ),
    'value of a flag': (
      files,
      words,
      '',
      '--exif_orientation',
      'false',
      files / 'rgb.jpg',
    ),
    'no name': (prefix, words, ''),
    'suffix': (prefix, words, 'a', '--output_file=captions.txt'),
    'no directory': (prefix, words, 'a', '--output_file=none/a.csv'),
    'words of text': (prefix, words, 'a', '--word_probabilities'),
    'nothing to replace': (prefix, words, 'a', '--replace_alt_text'),
    'no beam': (prefix, words, all_of('rgb.jpg'), '--beam_options=--x=1'),
    'no checkpoint': (files / 'folder', '', '', files / 'rgb.jpg'),
    'no vocabulary': (
      testing.testdata_path('checkpoints', 'v2_kernel'),
      '',
      '',
      files / 'rgb.jpg',
    ),
  }
  runs['by Beam'] = (*runs['text'], '--runner=DirectRunner')
  given = {'arguments': f'{files}/x[1].jpg\n\n{files}/other.jpg\n'}
  # Beside the checkpoint.
  (files / 'word_counts.txt').write_text(words.read_text())
  return functools.cache(
    lambda name: _run(*runs[name], given=given.get(name, ''))
  )


def _assert_captions(stdout, expected):
  """Compares standard output with the form of 2016.

  Args:
    stdout: of the program.
    expected: list of (base name, list of (caption, log probability)).
  """
  lines = []
  for name, captions in expected:
    lines.append(f'Captions for image {name}:')
    lines += [
      '  %d) %s (p=%f)' % (i, text, math.exp(logprob))
      for i, (text, logprob) in enumerate(captions)
    ]
  number = re.compile(r'\(p=(\d\.\d{6})\)$', re.M)
  # A processor's rounding may change the last digit.
  assert number.sub('(p=)', stdout) == number.sub(
    '(p=)', '\n'.join(lines) + '\n'
  )
  assert [float(p) for p in number.findall(stdout)] == pytest.approx(
    [float(p) for p in number.findall('\n'.join(lines))], rel=1e-4, abs=2e-6
  )


@functools.cache
def _captioner(files, *args, **kwargs):
  return captioner_lib.Captioner(
    str(files),
    str(files / 'words'),
    search_config.SearchConfig(*args, **kwargs),
  )


def _captions(files, names, *args, exif_orientation=True, **kwargs):
  captioner = _captioner(files, *args, **kwargs)
  images = [
    captioner.decode((files / name).read_bytes(), exif_orientation)
    for name in names
  ]
  return [
    (os.path.basename(name), [(c.text, c.log_probability) for c in captions])
    for name, captions in zip(names, captioner.caption(images))
  ]


def test_text_of_every_kind_of_image_in_the_order_given(runs, files):
  result = runs('text')
  names = ['rgb.jpg', 'x[1].jpg', 'cmyk.jpg', 'grey.jpg', 'png.png']
  expected = _captions(files, names)
  # The images make a difference.
  assert len({str(captions) for _, captions in expected}) == len(names)
  assert all(len(captions) == 3 for _, captions in expected)
  _assert_captions(result.stdout, expected)


def test_what_cannot_be_read_is_named_and_shows_in_the_status(runs, files):
  result = runs('text')
  assert result.returncode == 1
  lines = [line for line in result.stderr.splitlines() if 'skipped' in line]
  assert [line.split(':')[0] for line in lines] == [
    f'skipped {files}/missing.jpg',
    f'skipped {files}/none*',
    f'skipped {files}/broken.jpg',
    f'skipped {files}/empty.jpg',
    '4 file(s) skipped',
  ]
  assert 'Traceback' not in result.stderr


def test_beam_prints_what_one_process_prints(runs):
  pytest.importorskip('apache_beam', reason='needs Apache Beam')
  assert runs('by Beam').stdout == runs('text').stdout
  assert runs('by Beam').returncode == 1

  def told(run):
    return [s for s in run.stderr.splitlines() if s.startswith('skipped ')]

  assert told(runs('by Beam')) == told(runs('text')) != []


def test_json(runs, files):
  result = runs('json')
  assert result.returncode == 0, result.stderr
  # The model is of before there were stamps of vocabularies.
  assert result.stderr.count('not checked that the vocabulary file') == 1
  # One more line says what is done, and TensorFlow says nothing.
  assert [line[0] for line in result.stderr.splitlines()] == ['W', 'I']
  found = [json.loads(line) for line in result.stdout.splitlines()]
  assert [image['image'] for image in found] == [
    f'{files}/rgb.jpg',
    f'{files}/x[1].jpg',
  ]
  expected = _captions(files, ['rgb.jpg', 'x[1].jpg'], 2, 4)
  for image, (_, captions) in zip(found, expected):
    assert [c['caption'] for c in image['captions']] == [
      text for text, _ in captions
    ]
    for caption, (text, logprob) in zip(image['captions'], captions):
      assert set(caption) == {'caption', 'probability', 'log_probability'}
      assert len(text.split()) <= 3
      assert caption['log_probability'] == pytest.approx(logprob, abs=1e-4)
      assert caption['probability'] == pytest.approx(
        math.exp(logprob), rel=1e-3
      )


def test_a_data_file_and_length_normalization(runs, files):
  result = runs('data')
  assert result.returncode == 0, result.stderr
  _assert_captions(result.stdout, _captions(files, ['other.jpg'], 1, 20, 1.0))


def test_passes_over_a_damaged_checkpoint(runs, files):
  result = runs('damaged')
  _assert_captions(result.stdout, _captions(files, ['rgb.jpg']))
  (line,) = [
    line for line in result.stderr.splitlines() if line.endswith(' instead')
  ]
  assert line.endswith(f': using {files}/run [1]/model.ckpt-10 instead')
  assert 'model.ckpt-11.' in line and ' is empty' in line
  assert result.returncode == 0


def test_captions_without_the_unknown_word(runs, files):
  result = runs('known')
  assert result.returncode == 0, result.stderr
  names = ['rgb.jpg', 'other.jpg']
  assert '<UNK>' in str(_captions(files, names))
  assert '<UNK>' not in result.stdout
  _assert_captions(
    result.stdout, _captions(files, names, allow_unknown_word=False)
  )


def test_an_ensemble_of_a_checkpoint_and_itself(runs, files):
  result = runs('ensemble')
  assert result.returncode == 0, result.stderr
  assert 'with an ensemble of 2 checkpoints' in result.stderr
  _assert_captions(result.stdout, _captions(files, ['rgb.jpg', 'other.jpg']))


def test_arguments_are_files_directories_and_standard_input(runs, files):
  result = runs('arguments')
  _assert_captions(
    result.stdout,
    _captions(
      files,
      [
        'turned.jpg',
        'a,b.webp',
        'folder/1.JPG',
        'folder/2.jpg',
        'x[1].jpg',
        'other.jpg',
      ],
      2,
    ),
  )
  lines = [
    line
    for line in result.stderr.splitlines()
    if 'skipped' in line or 'passed over' in line
  ]
  assert [line.split(':', 1) for line in lines] == [
    [
      f'{files}/folder',
      ' 1 passed over, without the suffix of an image: notes.txt',
    ],
    [
      f'skipped {files}/rgb.jpg,{files}/other.jpg',
      ' no such file; a comma separates files in --input_files only',
    ],
    [f'skipped {files}/bare', ' a directory without images'],
    [
      f'skipped {files}/huge.jpg',
      ' too large, 20000 x 20000 pixels: make it at most 8027 x 8027 pixels, '
      'for this kind of JPEG',
    ],
    ['3 file(s) skipped'],
  ]
  assert result.returncode == 1


@pytest.fixture(scope='module', name='tree')
def fixture_tree(tmp_path_factory):
  """Photos in a directory and one below it; one is damaged."""
  path = tmp_path_factory.mktemp('tree') / 'photos'
  (path / 'deep').mkdir(parents=True)
  for seed, name in enumerate(('a.jpg', 'b, c.jpg', 'deep/d.jpg', 'e.jpg')):
    (path / name).write_bytes(testing.jpeg(seed))
  (path / 'bad.jpg').write_bytes(b'bad')
  return path


def _records(path):
  """Returns the lines of a file of captions, each with its texts only."""
  return [
    (line['image'], [caption['caption'] for caption in line['captions']])
    for line in map(json.loads, path.read_text('utf-8').splitlines())
  ]


_KILLED = """
import os, signal
from im2txt.folders import caption_file

def add(self, *args, add=caption_file.CaptionFile.add, added=[]):
  if len(added) == 2:
    self._file.write(b'{"image": "/half of a li')
    os.kill(os.getpid(), signal.SIGKILL)
  added.append(args)
  add(self, *args)

caption_file.CaptionFile.add = add
"""


def test_a_tree_goes_on_after_a_kill_as_if_there_was_none(
  files, tree, tmp_path
):
  def arguments(name):
    return [
      f'--checkpoint_path={files}',
      f'--vocab_file={files}/words',
      tree,
      '--recursive',
      '--inference_batch_size=1',
      f'--output_file={tmp_path}/{name}.jsonl',
    ]

  whole = testing.run_program('run_inference', *arguments('whole'))
  assert whole.returncode == 1 and whole.stdout == ''
  assert '1 file(s) skipped' in whole.stderr
  with subprocess.Popen(
    **testing.program('run_inference', *arguments('killed'), code=_KILLED)
  ) as process:
    process.communicate()
  assert process.returncode == -signal.SIGKILL
  killed = tmp_path / 'killed.jsonl'
  assert killed.read_bytes().endswith(b'{"image": "/half of a li')
  again = testing.run_program('run_inference', *arguments('killed'))
  assert '2 file(s) were done before, and 0 could not be' in again.stderr
  assert _records(killed) == _records(tmp_path / 'whole.jsonl')
  assert [name for name, _ in _records(killed)] == [
    f'{tree}/{name}'
    for name in ('a.jpg', 'b, c.jpg', 'bad.jpg', 'e.jpg', 'deep/d.jpg')
  ]
  # Another model, for example by other flags, captions them again.
  other = testing.run_program(
    'run_inference', *arguments('killed'), '--beam_size=1'
  )
  assert other.returncode == 1 and len(_records(killed)) == 10


def test_words_have_probabilities_and_photos_sidecars(files, tree):
  arguments = (files, files / 'words', f'{tree}/a.jpg', '--sidecars')
  result = _run(*arguments, '--word_probabilities', '--output_format=json')
  (line,) = map(json.loads, result.stdout.splitlines())
  for caption in line['captions']:
    words = caption['words']
    assert caption['caption'] == ' '.join(
      word['word'] for word in words if word['word'] != '</S>'
    )
    assert math.prod(word['probability'] for word in words) == pytest.approx(
      caption['probability'], rel=1e-4
    )
  written = sidecar.read(f'{tree}/a.jpg.xmp')
  assert written.alt_text == sidecar.as_sentence(line['captions'][0]['caption'])
  result = _run(*arguments)
  assert (result.returncode, result.stdout) == (0, '')
  assert '1 file(s) were done before' in result.stderr


def test_exif_orientation_can_be_left_out_of_account(runs, files):
  result = runs('stored')
  assert result.returncode == 0
  stored = _captions(files, ['turned.jpg'], exif_orientation=False)
  assert stored != _captions(files, ['turned.jpg'])
  _assert_captions(result.stdout, stored)


@pytest.mark.parametrize(
  'name, parts',
  [
    ('no file', ['no image file', 'missing.jpg', 'none*']),
    ('value of a flag', ['write --exif_orientation=false']),
    ('no name', ['run_inference [flags] FILE...']),
    ('no checkpoint', ['no checkpoint in directory', 'folder']),
    ('no vocabulary', ['--vocab_file', 'word_counts.txt', 'v2_kernel']),
    ('beam', ['beam_size=0', 'must be 1 or more']),
    ('vocabulary', ['large has 10 words', 'vocab_size of 8']),
    ('no flag', ['--checkpoint_path is required']),
    ('suffix', ['--output_file=captions.txt', '.jsonl or .csv']),
    ('no directory', ['--output_file=none/a.csv', 'make it first']),
    ('words of text', ['--word_probabilities', '--output_format=json']),
    ('nothing to replace', ['--replace_alt_text needs --sidecars']),
    ('no beam', ['--beam_options=--x=1 needs a --runner']),
  ],
)
def test_one_line_says_what_is_wrong(runs, name, parts):
  result = runs(name)
  testing.assert_one_line_error(result, *parts)
  assert result.stdout == ''


def test_prints_what_the_2016_program_printed(tmp_path):
  with open(
    testing.reference_path('full2000', 'captions.json'), encoding='utf-8'
  ) as f:
    reference = json.load(f)
  photos = {}
  for name in reference['images']:
    for folder in ('flickr8k', 'coco_mini'):
      path = testing.reference_path('..', folder, 'images', name)
      # Cut captions lost their last word in 2016; none of these is cut.
      whole = all(
        c['ids'][-1] == reference['end_id']
        for c in reference['beams'][name]['3']
      )
      if os.path.exists(path) and whole:
        photos[name] = path
  if len(photos) < 2:
    pytest.skip('needs the photos that the reference captions are of')
  photos = dict(list(photos.items())[:2])
  values = {}
  for path in (
    testing.inception_checkpoint(tmp_path),
    testing.reference_path('full2000', 'decoder.ckpt'),
  ):
    checkpoint = checkpoints.Checkpoint(path)
    values.update(
      {n: checkpoint.get(n) for n in checkpoint.shapes if 'Logits' not in n}
    )
  checkpoints.write(str(tmp_path / 'whole.ckpt'), values)
  result = _run(
    tmp_path / 'whole.ckpt',
    testing.reference_path('full2000', 'word_counts.txt'),
    ','.join(photos.values()),
  )
  assert result.returncode == 0, result.stderr
  _assert_captions(
    result.stdout,
    [
      (name, [(c['text'], c['logprob']) for c in reference['beams'][name]['3']])
      for name in photos
    ],
  )


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
