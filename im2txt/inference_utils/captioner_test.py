# SPDX-License-Identifier: Apache-2.0
"""Tests of captioner."""

import dataclasses
import json
import math
import os
import sys

import numpy as np
import pytest
import tensorflow as tf

from im2txt import checkpoints
from im2txt import configuration
from im2txt import show_and_tell_model
from im2txt import testing
from im2txt.inference_utils import captioner as captioner_lib
from im2txt.inference_utils.search_config import SearchConfig
from im2txt.ops import image_processing
from im2txt.text import vocabulary_stamp

_WORDS = ['a', '<S>', '</S>', 'dog', 'cat']


@pytest.fixture(scope='module', name='files')
def fixture_files(tmp_path_factory):
  """A directory with a vocabulary and a checkpoint of random weights."""
  path = tmp_path_factory.mktemp('model')
  (path / 'word_counts.txt').write_text(''.join(f'{w} 1\n' for w in _WORDS))
  config = configuration.ModelConfig(
    vocab_size=8,
    embedding_size=4,
    num_lstm_units=6,
    image_height=75,
    image_width=75,
  )
  configuration.save(path, (config, configuration.TrainingConfig()))
  tf.random.set_seed(1)
  model = show_and_tell_model.ShowAndTellModel(config)
  # Random features are large: the LSTM would be saturated, whatever the image.
  features = model.encode_images(
    tf.stack(
      [
        image_processing.process_image(testing.jpeg(i), height=75, width=75)
        for i in range(3)
      ]
    )
  )
  model.image_embedding_weights.assign(
    model.image_embedding_weights / tf.math.reduce_std(features)
  )
  checkpoints.CheckpointManager(str(path)).save(model.named_variables)
  return path


@pytest.fixture(scope='module', name='captioner')
def fixture_captioner(files):
  return captioner_lib.Captioner(
    str(files),
    str(files / 'word_counts.txt'),
    SearchConfig(beam_size=2, max_caption_length=5),
  )


@pytest.fixture(scope='module', name='full_size')
def fixture_full_size(files, tmp_path_factory):
  """The same captioner with images of the size of 2016."""
  path = tmp_path_factory.mktemp('full_size')
  for file in files.iterdir():
    if file.name != configuration.FILE_NAME:
      (path / file.name).symlink_to(file)
  return captioner_lib.Captioner(str(path), str(files / 'word_counts.txt'))


def test_captions_of_a_batch_equal_those_of_each_alone(captioner):
  images = [captioner.decode(testing.jpeg(i)) for i in range(3)]
  together = captioner.caption(images)
  assert len(together) == 3
  # What is captioned shows, so that a mix-up would.
  assert len({captions[0].log_probability for captions in together}) == 3
  for image, captions in zip(images, together):
    (alone,) = captioner.caption([image])
    assert [c.text for c in captions] == [c.text for c in alone]
    np.testing.assert_allclose(
      [c.log_probability for c in captions],
      [c.log_probability for c in alone],
      atol=1e-4,
    )
    assert len(captions) == 2
    assert 0 < captions[0].probability < 1


def test_text_keeps_the_last_word_of_an_incomplete_caption(captioner):
  assert captioner.decoder.text([1, 0, 3, 2]) == 'a dog'
  assert captioner.decoder.text([1, 0, 3]) == 'a dog'
  assert captioner.decoder.text([1]) == ''
  assert captioner.decoder.text([1, 7, 1, 2]) == '<UNK> <S>'


def test_words_stand_as_the_tokenizer_of_the_captions_wants(files, tmp_path):
  for path in files.iterdir():
    (tmp_path / path.name).symlink_to(path)
  words = str(files / 'word_counts.txt')
  stamp = vocabulary_stamp.of_vocabulary(
    captioner_lib.vocabulary.Vocabulary(words)
  ).stamp
  vocabulary_stamp.save(
    tmp_path, dataclasses.replace(stamp, tokenizer='characters')
  )
  captioner = captioner_lib.Captioner(
    str(tmp_path), words, SearchConfig(beam_size=2, max_caption_length=5)
  )
  assert captioner.decoder.text([1, 0, 3, 2]) == 'adog'
  blanks = captioner_lib.Captioner(
    str(files), words, SearchConfig(beam_size=2, max_caption_length=5)
  )
  images = [captioner.decode(testing.jpeg(i)) for i in range(3)]
  for joined, parted in zip(captioner.caption(images), blanks.caption(images)):
    assert any(' ' in c.text for c in parted)
    assert [c.text for c in joined] == [c.text.replace(' ', '') for c in parted]


