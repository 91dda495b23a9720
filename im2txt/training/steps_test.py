# SPDX-License-Identifier: Apache-2.0
"""Tests of steps: the switches of a step, and steps on several batches."""

import dataclasses
import sys

import numpy as np
import pytest
import tensorflow as tf

from im2txt import configuration
from im2txt import show_and_tell_model
from im2txt.input_pipeline import captions as captions_lib
from im2txt.input_pipeline import image_batches
from im2txt.input_pipeline import image_features
from im2txt.metrics import cider
from im2txt.ops import folded_inception
from im2txt.text import vocabulary
from im2txt.training import self_critical
from im2txt.training import steps
from im2txt.training import update as update_lib

_CONFIG = configuration.ModelConfig(
  vocab_size=12,
  embedding_size=4,
  num_lstm_units=5,
  initializer_scale=1.0,
  image_height=75,
  image_width=75,
)
_NO_DROPOUT = dataclasses.replace(_CONFIG, lstm_dropout_keep_prob=1.0)
_RATE = tf.constant(0.5)


def make_batch(seed=0, count=6, time=5):
  rng = np.random.default_rng(seed)
  ids = rng.integers(2, 12, [count, time + 1])
  lengths = rng.integers(1, time + 1, count)
  lengths[0] = time
  return image_batches.Batch.whole(
    rng.normal(size=[count, 2048]).astype(np.float32) / 50,
    np.arange(count),
    ids[:, :-1],
    ids[:, 1:],
    (np.arange(time) < lengths[:, None]).astype(np.int32),
  )


def joined(batches):
  """Returns one batch of all captions."""
  inputs, _, *captions = (np.concatenate(arrays) for arrays in zip(*batches))
  return image_batches.Batch.whole(
    inputs, np.arange(len(inputs)), *captions[:3]
  )


class Run:
  """A run of a small model, the same one each time.

  Attributes:
    model: the model that is trained.
    update: its `Update`.
    step_fn: takes a step.
  """

  def __init__(self, model_config=_CONFIG, source=steps.FEATURES, **training):
    tf.random.set_seed(3)
    config = configuration.TrainingConfig(**training)
    self.model = show_and_tell_model.ShowAndTellModel(
      model_config, with_inception=False
    )
    self.update = update_lib.Update(self.model, config)
    self.step_fn = steps.make_step_fn(
      self.model, self.update, 7, source, config
    )

  def step(self, *batches):
    scalars = self.step_fn(batches, _RATE, _RATE)
    return {name: float(value) for name, value in scalars.items()}

  def variables(self):
    """Returns the values of what is saved, by name."""
    return {
      name: variable.numpy()
      for name, variable in (
        *self.update.named_variables().items(),
        *self.update.named_slots.items(),
      )
    }

  def restore(self, values):
    for name, variable in (
      *self.update.named_slots.items(),
      *self.update.named_variables().items(),
    ):
      variable.assign(values[name])


def decay_kernel(model):
  """Adds a weight decay to the total loss of a model."""
  losses = model.losses

  def with_decay(*args):
    found = losses(*args)
    return found._replace(
      total_loss=found.total_loss + 0.1 * tf.nn.l2_loss(model.lstm_kernel)
    )

  model.losses = with_decay


def assert_equal(one, other, **tolerance):
  assert set(one) == set(other)
  for name, value in one.items():
    np.testing.assert_allclose(
      value, other[name], err_msg=name, **{'rtol': 0, 'atol': 0, **tolerance}
    )


def test_without_sampled_words_scheduled_sampling_changes_no_bit():
  plain = Run()
  sampled = Run(scheduled_sampling='linear', scheduled_sampling_start_step=1000)
  for seed in range(3):
    batch = make_batch(seed)
    expected = plain.step(batch)
    assert sampled.step(batch) == {**expected, 'sampling_probability': 0.0}
  assert_equal(sampled.variables(), plain.variables())


def test_scheduled_sampling_grows_and_changes_what_is_learnt():
  plain = Run()
  sampled = Run(
    scheduled_sampling='linear',
    scheduled_sampling_half_steps=2,
    scheduled_sampling_max=0.6,
  )
  batch = make_batch()
  found = []
  for _ in range(4):
    expected = plain.step(batch)
    found.append(sampled.step(batch))
  np.testing.assert_allclose(
    [scalars['sampling_probability'] for scalars in found], [0, 0.25, 0.5, 0.6]
  )
  assert abs(found[-1]['batch_loss'] - expected['batch_loss']) > 1e-4
  # The words to predict stay those of the captions.
  assert found[-1]['total_loss'] == found[-1]['batch_loss'] < np.log(12) + 2


