# SPDX-License-Identifier: Apache-2.0
"""Scheduled sampling: in training some input words are the model's own.

Bengio et al. 2015, "Scheduled Sampling for Sequence Prediction with Recurrent
Neural Networks", section 2.4. At each step of a caption the input word is, with
some probability, sampled from what the model predicted instead of taken from
the caption. The words to predict stay those of the caption, and no gradient
flows through the sampling. The probability grows with the steps of training.

The words are sampled by a loop over the LSTM without gradients, which computes
the softmax only where a word is sampled. Training then goes over the resulting
words as over any caption.
"""

from collections.abc import Callable
import math

import tensorflow as tf

from im2txt import configuration
from im2txt import show_and_tell_model
from im2txt.ops import dropout
from im2txt.ops import lstm
from im2txt.ops import random_rows

NONE = 'none'

# Beside the places of `dropout`, which use the same seed.
_WHERE, _WORDS = 100, 101


def _linear(steps: tf.Tensor, half: int) -> tf.Tensor:
  return tf.maximum(1 - steps / (2 * half), 0.0)


def _exponential(steps: tf.Tensor, half: int) -> tf.Tensor:
  return tf.pow(2.0, -steps / half)


def _inverse_sigmoid(steps: tf.Tensor, half: int) -> tf.Tensor:
  # The paper's k / (k + exp(steps / k)) is one half where k log(k) = steps.
  k = 2.0 + half
  for _ in range(50):  # Newton's method, which comes down to k from above.
    k -= (k * math.log(k) - half) / (math.log(k) + 1)
  return k / (k + tf.exp(steps / k))


# Each takes the steps since the start, a float32 scalar, and the steps to one
# half. It returns the probability of the caption's own word.
BY_NAME: dict[str, Callable[[tf.Tensor, int], tf.Tensor]] = {
  'linear': _linear,
  'exponential': _exponential,
  'inverse_sigmoid': _inverse_sigmoid,
}


def check(config: configuration.TrainingConfig) -> None:
  """Raises ValueError if the decay of a configuration is not known."""
  if config.scheduled_sampling not in (NONE, *BY_NAME):
    raise ValueError(
      f'--scheduled_sampling={config.scheduled_sampling:.100} must be one of '
      + ', '.join((NONE, *BY_NAME))
    )


def probability(
  config: configuration.TrainingConfig, step: tf.Tensor
) -> tf.Tensor:
  """Returns the probability that an input word is sampled, float32 scalar.

  Args:
    config: names the decay.
    step: int scalar, of training.
  """
  steps = tf.cast(step - config.scheduled_sampling_start_step, tf.float32)
  kept = BY_NAME[config.scheduled_sampling](
    tf.maximum(steps, 0.0), config.scheduled_sampling_half_steps
  )
  sampled = tf.minimum(1 - kept, config.scheduled_sampling_max)
  return tf.where(steps < 0, 0.0, sampled)


