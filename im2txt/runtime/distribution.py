# SPDX-License-Identifier: Apache-2.0
"""Work on one device, all local devices or several machines.

Every replica has the whole model and a share of each batch. In training it adds
the gradients of its share to those of the others, and all make the same update.
Elsewhere the results of the shares are put together again.
"""

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from concurrent import futures
import contextlib
import functools
import itertools
import json
import os
import re
import signal
from typing import Any
from typing import TypeVar

from absl import logging
import numpy as np
import tensorflow as tf

from im2txt.runtime import cluster as cluster_lib
from im2txt.runtime import lookahead
from im2txt.runtime import quiet_tensorflow
from im2txt.runtime import rendezvous
from im2txt.runtime import sharing

# Devices that stand for GPUs where there are none; tests set more.
CPU_DEVICES = 1

_T = TypeVar('_T')

# Of messages between processes.
_BLOCK_BYTES = 1024
_NOTHING = bytes(_BLOCK_BYTES)

# What TensorFlow raises where another process ended, hangs or was restarted.
_LOST = (
  tf.errors.UnavailableError,
  tf.errors.AbortedError,
  tf.errors.CancelledError,
  tf.errors.DeadlineExceededError,
  tf.errors.FailedPreconditionError,
  tf.errors.InternalError,
  tf.errors.UnknownError,
)


