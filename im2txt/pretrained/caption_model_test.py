# SPDX-License-Identifier: Apache-2.0
"""Tests of caption_model: a tiny decoder on a whole Inception v3."""

import dataclasses
import hashlib
import io
import json
import os
import shutil
import sys
import tarfile

import numpy as np
import pytest
import tensorflow as tf

from im2txt import checkpoints
from im2txt import configuration
from im2txt import show_and_tell_model
from im2txt.checkpoints import confidence_stamp
from im2txt.checkpoints import encoder_stamp
from im2txt.checkpoints import int8_stamp
from im2txt.pretrained import caption_model
from im2txt.pretrained import inception
from im2txt.text import vocabulary
from im2txt.text import vocabulary_stamp

_WORDS = ['<S>', '</S>', 'a', 'man', 'dog', 'runs']  # <UNK> is 6.
_CONFIG = configuration.ModelConfig(
  vocab_size=7,
  embedding_size=6,
  num_lstm_units=5,
  batch_size=4,
  image_height=75,
  image_width=75,
)
_DECODER = {
  'image_embedding/weights': [2048, 6],
  'seq_embedding/map': [7, 6],
  'lstm/basic_lstm_cell/kernel': [11, 20],
  'lstm/basic_lstm_cell/bias': [20],
  'logits/weights': [5, 7],
  'logits/biases': [7],
}
_IN_PACKAGE = [
  'configuration.json',
  'decoder.npz',
  'model.json',
  'vocabulary.json',
  'word_counts.txt',
]
_IN_TRAIN_DIR = [
  'checkpoint',
  'configuration.json',
  'inception_v3.json',
  'model.ckpt-40.data-00000-of-00001',
  'model.ckpt-40.index',
  'vocabulary.json',
  'word_counts.txt',
]


def _archive(path, values):
  """Writes an archive for `get_inception`; returns its URL."""
  checkpoints.write(f'{path}/inception_v3.ckpt', values)
  with tarfile.open(path / 'inception.tar.gz', 'w:gz', compresslevel=1) as tar:
    for file in sorted(path.glob('inception_v3.ckpt*')):
      tar.add(file, arcname=file.name)
      file.unlink()
  return (path / 'inception.tar.gz').as_uri()


@pytest.fixture(scope='module', name='trained')
def fixture_trained(tmp_path_factory):
  """A directory with `inception`, `other`, `train` and `words.txt`.

  The model was trained on the Inception v3 of `inception`; that of `other`
  differs from it in one number.
  """
  path = tmp_path_factory.mktemp('trained')
  tf.random.set_seed(1)
  model = show_and_tell_model.ShowAndTellModel(_CONFIG)
  model.global_step.assign(40)
  values = {
    name: variable.numpy()
    for name, variable in model.inception.named_variables.items()
  }
  for name in ('inception', 'other'):
    (path / name).mkdir()
    (path / f'{name} archive').mkdir()
    inception.get(
      str(path / name), url=_archive(path / f'{name} archive', values)
    )
    values['InceptionV3/Conv2d_1a_3x3/BatchNorm/beta'] += 1e-3
  (path / 'train').mkdir()
  checkpoints.CheckpointManager(str(path / 'train')).save(model.named_variables)
  configuration.save(
    path / 'train',
    (_CONFIG, configuration.TrainingConfig(initial_learning_rate=0.25)),
  )
  (path / 'words.txt').write_text('\n'.join(f'{word} 5' for word in _WORDS))
  vocab = vocabulary.Vocabulary(str(path / 'words.txt'))
  vocabulary_stamp.save(
    path / 'train',
    vocabulary_stamp.Stamp(
      vocab.fingerprint, 7, '/home/me/words.txt', 'unicode'
    ),
  )
  encoder_stamp.copy(path / 'inception', path / 'train')
  return path


