# SPDX-License-Identifier: Apache-2.0
"""The LSTM of 2016: gates i, j, f, o in one kernel, forget bias 1.

Equations 4-9 of Vinyals et al. 2016 without peepholes. `i` input gate, `j`
candidate, `f` forget gate, `o` output gate; a forget bias of 1.0 is added at
run time and is not part of the stored bias.
"""

import tensorflow as tf

FORGET_BIAS = 1.0


def lstm_sequence(inputs, kernel, bias):
  """Runs the LSTM over whole sequences from the zero state.

  Args:
    inputs: float32 [batch, time, input_size].
    kernel: float32 [input_size + units, 4 * units].
    bias: float32 [4 * units].

  Returns:
    float32 [batch, time, units], the outputs h of every step.
  """
  units = bias.shape[0] // 4
  batch = tf.shape(inputs)[0]
  time = tf.shape(inputs, out_type=tf.int64)[1]
  zeros = tf.zeros([batch, units], inputs.dtype)
  no_peephole = tf.zeros([units], inputs.dtype)
  # BlockLSTM's order (i, ci, f, o) is that of the checkpoint; its own clipping
  # of the cell is turned off by a value that is not positive.
  h = tf.raw_ops.BlockLSTM(
      seq_len_max=time,
      x=tf.transpose(inputs, [1, 0, 2]),
      cs_prev=zeros,
      h_prev=zeros,
      w=kernel,
      wci=no_peephole,
      wcf=no_peephole,
      wco=no_peephole,
      b=bias,
      forget_bias=FORGET_BIAS,
      cell_clip=-1.0,
      use_peephole=False).h
  return tf.transpose(h, [1, 0, 2])


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
  i, j, f, o = tf.split(gates, 4, axis=1)
  c = c * tf.sigmoid(f + FORGET_BIAS) + tf.sigmoid(i) * tf.tanh(j)
  h = tf.tanh(c) * tf.sigmoid(o)
  return tf.concat([c, h], axis=1)
