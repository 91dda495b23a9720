# SPDX-License-Identifier: Apache-2.0
"""A server as a process: its socket, its signals and its end."""

from collections.abc import Iterator
import contextlib
import signal
import socket
from types import FrameType

from absl import logging
from starlette import types
import uvicorn

# Connections at a time, idle ones too; each is a file of the process.
_CONNECTIONS = 1000
# After which an idle connection is closed: longer than most proxies keep one,
# lest they send a request into one that is closing.
_IDLE_SECONDS = 75


def bind(host: str, port: int) -> socket.socket:
  """Returns a socket that will listen.

  Args:
    host: name or address; '127.0.0.1' is reached from this machine only.
    port: number; 0 chooses one that is free.

  Raises:
    ValueError: the address cannot be had.
  """
  try:
    family, kind, protocol, _, address = socket.getaddrinfo(
      host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(family, kind, protocol)
    try:
      bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
      bound.bind(address)
    except OSError:
      bound.close()
      raise
    return bound
  except (OSError, OverflowError) as error:
    reason = getattr(error, 'strerror', None) or error
    raise ValueError(
      f'cannot serve at --host={host} --port={port} ({reason}): give others'
    ) from error


def address_of(bound: socket.socket) -> str:
  """Returns the address of a socket, as a browser takes it."""
  host, port = bound.getsockname()[:2]
  return f'http://[{host}]:{port}' if ':' in host else f'http://{host}:{port}'


class _Server(uvicorn.Server):
  """Ends at a signal once what it accepted is answered, and with status 0.

  Uvicorn's own would end by the signal.
  """

  @contextlib.contextmanager
  def capture_signals(self) -> Iterator[None]:
    previous = {
      number: signal.signal(number, self.handle_exit)
      for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
      yield
    finally:
      for number, handler in previous.items():
        signal.signal(number, handler)

  def handle_exit(self, sig: int, frame: FrameType | None) -> None:
    if not self.should_exit:
      logging.info('%s: finishing what was accepted', signal.Signals(sig).name)
    # A second one from the keyboard does not wait.
    super().handle_exit(sig, frame)


def serve(
  app: types.ASGIApp, bound: socket.socket, drain_seconds: float
) -> None:
  """Serves until SIGTERM or SIGINT, and answers what was accepted by then.

  Args:
    app: the application.
    bound: of `bind`.
    drain_seconds: for what was accepted, after the signal.
  """
  server = _Server(
    uvicorn.Config(
      app,
      log_config=None,
      log_level='warning',
      access_log=False,
      lifespan='on',
      ws='none',
      http='h11',
      server_header=False,
      limit_concurrency=_CONNECTIONS,
      timeout_keep_alive=_IDLE_SECONDS,
      timeout_graceful_shutdown=max(1, round(drain_seconds)),
    )
  )
  with bound:
    server.run(sockets=[bound])