@pytest.fixture(scope='module', name='package')
def fixture_package(trained):
  (trained / 'package').mkdir()
  (trained / 'package' / 'README.md').write_text('A model card.')
  caption_model.write(
    str(trained / 'package'),
    str(trained / 'train'),
    str(trained / 'words.txt'),
    scores={'cider': 0.5},
  )
  return trained / 'package'


@pytest.fixture(scope='module', name='got')
def fixture_got(trained, package):
  prefix = caption_model.get(
    str(trained / 'got'), str(package), str(trained / 'inception')
  )
  assert prefix == f'{trained}/got/model.ckpt-40'
  return trained / 'got'


def _get(trained, directory, package, inception_dir='inception'):
  return caption_model.get(
    str(directory), str(package), str(trained / inception_dir)
  )


def _times(directory):
  return {path.name: path.stat().st_mtime_ns for path in directory.iterdir()}


def test_a_package_is_small_and_says_what_it_needs(trained, package):
  assert sorted(os.listdir(package)) == sorted([*_IN_PACKAGE, 'README.md'])
  with np.load(package / 'decoder.npz') as arrays:
    assert {
      name: (list(arrays[name].shape), arrays[name].dtype.name)
      for name in arrays
    } == {
      **{name: (shape, 'float16') for name, shape in _DECODER.items()},
      'global_step': ([], 'int32'),
    }
  manifest = json.loads((package / 'model.json').read_text())
  assert set(manifest['parts']) == set(_IN_PACKAGE) - {'model.json'}
  assert manifest['global_step'] == 40
  assert manifest['scores'] == {'cider': 0.5}
  assert manifest['encoder'] == dataclasses.asdict(
    encoder_stamp.load(trained / 'inception')
  )
  # No path of the machine that it was made on.
  assert vocabulary_stamp.load(package) == dataclasses.replace(
    vocabulary_stamp.load(trained / 'train'), file='word_counts.txt'
  )


def test_comes_back_as_a_checkpoint_of_2016(trained, got):
  assert sorted(os.listdir(got)) == _IN_TRAIN_DIR
  assert (
    (got / 'checkpoint')
    .read_text()
    .startswith('model_checkpoint_path: "model.ckpt-40"\n')
  )
  before, after = (
    tf.train.load_checkpoint(f'{trained}/{name}/model.ckpt-40')
    for name in ('train', 'got')
  )
  assert after.get_variable_to_shape_map() == before.get_variable_to_shape_map()
  types = after.get_variable_to_dtype_map()
  assert types == before.get_variable_to_dtype_map() and len(types) == 383
  assert types.pop('global_step') == tf.int32
  assert set(types.values()) == {tf.float32}
  for name in types:
    value, wanted = after.get_tensor(name), before.get_tensor(name)
    if name in _DECODER:
      # Half a unit in the last of 11 bits.
      np.testing.assert_allclose(value, wanted, rtol=2**-11, atol=2**-25)
    else:
      np.testing.assert_array_equal(value, wanted)
  assert after.get_tensor('global_step') == 40
  model, training = configuration.load(got)
  assert model == _CONFIG and training.initial_learning_rate == 0.25
  assert encoder_stamp.load(got) == encoder_stamp.load(trained / 'inception')
  assert vocabulary_stamp.load(got).tokenizer == 'unicode'


def test_packaging_it_again_gives_the_same(trained, package, got):
  caption_model.write(
    str(trained / 'again'),
    str(got),
    str(got / 'word_counts.txt'),
    scores={'cider': 0.5},
  )
  for name in _IN_PACKAGE:
    assert (trained / 'again' / name).read_bytes() == (
      package / name
    ).read_bytes()


