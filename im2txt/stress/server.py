# SPDX-License-Identifier: Apache-2.0
"""A server of files, slow enough for a download to be interrupted."""

import collections
import contextlib
import http.server
import os
import threading
import time

_BYTES_AT_ONCE = 1 << 14
_SECONDS_BETWEEN = 0.01


class Server:
  """Serves the files below a directory on this machine; a context manager.

  Args:
    directory: str.

  Attributes:
    url: str.
    starts: dict from the name of a file to the bytes from which on it was asked
      for, a list.
  """

  def __init__(self, directory):
    self.starts = collections.defaultdict(list)
    self._server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), _Handler)
    self._server.daemon_threads = True
    self._server.directory, self._server.starts = directory, self.starts
    self.url = f'http://127.0.0.1:{self._server.server_port}'
    self._thread = threading.Thread(target=self._server.serve_forever)

  def __enter__(self):
    self._thread.start()
    return self

  def __exit__(self, *_):
    self._server.shutdown()
    self._thread.join()
    self._server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
  """Answers for `Server`."""

  def log_message(self, *_):
    pass

  def do_GET(self):
    path = os.path.join(self.server.directory, self.path.lstrip('/'))
    if not os.path.isfile(path):
      self.send_error(404)
      return
    size = os.path.getsize(path)
    wanted = self.headers.get('Range')
    start = int(wanted[len('bytes=') : -1]) if wanted else 0
    self.server.starts[os.path.basename(path)].append(start)
    if start and start >= size:
      self.send_error(416)
      return
    self.send_response(206 if start else 200)
    if start:
      self.send_header('Content-Range', f'bytes {start}-{size - 1}/{size}')
    self.send_header('Content-Length', str(size - start))
    self.end_headers()
    # The other side may end.
    with contextlib.suppress(OSError), open(path, 'rb') as f:
      f.seek(start)
      while data := f.read(_BYTES_AT_ONCE):
        self.wfile.write(data)
        time.sleep(_SECONDS_BETWEEN)
