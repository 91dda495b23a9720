# SPDX-License-Identifier: Apache-2.0
"""Tests of doctor: train directories with one fault each."""

import functools
import itertools
import os
import re
import sys
import tempfile

import numpy as np
import pytest
import tensorflow as tf

from im2txt import checkpoints
from im2txt import configuration
from im2txt import show_and_tell_model
from im2txt import testing
from im2txt.data import shards
from im2txt.diagnosis import caption_checks
from im2txt.diagnosis import case as case_lib
from im2txt.diagnosis import doctor
from im2txt.diagnosis import observation
from im2txt.inference_utils import captioner as captioner_lib
from im2txt.inference_utils import likelihood
from im2txt.text import vocabulary
from im2txt.text import vocabulary_stamp

_COLOURS, _ANIMALS = ['red', 'blue', 'grey'], ['dog', 'cat', 'cow', 'hen']
_WORDS = ['a', '<S>', '</S>', '.', 'runs', *_COLOURS, *_ANIMALS]
_CAPTIONS = {
  image_id: f'<S> a {colour} {animal} runs . </S>'.split()
  for image_id, (colour, animal) in enumerate(
    itertools.product(_COLOURS, _ANIMALS)
  )
}
_CONFIG = configuration.ModelConfig(
  vocab_size=len(_WORDS) + 1, embedding_size=16, num_lstm_units=24
)
_AVERAGE = 'InceptionV3/Conv2d_1a_3x3/BatchNorm/moving_mean'
_STEPS = range(1, 101)
_SIDE = 6
_PROJECTION = np.random.default_rng(1).normal(size=[3 * _SIDE**2, 2048])


@functools.cache
def _shared_decoder(config, word_counts):
  """Returns (model, `FeatureCaptioner`), traced once for all runs alike.

  Args:
    config: the model's.
    word_counts: content of the vocabulary file.
  """
  with tempfile.NamedTemporaryFile('w', encoding='utf-8') as f:
    f.write(word_counts)
    f.flush()
    vocab = vocabulary.Vocabulary(f.name)
  model = show_and_tell_model.ShowAndTellModel(config, with_inception=False)
  return model, captioner_lib.FeatureCaptioner(model, vocab)


class Captioner:
  """Stands in for a `Captioner`; its encoder is a random layer of pixels.

  Cosines of random sums change entirely with the scale of the pixels.
  """

  def __init__(self, prefix, vocab_file):
    trained = checkpoints.load(prefix)
    with open(vocab_file, encoding='utf-8') as f:
      self.model, self.decoder = _shared_decoder(trained.model_config, f.read())
    # The weights of the run before are all replaced.
    trained.checkpoint.restore(self.model.named_variables)

  @staticmethod
  def decode(data, exif_orientation):
    assert not exif_orientation
    if data == b'damaged':
      raise ValueError('damaged')
    image = tf.image.resize(tf.io.decode_jpeg(data), [_SIDE, _SIDE])
    return image / 127.5 - 1

  @staticmethod
  def encode(images):
    pixels = np.stack(images).reshape(len(images), -1)
    return tf.constant(1 + np.cos(pixels @ _PROJECTION), tf.float32)


def _features(preprocess=case_lib.right):
  return Captioner.encode(
    [
      preprocess(Captioner.decode(testing.jpeg(image_id), False))
      for image_id in _CAPTIONS
    ]
  )


def _embedding(features):
  """Returns weights that give each image an embedding of its own."""
  wanted = np.random.default_rng(2).normal(size=[len(features), 16])
  return np.linalg.pinv(features) @ wanted


def _ids(caption, words=tuple(_WORDS)):
  return [words.index(word) for word in caption]