def input_words(
  model: show_and_tell_model.ShowAndTellModel,
  features: tf.Tensor,
  input_seqs: tf.Tensor,
  input_mask: tf.Tensor,
  sampled: tf.Tensor,
  seed: tf.Tensor,
  first_rows: tf.Tensor | None = None,
) -> tf.Tensor:
  """Replaces some input words by samples from the model; to be traced.

  The samples are from the predictions that `ShowAndTellModel.losses` makes with
  the same seed, dropout included. <S> is never replaced.

  Args:
    model: the model to sample from.
    features: see `ShowAndTellModel.cross_entropies`, as the next two.
    input_seqs: words of captions.
    input_mask: marks the words.
    sampled: float32 scalar, the probability that a word is replaced.
    seed: int [2] that determines which words are replaced, and by which.
    first_rows: see `ShowAndTellModel.cross_entropies`.

  Returns:
    int64 [batch, time], like `input_seqs`.
  """
  dtype = model.training_dtype

  def matmul(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.matmul(tf.cast(a, dtype), b), tf.float32)

  input_seqs = tf.cast(input_seqs, tf.int64)
  # As in `ShowAndTellModel.losses`, so that dropout has the same masks.
  packing = show_and_tell_model.pack(input_mask)
  if first_rows is None:
    first_rows = show_and_tell_model.first_random_rows(input_mask)
  counts, starts = packing.counts, tf.cumsum(packing.counts, exclusive=True)
  batch, longest = counts[0], tf.size(counts) - 1
  order = packing.sequences[:batch]
  positions = tf.stack(
    [packing.sequences[batch:], packing.steps[batch:] - 1], axis=1
  )
  size, units = model.config.embedding_size, model.config.num_lstm_units
  input_kernel = tf.cast(model.lstm_kernel[:size], dtype)
  state_kernel = tf.cast(model.lstm_kernel[size:], dtype)
  embedding_map = model.embedding_map.read_value()

  drop_rate = 1.0 - model.config.lstm_dropout_keep_prob
  step_rows = tf.gather(first_rows, packing.sequences) + packing.steps
  input_masks, output_masks = (
    dropout.dropout(
      tf.ones([tf.size(rows), width]), drop_rate, seed, place, rows
    )
    for rows, width, place in (
      (step_rows, size, dropout.LSTM_INPUT),
      (step_rows[batch:], units, dropout.LSTM_OUTPUT),
    )
  )
  gates_of_inputs = tf.nn.bias_add(
    matmul(
      input_masks
      * tf.concat(
        [
          tf.matmul(tf.gather(features, order), model.image_embedding_weights),
          tf.gather(embedding_map, tf.gather_nd(input_seqs, positions)),
        ],
        axis=0,
      ),
      input_kernel,
    ),
    model.lstm_bias,
  )

  # From here on captions are ordered by length, and go step by step.
  words = tf.gather(input_seqs, order)
  times = tf.range(longest)[:, tf.newaxis]
  # Those of positions behind a caption's end are not used.
  word_rows = tf.gather(first_rows, order) + tf.cast(times, tf.int64) + 1
  numbers_where, numbers_words = (
    tf.reshape(
      random_rows.uniform(seed, place, tf.reshape(word_rows, [-1]), 1),
      tf.shape(word_rows),
    )
    for place in (_WHERE, _WORDS)
  )
  chosen = (
    (numbers_where < sampled)
    & (tf.range(batch) < counts[1:, tf.newaxis])
    & (times > 0)
  )
  # No word after the last one that is replaced matters.
  last = tf.reduce_max(tf.where(chosen, times, -1))

  def advance(
    step: tf.Tensor,
    c: tf.Tensor,
    h: tf.Tensor,
    inputs: tf.Tensor,
    words: tf.Tensor,
  ) -> tuple[tf.Tensor, ...]:
    # Step 0 reads the image, and step n the word n - 1. It predicts word n.
    c, h = lstm.next_state(
      inputs + matmul(h[: counts[step]], state_kernel), c[: counts[step]]
    )
    rows = tf.where(chosen[step])[:, 0]
    kept = tf.gather(
      output_masks, rows + tf.cast(starts[step] - batch, tf.int64)
    )
    drawn = random_rows.categorical(
      tf.nn.softmax(model.logits(tf.gather(h, rows) * kept, dtype)),
      tf.gather(numbers_words[step], rows),
    )
    start = starts[step + 1]
    replaced = tf.gather(embedding_map, drawn) * tf.gather(
      input_masks, rows + tf.cast(start, tf.int64)
    )
    inputs = tf.tensor_scatter_nd_update(
      gates_of_inputs[start : start + counts[step + 1]],
      rows[:, tf.newaxis],
      tf.nn.bias_add(matmul(replaced, input_kernel), model.lstm_bias),
    )
    places = tf.stack(
      [rows, tf.fill(tf.shape(rows), tf.cast(step, tf.int64))], axis=1
    )
    return (
      step + 1,
      c,
      h,
      inputs,
      tf.tensor_scatter_nd_update(words, places, drawn),
    )

  zeros = tf.zeros([batch, units])
  state_shape = tf.TensorShape([None, units])
  *_, words = tf.while_loop(
    lambda step, *unused: step <= last,
    advance,
    (0, zeros, zeros, gates_of_inputs[:batch], words),
    shape_invariants=(
      tf.TensorShape([]),
      state_shape,
      state_shape,
      tf.TensorShape([None, 4 * units]),
      words.shape,
    ),
  )
  return tf.gather(words, tf.argsort(order))
