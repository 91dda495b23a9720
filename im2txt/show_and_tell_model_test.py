# SPDX-License-Identifier: Apache-2.0
"""Tests of show_and_tell_model."""

import json
import sys

import numpy as np
import pytest
import tensorflow as tf

from im2txt import checkpoints
from im2txt import configuration
from im2txt import show_and_tell_model
from im2txt import testing

_SMALL = configuration.ModelConfig(
    vocab_size=100, embedding_size=32, num_lstm_units=24,
    lstm_dropout_keep_prob=1.0)


@pytest.fixture(name='small')
def fixture_small():
  tf.random.set_seed(1)
  return show_and_tell_model.ShowAndTellModel(_SMALL, with_inception=False)


@pytest.fixture(scope='module', name='default')
def fixture_default():
  return show_and_tell_model.ShowAndTellModel(configuration.ModelConfig())


def random_batch(seed=0):
  rng = np.random.default_rng(seed)
  mask = np.zeros([4, 6], np.int32)
  for row, length in zip(mask, (6, 3, 1, 5)):
    row[:length] = 1
  ids = rng.integers(0, 100, [2, 4, 6]) * mask
  return (rng.normal(size=[4, 2048]).astype(np.float32), *ids, mask)


def test_variables_of_the_default_configuration(default):
  found = {n: (v.shape.as_list(), v.dtype.name)
           for n, v in default.named_variables.items()}
  assert len(found) == 383
  decoder = {n: v for n, v in found.items() if not n.startswith('InceptionV3/')}
  assert decoder == {
      'image_embedding/weights': ([2048, 512], 'float32'),
      'seq_embedding/map': ([12000, 512], 'float32'),
      'lstm/basic_lstm_cell/kernel': ([1024, 2048], 'float32'),
      'lstm/basic_lstm_cell/bias': ([2048], 'float32'),
      'logits/weights': ([512, 12000], 'float32'),
      'logits/biases': ([12000], 'float32'),
      'global_step': ([], 'int32'),
  }
  kinds = {tuple(n.split('/')[2:]) [-1] for n in found
           if n.startswith('InceptionV3/')}
  assert kinds == {'weights', 'beta', 'moving_mean', 'moving_variance'}


def test_initial_values(default):
  variables = default.decoder_variables
  for name, variable in variables.items():
    value = variable.numpy()
    if name.endswith(('bias', 'biases')):
      assert not value.any()
    else:
      assert -0.08 <= value.min() < -0.079 and 0.079 < value.max() <= 0.08


def test_inference_mode_from_images(default):
  images = tf.random.stateless_uniform([2, 299, 299, 3], [1, 2], -1.0, 1.0)
  state = default.initial_state(default.encode_images(images))
  assert state.shape == (2, 1024)
  softmax, state = default.inference_step(tf.constant([5, 7], tf.int64), state)
  assert softmax.shape == (2, 12000) and state.shape == (2, 1024)
  np.testing.assert_allclose(tf.reduce_sum(softmax, 1), 1.0, rtol=1e-5)


def test_evaluation_equals_the_product_of_steps(small):
  features, inputs, targets, mask = random_batch()
  losses = small.cross_entropies(features, inputs, targets, mask).numpy()
  assert losses.shape == (mask.sum(),)
  expected = np.zeros(mask.shape)
  state = small.initial_state(features)
  for t in range(mask.shape[1]):
    softmax, state = small.inference_step(inputs[:, t], state)
    expected[:, t] = -np.log(softmax.numpy()[range(4), targets[:, t]])
  np.testing.assert_allclose(losses, expected[mask > 0], atol=1e-5)


def test_padding_changes_nothing(small):
  features, inputs, targets, mask = random_batch()
  losses = small.cross_entropies(features, inputs, targets, mask)
  other = small.cross_entropies(
      features, np.where(mask, inputs, 9), np.where(mask, targets, 9), mask)
  np.testing.assert_array_equal(losses, other)


def test_loss_of_a_batch_without_words_is_zero(small):
  features, inputs, targets, mask = random_batch()
  total, batch = small.losses(features, inputs, targets, mask * 0)
  assert float(total) == float(batch) == 0.0


def test_dropout_only_in_training():
  config = configuration.replace(
      (_SMALL, configuration.TrainingConfig()),
      {'lstm_dropout_keep_prob': 0.5}, 'test')[0]
  model = show_and_tell_model.ShowAndTellModel(config, with_inception=False)
  batch = random_batch()
  np.testing.assert_array_equal(
      model.cross_entropies(*batch), model.cross_entropies(*batch))
  first = model.cross_entropies(*batch, is_training=True)
  second = model.cross_entropies(*batch, is_training=True)
  assert np.abs(first - second).max() > 1e-4


