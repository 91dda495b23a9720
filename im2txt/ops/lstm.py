# SPDX-License-Identifier: Apache-2.0
"""The LSTM of 2016: gates i, j, f, o in one kernel, forget bias 1.

Equations 4-9 of Vinyals et al. 2016 without peepholes. `i` input gate, `j`
candidate, `f` forget gate, `o` output gate; a forget bias of 1.0 is added at
run time and is not part of the stored bias.
"""

from typing import NamedTuple

import tensorflow as tf

FORGET_BIAS = 1.0


class Packing(NamedTuple):
  """Where each step of each sequence of a batch lies when none is padded.

  The sequences are ordered by length, longest first, and their steps laid out
  step by step: the first step of all sequences, then the second of those that
  have one, and so on.

  Attributes:
    sequences: int64 [total], the sequence in the batch of each packed row.
    steps: int64 [total], the step in that sequence of each packed row.
    counts: int32 [longest], rows of each step; never grows.
  """

  sequences: tf.Tensor
  steps: tf.Tensor
  counts: tf.Tensor


def pack(lengths):
  """Returns the `Packing` of sequences of these lengths, int [batch]."""
  order = tf.argsort(lengths, direction='DESCENDING', stable=True)
  lengths = tf.gather(lengths, order)
  # tf.sequence_mask would have to be transposed, and a transposed bool makes
  # oneDNN log an error about the processor.
  valid = tf.range(lengths[0])[:, tf.newaxis] < lengths
  positions = tf.where(valid)
  return Packing(
    sequences=tf.gather(tf.cast(order, tf.int64), positions[:, 1]),
    steps=positions[:, 0],
    counts=tf.math.count_nonzero(valid, axis=1, dtype=tf.int32),
  )


def lstm_sequence(inputs, counts, kernel, bias, compute_dtype=tf.float32):
  """Runs the LSTM over whole sequences from the zero state.

  All that does not wait for the step before is one product over the whole
  batch: of the inputs before the loop, of the gradients of inputs and kernel
  after the loop back. `BlockLSTM`, and a loop that is differentiated step by
  step, take them step by step (forward and back, for 13 steps of 32 captions:
  185 and 110 ms, where this takes 65).

  Args:
    inputs: float32 [total, input_size], packed, see `pack`.
    counts: int32 [longest], rows of each step, see `Packing`.
    kernel: float32 [input_size + units, 4 * units].
    bias: float32 [4 * units].
    compute_dtype: of the matrix products; sums and states stay float32.

  Returns:
    float32 [total, units], the outputs h of every step, packed.
  """

  # Arguments of the inner function are what a gradient is asked for.
  @tf.custom_gradient
  def run(inputs, kernel, bias):
    input_size, units = inputs.shape[1], bias.shape[0] // 4
    starts = tf.cumsum(counts, exclusive=True)
    input_kernel = tf.cast(kernel[:input_size], compute_dtype)
    state_kernel = tf.cast(kernel[input_size:], compute_dtype)

    def matmul(a, b, **kwargs):
      product = tf.matmul(
        tf.cast(a, compute_dtype), tf.cast(b, compute_dtype), **kwargs
      )
      return tf.cast(product, tf.float32)

    def rows(packed, step):
      return packed[starts[step] : starts[step] + counts[step]]

    from_inputs = tf.nn.bias_add(matmul(inputs, input_kernel), bias)

    def forward(step, c, h, all_gates, all_c, all_h):
      # Sequences that have ended are the last ones.
      c, h = c[: counts[step]], h[: counts[step]]
      i, j, f, o = tf.split(
        rows(from_inputs, step) + matmul(h, state_kernel), 4, axis=1
      )
      i, j, f, o = (
        tf.sigmoid(i),
        tf.tanh(j),
        tf.sigmoid(f + FORGET_BIAS),
        tf.sigmoid(o),
      )
      c = c * f + i * j
      h = tf.tanh(c) * o
      gates = tf.concat([i, j, f, o], axis=1)
      return (
        step + 1,
        c,
        h,
        all_gates.write(step, gates),
        all_c.write(step, c),
        all_h.write(step, h),
      )

    all_gates, all_c, all_h = _loop(
      forward,
      tf.size(counts),
      tf.zeros([counts[0], units]),
      (4 * units, units, units),
    )

    def gradient(d_outputs):
      # Rows of the step before the first are zero: the initial state.
      zeros = tf.zeros([counts[0], units])
      previous = _rows_before(counts)
      c_before = tf.concat([zeros, tf.gather(all_c, previous)], axis=0)
      h_before = tf.concat([zeros, tf.gather(all_h, previous)], axis=0)
      # Transposed once, not in the product of each step, which is then three
      # times as fast.
      state_kernel_t = tf.transpose(state_kernel)

      def backward(step_from_end, dc, dh, all_d_gates):
        step = tf.size(counts) - 1 - step_from_end
        added = [[0, counts[step] - tf.shape(dc)[0]], [0, 0]]
        dh = tf.pad(dh, added) + rows(d_outputs, step)
        i, j, f, o = tf.split(rows(all_gates, step), 4, axis=1)
        tanh_c = tf.tanh(rows(all_c, step))
        dc = tf.pad(dc, added) + dh * o * (1 - tanh_c * tanh_c)
        d_gates = tf.concat(
          [
            dc * j * i * (1 - i),
            dc * i * (1 - j * j),
            dc * rows(c_before, step) * f * (1 - f),
            dh * tanh_c * o * (1 - o),
          ],
          axis=1,
        )
        return (
          step_from_end + 1,
          dc * f,
          matmul(d_gates, state_kernel_t),
          all_d_gates.write(step, d_gates),
        )

      (d_gates,) = _loop(
        backward, tf.size(counts), tf.zeros([0, units]), (4 * units,)
      )
      return (
        matmul(d_gates, input_kernel, transpose_b=True),
        matmul(
          tf.concat([inputs, h_before], axis=1), d_gates, transpose_a=True
        ),
        tf.reduce_sum(d_gates, axis=0),
      )

    return all_h, gradient

  return run(inputs, tf.convert_to_tensor(kernel), tf.convert_to_tensor(bias))