def test_a_confidence_comes_along(trained, got, tmp_path):
  fitted = confidence_stamp.Confidence(40, 0.5, 0.1, 0.2, 0.3, [0.0], {})
  shutil.copytree(got, tmp_path / 'model')
  for step in (39, 40):
    confidence_stamp.save(
      tmp_path / 'model', dataclasses.replace(fitted, global_step=step)
    )
    manifest = caption_model.write(
      str(tmp_path / f'package {step}'),
      str(tmp_path / 'model'),
      str(got / 'word_counts.txt'),
    )
    # That of another step does not.
    assert ('confidence.json' in manifest.parts) == (step == 40)
  package = tmp_path / 'package 40'
  directory = tmp_path / 'a'
  _get(trained, directory, package)
  assert confidence_stamp.load(str(directory), 40) == fitted
  another = dataclasses.replace(fitted, bias=0.7)
  confidence_stamp.save(directory, another)
  _get(trained, directory, package)
  assert confidence_stamp.load(str(directory), 40) == another
  (directory / 'confidence.json').unlink()
  _get(trained, directory, package)
  assert confidence_stamp.load(str(directory), 40) == fitted
  (package / 'confidence.json').write_text('{}')
  with pytest.raises(ValueError, match='confidence.json is not the file that'):
    _get(trained, directory, package)


def test_a_calibration_for_int8_comes_along(trained, got, tmp_path):
  own = encoder_stamp.fingerprint(inception.read(str(got / 'model.ckpt-40')))
  shutil.copytree(got, tmp_path / 'model')
  for fingerprint in (own, 'of another encoder'):
    calibration = int8_stamp.Calibration(fingerprint, 2, 'photos', {'a': 1.5})
    int8_stamp.save(tmp_path / 'model', calibration)
    package = tmp_path / f'package {fingerprint}'
    manifest = caption_model.write(
      str(package), str(tmp_path / 'model'), str(got / 'word_counts.txt')
    )
    assert (int8_stamp.FILE_NAME in manifest.parts) == (fingerprint == own)
  directory = tmp_path / 'a'
  prefix = _get(trained, directory, tmp_path / f'package {own}')
  assert int8_stamp.load(prefix, own).largest == {'a': 1.5}


def test_gets_the_encoder_once_and_then_does_nothing(
  trained, package, tmp_path, capsys
):
  archive = trained / 'inception archive' / 'inception.tar.gz'
  prefix = caption_model.get(str(tmp_path / 'a'), str(package))
  assert f'Downloaded {archive.as_uri()}' in capsys.readouterr().out
  before = _times(tmp_path / 'a')
  assert set(before) == {
    *_IN_TRAIN_DIR,
    'inception_v3.ckpt.index',
    'inception_v3.ckpt.data-00000-of-00001',
  }
  hidden = archive.rename(archive.with_name('hidden'))
  try:
    assert caption_model.get(str(tmp_path / 'a'), str(package)) == prefix
    assert _times(tmp_path / 'a') == before
    assert 'is there already' in capsys.readouterr().out
    # Nor is the encoder needed for that, but for anything else.
    _get(trained, tmp_path / 'b', package, tmp_path / 'a')
  finally:
    hidden.rename(archive)


@pytest.mark.parametrize(
  'damage',
  [
    lambda d: (d / 'checkpoint').unlink(),
    lambda d: (d / 'model.ckpt-40.index').unlink(),
    lambda d: (d / 'word_counts.txt').write_text('a 1\n'),
    lambda d: (d / 'inception_v3.json').unlink(),
    lambda d: os.truncate(d / 'model.ckpt-40.data-00000-of-00001', 1000),
  ],
)
def test_completes_what_was_interrupted(
  trained, package, got, tmp_path, damage
):
  directory = tmp_path / 'a'
  shutil.copytree(got, directory)
  damage(directory)
  assert _get(trained, directory, package) == f'{directory}/model.ckpt-40'
  assert sorted(os.listdir(directory)) == _IN_TRAIN_DIR
  for name in _IN_TRAIN_DIR:
    if 'data' not in name:
      assert (directory / name).read_bytes() == (got / name).read_bytes()
  # All is read back.
  before = _times(directory)
  _get(trained, directory, package)
  assert _times(directory) == before