def test_training_lowers_the_loss(small):
  batch = random_batch()
  losses = [
      float(show_and_tell_model.sgd_step(
          small, lambda: batch[0], *batch[1:], 1.0, 5.0)['total_loss'])
      for _ in range(30)]
  assert losses[-1] < 0.5 * losses[0]
  assert int(small.global_step) == 30


def test_loss_without_words_has_no_gradient(small):
  batch = random_batch()
  before = small.logits_weights.numpy()
  for captions in ([x * 0 for x in batch[1:]], [x[:, :0] for x in batch[1:]]):
    scalars = show_and_tell_model.sgd_step(
        small, lambda: batch[0], *captions, 1.0, 5.0)
    assert float(scalars['total_loss']) == 0
    np.testing.assert_array_equal(small.logits_weights, before)


def test_bfloat16_training_is_close_and_keeps_float32_weights(small):
  rough = show_and_tell_model.ShowAndTellModel(
      _SMALL, with_inception=False, training_dtype=tf.bfloat16)
  for name, variable in rough.decoder_variables.items():
    variable.assign(small.decoder_variables[name])
  batch = random_batch()
  np.testing.assert_array_equal(
      rough.cross_entropies(*batch), small.cross_entropies(*batch))
  differences = []
  for _ in range(5):
    losses = [
        float(show_and_tell_model.sgd_step(
            model, lambda: batch[0], *batch[1:], 0.1, 5.0)['total_loss'])
        for model in (small, rough)]
    differences.append(abs(losses[0] - losses[1]))
  assert 0 < max(differences) < 0.02
  for name, variable in rough.decoder_variables.items():
    assert variable.dtype == tf.float32
    np.testing.assert_allclose(
        variable, small.decoder_variables[name], atol=0.02, err_msg=name)


def test_clipping_bounds_the_update(small):
  batch = random_batch()
  before = {n: v.numpy() for n, v in small.decoder_variables.items()}
  show_and_tell_model.sgd_step(small, lambda: batch[0], *batch[1:], 1.0, 0.01)
  moved = np.sqrt(sum(((v.numpy() - before[n]) ** 2).sum()
                      for n, v in small.decoder_variables.items()))
  assert 0.005 < moved < 0.0101


def restore(model, *parts):
  checkpoints.Checkpoint(
      testing.reference_path(*parts)).restore(model.named_variables)


def reference_batch(vectors):
  return (vectors['image_features'], vectors['input_seqs'],
          vectors['target_seqs'], vectors['mask'])


def test_evaluation_losses_equal_those_of_2016(small):
  vectors = np.load(
      testing.reference_path('train_small', 'train_vectors.npz'))
  restore(small, 'train_small', 'init_noinception.ckpt')
  losses = small.cross_entropies(*reference_batch(vectors))
  # Padded positions, which weigh nothing, are never computed here.
  np.testing.assert_allclose(
      losses, vectors['eval_cross_entropy'][vectors['eval_weights'] > 0],
      atol=2e-6)


@pytest.mark.parametrize('run, details, learning_rate, clip, tolerance', [
    ('frozen', 'frozen', 2.0, 5.0, 1e-6),
    ('clip0.1', 'clip0.1', 2.0, 0.1, 1e-6),
    # Ill-conditioned: a start moved by 1e-6 moves its end by 1.2e-5.
    ('hot', 'hot_lr0.005_clip5', 0.005, 5.0, 1.2e-5),
])
def test_five_sgd_steps_equal_those_of_2016(
    small, run, details, learning_rate, clip, tolerance):
  vectors = np.load(
      testing.reference_path('train_small', 'train_vectors.npz'))
  with open(testing.reference_path('train_small', 'train_vectors.json'),
            encoding='utf-8') as f:
    expected = json.load(f)[details]
  restore(small, 'train_small', 'init_noinception.ckpt')
  if run == 'hot':
    for name, variable in small.decoder_variables.items():
      variable.assign(vectors[f'hot/before/{name}'])
  features, *captions = reference_batch(vectors)
  steps = [
      show_and_tell_model.sgd_step(
          small, lambda: features, *captions, learning_rate, clip)
      for _ in range(5)]
  for name, variable in small.decoder_variables.items():
    np.testing.assert_allclose(
        variable, vectors[f'{run}/after5/{name}'], atol=tolerance,
        err_msg=name)
  np.testing.assert_allclose(
      [float(s['batch_loss']) for s in steps], expected['batch_loss'],
      atol=1e-6 if run != 'hot' else 3e-3)
  np.testing.assert_allclose(
      float(steps[0]['global_norm']),
      expected['global_norm_before_clip_as_original'][0], rtol=1e-5)


def test_states_and_probabilities_equal_those_of_2016(small):
  vectors = np.load(testing.reference_path('model_small', 'tensors.npz'))
  restore(small, 'model_small', 'small_noinception.ckpt')
  np.testing.assert_allclose(
      small.initial_state(vectors['features']), vectors['initial_state'],
      atol=1e-5)
  softmax, state = small.inference_step(
      vectors['step_input'], vectors['step_state'])
  np.testing.assert_allclose(softmax, vectors['step_softmax'], atol=2e-6)
  np.testing.assert_allclose(state, vectors['step_new_state'], atol=2e-6)


