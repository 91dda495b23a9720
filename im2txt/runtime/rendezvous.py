# SPDX-License-Identifier: Apache-2.0
"""Workers that train together wait here until all of them are there.

TensorFlow would wait for them too, but without a word, and it keeps SIGTERM from
a process that waits. So the workers meet first, at the address of the chief,
which TensorFlow takes over when all are there.
"""

from collections.abc import Sequence
import contextlib
import json
import socket
import time

from absl import logging

from im2txt.runtime import cluster as cluster_lib

_GO, _OTHERS = b'go\n', b'others\n'
_RETRY_SECONDS = 0.2
# A worker tells who it is at once.
_HELLO_SECONDS = 5
_HELLO_BYTES = 1 << 20
# When a machine is lost, its connection ends after about this.
_LOST_SECONDS = 30


class _Reminder:
  """Logs what is waited for, now and then.

  Args:
    seconds: between two lines, and before the first.
  """

  def __init__(self, seconds: float) -> None:
    self.seconds = seconds
    self._last = time.monotonic()

  def log(self, what: str) -> None:
    if time.monotonic() - self._last >= self.seconds:
      self._last = time.monotonic()
      logging.info('waiting for %s', what)


def wait(cluster: cluster_lib.Cluster, log_seconds: float = 30) -> None:
  """Returns when all processes of a cluster have called this.

  A process that ends meanwhile is waited for again. Signals end the wait as they
  end Python.

  Args:
    cluster: this process and the others.
    log_seconds: between two lines that tell who is waited for.

  Raises:
    ConnectionError: the port is taken, or the chief knows other processes.
  """
  reminder = _Reminder(log_seconds)
  if cluster.index:
    _meet_chief(cluster, reminder)
  else:
    _gather(cluster, reminder)


def _gather(cluster: cluster_lib.Cluster, reminder: _Reminder) -> None:
  """Waits for the others, and lets them go."""
  port = _address(cluster)[1]
  both = socket.has_dualstack_ipv6()
  try:
    server = socket.create_server(
      ('', port),
      family=socket.AF_INET6 if both else socket.AF_INET,
      dualstack_ipv6=both,
    )
  except OSError as error:
    raise ConnectionError(
      f'{cluster.describe(0)} cannot use its port ({error}): end what uses it, '
      'or give the workers other ports'
    ) from error
  server.settimeout(_RETRY_SECONDS)
  present: dict[int, socket.socket] = {}
  with server, contextlib.ExitStack() as stack:
    while len(present) < len(cluster.addresses) - 1:
      with contextlib.suppress(TimeoutError):
        connection = stack.enter_context(server.accept()[0])
        index = _hello(connection, cluster.addresses)
        if index:
          present[index] = connection
        else:
          connection.close()
      present = {i: c for i, c in present.items() if _is_open(c)}
      reminder.log(
        ', '.join(
          cluster.describe(index)
          for index in range(1, len(cluster.addresses))
          if index not in present
        )
      )
    for connection in present.values():
      with contextlib.suppress(OSError):
        connection.setblocking(True)
        connection.sendall(_GO)


def _hello(connection: socket.socket, addresses: Sequence[str]) -> int | None:
  """Returns who is at the other end of a connection, None for a stranger."""
  try:
    connection.settimeout(_HELLO_SECONDS)
    with connection.makefile('rb') as file:
      line = file.readline(_HELLO_BYTES)
    hello = json.loads(line)
    index = int(hello['index'])
    if hello['addresses'] != list(addresses):
      connection.sendall(_OTHERS)
      return None
  except (OSError, ValueError, LookupError, TypeError):
    return None
  _keep_alive(connection)
  connection.setblocking(False)
  return index if 0 < index < len(addresses) else None


def _is_open(connection: socket.socket) -> bool:
  """Returns whether the other end of a connection, which is silent, is there."""
  try:
    return bool(connection.recv(1))
  except BlockingIOError:
    return True
  except OSError:
    return False


def _meet_chief(cluster: cluster_lib.Cluster, reminder: _Reminder) -> None:
  """Waits until the chief has seen all."""
  hello = json.dumps(
    {'index': cluster.index, 'addresses': list(cluster.addresses)}
  )
  while True:
    with contextlib.suppress(OSError):
      with socket.create_connection(
        _address(cluster), timeout=_HELLO_SECONDS
      ) as connection:
        _keep_alive(connection)
        connection.sendall(hello.encode() + b'\n')
        answer = _answer(connection, reminder)
      if answer == _GO:
        return
      if answer == _OTHERS:
        break
    time.sleep(_RETRY_SECONDS)
    reminder.log(cluster.describe(0))
  raise ConnectionError(
    f'{cluster.describe(0)} was started with other addresses than '
    f'{cluster.describe(cluster.index)}: give all workers the same'
  )


def _answer(connection: socket.socket, reminder: _Reminder) -> bytes:
  """Returns what the chief says."""
  connection.settimeout(reminder.seconds)
  answer = b''
  while not answer.endswith(b'\n'):
    try:
      received = connection.recv(len(_OTHERS))
    except TimeoutError:
      reminder.log("other workers, which the chief's log names")
      continue
    if not received:
      return b''
    answer = (answer + received)[-len(_OTHERS) :]
  return answer


def _address(cluster: cluster_lib.Cluster) -> tuple[str, int]:
  """Returns host and port of the chief."""
  host, _, port = cluster.addresses[0].rpartition(':')
  return host.strip('[]'), int(port)


def _keep_alive(connection: socket.socket) -> None:
  """Lets a connection end when the machine at the other end is lost."""
  connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
  for name, value in (
    ('TCP_KEEPIDLE', _LOST_SECONDS // 3),
    ('TCP_KEEPINTVL', _LOST_SECONDS // 6),
    ('TCP_KEEPCNT', 4),
  ):
    if hasattr(socket, name):  # Not on all systems.
      connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
