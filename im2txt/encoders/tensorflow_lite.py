# SPDX-License-Identifier: Apache-2.0
"""Functions as models of TensorFlow Lite, and back."""

from collections.abc import Callable
from collections.abc import Sequence
import contextlib
import io
from typing import Any
import warnings

import tensorflow as tf

from im2txt.runtime import quiet_tensorflow

PRECISIONS = ('float32', 'float16', 'int8')


def converted(
  function: Callable[..., dict[str, tf.Tensor]],
  specs: Sequence[tf.TensorSpec],
  precision: str = 'float32',
  variables: tf.Module | None = None,
) -> bytes:
  """Returns a function as a model of TensorFlow Lite.

  Args:
    function: can be traced; returns tensors by name.
    specs: its arguments, whose names are the inputs.
    precision: one of PRECISIONS, of the weights. With 'int8' what is rounded in
      the function, as by `tensorflow_int8`, is computed in integers.
    variables: has those of the function; None if it has none.
  """
  concrete = tf.function(function, autograph=False).get_concrete_function(
    *specs
  )
  converter = tf.lite.TFLiteConverter.from_concrete_functions(
    # With no module at all, the model would get no signature.
    [concrete],
    variables or tf.Module(),
  )
  if precision != 'float32':
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
  if precision == 'float16':
    converter.target_spec.supported_types = [tf.float16]
  with contextlib.ExitStack() as stack:
    stack.enter_context(quiet_tensorflow.without_log_lines())
    stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
    # It asks for statistics that the function has already.
    stack.enter_context(warnings.catch_warnings())
    warnings.simplefilter('ignore')
    return converter.convert()


def runner(content: bytes, threads: int = 1) -> Callable[..., dict[str, Any]]:
  """Returns a model as a function of arrays.

  The interpreter is that of the package ai-edge-litert where it is installed,
  and else TensorFlow's. Not two threads may call it at once.

  Args:
    content: of `converted`.
    threads: of the interpreter.

  Raises:
    ValueError: the content is no model.
  """
  interpreter: Any = tf.lite.Interpreter
  with contextlib.suppress(ImportError):
    from ai_edge_litert import interpreter as litert

    interpreter = litert.Interpreter
  with warnings.catch_warnings():
    # That ai-edge-litert will take the place of TensorFlow's.
    warnings.simplefilter('ignore')
    return interpreter(
      model_content=content, num_threads=threads
    ).get_signature_runner()
