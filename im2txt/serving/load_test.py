# SPDX-License-Identifier: Apache-2.0
"""Tests of load, against a server of its own."""

import contextlib
import http.server
import math
import sys
import threading

import pytest

from im2txt.serving import load


@contextlib.contextmanager
def _server(statuses):
  """Yields the address of a server that answers with these, then breaks off.

  Args:
    statuses: iterator of int; 0 closes the connection without an answer.
  """
  lock = threading.Lock()

  class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def do_POST(self):
      assert self.path == '/v1/captions'
      self.rfile.read(int(self.headers['content-length']))
      with lock:
        status = next(statuses, 0)
      if not status:
        self.close_connection = True
        return
      self.send_response(status)
      self.send_header('content-length', '2')
      if status == 429:
        self.send_header('retry-after', '3600')
      self.end_headers()
      self.wfile.write(b'{}')

    def log_message(self, format, *args):  # pylint: disable=redefined-builtin
      pass

  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
      yield f'http://127.0.0.1:{server.server_port}'
    finally:
      server.shutdown()
      thread.join()


def test_every_request_has_an_outcome():
  statuses = [200, 429, 200, 0, 503, 504, 200, 429]
  with _server(iter(statuses)) as address:
    summary = load.open_loop(address, [b'a', b'b'], rate=1000, seconds=0.008)
  assert (summary.accepted, summary.refused, summary.lost) == (3, 2, 3)
  assert all(0 < seconds < 60 for seconds in summary.percentiles)


def test_clients_go_on_until_the_end():
  with _server(iter(lambda: 200, None)) as address:
    summary = load.closed_loop(address, [b'a', b'b'], clients=3, seconds=0.05)
  assert summary.accepted >= 3
  assert not summary.refused and not summary.lost


def test_a_client_that_is_refused_waits_to_the_end():
  with _server(iter(lambda: 429, None)) as address:
    summary = load.closed_loop(address, [b'a'], clients=2, seconds=0.05)
  assert (summary.accepted, summary.refused, summary.lost) == (0, 2, 0)


def test_only_captions_after_the_warm_up_count():
  answers = [
    load.Answer(end, seconds, status)
    for end, seconds, status in (
      (0.5, 1, 200),
      (1.5, 2, 200),
      (2.0, 3, 200),
      (2.5, 9, 429),
      (3.5, 4, 200),
      (1.6, 9, 0),
    )
  ]
  summary = load.summarize(answers, 1, 3)
  assert summary.images_per_second == 1.0
  assert (summary.accepted, summary.refused, summary.lost) == (4, 1, 1)
  assert summary.percentiles[0] == 2.5
  assert math.isnan(load.summarize([], 0, 1).percentiles[0])


def test_the_table_is_of_medians():
  def summary(rate, lost=0):
    return load.Summary(rate, 10, 1, lost, (0.1, 0.2, 0.3))._asdict()

  table = load.report(
    {
      'bare_images_per_second': [9.0, 10.0, 20.0],
      'clients': {8: [summary(8.0), summary(9.0), summary(1.0, lost=2)]},
      'overload_rate': 18.0,
      'overload': summary(9.5),
    }
  )
  assert '| the bare model | 10.00 | 100 % |' in table
  assert '| 8 | 8.00 | 80 % | 0.10 s | 0.20 s | 0.30 s | 3 | 2 |' in table
  assert '| 18.0 images/s | 9.50 | 95 % |' in table


def test_a_server_that_does_not_start_is_told():
  with pytest.raises(ValueError, match='serve ended: error: no checkpoint'):
    with load.server(['--checkpoint_path=/nonexistent']):
      pass


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