def test_another_encoder_is_refused(trained, package, tmp_path):
  with pytest.raises(ValueError) as error:
    _get(trained, tmp_path / 'a', package, 'other')
  found, needed = (
    encoder_stamp.load(trained / name).fingerprint[:16]
    for name in ('other', 'inception')
  )
  message = str(error.value)
  assert message.startswith(f'{trained}/other/inception_v3.ckpt is of source')
  assert f'fingerprint {found}, but the model needs' in message
  assert f'fingerprint {needed}: remove it, or give --inception_dir' in message
  assert '\n' not in message
  assert not os.listdir(tmp_path / 'a')


@pytest.mark.parametrize('name', set(_IN_PACKAGE) - {'model.json'})
def test_damaged_parts_are_refused(trained, package, tmp_path, name):
  shutil.copytree(package, tmp_path / 'package')
  path = tmp_path / 'package' / name
  path.write_bytes(path.read_bytes()[:-1])
  with pytest.raises(
    ValueError, match='is not the file that model.json describes'
  ) as error:
    _get(trained, tmp_path / 'a', tmp_path / 'package')
  assert str(path) in str(error.value)
  path.unlink()
  with pytest.raises(ValueError, match='found no file'):
    _get(trained, tmp_path / 'a', tmp_path / 'package')
  assert not (tmp_path / 'a').exists()


@pytest.mark.parametrize(
  'change, message',
  [
    (lambda m: m.update(format=2), 'of format 2, not 1'),
    (lambda m: m.pop('encoder'), 'cannot be used'),
    (lambda m: m['encoder'].pop('fingerprint'), 'cannot be used'),
    (
      lambda m: m['encoder'].update(fingerprint=7),
      'fingerprint is not of type str',
    ),
    (lambda m: m['parts'].pop('decoder.npz'), 'cannot be used'),
    (lambda m: m['parts'].update({'decoder.npz': 7}), 'a part has no SHA-256'),
  ],
)
def test_damaged_manifests_are_refused(
  trained, package, tmp_path, change, message
):
  shutil.copytree(package, tmp_path / 'package')
  path = tmp_path / 'package' / 'model.json'
  manifest = json.loads(path.read_text())
  change(manifest)
  path.write_text(json.dumps(manifest))
  with pytest.raises(ValueError, match=message):
    _get(trained, tmp_path / 'a', tmp_path / 'package')
  path.write_text('{')
  with pytest.raises(ValueError, match='model.json cannot be used'):
    _get(trained, tmp_path / 'a', tmp_path / 'package')
  path.unlink()
  with pytest.raises(ValueError, match='--package_dir=.* is not a package'):
    _get(trained, tmp_path / 'a', tmp_path / 'package')


def _forge(package, parts, **changes):
  """Puts parts into a package, with the checksums that its manifest needs."""
  path = package / 'model.json'
  manifest = {**json.loads(path.read_text()), **changes}
  for name, content in parts.items():
    (package / name).write_bytes(content)
    manifest['parts'][name] = hashlib.sha256(content).hexdigest()
  path.write_text(json.dumps(manifest))


def _npz(**arrays):
  out = io.BytesIO()
  np.savez_compressed(out, **arrays)
  return out.getvalue()


@pytest.mark.parametrize(
  'damage',
  [
    lambda content: b'',
    lambda content: content[:-9],
    # Amid what is compressed, and of the directory of names.
    lambda content: content[:200] + b'\xff' * 99 + content[299:],
    lambda content: content[:-99] + bytes(50) + content[-49:],
    lambda _: _npz(a=np.array([{}], object)),
    lambda _: _npz(a='text'),
    lambda _: _npz(a=np.float32([1, np.nan])),
    lambda _: _npz(a=np.float16([np.inf])),
  ],
  ids=range(8),
)
def test_forged_arrays_are_refused(trained, package, tmp_path, damage):
  shutil.copytree(package, tmp_path / 'package')
  part = tmp_path / 'package' / 'decoder.npz'
  _forge(tmp_path / 'package', {part.name: damage(part.read_bytes())})
  with pytest.raises(ValueError) as error:
    _get(trained, tmp_path / 'a', tmp_path / 'package')
  message = str(error.value)
  assert message.startswith(f'{part} is damaged (') and '\n' not in message
  assert message.endswith('): get the package again')
  assert not (tmp_path / 'a').exists()


