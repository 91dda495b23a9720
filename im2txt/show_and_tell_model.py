# SPDX-License-Identifier: Apache-2.0
"""Show and Tell: an image encoder and an LSTM that writes its caption.

Vinyals, Toshev, Bengio, Erhan: "Show and Tell: Lessons learned from the 2015
MSCOCO Image Captioning Challenge", section 3. The image is the LSTM's first
input, once (equation 10); then word embeddings (equation 11) give the softmax
over the next word (equation 12).
"""

import tensorflow as tf

from im2txt.ops import dropout
from im2txt.ops import folded_inception
from im2txt.ops import lstm


class ShowAndTellModel(tf.Module):
  """The network and its variables.

  Args:
    config: a `configuration.ModelConfig`.
    train_inception: whether Inception v3 is trained with the rest.
    train_inception_from: see `trained_from` of `image_embedding.InceptionV3`.
    with_inception: False builds the decoder alone, which takes Inception's
      features from elsewhere.
    training_dtype: of the LSTM's and the softmax layer's matrix products in
      training; variables, softmax and loss are float32.
  """

  def __init__(
    self,
    config,
    train_inception=False,
    with_inception=True,
    training_dtype=tf.float32,
    train_inception_from=None,
  ):
    super().__init__(name='show_and_tell')
    self.config = config
    self.training_dtype = training_dtype
    self.train_inception = train_inception
    self.inception = None
    if with_inception:
      # Here, because tf-slim takes seconds to import, which captioning need not
      # wait for.
      from im2txt.ops import image_embedding

      self.inception = image_embedding.InceptionV3(
        trainable=train_inception,
        height=config.image_height,
        width=config.image_width,
        trained_from=train_inception_from,
      )
    units, size = config.num_lstm_units, config.embedding_size
    self._decoder = {}

    def add(name, shape, scale=config.initializer_scale):
      value = (
        tf.random.uniform(shape, -scale, scale) if scale else tf.zeros(shape)
      )
      # tf.Module cleans names of scopes, so the checkpoint's name is our key.
      self._decoder[name] = tf.Variable(value, name=name)
      return self._decoder[name]

    self.image_embedding_weights = add(
      'image_embedding/weights', [folded_inception.FEATURE_SIZE, size]
    )
    self.embedding_map = add('seq_embedding/map', [config.vocab_size, size])
    self.lstm_kernel = add(
      'lstm/basic_lstm_cell/kernel', [size + units, 4 * units]
    )
    self.lstm_bias = add('lstm/basic_lstm_cell/bias', [4 * units], scale=0)
    self.logits_weights = add('logits/weights', [units, config.vocab_size])
    self.logits_biases = add('logits/biases', [config.vocab_size], scale=0)
    # int32, as the checkpoints of 2016 have it.
    self.global_step = tf.Variable(
      0, trainable=False, dtype=tf.int32, name='global_step'
    )

  @property
  def feature_size(self):
    """Columns of the features that captions are written from, an int."""
    return folded_inception.FEATURE_SIZE

  @property
  def state_size(self):
    """Columns of the LSTM's state, an int."""
    return 2 * self.config.num_lstm_units

  @property
  def decoder_variables(self):
    """Dict from checkpoint name to variable: all but Inception and the step."""
    return dict(self._decoder)

  @property
  def named_variables(self):
    """Dict from checkpoint name to variable: all that a checkpoint holds."""
    inception = self.inception.named_variables if self.inception else {}
    return {**inception, **self._decoder, 'global_step': self.global_step}

  @property
  def trained_variables(self):
    """Dict from checkpoint name to variable: those that training changes."""
    inception = self.inception.trained_variables if self.inception else {}
    return {**inception, **self._decoder}

  def encode_images(self, images, is_training=False, seed=None):
    """Encodes images with Inception v3.

    Args:
      images: float32 [batch, height, width, 3] in [-1, 1].
      is_training: Python bool; only has an effect with `train_inception`.
      seed: see `cross_entropies`.

    Returns:
      float32 [batch, 2048].
    """
    return self.inception(images, is_training, seed)

  def initial_state(self, features):
    """Feeds the image to the LSTM.

    Args:
      features: float32 [batch, 2048].

    Returns:
      float32 [batch, 2 * num_lstm_units], the state [c, h].
    """
    # In float64: a rounding error of this sum over 2048 products grows in all
    # later steps, enough to swap captions of a wide beam from one processor to
    # another. It is taken once per image and costs nothing.
    features, weights, kernel, bias = (
      tf.cast(x, tf.float64)
      for x in (
        features,
        self.image_embedding_weights,
        self.lstm_kernel,
        self.lstm_bias,
      )
    )
    zeros = tf.zeros(
      [tf.shape(features)[0], 2 * self.config.num_lstm_units], tf.float64
    )
    state = lstm.lstm_step(tf.matmul(features, weights), zeros, kernel, bias)
    return tf.cast(state, tf.float32)

  def inference_step(self, words, state):
    """Feeds one word of each caption to the LSTM.

    Args:
      words: int64 [batch], ids below vocab_size.
      state: float32 [batch, 2 * num_lstm_units].

    Returns:
      (softmax float32 [batch, vocab_size], new state as `state`).
    """
    embeddings = tf.gather(self.embedding_map, words)
    state = lstm.lstm_step(embeddings, state, self.lstm_kernel, self.lstm_bias)
    h = state[:, self.config.num_lstm_units :]
    return tf.nn.softmax(self._logits(h)), state

  def cross_entropies(
    self,
    features,
    input_seqs,
    target_seqs,
    input_mask,
    is_training=False,
    seed=None,
  ):
    """Scores captions word by word.

    Args:
      features: float32 [batch, 2048].
      input_seqs: int [batch, time], <S> w1 ... wn, padded at the end.
      target_seqs: int [batch, time], w1 ... wn </S>, padded.
      input_mask: int [batch, time], 1 where there is a word, else 0.
      is_training: Python bool; turns the LSTM's dropout on, and lets
        `training_dtype` count.
      seed: int [2] that determines what dropout drops in training; None:
        another each time.

    Returns:
      float32 [number of ones in input_mask], minus the log probability of each
      target word, row by row. Padding is not computed.
    """
    dtype = self.training_dtype if is_training else tf.float32
    # The image is the first step, so a caption has one more than words.
    packing = lstm.pack(tf.math.count_nonzero(input_mask, axis=1) + 1)
    batch = packing.counts[0]
    positions = tf.stack(
      [packing.sequences[batch:], packing.steps[batch:] - 1], axis=1
    )
    inputs = tf.concat(
      [
        tf.matmul(
          tf.gather(features, packing.sequences[:batch]),
          self.image_embedding_weights,
        ),
        tf.gather(self.embedding_map, tf.gather_nd(input_seqs, positions)),
      ],
      axis=0,
    )
    drop_rate = 1.0 - self.config.lstm_dropout_keep_prob
    if is_training:
      # A fresh mask each step, on inputs and outputs, never on the state: so
      # it can stand outside of the recurrence (Zaremba et al. 2014).
      inputs = dropout.dropout(inputs, drop_rate, seed, dropout.LSTM_INPUT)
    outputs = lstm.lstm_sequence(
      inputs, packing.counts, self.lstm_kernel, self.lstm_bias, dtype
    )
    # The first output follows the image and predicts nothing.
    outputs = outputs[batch:]
    if is_training:
      outputs = dropout.dropout(outputs, drop_rate, seed, dropout.LSTM_OUTPUT)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
      labels=tf.gather_nd(target_seqs, positions),
      logits=self._logits(outputs, dtype),
    )
    row_by_row = tf.argsort(
      positions[:, 0] * tf.shape(input_seqs, tf.int64)[1] + positions[:, 1]
    )
    return tf.gather(losses, row_by_row)

  def losses(self, features, input_seqs, target_seqs, input_mask, seed=None):
    """The training losses of a batch (equation 13 of the paper).

    Args: see `cross_entropies`.

    Returns:
      (total_loss, batch_loss), float32 scalars: batch_loss is the mean cross
      entropy of the batch's words in nats (0 when it has none), total_loss
      adds Inception's weight decay when that is trained.
    """
    batch_loss = tf.math.divide_no_nan(
      *_sum_and_count(
        self.cross_entropies(
          features,
          input_seqs,
          target_seqs,
          input_mask,
          is_training=True,
          seed=seed,
        )
      )
    )
    regularization = 0.0
    if self.train_inception and self.inception:
      regularization = self.inception.regularization_loss()
    return batch_loss + regularization, batch_loss

  def _logits(self, h, dtype=tf.float32):
    product = tf.matmul(tf.cast(h, dtype), tf.cast(self.logits_weights, dtype))
    return tf.cast(product, tf.float32) + self.logits_biases


def _sum_and_count(values):
  return tf.reduce_sum(values), tf.cast(tf.size(values), values.dtype)
