# SPDX-License-Identifier: Apache-2.0
"""Training steps to be measured, and other ways to run the LSTM."""

import collections
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import os
from typing import Any
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from im2txt import configuration
from im2txt import show_and_tell_model
from im2txt.input_pipeline import captions as captions_lib
from im2txt.input_pipeline import image_batches
from im2txt.input_pipeline import image_features
from im2txt.metrics import cider
from im2txt.ops import folded_inception
from im2txt.ops import image_embedding
from im2txt.ops import lstm
from im2txt.text import vocabulary
from im2txt.training import self_critical
from im2txt.training import steps
from im2txt.training import update

# Words that are predicted per caption, including </S>.
WORDS = 12


def flops_per_caption(
  config: configuration.ModelConfig, words: int = WORDS
) -> int:
  """Returns the floating-point operations per caption of training.

  Only matrix products count, with 2 operations for a multiplication and an
  addition: the embedding of the image, the LSTM for the image and the words,
  and the logits of the words. The backward pass takes twice as many, except for
  the embedding of the image, whose input needs no gradient.

  Args:
    config: sizes of the model.
    words: number of predicted words.
  """
  embedding, units = config.embedding_size, config.num_lstm_units
  image = 2 * folded_inception.FEATURE_SIZE * embedding
  recurrent = 2 * (embedding + units) * 4 * units * (words + 1)
  logits = 2 * units * config.vocab_size * words
  return 2 * image + 3 * (recurrent + logits)


def random_batch(
  config: configuration.ModelConfig,
  num_images: int,
  captions_per_image: int = 1,
) -> tuple[tf.Tensor, ...]:
  """Returns (features, rows, input_seqs, target_seqs, mask)."""
  rng = np.random.default_rng(0)
  captions = num_images * captions_per_image
  ids = rng.integers(0, config.vocab_size, [captions, WORDS + 1])
  return (
    tf.constant(rng.random([num_images, 2048], np.float32)),
    tf.constant(np.repeat(np.arange(num_images), captions_per_image)),
    tf.constant(ids[:, :-1]),
    tf.constant(ids[:, 1:]),
    tf.ones([captions, WORDS], tf.int32),
  )


