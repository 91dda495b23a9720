# SPDX-License-Identifier: Apache-2.0
"""Tests of the program serve, run as its users run it."""

import concurrent.futures
import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from im2txt import testing
from im2txt.serving import process as process_lib


@pytest.fixture(scope='module', name='directory')
def fixture_directory(tmp_path_factory):
  path = tmp_path_factory.mktemp('model')
  testing.caption_model(path)
  for i in range(3):
    (path / f'{i}.jpg').write_bytes(testing.jpeg(i))
  return path


def _post(address, data):
  with urllib.request.urlopen(
    urllib.request.Request(f'{address}/v1/captions', data), timeout=120
  ) as answer:
    return json.load(answer)


@contextlib.contextmanager
def _begun(address, data):
  """Begins a request; yields a function that ends it and returns the answer."""
  host, port = address.removeprefix('http://').split(':')
  with socket.create_connection((host, port), timeout=120) as connection:
    connection.sendall(
      f'POST /v1/captions HTTP/1.1\r\nHost: {host}\r\n'
      f'Content-Length: {len(data)}\r\n'
      'Expect: 100-continue\r\n\r\n'.encode()
    )
    # Once this is here, the server reads the body.
    assert b' 100 ' in connection.recv(1000)

    def finish():
      connection.sendall(data)
      # The server closes the connection, as it ends.
      with connection.makefile(encoding='utf-8') as answer:
        return answer.read()

    yield finish


def test_it_serves_the_captions_of_run_inference_and_ends_in_order(directory):
  images = [directory / f'{i}.jpg' for i in range(3)]
  result = testing.run_program(
    'run_inference',
    f'--checkpoint_path={directory}',
    '--output_format=json',
    *images,
  )
  expected = [
    [c['caption'] for c in json.loads(line)['captions']]
    for line in result.stdout.splitlines()
  ]
  with subprocess.Popen(
    **testing.program(
      'serve', f'--checkpoint_path={directory}', '--port=0', '--batch_size=2'
    )
  ) as process:
    try:
      started = testing.read_until(process, 'serving the checkpoint of step 10')
      (address,) = re.findall(r'http://127\.0\.0\.1:\d+', started)
      testing.read_until(process, 'ready after')
      with concurrent.futures.ThreadPoolExecutor(3) as pool:
        answers = list(
          pool.map(_post, [address] * 3, [i.read_bytes() for i in images])
        )
        assert [
          [c['caption'] for c in answer['images'][0]['captions']]
          for answer in answers
        ] == expected
        # A request that is under way is answered.
        with _begun(address, images[0].read_bytes()) as finish:
          process.send_signal(signal.SIGTERM)
          ended = testing.read_until(process, 'SIGTERM: finishing')
          assert expected[0][0] in finish()
      ended += testing.rest(process)
      assert process.returncode == 0, ended
      assert 'Traceback' not in ended, ended
    finally:
      process.kill()


def test_mistakes_are_told_in_one_line(directory, tmp_path):
  with process_lib.bind('127.0.0.1', 0) as taken:
    taken.listen()
    port = taken.getsockname()[1]
    testing.assert_one_line_error(
      testing.run_program('serve', f'--port={port}'),
      f'cannot serve at --host=127.0.0.1 --port={port}',
    )
  testing.assert_one_line_error(
    testing.run_program('serve', '--port=0', f'--checkpoint_path={tmp_path}'),
    f'no checkpoint in directory {tmp_path}',
  )
  testing.assert_one_line_error(
    testing.run_program(
      'serve', f'--checkpoint_path={directory}', '--queue_size=3'
    ),
    '--max_request_images=16 is above --queue_size=3',
  )


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