def test_another_vocabulary_of_the_same_size_is_refused(files, tmp_path):
  words = str(files / 'word_counts.txt')
  (tmp_path / 'model.ckpt-0.index').symlink_to(files / 'model.ckpt-0.index')
  data = 'model.ckpt-0.data-00000-of-00001'
  (tmp_path / data).symlink_to(files / data)
  (tmp_path / 'other.txt').write_text(
    ''.join(f'{w} 1\n' for w in reversed(_WORDS))
  )
  stamp = vocabulary_stamp.of_vocabulary(
    captioner_lib.vocabulary.Vocabulary(words)
  ).stamp
  vocabulary_stamp.save(tmp_path, stamp)
  with pytest.raises(ValueError) as error:
    captioner_lib.Captioner(
      str(tmp_path / 'model.ckpt-0'), str(tmp_path / 'other.txt')
    )
  for part in (
    f'the vocabulary file {tmp_path}/other.txt (fingerprint ',
    f'the checkpoint {tmp_path}/model.ckpt-0 (fingerprint '
    f'{stamp.fingerprint}, 6 words of {words})',
  ):
    assert part in str(error.value)


def test_captions_are_those_of_the_python_search(files):
  captioner = captioner_lib.Captioner(
    str(files),
    str(files / 'word_counts.txt'),
    SearchConfig(
      beam_size=4, max_caption_length=6, length_normalization_factor=0.5
    ),
  )
  images = [captioner.decode(testing.jpeg(i)) for i in range(3)]
  found = captioner.caption(images)
  states, captions, _ = captioner.decoder._search(
    captioner.encode(images), np.arange(3)
  )
  assert not captions.ambiguous.numpy().any()
  expected = captioner.decoder._generator.beam_search(states)
  for mine, others in zip(found, expected):
    assert [c.text for c in mine] == [
      captioner.decoder.text(c.sentence) for c in others
    ]
    np.testing.assert_allclose(
      [c.log_probability for c in mine], [c.logprob for c in others], atol=1e-5
    )


def test_equal_scores_come_in_the_order_of_the_python_search(files, tmp_path):
  source = checkpoints.Checkpoint(str(files))
  values = {n: source.get(n) for n in source.shapes}
  for name in ('logits/weights', 'logits/biases'):
    values[name] = np.zeros_like(values[name])
  checkpoints.write(str(tmp_path / 'ties'), values)
  captioner = captioner_lib.Captioner(
    str(tmp_path / 'ties'),
    str(files / 'word_counts.txt'),
    SearchConfig(beam_size=4),
  )
  images = [captioner.decode(testing.jpeg())]
  states, captions, _ = captioner.decoder._search(
    captioner.encode(images), np.arange(1)
  )
  assert captions.ambiguous.numpy().all()
  (expected,) = captioner.decoder._generator.beam_search(states)
  assert [c.text for c in captioner.caption(images)[0]] == [
    captioner.decoder.text(c.sentence) for c in expected
  ]


class _Decoder:
  """A model whose likeliest ids are of no word, and its searches.

  Attributes:
    model: the `ShowAndTellModel`, of two ids more than there are words.
    vocab: the `Vocabulary`.
    features: float32 [6, 2048].
  """

  def __init__(self, files, seed=0):
    tf.random.set_seed(seed)
    self.model = show_and_tell_model.ShowAndTellModel(
      configuration.ModelConfig(
        vocab_size=8, embedding_size=4, num_lstm_units=6, initializer_scale=0.8
      ),
      with_inception=False,
    )
    self.vocab = captioner_lib.vocabulary.Vocabulary(
      str(files / 'word_counts.txt')
    )
    biases = np.zeros([8], np.float32)
    biases[[self.vocab.unk_id, 7]] = 2
    self.model.logits_biases.assign(biases)
    self.features = (
      np.random.default_rng(seed).normal(size=[6, 2048]).astype(np.float32) / 20
    )

  def captioner(self, **search):
    return captioner_lib.FeatureCaptioner(
      self.model, self.vocab, SearchConfig(**search)
    )

  def search(self, left_out, **search):
    """The Python search, with the probability of some ids struck out."""

    def step(words, states):
      softmax, states = self.model.inference_step(words, states)
      softmax = softmax.numpy()
      softmax[:, left_out] = 0
      return softmax, states.numpy()

    return captioner_lib.caption_generator.CaptionGenerator(
      step, self.vocab.start_id, self.vocab.end_id, SearchConfig(**search)
    ).beam_search(self.model.initial_state(self.features).numpy())


