# SPDX-License-Identifier: Apache-2.0
"""Tests of update."""

import json
import sys

import numpy as np
import pytest
import tensorflow as tf

from im2txt import checkpoints
from im2txt import configuration
from im2txt import show_and_tell_model
from im2txt import testing
from im2txt.training import update

_SMALL = configuration.ModelConfig(
  vocab_size=100,
  embedding_size=32,
  num_lstm_units=24,
  lstm_dropout_keep_prob=1.0,
)


@pytest.fixture(name='small')
def fixture_small():
  tf.random.set_seed(1)
  return show_and_tell_model.ShowAndTellModel(_SMALL, with_inception=False)


def test_training_lowers_the_loss(small):
  batch = testing.random_batch()
  losses = [
    float(
      update.sgd_step(small, lambda: batch[0], *batch[1:], 1.0, 5.0)[
        'total_loss'
      ]
    )
    for _ in range(30)
  ]
  assert losses[-1] < 0.5 * losses[0]
  assert int(small.global_step) == 30


def test_loss_without_words_has_no_gradient(small):
  batch = testing.random_batch()
  before = small.logits_weights.numpy()
  for captions in ([x * 0 for x in batch[1:]], [x[:, :0] for x in batch[1:]]):
    scalars = update.sgd_step(small, lambda: batch[0], *captions, 1.0, 5.0)
    assert float(scalars['total_loss']) == 0
    np.testing.assert_array_equal(small.logits_weights, before)


def test_bfloat16_training_is_close_and_keeps_float32_weights(small):
  rough = show_and_tell_model.ShowAndTellModel(
    _SMALL, with_inception=False, training_dtype=tf.bfloat16
  )
  for name, variable in rough.decoder_variables.items():
    variable.assign(small.decoder_variables[name])
  batch = testing.random_batch()
  np.testing.assert_array_equal(
    rough.cross_entropies(*batch), small.cross_entropies(*batch)
  )
  differences = []
  for _ in range(5):
    losses = [
      float(
        update.sgd_step(model, lambda: batch[0], *batch[1:], 0.1, 5.0)[
          'total_loss'
        ]
      )
      for model in (small, rough)
    ]
    differences.append(abs(losses[0] - losses[1]))
  assert 0 < max(differences) < 0.02
  for name, variable in rough.decoder_variables.items():
    assert variable.dtype == tf.float32
    np.testing.assert_allclose(
      variable, small.decoder_variables[name], atol=0.02, err_msg=name
    )


def test_clipping_bounds_the_update(small):
  batch = testing.random_batch()
  before = {n: v.numpy() for n, v in small.decoder_variables.items()}
  update.sgd_step(small, lambda: batch[0], *batch[1:], 1.0, 0.01)
  moved = np.sqrt(
    sum(
      ((v.numpy() - before[n]) ** 2).sum()
      for n, v in small.decoder_variables.items()
    )
  )
  assert 0.005 < moved < 0.0101


@pytest.mark.parametrize('run, clip', [('frozen', 5.0), ('clip0.1', 0.1)])
def test_five_sgd_steps_equal_those_of_2016(small, run, clip):
  vectors = np.load(testing.testdata_path('training', 'steps.npz'))
  with open(
    testing.testdata_path('training', 'steps.json'), encoding='utf-8'
  ) as f:
    expected = json.load(f)['runs'][run]
  checkpoints.Checkpoint(
    testing.testdata_path('training', 'model.ckpt-0')
  ).restore(small.named_variables)
  after = {
    name: vectors[f'{run}/after5/{name}'] for name in small.decoder_variables
  }
  assert_five_steps(
    small,
    testing.training_batch(vectors),
    2.0,
    clip,
    expected,
    after,
    tolerance=1e-6,
    loss_tolerance=1e-6,
  )


def test_five_ill_conditioned_sgd_steps_equal_those_of_2016(small):
  vectors = np.load(testing.reference_path('train_small', 'train_vectors.npz'))
  with open(
    testing.reference_path('train_small', 'train_vectors.json'),
    encoding='utf-8',
  ) as f:
    expected = json.load(f)['hot_lr0.005_clip5']
  after = {}
  for name, variable in small.decoder_variables.items():
    variable.assign(vectors[f'hot/before/{name}'])
    after[name] = vectors[f'hot/after5/{name}']
  # A start moved by 1e-6 moves its end by 1.2e-5.
  assert_five_steps(
    small,
    testing.training_batch(vectors),
    0.005,
    5.0,
    expected,
    after,
    tolerance=1.2e-5,
    loss_tolerance=3e-3,
  )