def _loop(body, num_steps, zeros, sizes):
  """Runs `body` for each step; it keeps a state and writes packed rows.

  Args:
    body: (step, c, h, *arrays) -> the same, one step on.
    num_steps: int32 scalar.
    zeros: float32 [rows, units], what c and h start from.
    sizes: row size of each array that `body` writes.

  Returns:
    List of float32 [total, size].
  """
  arrays = [
    tf.TensorArray(
      tf.float32, num_steps, element_shape=[None, size], infer_shape=False
    )
    for size in sizes
  ]
  state_shape = tf.TensorShape([None, zeros.shape[1]])
  _, _, _, *arrays = tf.while_loop(
    lambda step, *unused: step < num_steps,
    body,
    (0, zeros, zeros, *arrays),
    shape_invariants=(
      tf.TensorShape([]),
      state_shape,
      state_shape,
      *[tf.TensorShape(None)] * len(arrays),
    ),
  )
  return [
    tf.ensure_shape(array.concat(), [None, size])
    for array, size in zip(arrays, sizes)
  ]


def _rows_before(counts):
  """Packed row of the step before, of each packed row from step 1 on."""
  rows = tf.range(counts[0], tf.reduce_sum(counts))
  return rows - tf.repeat(counts[:-1], counts[1:])


def lstm_step(inputs, state, kernel, bias):
  """Runs the LSTM one step.

  Args:
    inputs: float32 or float64 [batch, input_size].
    state: float [batch, 2 * units], the concatenation [c, h].
    kernel: float [input_size + units, 4 * units].
    bias: float [4 * units].

  Returns:
    float [batch, 2 * units], the new [c, h].
  """
  c, h = tf.split(state, 2, axis=1)
  gates = tf.matmul(tf.concat([inputs, h], axis=1), kernel) + bias
  return tf.concat(next_state(gates, c), axis=1)


def next_state(gates, c):
  """Returns (c, h), float [..., units], of the next step.

  Args:
    gates: float [..., 4 * units], products of inputs and state with the kernel,
      and the bias.
    c: float [..., units], of the step before.
  """
  i, j, f, o = tf.split(gates, 4, axis=-1)
  c = c * tf.sigmoid(f + FORGET_BIAS) + tf.sigmoid(i) * tf.tanh(j)
  return c, tf.tanh(c) * tf.sigmoid(o)