def test_steps_from_images_are_those_from_their_features():
  """With all switches, as the encoder's part is all that differs."""
  switches = dict(
    scheduled_sampling='exponential',
    scheduled_sampling_half_steps=1,
    label_smoothing=0.1,
  )
  cached = Run(**switches)
  direct = Run(source=steps.IMAGES, **switches)
  batch = make_batch()
  images = np.random.default_rng(1).normal(size=[6, 75, 75, 3]).astype('f')

  def encode(given, is_training, seed, places):
    assert is_training and seed is not None and given.shape[1:] == (75, 75, 3)
    return tf.constant(batch.inputs)

  direct.model.encode_images = encode
  for _ in range(3):
    expected = cached.step(batch)
    assert direct.step(batch._replace(inputs=images)) == expected
  assert expected['sampling_probability'] == 0.25
  assert_equal(direct.variables(), cached.variables())


def test_joint_training_begins_with_the_loss_of_the_frozen_encoder():
  """From what is cached for it; the weight decay is not in that loss."""
  frozen, joint = Run(), Run()
  joint.model = show_and_tell_model.ShowAndTellModel(
    _CONFIG, train_inception=True, train_inception_from='Mixed_7c'
  )
  inception = joint.model.inception
  for name, variable in inception.named_variables.items():
    if name.endswith('/weights'):
      # Wide enough for the features to depend on the image.
      fan_in = np.prod(variable.shape[:-1])
      variable.assign(
        tf.random.normal(variable.shape, stddev=(2 / fan_in) ** 0.5)
      )
  for name, variable in joint.model.decoder_variables.items():
    variable.assign(frozen.model.decoder_variables[name])
  joint.step_fn = steps.make_step_fn(
    joint.model,
    update_lib.Update(joint.model, configuration.TrainingConfig()),
    7,
    steps.BLOCK_INPUTS,
    configuration.TrainingConfig(),
  )
  images = np.random.default_rng(1).normal(size=[6, 75, 75, 3]).astype('f')
  folded = folded_inception.fold(
    lambda name: inception.named_variables[name].numpy()
  )
  features = joint.model.encode_images(images).numpy()
  assert features.std(axis=0).max() > 0.01
  batch = make_batch()
  decay = float(inception.regularization_loss())
  expected = frozen.step(batch._replace(inputs=features))
  found = joint.step(
    batch._replace(inputs=folded_inception.encode(images, folded, 'Mixed_7c'))
  )
  assert found['batch_loss'] == pytest.approx(expected['batch_loss'], rel=1e-5)
  assert decay > 0.001
  assert found['total_loss'] - found['batch_loss'] == pytest.approx(
    decay, rel=1e-3
  )
  # The encoder has been trained.
  assert np.abs(joint.model.encode_images(images) - features).max() > 1e-4


def test_label_smoothing_is_the_cross_entropy_with_smooth_labels():
  plain = Run(_NO_DROPOUT)
  smooth = Run(_NO_DROPOUT, label_smoothing=0.3)
  batch = make_batch()
  before = smooth.variables()

  def logits():
    model, state = plain.model, plain.model.initial_state(batch.inputs)
    for t in range(5):
      softmax, state = model.inference_step(batch.input_seqs[:, t], state)
      yield tf.math.log(softmax)

  with tf.GradientTape() as tape:
    labels = 0.7 * np.eye(12)[batch.target_seqs] + 0.3 / 12
    expected = -tf.reduce_sum(
      tf.stack(list(logits()), axis=1)
      * tf.cast(labels * batch.mask[..., None], tf.float32)
    ) / tf.reduce_sum(tf.cast(batch.mask, tf.float32))
  variables = plain.model.decoder_variables
  gradients = {
    name: tf.convert_to_tensor(gradient)
    for name, gradient in tape.gradient(expected, variables).items()
  }
  norm = tf.linalg.global_norm(list(gradients.values()))
  assert norm < 5  # Nothing is clipped.
  found = smooth.step(batch)
  np.testing.assert_allclose(
    found['total_loss'] + found['smoothing_loss'], expected, rtol=1e-5
  )
  after = smooth.variables()
  for name, gradient in gradients.items():
    np.testing.assert_allclose(
      (before[name] - after[name]) / 0.5, gradient, atol=1e-5, err_msg=name
    )
  # The reported losses are comparable with those of other runs.
  assert (
    found['batch_loss']
    == found['total_loss']
    == (plain.step(batch)['total_loss'])
  )