@pytest.mark.parametrize(
  'beam_size, length_normalization_factor',
  [(1, 0.0), (3, 0.0), (3, 0.7), (10, 0.3)],
)
@pytest.mark.parametrize('allowed', [True, False])
def test_the_unknown_word_is_left_out_if_it_should_be(
  files, allowed, beam_size, length_normalization_factor
):
  unknown = 0
  for seed in range(3):
    decoder = _Decoder(files, seed)
    search = dict(
      beam_size=beam_size,
      max_caption_length=7,
      length_normalization_factor=length_normalization_factor,
    )
    captioner = decoder.captioner(allow_unknown_word=allowed, **search)
    # Other words are as probable as they were: nothing else is changed.
    expected = decoder.search([] if allowed else [5, 6, 7], **search)
    python = captioner._generator.beam_search(
      decoder.model.initial_state(decoder.features)
    )
    for found, mine, others in zip(
      captioner.caption(decoder.features), python, expected
    ):
      assert [c.sentence for c in mine] == [c.sentence for c in others]
      assert [c.text for c in found] == [
        captioner.text(c.sentence) for c in others
      ]
      np.testing.assert_allclose(
        [c.log_probability for c in found],
        [c.logprob for c in others],
        atol=1e-5,
      )
      unknown += sum('<UNK>' in c.text for c in found)
  assert bool(unknown) == allowed


def test_a_caption_that_no_known_word_may_follow_ends_there(files):
  decoder = _Decoder(files)
  decoder.model.logits_biases.assign([0, 0, 0, 0, 0, 1e4, 0, 0])
  for beam_size in (1, 4):
    captioner = decoder.captioner(beam_size=beam_size, allow_unknown_word=False)
    assert (
      captioner.caption(decoder.features)
      == [[captioner_lib.ScoredCaption('', 0.0)]] * 6
    )


def test_the_search_is_what_the_configuration_says_unless_told(files):
  decoder = _Decoder(files)
  plain = decoder.captioner().caption(decoder.features)
  assert plain == decoder.captioner(
    beam_size=3, length_normalization_factor=0.0, allow_unknown_word=True
  ).caption(decoder.features)
  told = dict(
    beam_size=2, length_normalization_factor=0.7, allow_unknown_word=False
  )
  tuned = decoder.captioner(**told).caption(decoder.features)
  decoder.model.config = dataclasses.replace(decoder.model.config, **told)
  assert decoder.captioner().caption(decoder.features) == tuned != plain
  assert (
    decoder.captioner(
      beam_size=3, length_normalization_factor=0.0, allow_unknown_word=True
    ).caption(decoder.features)
    == plain
  )


def test_a_checkpoint_says_how_it_is_searched(files, tmp_path):
  for path in files.iterdir():
    if path.name != configuration.FILE_NAME:
      (tmp_path / path.name).symlink_to(path)
  configs = configuration.replace(
    configuration.load(files),
    {'beam_size': 4, 'allow_unknown_word': False},
    'test',
  )
  configuration.save(tmp_path, configs)
  words = str(files / 'word_counts.txt')
  told = captioner_lib.Captioner(str(tmp_path), words)
  asked = captioner_lib.Captioner(
    str(files), words, SearchConfig(beam_size=4, allow_unknown_word=False)
  )
  images = [told.decode(testing.jpeg(i)) for i in range(3)]
  assert told.caption(images) == asked.caption(images)
  assert told.caption(images) != captioner_lib.Captioner(
    str(tmp_path), words, SearchConfig(allow_unknown_word=True)
  ).caption(images)


@pytest.fixture(scope='module', name='others')
def fixture_others(files, tmp_path_factory):
  """{name: directory of another checkpoint} beside that of `files`."""
  source = checkpoints.Checkpoint(str(files))
  values = {n: source.get(n) for n in source.shapes}
  rng = np.random.default_rng(1)
  changed = {
    n: v + rng.normal(size=v.shape, scale=0.3).astype(v.dtype)
    if n.startswith(('lstm/', 'logits/'))
    else v
    for n, v in values.items()
  }
  name = 'InceptionV3/Conv2d_1a_3x3/weights'
  directories = {}
  for key, content in (
    ('decoder', changed),
    ('both', {**changed, name: values[name] * 0.9}),
  ):
    directories[key] = tmp_path_factory.mktemp(key)
    for file in ('word_counts.txt', configuration.FILE_NAME):
      (directories[key] / file).write_bytes((files / file).read_bytes())
    checkpoints.write(str(directories[key] / 'model.ckpt-9'), content)
  return directories


