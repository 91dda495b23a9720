# SPDX-License-Identifier: Apache-2.0
"""Tests of distribution; training/distribution_test.py has more processes."""

import ctypes
import multiprocessing
import pathlib
import re
import signal
import sys

import numpy as np
import pytest
import tensorflow as tf

from im2txt.runtime import cluster
from im2txt.runtime import distribution
from im2txt.runtime import rendezvous
from im2txt.runtime import sharing


def _tf_config(count, index=0):
  addresses = tuple(f'host{i}:2222' for i in range(count))
  return cluster.Cluster((), addresses, index)


@pytest.mark.parametrize('name', ['auto', 'one'])
@pytest.mark.parametrize('workers', [0, 1])
def test_one_device_is_the_default_where_there_is_one(
  name, workers, monkeypatch
):
  if workers:
    monkeypatch.setenv('TF_CONFIG', _tf_config(workers).tf_config())
  replicas = distribution.make(name, 1)
  assert replicas.is_chief and not replicas.is_cluster
  assert replicas.count == replicas.local_count == 1
  assert replicas.shares == [sharing.WHOLE]
  assert replicas.agree(lambda: [3]) == [3]
  assert distribution.Wishes(replicas, (1, 2)).of_all({2}) == {2}


def _catches_sigterm():
  status = pathlib.Path('/proc/self/status').read_text()
  caught = int(re.search(r'^SigCgt:\s*(\w+)$', status, re.M)[1], 16)
  return bool(caught >> (signal.SIGTERM - 1) & 1)


def test_tensorflow_does_not_keep_sigterm(monkeypatch):
  """Which would not end a worker that prepares its training."""
  kept = []

  class Strategy:
    num_replicas_in_sync = 2

    def __init__(self):
      # In C, as TensorFlow does it: Python does not know.
      kept.append(ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda number: None))
      ctypes.CDLL(None).signal(signal.SIGTERM, kept[0])
      assert _catches_sigterm()

  assert not _catches_sigterm()
  monkeypatch.setattr(tf.distribute, 'MultiWorkerMirroredStrategy', Strategy)
  met = []
  monkeypatch.setattr(rendezvous, 'wait', met.append)
  monkeypatch.setenv('TF_CONFIG', _tf_config(2, 1).tf_config())
  replicas = distribution.make('auto', 1)
  assert (replicas.count, replicas.is_chief) == (2, False)
  assert met == [_tf_config(2, 1)]
  assert kept and not _catches_sigterm()


def _on_two_devices():
  """Returns what two devices do, in a process of their own."""
  distribution.CPU_DEVICES = 2
  replicas = distribution.make_local(sharing.MIRRORED)
  with replicas.scope():
    variable = tf.Variable(3.0)
  (weights,) = replicas.on_each([tf.constant(10.0)])

  def fn(rows):
    number = tf.distribute.get_replica_context().replica_id_in_sync_group
    return rows * variable + weights, tf.fill([tf.shape(rows)[0]], number)

  shared = replicas.by_rows(fn, least=2)
  found = [
    [part.numpy().tolist() for part in shared(np.arange(size, dtype='f'))]
    for size in (5, 3)
  ]
  variable.assign(1.0)
  found.append(shared(np.ones(4, 'f'))[0].numpy().tolist())
  drawn = []

  def shares():
    for number in range(20):
      drawn.append(number)
      yield {'words': np.array([number])}

  prefetched = replicas.prefetch(shares())
  first = next(prefetched)
  ahead = len(drawn)
  copies = [first, *prefetched]
  return (
    found,
    ahead,
    [copy['words'].numpy().tolist() for copy in copies],
    [copy['words'].device[-5:] for copy in copies],
  )


def test_two_devices_share_rows_and_get_their_batches_ahead():
  with multiprocessing.get_context('forkserver').Pool(1) as pool:
    found, ahead, words, devices = pool.apply(_on_two_devices)
  assert found[0] == [[10, 13, 16, 19, 22], [0, 0, 1, 1, 1]]
  # One of them would have less than two rows, so the first has all.
  assert found[1] == [[10, 13, 16], [0, 0, 0]]
  assert found[2] == [11, 11, 11, 11]
  assert words == [[number] for number in range(20)]
  assert devices == ['CPU:0', 'CPU:1'] * 10
  # Those of the next two steps are on their way.
  assert ahead == 5


def test_one_device_works_without_copies():
  batch = np.ones(3)
  assert next(distribution.ALONE.prefetch([batch])) is batch
  assert distribution.ALONE.on_each(batch) is batch
  double = distribution.ALONE.by_rows(lambda rows: 2 * rows)
  np.testing.assert_array_equal(double(batch), [2, 2, 2])


class _Strategy:
  """Knows the number of replicas only."""

  num_replicas_in_sync = 6


def test_shares_of_a_process_follow_those_of_the_processes_before():
  replicas = distribution.Replicas(_Strategy(), _tf_config(3, 2))
  assert replicas.local_count == 2
  assert replicas.shares == [
    sharing.Share(4, 6),
    sharing.Share(5, 6),
  ]
  assert replicas.is_cluster and not replicas.is_chief


def test_a_lost_worker_is_named():
  replicas = distribution.Replicas(_Strategy(), _tf_config(3, 1))
  for text, name in (
    ('Collective ops is aborted: /job:worker/task:2 is down', 'worker 2 at h'),
    ('Collective: /job:worker/replica:0/task:0', 'worker 0 .the chief. at h'),
    ('Collective ops is aborted by whom', 'lost a worker: '),
    (
      'Collective ops is aborted by: Deadline\n\nRPC: /tf.Service/Heartbeat',
      r'lost worker 0 .the chief. .*\(Deadline\)',
    ),
  ):
    with pytest.raises(ConnectionError, match=name):
      with replicas.naming_lost_workers():
        raise tf.errors.UnavailableError(None, None, text)
  # Others are not of the cluster.
  with pytest.raises(tf.errors.UnavailableError):
    with replicas.naming_lost_workers():
      raise tf.errors.UnavailableError(None, None, 'no such device')
  with pytest.raises(tf.errors.UnavailableError):
    with distribution.Replicas().naming_lost_workers():
      raise tf.errors.UnavailableError(None, None, 'Collective')


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
