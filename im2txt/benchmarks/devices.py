# SPDX-License-Identifier: Apache-2.0
"""The device that computes what is measured."""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import dataclasses
import os
import platform
import re

import tensorflow as tf
from tensorflow.python.client import device_lib

# TensorFlow computes there by default.
_GPU = 'GPU:0'
# From this on, products of float32 matrices are computed in TensorFloat-32.
_TENSOR_FLOAT_32 = (8, 0)


@dataclasses.dataclass(frozen=True)
class Device:
  """A device, as the table names it.

  Attributes:
    name: of the model, for people.
    is_gpu: whether it is a GPU. Else it is the processor with its cores.
    memory: in bytes; of a GPU what TensorFlow may use.
    float32: how it computes products of float32 matrices.
    count: number of GPUs, of which one is used, or of cores, which all are.
  """

  name: str
  is_gpu: bool
  memory: int
  float32: str
  count: int

  def __str__(self) -> str:
    count = f'one of {self.count}' if self.is_gpu else f'{self.count} core(s)'
    return (
      f'{self.name}, {count}, {self.memory / 1e9:.1f} GB, float32 products in '
      f'{self.float32}'
    )


def prepare() -> None:
  """Lets this process take the memory of GPUs only as it needs it.

  By default TensorFlow takes all, and programs that are measured as processes
  would find none. To be called before TensorFlow starts.
  """
  for gpu in tf.config.list_physical_devices('GPU'):
    tf.config.experimental.set_memory_growth(gpu, True)


def find() -> Device:
  """Returns the device that computes by default: the first GPU, or the cores."""
  gpus = tf.config.list_physical_devices('GPU')
  if not gpus:
    return Device(
      _processor_name(),
      False,
      os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES'),
      'float32',
      len(os.sched_getaffinity(0)),
    )
  details = tf.config.experimental.get_device_details(gpus[0])
  tensor_float = (
    details.get('compute_capability', (0, 0)) >= _TENSOR_FLOAT_32
    and tf.config.experimental.tensor_float_32_execution_enabled()
  )
  memory = next(
    device.memory_limit
    for device in device_lib.list_local_devices()
    if device.name.endswith(_GPU)
  )
  return Device(
    details.get('device_name', 'GPU'),
    True,
    memory,
    'TensorFloat-32' if tensor_float else 'float32',
    len(gpus),
  )


def _processor_name() -> str:
  try:
    with open('/proc/cpuinfo', encoding='utf-8') as f:
      name = re.search(r'^model name\s*:\s*(.+)$', f.read(), re.MULTILINE)
  except OSError:
    name = None
  return name[1] if name else platform.processor() or platform.machine()


@contextlib.contextmanager
def peak_memory(add: Callable[[int], object]) -> Iterator[None]:
  """A context that measures the memory of the GPU which it uses.

  Args:
    add: is called at the end with the most bytes in use at a time; not without
      a GPU.
  """
  if not tf.config.list_physical_devices('GPU'):
    yield
    return
  tf.config.experimental.reset_memory_stats(_GPU)
  yield
  add(tf.config.experimental.get_memory_info(_GPU)['peak'])