@pytest.fixture(scope='module', name='three')
def fixture_three(files, others):
  """Returns (captioners of three checkpoints, that of their ensemble)."""
  words = str(files / 'word_counts.txt')
  search = SearchConfig(beam_size=2, max_caption_length=6)
  paths = [str(files), str(others['decoder']), str(others['both'])]
  return (
    [captioner_lib.Captioner(path, words, search) for path in paths],
    captioner_lib.Captioner(','.join(paths), words, search),
  )


def test_fingerprints_tell_models_and_searches_apart(three, captioner):
  alone, together = three
  first, decoder, both = alone
  # That of the fixture is the first with another search.
  assert captioner.encoder_fingerprint == first.encoder_fingerprint
  assert decoder.encoder_fingerprint == first.encoder_fingerprint
  assert len({c.encoder_fingerprint for c in (first, both, together)}) == 3
  # The first two share an encoder.
  assert together.encoder_fingerprints == [
    *first.encoder_fingerprints,
    *both.encoder_fingerprints,
  ]
  every = [*alone, together, captioner]
  assert len({c.fingerprint for c in every}) == 5
  again = captioner.with_search(first.decoder.search)
  assert again.fingerprint == first.fingerprint


def test_words_have_the_probabilities_of_the_search(three):
  for captioner in (three[0][0], three[1]):
    images = [captioner.decode(testing.jpeg(i)) for i in range(3)]
    plain = captioner.caption(images)
    found = captioner.caption(images, word_probabilities=True)
    for before, captions in zip(plain, found):
      assert [c.text for c in captions] == [c.text for c in before]
      for caption in captions:
        words = [word for word, _ in caption.words]
        assert ' '.join(w for w in words if w != '</S>') == caption.text
        np.testing.assert_allclose(
          sum(word.log_probability for word in caption.words),
          caption.log_probability,
          atol=1e-5,
        )
        assert caption.as_dict()['words'][0] == {
          'word': words[0],
          'probability': math.exp(caption.words[0].log_probability),
        }
    assert 'words' not in plain[0][0].as_dict()


def test_several_checkpoints_are_an_ensemble(three):
  alone, together = three
  assert together.prefixes == [captioner.prefixes[0] for captioner in alone]
  images = [together.decode(testing.jpeg(i)) for i in range(3)]
  # The first two have one encoder, which runs once.
  features = together.encode(images)
  assert features.shape == [3, 2 * 2048]
  np.testing.assert_array_equal(features[:, :2048], alone[0].encode(images))
  np.testing.assert_array_equal(features[:, 2048:], alone[2].encode(images))

  def step(words, states):
    softmax, states = zip(
      *(
        captioner.model.inference_step(words, s)
        for captioner, s in zip(alone, np.split(states, 3, axis=1))
      )
    )
    return np.mean(softmax, axis=0), np.concatenate(states, axis=1)

  expected = captioner_lib.caption_generator.CaptionGenerator(
    step,
    together.vocab.start_id,
    together.vocab.end_id,
    together.decoder.search,
  ).beam_search(
    np.concatenate(
      [
        captioner.model.initial_state(captioner.encode(images))
        for captioner in alone
      ],
      axis=1,
    )
  )
  found = together.caption(images)
  for mine, searched in zip(found, expected):
    assert [c.text for c in mine] == [
      together.decoder.text(c.sentence) for c in searched
    ]
    np.testing.assert_allclose(
      [c.log_probability for c in mine],
      [c.logprob for c in searched],
      atol=1e-5,
    )
  assert found not in [captioner.caption(images) for captioner in alone]


def test_a_checkpoint_twice_captions_as_it_does_alone(files, captioner):
  path = str(files)
  twice = captioner_lib.Captioner(
    [path, path], str(files / 'word_counts.txt'), captioner.decoder.search
  )
  images = [twice.decode(testing.jpeg(i)) for i in range(3)]
  assert twice.encode(images).shape == [3, 2048]
  assert twice.caption(images) == captioner.caption(images)