def assert_five_steps(
  model, batch, learning_rate, clip, expected, after, tolerance, loss_tolerance
):
  """Holds five steps to losses and a norm, and their end to parameters.

  Args:
    model: the `ShowAndTellModel`, at the start.
    batch: features, input_seqs, target_seqs, mask.
    learning_rate: float.
    clip: float, the global norm.
    expected: dict with `batch_loss` and `global_norm_before_clip_as_original`,
      lists with a float per step.
    after: dict from variable name to its value at the end, or to each n-th row
      of it.
    tolerance: of parameters.
    loss_tolerance: of losses.
  """
  features, *captions = batch
  steps = [
    update.sgd_step(model, lambda: features, *captions, learning_rate, clip)
    for _ in range(5)
  ]
  for name, value in after.items():
    found = model.decoder_variables[name].numpy()
    every = len(found) // len(value)
    np.testing.assert_allclose(
      found[::every], value, atol=tolerance, err_msg=name
    )
  np.testing.assert_allclose(
    [float(s['batch_loss']) for s in steps],
    expected['batch_loss'],
    atol=loss_tolerance,
  )
  np.testing.assert_allclose(
    float(steps[0]['global_norm']),
    expected['global_norm_before_clip_as_original'][0],
    rtol=1e-5,
  )


def graph_mode_losses_and_parameters(model, images, captions, steps):
  """Trains jointly with tf-slim's own TF1 machinery, as a second opinion.

  The convolutions, batch norm, regularization losses and update ops are those
  of tf-slim under a TF1 graph and session; only dropout is left out.
  """
  from im2txt.ops import image_embedding

  v1 = tf.compat.v1
  slim = image_embedding.slim
  for name, variable in model.named_variables.items():
    if name.endswith('/beta'):
      variable.assign(variable + 1.0)
  start = {n: v.numpy() for n, v in model.named_variables.items()}
  with tf.Graph().as_default(), v1.Session() as session:
    with slim.arg_scope(
      [slim.conv2d], weights_regularizer=slim.l2_regularizer(4e-5)
    ):
      features = image_embedding.inception_v3(tf.constant(images))
    for name in model.decoder_variables:
      v1.get_variable(name, initializer=start[name])
    variables = {v.op.name: v for v in v1.global_variables()}
    inputs, targets, mask = captions
    sequence = tf.concat(
      [
        tf.matmul(features, variables['image_embedding/weights'])[:, None],
        tf.gather(variables['seq_embedding/map'], inputs),
      ],
      1,
    )
    units = model.config.num_lstm_units
    c = h = tf.zeros([len(images), units])
    loss = 0.0
    for t in range(sequence.shape[1]):
      gates = (
        tf.matmul(
          tf.concat([sequence[:, t], h], 1),
          variables['lstm/basic_lstm_cell/kernel'],
        )
        + variables['lstm/basic_lstm_cell/bias']
      )
      i, j, f, o = tf.split(gates, 4, axis=1)
      c = c * tf.sigmoid(f + 1.0) + tf.sigmoid(i) * tf.tanh(j)
      h = tf.tanh(c) * tf.sigmoid(o)
      if t:
        logits = (
          tf.matmul(h, variables['logits/weights']) + variables['logits/biases']
        )
        loss += tf.reduce_sum(
          tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels=targets[:, t - 1], logits=logits
          )
          * mask[:, t - 1]
        )
    loss = loss / mask.sum() + tf.add_n(
      v1.get_collection(v1.GraphKeys.REGULARIZATION_LOSSES)
    )
    trained = v1.trainable_variables()
    gradients, _ = tf.clip_by_global_norm(v1.gradients(loss, trained), 5.0)
    updates = v1.get_collection(v1.GraphKeys.UPDATE_OPS)
    with tf.control_dependencies(updates):
      train_op = v1.train.GradientDescentOptimizer(0.0005).apply_gradients(
        list(zip(gradients, trained))
      )
    # All in one run: `load` prunes the graph anew for each.
    session.run(
      [variable.initializer for variable in variables.values()],
      {
        variable.initializer.inputs[1]: start[name]
        for name, variable in variables.items()
      },
    )
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
  from im2txt.ops import image_embedding

  monkeypatch.setattr(
    image_embedding.slim, 'dropout', lambda net, **unused_kwargs: net
  )
  monkeypatch.setattr(
    image_embedding.dropout, 'dropout', lambda x, *unused_args: x
  )
  images = (
    np.random.default_rng(0).uniform(-1, 1, [4, 299, 299, 3]).astype(np.float32)
  )
  _, *captions = testing.random_batch()
  for name, variable in model.named_variables.items():
    if name.endswith('/beta'):
      variable.assign(variable + 1.0)
  start = {n: v.numpy() for n, v in model.named_variables.items()}
  steps = 5
  losses, expected = graph_mode_losses_and_parameters(
    model, images, captions, steps
  )
  step = tf.function(
    lambda: update.sgd_step(
      model, lambda: model.encode_images(images, True), *captions, 0.0005, 5.0
    ),
    autograph=False,
  )
  found = [float(step()['total_loss']) for _ in range(steps)]
  np.testing.assert_allclose(found, losses, rtol=1e-4)
  assert len(expected) == 382
  for name, value in expected.items():
    error = np.linalg.norm(model.named_variables[name] - value)
    change = np.linalg.norm(value - start[name])
    assert error < 0.05 * change, name


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