class Replicas:
  """The replicas that work together. Make it before TensorFlow starts.

  Args:
    strategy: places the replicas; None: there is one, on the default device.
    cluster: the processes; None: this one alone.

  Attributes:
    count: number of replicas.
    local_count: number of replicas in this process.
    is_chief: whether this process writes checkpoints, events and caches.
    is_cluster: whether there are other processes.
    shares: what the replicas of this process have of each batch.
  """

  def __init__(
    self,
    strategy: tf.distribute.Strategy | None = None,
    cluster: cluster_lib.Cluster | None = None,
  ) -> None:
    self._strategy = strategy
    self._cluster = cluster
    self.count = strategy.num_replicas_in_sync if strategy else 1
    index, processes = (
      (cluster.index, len(cluster.addresses)) if cluster else (0, 1)
    )
    self.local_count = self.count // processes
    self._first = index * self.local_count
    self.is_chief = index == 0
    self.is_cluster = processes > 1
    self.shares = [
      sharing.Share(self._first + i, self.count)
      for i in range(self.local_count)
    ]
    self._add_blocks = tf.function(
      self.sum_over_processes,
      autograph=False,
      input_signature=[tf.TensorSpec([_BLOCK_BYTES])],
    )

  @functools.cached_property
  def devices(self) -> Sequence[str]:
    """Names of the devices of the replicas of this process."""
    if self._strategy:
      return self._strategy.extended.worker_devices
    gpus, cpus = map(tf.config.list_logical_devices, ('GPU', 'CPU'))
    return [(gpus or cpus)[0].name]

  @contextlib.contextmanager
  def scope(self) -> Iterator[None]:
    """A context: each replica gets the variables that are made in it.

    `send` gives those of other processes the same values.
    """
    if not self._strategy or self.local_count == 1:
      yield
      return

    def create(
      next_creator: Callable[..., tf.Variable], **kwargs: object
    ) -> tf.Variable:
      # The averages of batch norm would be of a kind that is added over all
      # replicas when the chief reads it.
      kwargs['synchronization'] = tf.VariableSynchronization.AUTO
      kwargs['aggregation'] = tf.VariableAggregation.NONE
      return next_creator(**kwargs)

    with self._strategy.scope(), tf.variable_creator_scope(create):
      yield

  def run(self, fn: Callable[[int], _T]) -> _T:
    """Runs a function on each replica of this process; to be traced.

    Args:
      fn: takes the number of the replica in this process.

    Returns:
      The result on the first of them, a structure of tensors.
    """
    return self._run(fn, lambda results: results[0])

  def _run(
    self,
    fn: Callable[[int], _T],
    join: Callable[[Sequence[tf.Tensor]], tf.Tensor],
  ) -> _T:
    """Like `run`, but `join` makes one tensor of those of all replicas."""
    strategy = self._strategy
    if not strategy:
      return fn(0)

    def on_replica() -> _T:
      context = tf.distribute.get_replica_context()
      number = int(tf.get_static_value(context.replica_id_in_sync_group))
      return fn(number - self._first)

    return tf.nest.map_structure(
      lambda value: join(strategy.experimental_local_results(value)),
      strategy.run(on_replica),
    )

  def by_rows(
    self, fn: Callable[..., Any], least: int = 1, **options: Any
  ) -> 'SharedFunction':
    """Compiles a function whose rows the replicas share.

    The replicas must be of one process.

    Args:
      fn: takes tensors of as many rows, and returns a structure of tensors
        whose rows follow those of the arguments. It may read variables of
        `scope`. To be traced, but without functions that are compiled already:
        these would have the variables of one replica.
      least: if some replica had fewer rows than this, the first has all of
        them.
      **options: of `tf.function`.
    """
    options['autograph'] = False
    alone = together = tf.function(fn, **options)
    if self.count > 1:

      def on_all(*rows: tf.Tensor) -> Any:
        size = tf.shape(rows[0])[0]

        def on_replica(index: int) -> Any:
          start, end = self.shares[index].bounds(size)
          return fn(*(tensor[start:end] for tensor in rows))

        return self._run(on_replica, lambda results: tf.concat(results, axis=0))

      together = tf.function(on_all, **options)
    return SharedFunction(alone, together, least * self.count)

  def on_each(self, tensors: _T) -> _T:
    """Returns constants as `by_rows` reads them, from each device's memory.

    Args:
      tensors: a structure of tensors.
    """
    if self.count == 1:
      return tensors
    with self.scope():
      return tf.nest.map_structure(
        lambda tensor: tf.Variable(tensor, trainable=False), tensors
      )

  def prefetch(self, shares: Iterable[_T]) -> Iterator[_T]:
    """Yields shares of batches in the memory of the devices that take them.

    They are copied there while the steps before are taken.

    Args:
      shares: structures of arrays or tensors, those of the replicas of this
        process in turn.
    """
    if all(device.endswith('CPU:0') for device in self.devices):
      yield from shares  # That is where they are.
      return

    def copy(share: _T, device: str) -> _T:
      with tf.device(device):
        return tf.nest.map_structure(tf.identity, share)

    with futures.ThreadPoolExecutor(1) as thread:
      for copied in lookahead.ahead(
        lambda share, device: thread.submit(copy, share, device),
        zip(shares, itertools.cycle(self.devices)),
        2 * self.local_count,
      ):
        yield copied.result()

  def sum(self, values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Returns the sums of values over all replicas; to be called in `run`.

    Args:
      values: tensors of one dtype and of static shapes.
    """
    if self.count == 1:
      return list(values)
    context = tf.distribute.get_replica_context()
    # Arguments of functions are on no device, which all_reduce asks for.
    return context.all_reduce(
      tf.distribute.ReduceOp.SUM, list(map(tf.identity, values))
    )

  def agree(self, fn: Callable[[], _T]) -> _T:
    """Returns in every process what a function returns in the chief.

    Args:
      fn: called in the chief only; returns what JSON can express.
    """
    if not self.is_cluster:
      return fn()
    text = json.dumps(fn()).encode() if self.is_chief else b''
    # The length in four bytes, and then the text, in blocks of one size: an
    # operation between processes has one shape.
    rest = len(text).to_bytes(4, 'big') + text
    received = b''
    while not received or len(received) < 4 + int.from_bytes(received[:4]):
      block, rest = rest[:_BLOCK_BYTES], rest[_BLOCK_BYTES:]
      block = block.ljust(_BLOCK_BYTES, b'\0') if self.is_chief else _NOTHING
      received += bytes(
        self._add_blocks(tf.constant(list(block), tf.float32))
        .numpy()
        .astype(np.uint8)
      )
    return json.loads(received[4 : 4 + int.from_bytes(received[:4])])

  def all_equal(self, text: str) -> bool:
    """Returns in every process whether all have the same text."""
    differs = self.agree(lambda: text) != text
    if not self.is_cluster:
      return True
    votes = tf.fill([_BLOCK_BYTES], float(differs))
    return not self._add_blocks(votes).numpy().any()

  def send(self, variables: Mapping[str, tf.Variable]) -> None:
    """Gives variables the values that they have in the chief."""
    if not self.is_cluster:
      return
    by_dtype: dict[tf.DType, list[tf.Variable]] = {}
    for variable in variables.values():
      by_dtype.setdefault(variable.dtype, []).append(variable)
    for dtype, some in by_dtype.items():
      # float64 has all integers that count steps, and any device can add it.
      sent_as = dtype if dtype.is_floating else tf.float64

      # The graph must be the same in all processes, so the sender's is not
      # another one.
      @tf.function(autograph=False)
      def send(
        is_sender: tf.Tensor,
        some: list[tf.Variable] = some,
        sent_as: tf.DType = sent_as,
      ) -> None:
        def on_replica(index: int) -> None:
          # One message for all of them.
          values = tf.concat(
            [tf.reshape(tf.cast(v, sent_as), [-1]) for v in some], axis=0
          )
          sends = is_sender if index == 0 else tf.constant(False)
          (values,) = self.sum([tf.where(sends, values, tf.zeros_like(values))])
          parts = tf.split(values, [v.shape.num_elements() for v in some])
          for variable, part in zip(some, parts):
            variable.assign(
              tf.cast(tf.reshape(part, variable.shape), variable.dtype)
            )

        self.run(on_replica)

      send(tf.constant(self.is_chief))

  def sum_over_processes(self, numbers: tf.Tensor) -> tf.Tensor:
    """Returns the sum of one tensor per process, float32; to be traced."""
    return self.run(
      lambda index: self.sum(
        [numbers if index == 0 else tf.zeros_like(numbers)]
      )[0]
    )

  @contextlib.contextmanager
  def naming_lost_workers(self) -> Iterator[None]:
    """Turns TensorFlow's errors about other processes into one line.

    Raises:
      ConnectionError: within the context the connection to a process was lost.
    """
    try:
      yield
    except _LOST as error:
      # Devices of a cluster have its tasks in their names.
      if not self._cluster or 'ollective' not in str(error):
        raise
      text = str(error)
      index = self._cluster.named_in(text)
      if index is None and 'Heartbeat' in text and not self.is_chief:
        index = 0  # The chief takes the heartbeats of all.
      who = 'a worker' if index is None else self._cluster.describe(index)
      cause = re.search(r'aborted by: (?!Collective)(.*)', text)
      reason = cause[1] if cause else quiet_tensorflow.reason(error)
      raise ConnectionError(
        f'lost {who}: it ended, hangs or cannot be reached; start the same '
        'command on all workers again, to go on from the last checkpoint '
        f'({reason[:200]})'
      ) from error


class SharedFunction:
  """A compiled function whose rows replicas share, see `Replicas.by_rows`.

  Args:
    alone: the function on the first replica.
    together: the function on all.
    least: with fewer rows than this, the first has all of them.
  """

  def __init__(
    self,
    alone: tf.types.experimental.PolymorphicFunction,
    together: tf.types.experimental.PolymorphicFunction,
    least: int,
  ) -> None:
    self._alone, self._together, self._least = alone, together, least

  def __call__(self, *rows: np.ndarray | tf.Tensor) -> Any:
    if self._alone is self._together or len(rows[0]) >= self._least:
      return self._together(*rows)
    return self._alone(*rows)

  def trace(self) -> None:
    """Compiles it now; it has an `input_signature`."""
    self._together.get_concrete_function()


# What works on one device.
ALONE = Replicas()


class Wishes:
  """What processes wish to do after the same step, whichever of them wishes it.

  Args:
    replicas: those that train together.
    possible: all wishes.
  """

  def __init__(self, replicas: Replicas, possible: Sequence[int]) -> None:
    self._replicas = replicas
    self._possible = possible
    self._sums: list[tf.Tensor] = []
    self._add = tf.function(
      replicas.sum_over_processes,
      autograph=False,
      input_signature=[tf.TensorSpec([len(possible)])],
    )

  def of_all(self, own: Collection[int]) -> set[int]:
    """Returns the wishes of all processes; to be called once per step in each.

    In a cluster it returns those of one step before, so that no step waits for
    the one before to end.

    Args:
      own: the wishes of this process.
    """
    if not self._replicas.is_cluster:
      return set(own)
    self._sums.append(
      self._add(tf.constant([float(wish in own) for wish in self._possible]))
    )
    if len(self._sums) == 1:
      return set()
    found = self._sums.pop(0).numpy()
    return {wish for wish, count in zip(self._possible, found) if count}


def make(name: str, slurm_port: int) -> Replicas:
  """Returns the replicas that a flag asks for.

  Args:
    name: one of `sharing.NAMES`. AUTO is MULTI_WORKER where TF_CONFIG names
      several processes, else MIRRORED with several GPUs, else ONE.
    slurm_port: see `cluster.from_slurm`.

  Raises:
    ValueError: the environment does not describe the processes.
  """
  _silence_remarks()
  cluster = None
  if name == sharing.MULTI_WORKER or (
    name == sharing.AUTO and os.environ.get('TF_CONFIG')
  ):
    cluster = cluster_lib.from_environment(os.environ, slurm_port)
    if not cluster:
      raise ValueError(
        '--distribution=multi_worker needs TF_CONFIG, which names all workers '
        'and this one, or a start by srun; see docs/distributed.md'
      )
  if cluster and (name == sharing.MULTI_WORKER or len(cluster.addresses) > 1):
    os.environ['TF_CONFIG'] = cluster.tf_config()
    logging.info(
      'this is %s of %d: connecting to the others',
      cluster.describe(cluster.index),
      len(cluster.addresses),
    )
    rendezvous.wait(cluster)
    action = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL
    try:
      strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except tf.errors.OpError as error:
      raise ConnectionError(
        f'{cluster.describe(cluster.index)} cannot connect to the others: start '
        'the same command on all workers, and check that their addresses can '
        f'be reached ({quiet_tensorflow.reason(error)[:200]})'
      ) from error
    # TensorFlow catches it and only takes note of it, so nothing would end a
    # worker that fills a cache.
    signal.signal(signal.SIGTERM, action)
    return Replicas(strategy, cluster)
  return make_local(name)


def make_local(name: str) -> Replicas:
  """Returns the replicas of this machine that a flag asks for.

  Args:
    name: one of `sharing.LOCAL_NAMES`. AUTO is MIRRORED with several GPUs, else
      ONE.
  """
  _silence_remarks()
  if name == sharing.ONE or (
    name == sharing.AUTO and len(tf.config.list_physical_devices('GPU')) < 2
  ):
    return Replicas()
  if CPU_DEVICES > 1:
    tf.config.set_logical_device_configuration(
      tf.config.list_physical_devices('CPU')[0],
      [tf.config.LogicalDeviceConfiguration()] * CPU_DEVICES,
    )
  devices = tf.config.list_logical_devices(
    'GPU'
  ) or tf.config.list_logical_devices('CPU')
  logging.info('using %d device(s)', len(devices))
  return Replicas(
    tf.distribute.MirroredStrategy([device.name for device in devices])
  )


def _silence_remarks() -> None:
  """Silences TensorFlow's remarks on its strategies, which ask nothing."""
  tf.get_logger().setLevel('WARNING')
