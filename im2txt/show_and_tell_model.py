# SPDX-License-Identifier: Apache-2.0
"""Show and Tell: an image encoder and an LSTM that writes the caption.

Vinyals, Toshev, Bengio, Erhan: "Show and Tell: Lessons learned from the 2015
MSCOCO Image Captioning Challenge", section 3. The first input of the LSTM is
the image (equation 10). The other inputs are word embeddings (equation 11).
After each, the softmax gives the next word (equation 12).
"""

from collections.abc import Sequence
from typing import NamedTuple
from typing import TYPE_CHECKING

import tensorflow as tf

from im2txt import configuration
from im2txt.ops import dropout
from im2txt.ops import folded_inception
from im2txt.ops import lstm

if TYPE_CHECKING:
  from im2txt.ops import image_embedding


class Losses(NamedTuple):
  """The training losses of a batch, float32 scalars.

  Attributes:
    total_loss: batch_loss plus the weight decay of Inception if that is
      trained.
    batch_loss: mean cross entropy of the words of the batch in nats, 0 if there
      are none (equation 13 of the paper).
    words: number of words of the batch.
    smoothing_loss: what label smoothing adds to total_loss; None without it.
  """

  total_loss: tf.Tensor
  batch_loss: tf.Tensor
  words: tf.Tensor
  smoothing_loss: tf.Tensor | None = None

  @property
  def minimized(self) -> tf.Tensor:
    """The loss that training minimizes."""
    if self.smoothing_loss is None:
      return self.total_loss
    return self.total_loss + self.smoothing_loss


