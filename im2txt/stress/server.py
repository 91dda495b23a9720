# SPDX-License-Identifier: Apache-2.0
"""A file server that is slow enough for a download to be interrupted."""

import collections
import contextlib
import functools
import http.server
import os
import threading
import time
from typing import Any
from typing import Self

_BYTES_AT_ONCE = 1 << 14
_SECONDS_BETWEEN = 0.01


class Server:
  """Serves the files below a directory on this machine; a context manager.

  Args:
    directory: the directory.

  Attributes:
    url: address of the server.
    starts: for each name of a file, the first bytes of its requests.
  """

  def __init__(self, directory: str) -> None:
    self.starts: dict[str, list[int]] = collections.defaultdict(list)
    self._server = http.server.ThreadingHTTPServer(
      ('127.0.0.1', 0),
      functools.partial(_Handler, root=directory, starts=self.starts),
    )
    self._server.daemon_threads = True
    self.url = f'http://127.0.0.1:{self._server.server_port}'
    self._thread = threading.Thread(target=self._server.serve_forever)

  def __enter__(self) -> Self:
    self._thread.start()
    return self

  def __exit__(self, *_: object) -> None:
    self._server.shutdown()
    self._thread.join()
    self._server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
  """Handles the requests of `Server`."""

  def __init__(
    self, *args: Any, root: str, starts: dict[str, list[int]]
  ) -> None:
    # The base class handles the request here.
    self._root, self._starts = root, starts
    super().__init__(*args)

  def log_message(self, *_: object) -> None:
    pass

  def do_GET(self) -> None:
    path = os.path.join(self._root, self.path.lstrip('/'))
    if not os.path.isfile(path):
      self.send_error(404)
      return
    size = os.path.getsize(path)
    wanted = self.headers.get('Range')
    start = int(wanted[len('bytes=') : -1]) if wanted else 0
    self._starts[os.path.basename(path)].append(start)
    if start and start >= size:
      self.send_error(416)
      return
    self.send_response(206 if start else 200)
    if start:
      self.send_header('Content-Range', f'bytes {start}-{size - 1}/{size}')
    self.send_header('Content-Length', str(size - start))
    self.end_headers()
    # The client may close the connection.
    with contextlib.suppress(OSError), open(path, 'rb') as f:
      f.seek(start)
      while data := f.read(_BYTES_AT_ONCE):
        self.wfile.write(data)
        time.sleep(_SECONDS_BETWEEN)