def test_an_ensemble_of_two_vocabularies_is_refused(files, others, tmp_path):
  words = str(files / 'word_counts.txt')
  stamp = vocabulary_stamp.of_vocabulary(
    captioner_lib.vocabulary.Vocabulary(words)
  ).stamp
  other = others['decoder']
  for path in (*files.iterdir(), *other.iterdir()):
    directory = tmp_path / ('one' if path.parent == files else 'two')
    directory.mkdir(exist_ok=True)
    (directory / path.name).symlink_to(path)
  vocabulary_stamp.save(tmp_path / 'one', stamp)
  vocabulary_stamp.save(
    tmp_path / 'two', dataclasses.replace(stamp, fingerprint='12ab')
  )
  with pytest.raises(ValueError) as error:
    captioner_lib.Captioner(f'{tmp_path}/one,{tmp_path}/two', words)
  for part in (
    f'the checkpoint {tmp_path}/one/model.ckpt-0 (fingerprint ',
    f'the checkpoint {tmp_path}/two/model.ckpt-9 (fingerprint 12ab',
    'give --checkpoint_path checkpoints of one vocabulary',
  ):
    assert part in str(error.value)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  'name, value', [('image_height', 300), ('vocab_size', 9)]
)
def test_an_ensemble_of_two_sizes_is_refused(
  files, others, tmp_path, name, value
):
  source = checkpoints.Checkpoint(str(others['decoder']))
  # Refused before the encoders are looked at.
  values = {
    n: source.get(n) for n in source.shapes if not n.startswith('InceptionV3/')
  }
  if name == 'vocab_size':
    for variable, axis in (
      ('seq_embedding/map', 0),
      ('logits/weights', 1),
      ('logits/biases', 0),
    ):
      values[variable] = np.concatenate(
        [values[variable], np.take(values[variable], [0], axis)], axis
      )
  checkpoints.write(str(tmp_path / 'model'), values)
  configuration.save(
    tmp_path,
    configuration.replace(configuration.load(files), {name: value}, 'test'),
  )
  with pytest.raises(ValueError) as error:
    captioner_lib.Captioner(
      f'{files},{tmp_path}/model', str(files / 'word_counts.txt')
    )
  assert f'{tmp_path}/model {name}={value}' in str(error.value)
  assert f'{files}/model.ckpt-0 has {name}=' in str(error.value)


@pytest.mark.parametrize(
  'settings',
  [
    {'min_caption_length': 6},
    {'repeated_words': 'never'},
    {'required_words': ('cat', 'dog')},
    {'beam_groups': 2},
    {'sample': True},
  ],
)
def test_controls_of_a_batch(files, settings):
  decoder = _Decoder(files)
  # Several ids stand for <UNK>, which would look like repeated words.
  search = dict(beam_size=4, max_caption_length=8, allow_unknown_word=False)
  captioner = decoder.captioner(**search, **settings)
  together = captioner.caption(decoder.features)
  assert together != decoder.captioner(**search).caption(decoder.features)
  for row, captions in enumerate(together):
    (alone,) = captioner.caption(decoder.features[row : row + 1], row)
    assert [c.text for c in alone] == [c.text for c in captions]
    np.testing.assert_allclose(
      [c.log_probability for c in alone],
      [c.log_probability for c in captions],
      atol=1e-5,
    )
    for caption in captions:
      words = caption.text.split()
      if 'min_caption_length' in settings:
        assert len(words) >= 4
      if 'repeated_words' in settings:
        assert len(set(words)) == len(words)
      assert {*settings.get('required_words', ())} <= {*words}


def test_forbidden_words_do_not_appear(files):
  decoder = _Decoder(files)
  search = dict(beam_size=3, max_caption_length=7)
  assert 'dog' in str(
    decoder.captioner(allow_unknown_word=False, **search).caption(
      decoder.features
    )
  )
  found = decoder.captioner(
    forbidden_words=('dog',), allow_unknown_word=False, **search
  ).caption(decoder.features)
  assert 'dog' not in str(found)
  for mine, others in zip(found, decoder.search([3, 5, 6, 7], **search)):
    np.testing.assert_allclose(
      [c.log_probability for c in mine], [c.logprob for c in others], atol=1e-5
    )


def test_equal_scores_do_not_matter_to_controls(files):
  decoder = _Decoder(files)
  for variable in (decoder.model.logits_weights, decoder.model.logits_biases):
    variable.assign(tf.zeros_like(variable))
  (captions,) = decoder.captioner(beam_size=3, min_caption_length=4).caption(
    decoder.features[:1]
  )
  assert len(captions) == 3
  assert all(len(caption.text.split()) >= 2 for caption in captions)