def _trained(captions):
  """Returns a decoder that has learned captions by heart, dict of arrays."""
  tf.random.set_seed(1)
  model = show_and_tell_model.ShowAndTellModel(_CONFIG, with_inception=False)
  features = _features()
  model.image_embedding_weights.assign(_embedding(features))
  ids = np.array([_ids(caption) for caption in captions])
  variables = [
    variable
    for name, variable in model.decoder_variables.items()
    if not name.startswith('image_embedding')
  ]
  # Adam's update without bias correction.
  moments = [
    (tf.Variable(tf.zeros_like(v)), tf.Variable(tf.zeros_like(v)))
    for v in variables
  ]

  @tf.function(autograph=False)
  def step():
    with tf.GradientTape() as tape:
      loss = tf.reduce_mean(
        model.cross_entropies(
          features, ids[:, :-1], ids[:, 1:], np.ones_like(ids[:, 1:])
        )
      )
    gradients = tape.gradient(loss, variables)
    for variable, gradient, (first, second) in zip(
      variables, gradients, moments
    ):
      gradient = tf.convert_to_tensor(gradient)
      first.assign(0.9 * first + 0.1 * gradient)
      second.assign(0.99 * second + 0.01 * gradient**2)
      variable.assign_sub(0.02 * first / (tf.sqrt(second) + 1e-6))
    return loss

  for _ in range(150):
    loss = step()
  assert loss < 0.1
  return {name: v.numpy() for name, v in model.decoder_variables.items()}


@pytest.fixture(scope='module', name='decoder')
def fixture_decoder():
  return _trained(_CAPTIONS.values())


def _save(directory, decoder, step=20, average=0.5):
  checkpoints.CheckpointManager(str(directory)).save(
    {
      **decoder,
      _AVERAGE: np.full([32], average, np.float32),
      'global_step': np.int32(step),
    }
  )


def _write_shard(path, captions, words=tuple(_WORDS)):
  with shards.Writer(path) as writer:
    for image_id, caption in captions.items():
      writer.write(
        shards.serialize(
          image_id, testing.jpeg(image_id), caption, _ids(caption, words)
        )
      )