class ShowAndTellModel(tf.Module):
  """The network and its variables.

  Args:
    config: sizes, dropout and initial weights.
    train_inception: whether Inception v3 is trained too.
    with_inception: False builds the decoder only. Features of images must then
      come from elsewhere.
    training_dtype: of the matrix products of the LSTM and the softmax layer in
      training. Variables, softmax and loss are float32.
    train_inception_from: see `trained_from` of `image_embedding.InceptionV3`.
  """

  def __init__(
    self,
    config: configuration.ModelConfig,
    train_inception: bool = False,
    with_inception: bool = True,
    training_dtype: tf.DType = tf.float32,
    train_inception_from: str | None = None,
  ) -> None:
    super().__init__(name='show_and_tell')
    self.config = config
    self.training_dtype = training_dtype
    self.train_inception = train_inception
    self.inception: 'image_embedding.InceptionV3 | None' = None
    if with_inception:
      # Importing tf-slim takes seconds, and captioning does not need it.
      from im2txt.ops import image_embedding

      self.inception = image_embedding.InceptionV3(
        trainable=train_inception,
        trained_from=train_inception_from,
      )
    units, size = config.num_lstm_units, config.embedding_size
    self._decoder: dict[str, tf.Variable] = {}

    def add(
      name: str, shape: Sequence[int], scale: float = config.initializer_scale
    ) -> tf.Variable:
      value = (
        tf.random.uniform(shape, -scale, scale) if scale else tf.zeros(shape)
      )
      # tf.Module changes the names of variables, so the dict has the names of
      # checkpoints.
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
    # int32, as in the checkpoints of 2016.
    self.global_step = tf.Variable(
      0, trainable=False, dtype=tf.int32, name='global_step'
    )

  @property
  def feature_size(self) -> int:
    """Size of the features of an image."""
    return folded_inception.FEATURE_SIZE

  @property
  def state_size(self) -> int:
    """Size of the state of the LSTM."""
    return 2 * self.config.num_lstm_units

  @property
  def decoder_variables(self) -> dict[str, tf.Variable]:
    """The variables of the decoder, by their names in a checkpoint."""
    return dict(self._decoder)

  @property
  def named_variables(self) -> dict[str, tf.Variable]:
    """All variables, by their names in a checkpoint."""
    inception = self.inception.named_variables if self.inception else {}
    return {**inception, **self._decoder, 'global_step': self.global_step}

  @property
  def trained_variables(self) -> dict[str, tf.Variable]:
    """The variables that training changes, by their names in a checkpoint."""
    inception = self.inception.trained_variables if self.inception else {}
    return {**inception, **self._decoder}

  def encode_images(
    self,
    images: tf.Tensor,
    is_training: bool = False,
    seed: tf.Tensor | None = None,
    places: tf.Tensor | None = None,
  ) -> tf.Tensor:
    """Encodes images with Inception v3.

    Args:
      images: float32 [batch, height, width, 3] in [-1, 1].
      is_training: has an effect with `train_inception` only.
      seed: see `cross_entropies`.
      places: see `image_embedding.InceptionV3`.

    Returns:
      float32 [batch, 2048].

    Raises:
      ValueError: the model was built without Inception.
    """
    if not self.inception:
      raise ValueError('a model without Inception cannot encode images')
    return self.inception(images, is_training, seed, places)

  def initial_state(
    self, features: tf.Tensor, dtype: tf.DType = tf.float64
  ) -> tf.Tensor:
    """Feeds the image to the LSTM.

    Args:
      features: float32 [batch, 2048].
      dtype: of the computation; tf.float32 where a runtime has no other.

    Returns:
      float32 [batch, 2 * num_lstm_units], the state [c, h].
    """
    # In float64, because a rounding error of this sum of 2048 products grows in
    # all later steps. It could swap captions of a wide beam between processors.
    # The product is computed once per image, so float64 costs nothing.
    features, weights, kernel, bias = (
      tf.cast(x, dtype)
      for x in (
        features,
        self.image_embedding_weights,
        self.lstm_kernel,
        self.lstm_bias,
      )
    )
    zeros = tf.zeros(
      [tf.shape(features)[0], 2 * self.config.num_lstm_units], dtype
    )
    state = lstm.lstm_step(tf.matmul(features, weights), zeros, kernel, bias)
    return tf.cast(state, tf.float32)

  def inference_step(
    self, words: tf.Tensor, state: tf.Tensor
  ) -> tuple[tf.Tensor, tf.Tensor]:
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
    return tf.nn.softmax(self.logits(h)), state

  def cross_entropies(
    self,
    features: tf.Tensor,
    input_seqs: tf.Tensor,
    target_seqs: tf.Tensor,
    input_mask: tf.Tensor,
    is_training: bool = False,
    seed: tf.Tensor | None = None,
    first_rows: tf.Tensor | None = None,
  ) -> tf.Tensor:
    """Scores captions word by word.

    Args:
      features: float32 [batch, 2048].
      input_seqs: int [batch, time], <S> w1 ... wn, padded at the end.
      target_seqs: int [batch, time], w1 ... wn </S>, padded.
      input_mask: int [batch, time], 1 where there is a word, else 0.
      is_training: apply dropout, and compute in `training_dtype`.
      seed: int [2] that determines dropout; None for a new one on each call.
      first_rows: int64 [batch], the number of the first random row of each
        caption, see `first_random_rows`. A part of a batch has other numbers
        than a batch of its own.

    Returns:
      float32 [number of ones in input_mask], the negative log probability of
      each target word, row by row. Padding is not computed.
    """
    entropies, _ = self._word_losses(
      features,
      input_seqs,
      target_seqs,
      input_mask,
      is_training,
      seed,
      first_rows=first_rows,
    )
    return entropies

  def _word_losses(
    self,
    features: tf.Tensor,
    input_seqs: tf.Tensor,
    target_seqs: tf.Tensor,
    input_mask: tf.Tensor,
    is_training: bool,
    seed: tf.Tensor | None,
    label_smoothing: float = 0.0,
    first_rows: tf.Tensor | None = None,
  ) -> tuple[tf.Tensor, tf.Tensor | None]:
    """Returns the cross entropies, and what label smoothing adds to each.

    Args: see `cross_entropies` and `losses`.

    Returns:
      Two results as of `cross_entropies`; None for the second without label
      smoothing.
    """
    dtype = self.training_dtype if is_training else tf.float32
    packing = pack(input_mask)
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
      if first_rows is None:
        first_rows = first_random_rows(input_mask)
      rows = tf.gather(first_rows, packing.sequences) + packing.steps
      # Each step has a new mask, for inputs and outputs but never for the state
      # (Zaremba et al. 2014). So dropout can stand outside of the recurrence.
      inputs = dropout.dropout(
        inputs, drop_rate, seed, dropout.LSTM_INPUT, rows
      )
    outputs = lstm.lstm_sequence(
      inputs, packing.counts, self.lstm_kernel, self.lstm_bias, dtype
    )
    # The first output follows the image, and no word is predicted from it.
    outputs = outputs[batch:]
    if is_training:
      outputs = dropout.dropout(
        outputs, drop_rate, seed, dropout.LSTM_OUTPUT, rows[batch:]
      )
    labels = tf.gather_nd(target_seqs, positions)
    logits = self.logits(outputs, dtype)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
      labels=labels, logits=logits
    )
    row_by_row = tf.argsort(
      positions[:, 0] * tf.shape(input_seqs, tf.int64)[1] + positions[:, 1]
    )
    smoothing = None
    if label_smoothing:
      # The cross entropy with the smooth labels less that with the word. The
      # normalizer of the softmax is in both and cancels out.
      smoothing = label_smoothing * (
        tf.gather(logits, labels, batch_dims=1) - tf.reduce_mean(logits, axis=1)
      )
      smoothing = tf.gather(smoothing, row_by_row)
    return tf.gather(losses, row_by_row), smoothing

  def losses(
    self,
    features: tf.Tensor,
    input_seqs: tf.Tensor,
    target_seqs: tf.Tensor,
    input_mask: tf.Tensor,
    seed: tf.Tensor | None = None,
    label_smoothing: float = 0.0,
    first_rows: tf.Tensor | None = None,
  ) -> Losses:
    """Returns the training losses of a batch.

    Args:
      features: see `cross_entropies`, as the next four.
      input_seqs: the words before those to predict.
      target_seqs: the words to predict.
      input_mask: marks the words.
      seed: determines dropout.
      label_smoothing: share of each target's probability that is spread evenly
        over all words (Szegedy et al. 2016, section 7).
      first_rows: see `cross_entropies`.
    """
    entropies, smoothing = self._word_losses(
      features,
      input_seqs,
      target_seqs,
      input_mask,
      is_training=True,
      seed=seed,
      label_smoothing=label_smoothing,
      first_rows=first_rows,
    )
    entropy, words = _sum_and_count(entropies)
    batch_loss = tf.math.divide_no_nan(entropy, words)
    regularization = 0.0
    if self.train_inception and self.inception:
      regularization = self.inception.regularization_loss()
    return Losses(
      batch_loss + regularization,
      batch_loss,
      words,
      None
      if smoothing is None
      else tf.math.divide_no_nan(tf.reduce_sum(smoothing), words),
    )

  def logits(self, h: tf.Tensor, dtype: tf.DType = tf.float32) -> tf.Tensor:
    """Returns the logits of all words, float32 [..., vocab_size].

    Args:
      h: float32 [..., num_lstm_units], outputs of the LSTM.
      dtype: of the matrix product.
    """
    product = tf.matmul(tf.cast(h, dtype), tf.cast(self.logits_weights, dtype))
    return tf.cast(product, tf.float32) + self.logits_biases


def pack(input_mask: tf.Tensor) -> lstm.Packing:
  """Returns how the steps of captions are packed.

  The image is the first step, so a caption has one step more than words.

  Args:
    input_mask: see `ShowAndTellModel.cross_entropies`.
  """
  return lstm.pack(tf.math.count_nonzero(input_mask, axis=1) + 1)


def first_random_rows(input_mask: tf.Tensor) -> tf.Tensor:
  """Returns where the random numbers of captions begin, int64 [batch].

  Each step of each caption has a row of random numbers, see `random_rows`. The
  rows of a caption follow those of the caption before.

  Args:
    input_mask: see `ShowAndTellModel.cross_entropies`.
  """
  steps = tf.math.count_nonzero(input_mask, axis=1) + 1
  return tf.cumsum(steps, exclusive=True)


def _sum_and_count(values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
  return tf.reduce_sum(values), tf.cast(tf.size(values), values.dtype)