@pytest.mark.parametrize('clip_gradients', [5.0, 0.1])
@pytest.mark.parametrize(
  'training', [{}, {'optimizer': 'Adam', 'moving_average_decay': 0.9}]
)
def test_batches_of_a_step_equal_one_batch_of_all_captions(
  clip_gradients, training
):
  """Their numbers of words differ, and all words count alike."""
  training = dict(training, clip_gradients=clip_gradients, label_smoothing=0.1)
  several = Run(_NO_DROPOUT, accumulate_steps=3, **training)
  one = Run(_NO_DROPOUT, **training)
  # As if Inception decayed, which must count once per step.
  decay_kernel(several.model)
  decay_kernel(one.model)
  for seed in range(3):
    batches = [make_batch(10 * seed + i, 2 + 3 * i, 3 + i) for i in range(2)]
    batches.append(make_batch(10 * seed + 2, count=3, time=4))
    time = max(batch.mask.shape[1] for batch in batches)
    padded = [
      batch._replace(
        **{
          name: np.pad(
            getattr(batch, name), [[0, 0], [0, time - batch.mask.shape[1]]]
          )
          for name in ('input_seqs', 'target_seqs', 'mask')
        }
      )
      for batch in batches
    ]
    assert len({int(batch.mask.sum()) for batch in batches}) > 1
    assert_equal(several.step(*batches), one.step(joined(padded)), rtol=2e-5)
  assert int(several.model.global_step) == 3
  # Adam divides by gradients, and some are near zero.
  assert_equal(several.variables(), one.variables(), rtol=1e-3, atol=2e-4)


def test_batches_of_a_step_have_dropout_of_their_own():
  batch = make_batch()
  one, several = Run(), Run(accumulate_steps=2)
  half = one.step(batch)['total_loss']
  assert several.step(batch, batch)['total_loss'] != pytest.approx(half, 1e-6)
  # Batch i of step n has the seed of step 2 n + i of a run without.
  one = Run()
  losses = []
  for step in range(4):
    one.model.global_step.assign(step)
    one.restore({**Run().variables(), 'global_step': step})
    losses.append(one.step(batch)['total_loss'])
  assert len(set(losses)) == 4
  for step in range(2):
    several.restore({**Run().variables(), 'global_step': step})
    np.testing.assert_allclose(
      several.step(batch, batch)['total_loss'],
      np.mean(losses[2 * step : 2 * step + 2]),
      rtol=1e-6,
    )


def test_goes_on_to_the_bit_with_all_switches():
  training = dict(
    optimizer='Momentum',
    moving_average_decay=0.9,
    accumulate_steps=2,
    label_smoothing=0.1,
    scheduled_sampling='linear',
    scheduled_sampling_half_steps=2,
  )
  batches = [(make_batch(i), make_batch(10 + i)) for i in range(4)]
  run = Run(**training)
  for step in batches[:2]:
    run.step(*step)
  saved = run.variables()
  for step in batches[2:]:
    run.step(*step)
  # A process that is killed forgets the batches of the step that it was at.
  resumed = Run(**training)
  resumed.restore(saved)
  for step in batches[2:]:
    resumed.step(*step)
  assert int(resumed.model.global_step) == 4
  assert_equal(resumed.variables(), run.variables())


@pytest.fixture(name='data')
def fixture_data():
  """Features of four images, with two captions each."""
  captions = [[0, 2, 3, 1], [0, 2, 4, 1], [0, 5, 6, 1], [0, 5, 1]] * 2
  words = [word for caption in captions for word in caption]
  return image_features.CaptionedFeatures(
    captions_lib.Captions(
      np.arange(4),
      np.repeat(np.arange(4), 2).astype(np.int32),
      np.array(words, np.int32),
      np.cumsum([len(caption) for caption in captions]),
      np.array([8]),
    ),
    [make_batch().inputs[:4, None]],
    [],
  )


@pytest.fixture(name='vocab')
def fixture_vocab(tmp_path):
  path = tmp_path / 'words.txt'
  path.write_text(
    '<S> 9\n</S> 9\n' + ''.join(f'w{i} 1\n' for i in range(2, 10))
  )
  return vocabulary.Vocabulary(str(path))


