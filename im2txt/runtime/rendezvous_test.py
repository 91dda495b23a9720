# SPDX-License-Identifier: Apache-2.0
"""Tests of rendezvous: each process is a thread here."""

from concurrent import futures
import dataclasses
import json
import logging
import signal
import socket
import subprocess
import sys
import time

import pytest

from im2txt.runtime import cluster as cluster_lib
from im2txt.runtime import rendezvous

_SECONDS = 30


@pytest.fixture(name='clusters')
def fixture_clusters():
  """What each of three processes knows."""
  with socket.create_server(('127.0.0.1', 0)) as server:
    port = server.getsockname()[1]
  addresses = (f'127.0.0.1:{port}', 'b:2222', 'c:2222')
  return [cluster_lib.Cluster((), addresses, index) for index in range(3)]


@pytest.fixture(name='pool')
def fixture_pool():
  with futures.ThreadPoolExecutor() as pool:
    yield pool


def _connect(cluster):
  """Connects to the chief as soon as it listens."""
  while True:
    try:
      return socket.create_connection(rendezvous._address(cluster))
    except OSError:
      time.sleep(0.01)


def _hello(cluster):
  text = {'index': cluster.index, 'addresses': cluster.addresses}
  return json.dumps(text).encode() + b'\n'


@pytest.mark.parametrize('order', [(0, 1, 2), (2, 1, 0)])
def test_all_go_when_the_last_has_come(clusters, pool, order):
  first = [pool.submit(rendezvous.wait, clusters[i]) for i in order[:2]]
  assert not futures.wait(first, timeout=0.5).done
  last = pool.submit(rendezvous.wait, clusters[order[2]])
  for one in (*first, last):
    one.result(_SECONDS)


def test_the_chief_s_port_is_free_again(clusters, pool):
  for _ in range(2):
    for one in [pool.submit(rendezvous.wait, c) for c in clusters]:
      one.result(_SECONDS)


def test_who_is_waited_for_is_told(clusters, pool, caplog):
  caplog.set_level(logging.INFO)
  waiting = [pool.submit(rendezvous.wait, clusters[i], 0.1) for i in (0, 1)]
  expected = (
    'waiting for worker 2 at c:2222',
    "waiting for other workers, which the chief's log names",
  )
  while not all(line in caplog.messages for line in expected):
    time.sleep(0.01)
  rendezvous.wait(clusters[2])
  for one in waiting:
    one.result(_SECONDS)


def test_a_worker_that_ended_is_waited_for_again(clusters, pool):
  chief = pool.submit(rendezvous.wait, clusters[0])
  with _connect(clusters[1]) as connection:
    connection.sendall(_hello(clusters[1]))
  other = pool.submit(rendezvous.wait, clusters[2])
  assert not futures.wait([chief, other], timeout=1).done
  rendezvous.wait(clusters[1])
  for one in (chief, other):
    one.result(_SECONDS)


@pytest.mark.parametrize(
  'text', [b'', b'GET / HTTP/1.1\r\n', b'{"index": 1}\n', b'[1]\n']
)
def test_strangers_are_sent_away(clusters, pool, text):
  chief = pool.submit(rendezvous.wait, clusters[0])
  with _connect(clusters[0]) as connection:
    connection.sendall(text)
    connection.shutdown(socket.SHUT_WR)
    assert connection.recv(9) == b''
  for one in [pool.submit(rendezvous.wait, c) for c in clusters[1:]] + [chief]:
    one.result(_SECONDS)


def test_a_worker_of_another_cluster_is_told(clusters, pool):
  chief = pool.submit(rendezvous.wait, clusters[0])
  stranger = dataclasses.replace(
    clusters[1], workers=(*clusters[1].workers[:2], 'd:2222')
  )
  with pytest.raises(
    ConnectionError,
    match='worker 0 .the chief. at 127.0.0.1:.* was started with other '
    'addresses than worker 1 at b:2222: give all workers the same',
  ):
    rendezvous.wait(stranger)
  for one in [pool.submit(rendezvous.wait, c) for c in clusters[1:]] + [chief]:
    one.result(_SECONDS)


def test_sigterm_ends_a_process_that_waits(clusters):
  code = (
    'from im2txt.runtime import cluster, rendezvous\n'
    f'rendezvous.wait(cluster.{clusters[0]!r})'
  )
  with subprocess.Popen([sys.executable, '-c', code]) as process:
    # It listens, so it waits.
    with _connect(clusters[0]):
      process.send_signal(signal.SIGTERM)
      assert process.wait(_SECONDS) == -signal.SIGTERM


def test_a_port_that_is_taken(clusters):
  with socket.create_server(rendezvous._address(clusters[0])):
    with pytest.raises(
      ConnectionError, match='worker 0 .the chief. at .* cannot use its port'
    ):
      rendezvous.wait(clusters[0])