@pytest.mark.parametrize(
  'arrays',
  [
    # NumPy would make of the first two what fills the memory.
    {
      '': np.zeros([1, 1, 1280, 320], np.int8),
      '/scale': np.ones([10**6, 1, 1, 1, 1], np.float32),
    },
    {'/scale': np.ones([320], np.float32)},
    {'/other': np.float32(1)},
  ],
)
def test_forged_changes_are_refused(trained, package, tmp_path, arrays):
  shutil.copytree(package, tmp_path / 'package')
  name = 'InceptionV3/Mixed_7c/Branch_0/Conv2d_0a_1x1/weights'
  _forge(
    tmp_path / 'package',
    {
      'encoder.npz': _npz(
        **{name + end: array for end, array in arrays.items()}
      )
    },
    changed_encoder='12ab',
  )
  with pytest.raises(ValueError, match='encoder.npz does not hold variables'):
    _get(trained, tmp_path / 'a', tmp_path / 'package')
  assert not (tmp_path / 'a').exists()


def test_training_that_went_on_is_left_alone(trained, package, got, tmp_path):
  directory = tmp_path / 'a'
  shutil.copytree(got, directory)
  checkpoints.CheckpointManager(str(directory)).save(
    {'global_step': np.int32(50)}
  )
  before = _times(directory)
  assert _get(trained, directory, package) == f'{directory}/model.ckpt-50'
  assert _times(directory) == before
  # A model of other words is none that went on.
  vocabulary_stamp.save(directory, vocabulary_stamp.Stamp('12ab', 7, 'x'))
  with pytest.raises(ValueError, match='holds another model'):
    _get(trained, directory, package)


@pytest.mark.parametrize(
  'value, part',
  [
    (70000.0, 'has values that float16'),
    (-1e6, 'has values that float16'),
    (float('nan'), 'holds NaN or infinity'),
  ],
)
def test_what_float16_cannot_hold_is_refused(trained, tmp_path, value, part):
  shutil.copytree(trained / 'train', tmp_path / 'train')
  checkpoint = checkpoints.Checkpoint(str(trained / 'train'))
  values = {name: checkpoint.get(name) for name in checkpoint.shapes}
  values['logits/biases'] = np.float32([value, 1, 2, 3, 4, 5, 6])
  checkpoints.CheckpointManager(str(tmp_path / 'train')).save(values)
  with pytest.raises(ValueError, match=f'logits/biases {part}'):
    caption_model.write(
      str(tmp_path / 'package'),
      str(tmp_path / 'train'),
      str(trained / 'words.txt'),
    )
  assert not (tmp_path / 'package').exists()


def test_the_encoder_must_be_one_that_can_be_got(trained, tmp_path):
  train_dir = tmp_path / 'train'
  shutil.copytree(trained / 'train', train_dir)

  def write(inception_dir=None):
    return caption_model.write(
      str(tmp_path / 'package'),
      str(train_dir),
      str(trained / 'words.txt'),
      inception_dir,
    )

  stamp = encoder_stamp.load(train_dir)
  encoder_stamp.save(train_dir, dataclasses.replace(stamp, source='file'))
  with pytest.raises(ValueError, match='nothing in .* tells where the encoder'):
    write()
  encoder_stamp.remove(train_dir)
  with pytest.raises(ValueError, match='nothing in .* tells where the encoder'):
    write()
  with pytest.raises(ValueError, match='is not the one that .*other describes'):
    write(str(trained / 'other'))
  assert not (tmp_path / 'package').exists()
  assert write(str(trained / 'inception')).encoder == dataclasses.asdict(stamp)