def self_critical_step(data, vocab, seed=7, **options):
  """Returns (run, function that takes a step on batches of images)."""
  run = Run(accumulate_steps=options.get('batches_per_step', 1))
  step_fn = steps.make_self_critical_step_fn(
    run.model, run.update, data, vocab, seed, 2, 5, **options
  )
  return run, lambda *batches: step_fn(batches, _RATE, _RATE)


def images_of(data, *images):
  return np.array(images), data.arrays[0][list(images), 0]


def test_the_greedy_baseline_compares_with_the_greedy_caption(
  data, vocab, monkeypatch
):
  """What a step learns from, taken apart."""
  learnt, rewards = {}, []
  loss, scorer = self_critical.loss, cider.Scorer

  def recording_loss(model, *args):
    learnt['captions'] = args
    return loss(model, *args)

  class Recorder(scorer):
    def __call__(self, captions, images):
      rewards.append((captions, list(images)))
      return super().__call__(captions, images)

  tf.config.run_functions_eagerly(True)
  try:
    monkeypatch.setattr(self_critical, 'loss', recording_loss)
    monkeypatch.setattr(cider, 'Scorer', Recorder)
    run, step = self_critical_step(data, vocab, baseline='greedy')
    scalars = step(images_of(data, 2, 0))
  finally:
    tf.config.run_functions_eagerly(False)
  ((captions, images),) = rewards
  # Two samples of each image, and then the greedy caption of each.
  assert images == [2, 2, 0, 0, 2, 0]
  references = [
    [[2, 3, 1], [2, 4, 1]],
    [[5, 6, 1], [5, 1]],
    [[2, 3, 1], [2, 4, 1]],
    [[5, 6, 1], [5, 1]],
  ]
  scores = scorer(references, vocab.unk_id)(captions, images)
  features, sources, targets, mask, weights, _ = (
    x.numpy() for x in learnt['captions']
  )
  np.testing.assert_allclose(weights, scores[:4] - scores[[4, 4, 5, 5]], 1e-5)
  np.testing.assert_array_equal(features, images_of(data, 2, 2, 0, 0)[1])
  for row, caption in enumerate(captions[:4]):
    assert targets[row, : mask[row].sum()].tolist() == caption
    assert sources[row, : mask[row].sum()].tolist() == [0, *caption[:-1]]
  np.testing.assert_allclose(scalars['total_loss'], -scores[:4].mean())
  np.testing.assert_allclose(scalars['greedy_reward'], scores[4:].mean())


@pytest.mark.parametrize('baseline', self_critical.BASELINES)
def test_self_critical_batches_of_a_step_are_weighted_by_words(
  data, vocab, baseline, monkeypatch
):
  """The step that their words would give as one batch."""
  run, step = self_critical_step(
    data, vocab, batches_per_step=2, baseline=baseline
  )
  before = run.variables()
  model = run.model
  batches = images_of(data, 0, 1), images_of(data, 2, 3)
  scalars = step(*batches)
  after = run.variables()
  # The same samples and dropout, the gradient of the sum over all words.
  run.restore(before)
  gradients, words = [], 0
  loss = self_critical.loss

  def gradient_of_the_sum(model, *args):
    nonlocal words
    count = tf.reduce_sum(tf.cast(args[3], tf.float32))
    with tf.GradientTape() as tape:
      total = loss(model, *args) * count
    words += count
    gradients.append(tape.gradient(total, model.decoder_variables))
    return loss(model, *args)

  tf.config.run_functions_eagerly(True)
  try:
    monkeypatch.setattr(self_critical, 'loss', gradient_of_the_sum)
    again, step = self_critical_step(
      data, vocab, batches_per_step=2, baseline=baseline
    )
    again.restore(before)
    found = step(*batches)
  finally:
    tf.config.run_functions_eagerly(False)
  np.testing.assert_allclose(found['total_loss'], scalars['total_loss'])
  assert -float(scalars['total_loss']) >= 0
  for name in model.decoder_variables:
    total = sum(tf.convert_to_tensor(g[name]) for g in gradients)
    np.testing.assert_allclose(
      before[name] - after[name], 0.5 * total / words, atol=1e-5, err_msg=name
    )
  assert any(
    np.abs(before[name] - after[name]).max() > 1e-3
    for name in model.decoder_variables
  )


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