def test_bfloat16_moves_the_state(files, captioner):
  other = captioner_lib.Captioner(
    str(files), str(files / 'word_counts.txt'), precision='bfloat16'
  )
  images = [captioner.decode(testing.jpeg(1))]
  exact, near = (
    c.model.initial_state(c.encode(images)) for c in (captioner, other)
  )
  difference = np.abs(exact - near).max()
  assert 0 < difference < 0.2


def test_a_path_is_no_image(captioner):
  for images in ('a.jpg', ['a.jpg'], [b'data']):
    with pytest.raises(TypeError, match='results of decode'):
      captioner.caption(images)


def test_a_vocabulary_larger_than_the_model_is_refused(files, tmp_path):
  path = tmp_path / 'words.txt'
  path.write_text(''.join(f'{w} 1\n' for w in _WORDS + list('bcde')))
  with pytest.raises(ValueError, match='10.*8|8.*10'):
    captioner_lib.Captioner(str(files), str(path))


def test_a_checkpoint_of_old_names_without_configuration(
  files, full_size, tmp_path
):
  source = checkpoints.Checkpoint(str(files))
  old = {
    'lstm/basic_lstm_cell/kernel': 'lstm/BasicLSTMCell/Linear/Matrix',
    'lstm/basic_lstm_cell/bias': 'lstm/BasicLSTMCell/Linear/Bias',
  }
  values = {old.get(n, n): source.get(n) for n in source.shapes}
  del values['global_step']
  checkpoints.write(str(tmp_path / 'model'), values)
  found = captioner_lib.Captioner(
    str(tmp_path / 'model'), str(files / 'word_counts.txt')
  )
  image = found.decode(testing.jpeg())
  assert found.caption([image]) == full_size.caption([image])


def test_a_checkpoint_whose_inception_does_not_fit_is_named(files, tmp_path):
  source = checkpoints.Checkpoint(str(files))
  values = {n: source.get(n) for n in source.shapes}
  name = 'InceptionV3/Mixed_6a/Branch_0/Conv2d_1a_1x1/weights'
  prefix = str(tmp_path / 'model')

  def error():
    checkpoints.write(prefix, values)
    with pytest.raises(ValueError) as caught:
      captioner_lib.Captioner(prefix, str(files / 'word_counts.txt'))
    assert prefix in str(caught.value) and '\n' not in str(caught.value)
    return str(caught.value)

  values[name] = values[name][:, :, :-1]
  assert 'shapes' in error()
  del values[name]
  assert name in error()


def test_captions_of_real_photos_equal_those_of_2016(tmp_path):
  with open(
    testing.reference_path('full2000', 'captions.json'), encoding='utf-8'
  ) as f:
    expected = json.load(f)
  inception = checkpoints.Checkpoint(testing.inception_checkpoint(tmp_path))
  decoder = checkpoints.Checkpoint(
    testing.reference_path('full2000', 'decoder.ckpt')
  )
  values = {
    n: inception.get(n)
    for n in inception.shapes
    if n.startswith('InceptionV3/') and 'Logits' not in n
  }
  values.update({n: decoder.get(n) for n in decoder.shapes})
  prefix = str(tmp_path / 'whole.ckpt')
  checkpoints.write(prefix, values)
  images = []
  for name in expected['images']:
    paths = [
      testing.reference_path('..', folder, 'images', name)
      for folder in ('flickr8k', 'coco_mini')
    ]
    path = next((p for p in paths if os.path.exists(p)), None)
    if path is None:
      pytest.skip(f'needs the photo {name}')
    with open(path, 'rb') as f:
      images.append(f.read())
  captioner = captioner_lib.Captioner(
    prefix,
    testing.reference_path('full2000', 'word_counts.txt'),
    SearchConfig(beam_size=3),
  )
  images = [captioner.decode(image) for image in images]
  features = captioner.encode(images)
  for beam_size in (1, 3, 20):
    if beam_size == captioner.decoder.search.beam_size:
      found = captioner.caption(images)
    else:  # The encoder is the same.
      found = captioner_lib.FeatureCaptioner(
        captioner.model, captioner.vocab, SearchConfig(beam_size=beam_size)
      ).caption(features)
    for name, captions in zip(expected['images'], found):
      wanted = expected['beams'][name][str(beam_size)]
      # By their ids: in 2016 a caption cut short lost its last word in print.
      assert [c.text for c in captions] == [
        captioner.decoder.text(w['ids']) for w in wanted
      ], f'{name}, beam {beam_size}'
      np.testing.assert_allclose(
        [c.log_probability for c in captions],
        [w['logprob'] for w in wanted],
        atol=1e-4,
      )


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