def graph_mode_losses_and_parameters(model, images, captions, steps):
  """Trains jointly with tf-slim's own TF1 machinery, as a second opinion.

  The convolutions, batch norm, regularization losses and update ops are those
  of tf-slim under a TF1 graph and session; only dropout is left out.
  """
  from im2txt.ops import image_embedding  # pylint: disable=g-import-not-at-top
  v1 = tf.compat.v1
  slim = image_embedding.slim
  for name, variable in model.named_variables.items():
    if name.endswith('/beta'):
      variable.assign(variable + 1.0)
  start = {n: v.numpy() for n, v in model.named_variables.items()}
  with tf.Graph().as_default(), v1.Session() as session:
    with slim.arg_scope([slim.conv2d],
                        weights_regularizer=slim.l2_regularizer(4e-5)):
      features = image_embedding.inception_v3(
          tf.constant(images), dropout_keep_prob=1.0)
    for name in model.decoder_variables:
      v1.get_variable(name, initializer=start[name])
    variables = {v.op.name: v for v in v1.global_variables()}
    inputs, targets, mask = captions
    sequence = tf.concat([
        tf.matmul(features, variables['image_embedding/weights'])[:, None],
        tf.gather(variables['seq_embedding/map'], inputs)], 1)
    units = model.config.num_lstm_units
    c = h = tf.zeros([len(images), units])
    loss = 0.0
    for t in range(sequence.shape[1]):
      gates = tf.matmul(
          tf.concat([sequence[:, t], h], 1),
          variables['lstm/basic_lstm_cell/kernel']) + variables[
              'lstm/basic_lstm_cell/bias']
      i, j, f, o = tf.split(gates, 4, axis=1)
      c = c * tf.sigmoid(f + 1.0) + tf.sigmoid(i) * tf.tanh(j)
      h = tf.tanh(c) * tf.sigmoid(o)
      if t:
        logits = tf.matmul(h, variables['logits/weights']) + variables[
            'logits/biases']
        loss += tf.reduce_sum(
            tf.nn.sparse_softmax_cross_entropy_with_logits(
                labels=targets[:, t - 1], logits=logits) * mask[:, t - 1])
    loss = loss / mask.sum() + tf.add_n(
        v1.get_collection(v1.GraphKeys.REGULARIZATION_LOSSES))
    trained = v1.trainable_variables()
    gradients, _ = tf.clip_by_global_norm(v1.gradients(loss, trained), 5.0)
    updates = v1.get_collection(v1.GraphKeys.UPDATE_OPS)
    with tf.control_dependencies(updates):
      train_op = v1.train.GradientDescentOptimizer(0.0005).apply_gradients(
          list(zip(gradients, trained)))
    session.run(v1.global_variables_initializer())
    for name, variable in variables.items():
      variable.load(start[name], session)
    losses = []
    for _ in range(steps):
      losses.append(session.run([loss, train_op])[0])
    return losses, session.run(variables)


def test_joint_training_equals_tf_slim_in_a_tf1_graph(monkeypatch):
  # A random network is chaotic: five steps blow rounding errors up. Images
  # large and different enough, and a beta that lets most values pass their
  # ReLU, keep them small beside what the steps change.
  tf.random.set_seed(1)
  model = show_and_tell_model.ShowAndTellModel(_SMALL, train_inception=True)
  from im2txt.ops import image_embedding  # pylint: disable=g-import-not-at-top
  monkeypatch.setattr(
      image_embedding.slim, 'dropout', lambda net, **unused_kwargs: net)
  monkeypatch.setattr(
      image_embedding.dropout, 'dropout', lambda x, *unused_args: x)
  images = np.random.default_rng(0).uniform(
      -1, 1, [4, 299, 299, 3]).astype(np.float32)
  _, *captions = random_batch()
  for name, variable in model.named_variables.items():
    if name.endswith('/beta'):
      variable.assign(variable + 1.0)
  start = {n: v.numpy() for n, v in model.named_variables.items()}
  steps = 5
  losses, expected = graph_mode_losses_and_parameters(
      model, images, captions, steps)
  step = tf.function(lambda: show_and_tell_model.sgd_step(  # pylint: disable=g-long-lambda
      model, lambda: model.encode_images(images, True), *captions, 0.0005, 5.0))
  found = [float(step()['total_loss']) for _ in range(steps)]
  np.testing.assert_allclose(found, losses, rtol=1e-4)
  assert len(expected) == 382
  for name, value in expected.items():
    error = np.linalg.norm(model.named_variables[name] - value)
    change = np.linalg.norm(value - start[name])
    assert error < 0.05 * change, name


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