def test_a_package_holds_what_training_changed_in_the_encoder(
  trained, tmp_path
):
  """Two variables of a block changed, one number of the one a lot."""
  weights, beta = (
    f'InceptionV3/Mixed_7c/Branch_0/Conv2d_0a_1x1/{part}'
    for part in ('weights', 'BatchNorm/beta')
  )
  original = inception.read(str(trained / 'inception' / inception.CHECKPOINT))
  checkpoint = checkpoints.Checkpoint(str(trained / 'train'))
  values = {name: checkpoint.get(name) for name in checkpoint.shapes}
  rng = np.random.default_rng(0)
  values[weights] = original[weights] + rng.normal(
    scale=1e-3, size=original[weights].shape
  ).astype(np.float32)
  values[weights][0, 0, 0, 0] += 0.5
  values[weights][..., 1] = original[weights][..., 1]
  values[beta] = original[beta] + rng.normal(
    scale=0.1, size=original[beta].shape
  ).astype(np.float32)
  train_dir = tmp_path / 'train'
  checkpoints.CheckpointManager(str(train_dir)).save(values)
  for name in os.listdir(trained / 'train'):
    if name.endswith('.json'):
      shutil.copy(trained / 'train' / name, train_dir)

  def write(inception_dir=None):
    return caption_model.write(
      str(tmp_path / 'package'),
      str(train_dir),
      str(trained / 'words.txt'),
      inception_dir,
    )

  for wrong in None, str(trained / 'other'):
    with pytest.raises(
      ValueError, match='if it was trained further, give --incep'
    ):
      write(wrong)
  manifest = write(str(trained / 'inception'))
  assert manifest.encoder == dataclasses.asdict(
    encoder_stamp.load(trained / 'inception')
  )
  with np.load(tmp_path / 'package' / 'encoder.npz') as arrays:
    assert {name: arrays[name].dtype.name for name in arrays} == {
      weights: 'int8',
      f'{weights}/scale': 'float32',
      beta: 'float32',
    }
  # So does a package of a decoder that was trained anew on this encoder.
  anew = encoder_stamp.of_checkpoint(
    f'{train_dir}/x', inception.read(train_dir)
  )
  encoder_stamp.save(train_dir, anew)
  assert write(str(trained / 'inception')) == manifest
  got = inception.read(_get(trained, tmp_path / 'got', tmp_path / 'package'))
  assert encoder_stamp.fingerprint(got) == manifest.changed_encoder
  np.testing.assert_allclose(got[beta], values[beta], atol=1e-7)
  # An output's error is half a step of its own scale at most.
  error = np.abs(got[weights] - values[weights])[0, 0]
  largest = np.abs(values[weights] - original[weights])[0, 0].max(axis=0)
  assert (error <= largest / 254 * 1.001 + 1e-8).all()
  assert error[:, 1].max() == 0 < error[:, 2].max()
  for name, value in got.items():
    if name not in (weights, beta):
      np.testing.assert_array_equal(value, original[name], err_msg=name)
  before = _times(tmp_path / 'got')
  _get(trained, tmp_path / 'got', tmp_path / 'package')
  assert _times(tmp_path / 'got') == before
  with pytest.raises(ValueError, match='the model needs the encoder that it'):
    _get(trained, tmp_path / 'wrong', tmp_path / 'package', 'other')
  # The changes may not be left out.
  path = tmp_path / 'package' / 'model.json'
  manifest = json.loads(path.read_text())
  path.write_text(json.dumps({**manifest, 'changed_encoder': ''}))
  with pytest.raises(ValueError, match='cannot be used'):
    _get(trained, tmp_path / 'cut', tmp_path / 'package')


def test_the_vocabulary_must_be_the_models(trained, tmp_path):
  (tmp_path / 'words.txt').write_text(
    (trained / 'words.txt').read_text().replace('dog', 'cat')
  )
  with pytest.raises(ValueError, match='not of one vocabulary'):
    caption_model.write(
      str(tmp_path / 'package'),
      str(trained / 'train'),
      str(tmp_path / 'words.txt'),
    )


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