def _log(directory, **curves):
  """Logs scalars of steps, functions of the step."""
  curves = {
    'learning_rate': lambda step: 0.5 ** (step // 40),
    'losses/batch_loss': lambda step: 2 + 3 / step,
    'waiting_for_input': lambda step: 0.01,
    **curves,
  }
  for name in os.listdir(directory):
    if '.tfevents.' in name:
      os.remove(directory / name)
  writer = tf.summary.create_file_writer(str(directory))
  with writer.as_default():
    for step in _STEPS:
      for tag, curve in curves.items():
        tf.summary.scalar(tag, curve(step), step=step)
  writer.close()


class Run:
  """A training run that is made up.

  Attributes:
    train: its train directory.
    data: directory of its shards.
    decoder: its decoder, dict of arrays.
  """

  def __init__(self, directory, decoder):
    self.train, self.data = directory / 'train', directory / 'data'
    self.decoder = decoder
    for path in (self.train, self.data):
      path.mkdir()
    configuration.save(
      str(self.train), (_CONFIG, configuration.TrainingConfig())
    )
    _save(self.train, decoder)
    _log(self.train)
    vocab_file = self.data / 'word_counts.txt'
    vocab_file.write_text(''.join(f'{word} 5\n' for word in _WORDS))
    stamp = vocabulary_stamp.of_vocabulary(
      vocabulary.Vocabulary(str(vocab_file))
    ).stamp
    for path in (self.train, self.data):
      vocabulary_stamp.save(path, stamp)
    half = len(_CAPTIONS) // 2
    for number in range(2):
      _write_shard(
        self.data / f'train-0000{number}-of-00002',
        dict(list(_CAPTIONS.items())[number * half :][:half]),
      )

  def case(self, **options):
    return case_lib.Case(
      str(self.train),
      **{'input_file_pattern': str(self.data / 'train-*'), **options},
    )

  def save_only(self, decoder=None, **changes):
    """Saves one checkpoint in the place of all."""
    for path in self.train.glob('model.ckpt*'):
      path.unlink()
    (self.train / 'checkpoint').unlink()
    _save(self.train, decoder or self.decoder, **changes)


# One per model, so one that is traced once.
_likelihood_of = functools.cache(likelihood.Likelihood)


@pytest.fixture(name='run')
def fixture_run(tmp_path, monkeypatch, decoder):
  """A healthy training run."""
  monkeypatch.setattr(captioner_lib, 'Captioner', Captioner)
  monkeypatch.setattr(likelihood, 'Likelihood', _likelihood_of)
  return Run(tmp_path, decoder)


def _outcomes(case, kind=doctor.FINDING, only=None):
  """Returns the texts of a kind of outcomes by check.

  Args:
    case: the run.
    kind: of the outcomes.
    only: the one check to do.
  """
  checks = {only: doctor.CHECKS[only]} if only else None
  return {
    o.check: o.text for o in doctor.examine(case, checks) if o.kind == kind
  }


def test_a_healthy_run_has_no_finding(run):
  outcomes = list(doctor.examine(run.case()))
  assert [o.check for o in outcomes] == list(doctor.CHECKS)
  assert {o.kind for o in outcomes} == {doctor.HEALTHY}, outcomes
  text = {o.check: o.text for o in outcomes}
  assert '12 different captions of 12 images' in text['captions']
  assert '20 steps of 32 captions are 53 passes over about 12' in text['steps']
  assert 'perplexity 1.0' in text['image']


def _lose_the_checkpoint(run):
  for path in run.train.glob('*ckpt*'):
    path.unlink()
  (run.train / 'checkpoint').unlink()


def _truncate(run):
  _save(run.train, run.decoder, step=30)
  path = run.train / 'model.ckpt-30.data-00000-of-00001'
  path.write_bytes(path.read_bytes()[:1000])


def _diverge(run):
  bad = {**run.decoder, 'logits/biases': np.full([len(_WORDS) + 1], np.nan)}
  _save(run.train, bad, step=30)


def _rename_as_damaged(run):
  (run.train / 'model.ckpt-3.index.damaged').touch()


def _damage_the_state_file(run):
  (run.train / 'checkpoint').write_text('no state')


def _damage_the_training_state(run):
  (run.train / 'training_state-20.index').touch()


def _damage_the_configuration(run):
  (run.train / 'configuration.json').write_text('{')


def _stamp_other_shards(run):
  other = vocabulary_stamp.Stamp('another', 9, '/other/word_counts.txt')
  vocabulary_stamp.save(run.data, other)


def _number_words_otherwise(run):
  """As if the shards were made before there were stamps."""
  words = sorted(_WORDS)
  (run.data / 'vocabulary.json').unlink()
  for path in run.data.glob('train-*'):
    _write_shard(path, _CAPTIONS, words)


def _have_too_large_ids(run):
  (run.data / 'vocabulary.json').unlink()
  words = _WORDS[:5] + [f'more{n}' for n in range(9)] + _WORDS[5:]
  for path in run.data.glob('train-*'):
    _write_shard(path, _CAPTIONS, words)


def _know_few_words(run):
  unknown = len(_WORDS)
  captions = {
    image_id: [word if word != 'runs' else 'flaps' for word in caption]
    for image_id, caption in _CAPTIONS.items()
  }
  words = [*_WORDS, 'flaps']  # The number of <UNK>.
  assert words.index('flaps') == unknown
  for path in run.data.glob('train-*'):
    _write_shard(path, captions, words)


def _take_one_step(run):
  run.save_only(step=1)


def _have_random_inception(run):
  run.save_only(average=0.0)


def _ignore_images(run):
  weights = np.zeros_like(run.decoder['image_embedding/weights'])
  run.save_only({**run.decoder, 'image_embedding/weights': weights})


def _learn_from(preprocess):
  def spoil(run):
    weights = _embedding(_features(preprocess)).astype(np.float32)
    run.save_only({**run.decoder, 'image_embedding/weights': weights})

  return spoil


def _repeat_words(run):
  run.save_only(
    _trained(
      [
        [*caption[:4], caption[3], caption[3], *caption[4:]]
        for caption in _CAPTIONS.values()
      ]
    )
  )


def _logs(tag, curve):
  return lambda run: _log(run.train, **{tag: curve})


@pytest.mark.parametrize(
  'spoil, findings',
  [
    (_lose_the_checkpoint, {'checkpoints': 'no whole checkpoint in'}),
    (_truncate, {'checkpoints': 'model.ckpt-30'}),
    (_diverge, {'checkpoints': 'training diverged; .*lower learning rate'}),
    (_rename_as_damaged, {'checkpoints': 'look after the disk'}),
    (_damage_the_state_file, {'checkpoints': 'checkpoint is damaged'}),
    (_damage_the_training_state, {'checkpoints': 'training_state-20'}),
    (_damage_the_configuration, {'vocabulary': 'configuration.json'}),
    (_stamp_other_shards, {'vocabulary': '/other/word_counts.txt.*; give'}),
    (_number_words_otherwise, {'vocabulary': 'word ids are not those'}),
    (_have_too_large_ids, {'vocabulary': r'word id \d+, and the model 13'}),
    (_know_few_words, {'unknown_words': '20.0% of 120 words'}),
    (_take_one_step, {'steps': '2.7 passes.*--number_of_steps=4 '}),
    (
      _logs('learning_rate', lambda step: 0.1 if step < 50 else 2.0),
      {'learning_rate': 'from 0.1 at step 49 to 2 at step 50'},
    ),
    (
      _logs('losses/batch_loss', lambda step: np.nan if step > 70 else 2.0),
      {'loss': 'losses/batch_loss is nan at step 71'},
    ),
    (
      _logs('losses/batch_loss', lambda step: 2.0 + abs(step - 50) / 50),
      {'loss': r'has risen: 2.\d+ about step \d\d, and 2.9\d+ about step 96'},
    ),
    (
      _logs('waiting_for_input', lambda step: 0.1 if step < 50 else 0.6),
      {'input': '60% of the time; train from --feature_cache_dir'},
    ),
    (_have_random_inception, {'encoder': 'Inception v3 are random'}),
    (
      _ignore_images,
      {
        'image': r'perplexity (\S+) with the right images and \1 with',
        'captions': "1 different captions .* 12 times: 'a ",
      },
    ),
    (
      _learn_from(caption_checks.scaled_to_255),
      {'preprocessing': r'or caption with pixels in \[0, 255\]'},
    ),
    (
      _learn_from(caption_checks.not_centred),
      {'preprocessing': r'or caption with pixels in \[0, 1\]'},
    ),
    (
      _learn_from(caption_checks.blue_first),
      {'preprocessing': 'or caption with blue before red'},
    ),
    (
      _repeat_words,
      {'repetition': "12 of 12 captions repeat a word, such as 'a red dog dog"},
    ),
  ],
)
def test_finds_the_fault_and_no_other(run, spoil, findings):
  spoil(run)
  found = _outcomes(run.case())
  for check, pattern in findings.items():
    assert re.search(pattern, found.get(check, '')), found
  if 'preprocessing' in findings:
    # Images that look wrong are of little use to the model.
    for symptom in ('image', 'captions'):
      found.pop(symptom, None)
  assert set(found) == set(findings), found


def test_without_shards(run):
  outcomes = list(
    doctor.examine(
      run.case(
        input_file_pattern='', vocab_file=str(run.data / 'word_counts.txt')
      )
    )
  )
  assert {o.check for o in outcomes if o.kind == doctor.HEALTHY} == {
    'checkpoints',
    'encoder',
    'input',
    'learning_rate',
    'loss',
    'vocabulary',
  }
  left_out = {o.check: o.text for o in outcomes if o.kind == doctor.LEFT_OUT}
  assert set(left_out.values()) == {'no shards: give --input_file_pattern'}
  assert len(outcomes) == len(doctor.CHECKS)


def test_an_empty_directory(run, tmp_path):
  (tmp_path / 'empty').mkdir()
  case = case_lib.Case(str(tmp_path / 'empty'))
  assert set(_outcomes(case)) == {'checkpoints'}
  left_out = _outcomes(case, doctor.LEFT_OUT)
  assert set(left_out) == set(doctor.CHECKS) - {'checkpoints'}
  assert left_out['loss'] == 'no event file in --train_dir'
  assert left_out['encoder'] == 'no whole checkpoint in --train_dir'


def test_a_damaged_shard_is_told_once(run):
  path = run.data / 'train-00000-of-00002'
  path.write_bytes(path.read_bytes()[:-5])
  found = _outcomes(run.case())
  assert len(found) == 1 and 'make the shards again' in str(found)
  left_out = _outcomes(run.case(), doctor.LEFT_OUT)
  assert set(left_out.values()) == {'see the findings above'}


def test_warm_up_is_no_jump(run):
  training = configuration.TrainingConfig(warmup_steps=20)
  configuration.save(str(run.train), (_CONFIG, training))
  _log(run.train, learning_rate=lambda step: min(step, 20) / 20)
  assert _outcomes(run.case(), doctor.HEALTHY, only='learning_rate')


@pytest.mark.parametrize(
  'curves',
  [
    # The share of sampled words grows.
    {
      'losses/batch_loss': lambda step: 1 + step / 100,
      'sampling_probability': lambda step: step / 400,
    },
    # After self-critical training has begun, they are negative rewards.
    {'losses/batch_loss': lambda step: 2.0 if step < 60 else -0.5},
  ],
)
def test_losses_that_rise_for_good_reason(run, curves):
  _log(run.train, **curves)
  assert _outcomes(run.case(), doctor.HEALTHY, only='loss')


def test_undecodable_images_are_left_out(run):
  name = str(run.data / 'train-00001-of-00002')
  records = [record for record in shards.read(name)]
  with shards.Writer(name) as writer:
    for number, record in enumerate(records):
      data = b'damaged' if number == 2 else record.data
      writer.write(
        shards.serialize(record.image_id, data, record.tokens, record.ids)
      )
  case = run.case()
  assert not _outcomes(case)
  assert len(case.captions) == 11


def test_a_small_sample_reads_few_shards(run, monkeypatch):
  """The captions of all shards are estimated from those of the first."""
  read = []
  images = shards.captions_by_image

  def counting(paths, *args, **options):
    read.append(len(paths))
    return images(paths, *args, **options)

  monkeypatch.setattr(shards, 'captions_by_image', counting)
  case = run.case(max_images=5)
  assert len(case.sample.images) == len(case.captions) == 5
  assert case.sample.captions_in_all == pytest.approx(12, abs=1)
  assert set(read) == {1}


def test_a_check_is_added_by_name(run):
  def has_a_seed(case):
    """The seed is known."""
    yield observation.Observation(f'no seed in {case.train_dir}', 'give one')

  (outcome,) = doctor.examine(run.case(), {'seed': has_a_seed})
  assert str(outcome) == f'finding: seed: no seed in {run.train}; give one'


def test_the_program_ends_with_status_0_if_all_is_well(run):
  result = testing.run_program(
    'doctor',
    f'--train_dir={run.train}',
    f'--input_file_pattern={run.data}/train-?????-of-00002',
  )
  assert result.returncode == 0, result.stderr
  *lines, last = result.stdout.splitlines()
  assert [line.split(': ')[:2] for line in lines] == [
    ['healthy', check] for check in doctor.CHECKS
  ]
  assert last == '0 finding(s), 0 of 12 checks left out'


def test_the_program_ends_with_status_1_after_a_finding(run):
  _log(run.train, waiting_for_input=lambda step: 0.9)
  result = testing.run_program('doctor', f'--train_dir={run.train}')
  assert result.returncode == 1, result.stderr
  assert 'finding: input: steps wait for input 90% of the time; train from' in (
    result.stdout
  )
  assert result.stdout.endswith(
    '1 finding(s), 7 of 12 checks left out (more can be checked with '
    '--input_file_pattern)\n'
  )


def test_every_check_says_what_it_looks_for():
  assert all(check.__doc__ for check in doctor.CHECKS.values())


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