def training_step(
  config: configuration.ModelConfig,
  dtype: tf.DType = tf.float32,
  captions_per_image: int | None = None,
) -> Callable[[], np.ndarray]:
  """Returns a function that takes one training step, and waits for it.

  Args:
    config: sizes of the model and the batch.
    dtype: of the matrix products of the decoder.
    captions_per_image: number of captions per image of the batch; None to train
      from features instead of images.
  """
  from_images = captions_per_image is not None
  model = show_and_tell_model.ShowAndTellModel(
    config, with_inception=from_images, training_dtype=dtype
  )
  group = captions_per_image or 1
  features, rows, inputs, targets, mask = random_batch(
    config, config.batch_size // group, group
  )
  images = tf.random.uniform(
    [config.batch_size // group, 299, 299, 3], -1.0, 1.0
  )

  @tf.function(autograph=False)
  def step() -> tf.Tensor:
    encode = (
      (lambda: tf.gather(model.encode_images(images, True), rows))
      if from_images
      else (lambda: features)
    )
    return update.sgd_step(
      model, encode, inputs, targets, mask, tf.constant(0.01), 5.0
    )['total_loss']

  return lambda: step().numpy()


def switched_steps(
  config: configuration.ModelConfig,
) -> dict[str, Callable[[], object]]:
  """Returns functions that take a step from features, by the switch that is on.

  Each waits for its step. The first one has no switch on.

  Args:
    config: sizes of the model and the batch.
  """
  batch = image_batches.Batch.whole(*random_batch(config, config.batch_size))

  def step(**values: Any) -> Callable[[], object]:
    training = configuration.TrainingConfig(**values)
    model = show_and_tell_model.ShowAndTellModel(config, with_inception=False)
    step_fn = steps.make_step_fn(
      model,
      update.Update(model, training),
      0,
      steps.FEATURES,
      training,
    )
    rate = tf.constant(0.01)
    return lambda: float(step_fn([batch], rate, rate)['total_loss'])

  # The two warm-up steps reach the largest share.
  sampling = dict(
    scheduled_sampling='linear',
    scheduled_sampling_half_steps=1,
  )
  return {
    'no switch': step(),
    'scheduled sampling of a quarter of the words': step(
      **sampling, scheduled_sampling_max=0.25
    ),
    'scheduled sampling of all words': step(
      **sampling, scheduled_sampling_max=1.0
    ),
    'label smoothing': step(label_smoothing=0.1),
    'Momentum': step(optimizer='Momentum'),
    'AdamW': step(optimizer='AdamW', weight_decay=0.01),
  }


class JointStep(NamedTuple):
  """A step that trains Inception v3 too.

  Attributes:
    run: takes the step, and waits for it.
    flops: floating-point operations of the convolutions and matrix products, by
      the dtype that they are computed in.
  """

  run: Callable[[], object]
  flops: Mapping[tf.DType, int]

  def limit(self, rates: Mapping[tf.DType, float]) -> float:
    """Returns the seconds of a step at the rates of matrix products.

    Args:
      rates: floating-point operations per second, by dtype.
    """
    return sum(flops / rates[dtype] for dtype, flops in self.flops.items())


def convolution_flops(
  encode: Callable[[tf.Tensor], tf.Tensor], shape: Sequence[int]
) -> tuple[int, int]:
  """Returns the floating-point operations of convolutions, with 2 per product.

  The gradient of the weights takes as many as the convolution itself, and so
  does the gradient of its input. The latter is needed only after another
  convolution.

  Args:
    encode: function of a float32 tensor, to be traced.
    shape: shape of the tensor.

  Returns:
    (operations forward, operations of the gradients).
  """
  graph = (
    tf.function(encode, autograph=False)
    .get_concrete_function(tf.TensorSpec(shape))
    .graph
  )
  forward = backward = 0
  after: set[str] = set()
  for op in graph.get_operations():
    is_after = any(tensor.op.name in after for tensor in op.inputs)
    if op.type == 'Conv2D':
      height, width, channels, _ = op.inputs[1].shape
      flops = 2 * height * width * channels * op.outputs[0].shape.num_elements()
      forward += flops
      backward += flops * (2 if is_after else 1)
    if is_after or op.type == 'Conv2D':
      after.add(op.name)
  return forward, backward


def joint_steps(
  config: configuration.ModelConfig,
  captions_per_image: int,
  block: str = 'Mixed_7b',
) -> Iterator[tuple[str, JointStep]]:
  """Makes steps that train the decoder and Inception v3, or its top blocks.

  Args:
    config: sizes of the model and the batch.
    captions_per_image: number of captions per image; divides the batch size.
    block: the first of the top blocks.

  Yields:
    (what the step does, the step). The caller lets go of one before the next is
    made, as each has a network of its own.
  """
  num_images = config.batch_size // captions_per_image
  _, *captions = random_batch(config, num_images, captions_per_image)
  size = [config.image_height, config.image_width, 3]
  images = tf.random.uniform([num_images, *size], -1.0, 1.0)
  decoder = config.batch_size * flops_per_caption(config)
  weights = {
    name: np.zeros(shape, np.float32)
    for name, shape in image_embedding.variable_shapes().items()
  }
  folded = folded_inception.fold(weights.__getitem__)

  def below(given: tf.Tensor) -> tf.Tensor:
    return folded_inception.encode(given, folded, block)

  inputs = tf.function(below, autograph=False)(images)
  forward, _ = convolution_flops(below, [1, *size])
  top = sum(
    convolution_flops(
      lambda x: folded_inception.encode_from(block, x, folded),
      [1, *inputs.shape[1:]],
    )
  )
  whole = sum(
    convolution_flops(lambda x: folded_inception.encode(x, folded), [1, *size])
  )

  def step(
    dtype: tf.DType, train_from: str | None, source: str, flops: int
  ) -> JointStep:
    model = show_and_tell_model.ShowAndTellModel(
      config,
      train_inception=True,
      train_inception_from=train_from,
      training_dtype=dtype,
    )
    training = configuration.TrainingConfig()
    step_fn = steps.make_step_fn(
      model, update.Update(model, training), 0, source, training
    )
    batch = image_batches.Batch.whole(
      inputs if source == steps.BLOCK_INPUTS else images, *captions
    )
    rate = tf.constant(0.0)
    done = collections.Counter({dtype: decoder})
    done[dtype if source == steps.BLOCK_INPUTS else tf.float32] += (
      num_images * flops
    )
    return JointStep(
      lambda: float(step_fn([batch], rate, rate)['total_loss']), done
    )

  for dtype in (tf.float32, tf.bfloat16):
    for name, *of_step in (
      ('top blocks from their cached inputs', block, steps.BLOCK_INPUTS, top),
      ('top blocks from images', block, steps.IMAGES, forward + top),
      ('all of Inception', None, steps.IMAGES, whole),
    ):
      yield f'{name}, {dtype.name}', step(dtype, *of_step)


def self_critical_steps(
  config: configuration.ModelConfig, directory: str, samples_per_image: int = 5
) -> dict[str, Callable[[], object]]:
  """Returns functions that take self-critical steps, and one for the reward.

  The random model does not end its captions, so they have `WORDS` words.

  Args:
    config: sizes of the model; its batch size is rounded down to whole images.
    directory: of the vocabulary file.
    samples_per_image: captions sampled per image.
  """
  images = config.batch_size // samples_per_image
  rng = np.random.default_rng(0)
  per_image, num_images = 5, 1000
  count = per_image * num_images
  # As rare as words are: few are in many captions.
  ids = 2 + (rng.zipf(1.5, [count, WORDS]) - 1) % (config.vocab_size - 3)
  ids[:, -1] = 1
  ids = np.insert(ids, 0, 0, axis=1).astype(np.int32)
  features = rng.random([num_images, 1, 2048], np.float32)
  data = image_features.CaptionedFeatures(
    captions_lib.Captions(
      np.arange(num_images),
      np.repeat(np.arange(num_images), per_image).astype(np.int32),
      ids.ravel(),
      np.arange(1, count + 1) * ids.shape[1],
      np.array([count]),
    ),
    [features],
    [],
  )
  vocab_file = os.path.join(directory, vocabulary.FILE_NAME)
  write_vocabulary(vocab_file, config.vocab_size)
  vocab = vocabulary.Vocabulary(vocab_file)
  batch = np.arange(images), features[:images, 0]
  rate = tf.constant(0.0)

  def step(baseline: str) -> Callable[[], object]:
    model = show_and_tell_model.ShowAndTellModel(config, with_inception=False)
    step_fn = steps.make_self_critical_step_fn(
      model,
      update.Update(model, configuration.TrainingConfig()),
      data,
      vocab,
      0,
      samples_per_image,
      WORDS,
      baseline,
    )
    return lambda: float(step_fn([batch], rate, rate)['global_norm'])

  references = ids[:, 1:].reshape([num_images, per_image, WORDS]).tolist()
  reward = cider.Scorer(references, vocab.unk_id)
  owners = np.repeat(batch[0], samples_per_image)
  # Half of the words are also in the references.
  drawn = [
    [*references[image][0][: WORDS // 2], *rng.integers(2, 99, WORDS // 2)]
    for image in owners
  ]
  return {
    'mean of the other samples': step(self_critical.MEAN),
    'greedy caption': step(self_critical.GREEDY),
    'reward alone': lambda: reward(drawn, owners),
  }


def write_vocabulary(path: str, vocab_size: int) -> None:
  """Writes a vocabulary file for so many word ids, <UNK> included."""
  with open(path, 'w', encoding='utf-8') as f:
    f.write('<S> 2\n</S> 2\n')
    f.writelines(f'w{i} 1\n' for i in range(vocab_size - 3))


def forward_pass(config: configuration.ModelConfig) -> Callable[[], np.ndarray]:
  """Returns a function that computes the loss of a batch, without gradients."""
  model = show_and_tell_model.ShowAndTellModel(config, with_inception=False)
  features, _, *captions = random_batch(config, config.batch_size)
  losses = tf.function(
    lambda: model.losses(features, *captions)[0], autograph=False
  )
  return lambda: losses().numpy()


def lstm_variants(
  config: configuration.ModelConfig,
) -> dict[str, Callable[[], tuple[tf.Tensor, list[tf.Tensor]]]]:
  """Returns ways to run the LSTM forward and back over a batch of captions.

  Args:
    config: sizes of the LSTM and the batch.

  Returns:
    Functions by name. Each returns (the outputs [steps, batch, units] for
    inputs of ones; the gradients of their sum by inputs, kernel and bias). All
    but Keras have the same weights.
  """
  steps, batch = WORDS + 1, config.batch_size
  size, units = config.embedding_size, config.num_lstm_units
  x = tf.ones([steps, batch, size])
  zeros = tf.zeros([batch, units])
  kernel = tf.random.stateless_uniform(
    [size + units, 4 * units], [0, 0], -0.08, 0.08
  )
  bias = tf.zeros([4 * units])
  peephole = tf.zeros([units])

  def ours(x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    outputs = lstm.lstm_sequence(
      tf.reshape(x, [-1, size]), tf.fill([steps], batch), kernel, bias
    )
    return tf.reshape(outputs, [steps, batch, units])

  def block_lstm(x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    return tf.raw_ops.BlockLSTM(
      seq_len_max=tf.constant(steps, tf.int64),
      x=x,
      cs_prev=zeros,
      h_prev=zeros,
      w=kernel,
      wci=peephole,
      wcf=peephole,
      wco=peephole,
      b=bias,
      forget_bias=lstm.FORGET_BIAS,
      cell_clip=-1.0,
    ).h

  def unrolled(x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    from_inputs = tf.unstack(
      tf.reshape(
        tf.matmul(tf.reshape(x, [-1, size]), kernel[:size]) + bias,
        [steps, batch, 4 * units],
      )
    )
    c, h, outputs = zeros, zeros, []
    for gates in from_inputs:
      c, h = lstm.next_state(gates + tf.matmul(h, kernel[size:]), c)
      outputs.append(h)
    return tf.stack(outputs)

  layer = tf.keras.layers.LSTM(units, return_sequences=True, time_major=True)
  layer(x)

  def keras(x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    del kernel, bias  # The layer has its own.
    return layer(x)

  def run(
    fn: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor],
    weights: Sequence[tf.Tensor],
  ) -> Callable[[], tuple[tf.Tensor, list[tf.Tensor]]]:
    def outputs_and_gradients() -> tuple[tf.Tensor, list[tf.Tensor]]:
      with tf.GradientTape() as tape:
        tape.watch([x, *weights])
        outputs = fn(x, kernel, bias)
        total = tf.reduce_sum(outputs)
      return outputs, tape.gradient(total, [x, *weights])

    return tf.function(outputs_and_gradients, autograph=False)

  return {
    'own gradient': run(ours, [kernel, bias]),
    'BlockLSTM': run(block_lstm, [kernel, bias]),
    'unrolled': run(unrolled, [kernel, bias]),
    'tf.keras': run(
      keras, [layer.cell.kernel, layer.cell.recurrent_kernel, layer.cell.bias]
    ),
  }
