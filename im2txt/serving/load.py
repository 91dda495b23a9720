# SPDX-License-Identifier: Apache-2.0
"""Measures a server beside the model that it serves.

  python -m im2txt.serving.load [--checkpoint_path=DIR] [--images=DIR]
      [--clients=1,8,64] [--seconds=30] [--rounds=3] [--output=FILE]
      [-- FLAGS_OF_SERVE...]

Starts `serve` as a process, and loads the same model here. In each round it
measures the bare model, with decoded images in full batches, and then the
server with so many clients, each of which sends a photo, waits for the captions
and sends the next. One that is refused waits as long as the server says. So what else the machine does, both feel. In the end photos
come at twice the rate that the server reached, whether it answers or not.

Prints a table: images per second, their share of the bare model's, and
percentiles of the time from request to answer. A request is refused if it is
told so (429), and lost if it has no captions otherwise. Ends with status 1 if
one was lost.
"""

import argparse
from collections.abc import Iterator
import contextlib
import http.client
import itertools
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from typing import Any
from typing import NamedTuple
import urllib.parse

import numpy as np

from im2txt.inference_utils import image_files
from im2txt.inference_utils import library
from im2txt.runtime import files

_SECONDS_TO_ANSWER = 120
# Answers while clients start and while the queue fills are not counted.
_WARM_UP = 0.2


class Answer(NamedTuple):
  """What a request came to.

  Attributes:
    end: of `time.monotonic()`.
    seconds: from the request to the answer.
    status: int, of HTTP; 0 if there was no answer.
    retry_after: seconds to wait before the next request, as the server says.
  """

  end: float
  seconds: float
  status: int
  retry_after: float = 0.0


class Summary(NamedTuple):
  """The answers of a measurement.

  Attributes:
    images_per_second: captioned, after the warm-up.
    accepted: requests that were captioned.
    refused: requests with status 429.
    lost: all others.
    percentiles: seconds to captions at 50, 95 and 99 %, NaN if there are none.
  """

  images_per_second: float
  accepted: int
  refused: int
  lost: int
  percentiles: tuple[float, float, float]


def summarize(answers: list[Answer], start: float, end: float) -> Summary:
  """Returns the `Summary` of the answers to requests of one image.

  Args:
    answers: of the whole measurement.
    start: from when on the rate is counted.
    end: until when.
  """
  good = [answer for answer in answers if answer.status == 200]
  refused = sum(answer.status == 429 for answer in answers)
  p50, p95, p99 = (
    np.percentile([answer.seconds for answer in good], [50, 95, 99])
    if good
    else [float('nan')] * 3
  )
  return Summary(
    sum(start < answer.end <= end for answer in good) / (end - start),
    len(good),
    refused,
    len(answers) - len(good) - refused,
    (float(p50), float(p95), float(p99)),
  )


class _Client:
  """One connection to a server, opened again where it broke."""

  def __init__(self, address: str) -> None:
    self._host = urllib.parse.urlsplit(address).netloc
    self._connection: http.client.HTTPConnection | None = None

  def caption(self, image: bytes) -> Answer:
    """Sends an image."""
    start = time.monotonic()
    retry_after = 0.0
    try:
      if not self._connection:
        self._connection = http.client.HTTPConnection(
          self._host, timeout=_SECONDS_TO_ANSWER
        )
      self._connection.request('POST', '/v1/captions', image)
      response = self._connection.getresponse()
      response.read()
      status = response.status
      retry_after = float(response.getheader('retry-after') or 0)
    except (OSError, http.client.HTTPException):
      status = 0
      self.close()
    end = time.monotonic()
    return Answer(end, end - start, status, retry_after)

  def close(self) -> None:
    if self._connection:
      self._connection.close()
    self._connection = None


def closed_loop(
  address: str, images: list[bytes], clients: int, seconds: float
) -> Summary:
  """Sends images by clients that wait for each answer, and as it says.

  Args:
    address: of the server, such as 'http://127.0.0.1:8080'.
    images: which are sent in turn.
    clients: int.
    seconds: that each goes on.

  Returns:
    `Summary`.
  """
  answers: list[Answer] = []
  start = time.monotonic()
  end = start + seconds

  def work(number: int) -> None:
    client = _Client(address)
    for image in itertools.islice(itertools.cycle(images), number, None):
      if time.monotonic() >= end:
        break
      answer = client.caption(image)
      answers.append(answer)
      wait = min(answer.retry_after, end - time.monotonic())
      if wait > 0:
        # A server closes a connection that is idle for long, perhaps just as
        # the next request is sent.
        client.close()
        time.sleep(wait)
    client.close()

  _join([_thread(work, number) for number in range(clients)])
  return summarize(answers, start + _WARM_UP * seconds, end)


def open_loop(
  address: str, images: list[bytes], rate: float, seconds: float
) -> Summary:
  """Sends images at a rate, whether they are answered or not.

  Args:
    address: of the server.
    images: which are sent in turn.
    rate: images per second.
    seconds: that this goes on.

  Returns:
    `Summary`.
  """
  answers: list[Answer] = []
  start = time.monotonic()

  def work(image: bytes) -> None:
    client = _Client(address)
    answers.append(client.caption(image))
    client.close()

  threads = []
  for number, image in zip(
    range(round(rate * seconds)), itertools.cycle(images)
  ):
    time.sleep(max(0.0, start + number / rate - time.monotonic()))
    threads.append(_thread(work, image))
  end = time.monotonic()
  _join(threads)
  return summarize(answers, start + _WARM_UP * (end - start), end)


def _thread(function: Any, argument: Any) -> threading.Thread:
  thread = threading.Thread(target=function, args=(argument,))
  thread.start()
  return thread


def _join(threads: list[threading.Thread]) -> None:
  for thread in threads:
    thread.join()


def bare_rate(
  captioner: library.Captioner, images: list[bytes], seconds: float
) -> float:
  """Returns the images per second of full batches, decoded before.

  Args:
    captioner: the model.
    images: encoded.
    seconds: that it is measured.
  """
  size = captioner.batch_size
  decoded = [captioner.decode(image) for image in images]
  batch = list(itertools.islice(itertools.cycle(decoded), size))
  captioner.model.caption(batch)
  start, done = time.monotonic(), 0
  while time.monotonic() < start + seconds:
    captioner.model.caption(batch)
    done += size
  return done / (time.monotonic() - start)


@contextlib.contextmanager
def server(arguments: list[str]) -> Iterator[str]:
  """Runs `serve`; yields its address once it is ready.

  Args:
    arguments: its flags.

  Raises:
    ValueError: it ended before.
  """
  root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
  with subprocess.Popen(
    [sys.executable, '-m', 'im2txt.serve', '--port=0', *arguments],
    stderr=subprocess.PIPE,
    text=True,
    env={**os.environ, 'PYTHONPATH': os.pathsep.join([root, *sys.path])},
  ) as process:
    assert process.stderr
    try:
      written = ''
      for line in process.stderr:
        written += line
        if 'ready after' in line:
          break
      else:
        raise ValueError(f'serve ended: {written.strip()}')
      # Lest the pipe fills.
      _thread(lambda stderr: stderr.read(), process.stderr)
      yield re.findall(r'http://\S+', written)[0]
    finally:
      process.terminate()
      process.wait()


def measure(
  captioner: library.Captioner,
  images: list[bytes],
  clients: list[int],
  seconds: float,
  rounds: int,
  arguments: list[str],
) -> dict[str, Any]:
  """Measures a server of the model of a captioner.

  Args:
    captioner: the bare model.
    images: encoded.
    clients: numbers of them.
    seconds: of each measurement.
    rounds: of all.
    arguments: flags of `serve`.

  Returns:
    A dict that JSON has, see `report`.
  """
  bare: list[float] = []
  found: dict[int, list[Summary]] = {number: [] for number in clients}
  with server(arguments) as address:
    for _ in range(rounds):
      for number in clients:
        bare.append(bare_rate(captioner, images, seconds / 2))
        found[number].append(closed_loop(address, images, number, seconds))
    capacity = max(s.images_per_second for s in found[max(clients)])
    overload = open_loop(address, images, 2 * capacity, seconds)
  return {
    'bare_images_per_second': bare,
    'clients': {
      number: [summary._asdict() for summary in summaries]
      for number, summaries in found.items()
    },
    'overload_rate': 2 * capacity,
    'overload': overload._asdict(),
    'load_average': os.getloadavg(),
  }


def report(measured: dict[str, Any]) -> str:
  """Returns the table of what `measure` returns."""
  bare = statistics.median(measured['bare_images_per_second'])
  rows = [
    '| clients | images/s | of the bare model | p50 | p95 | p99 | refused '
    '| lost |',
    '| --- | --- | --- | --- | --- | --- | --- | --- |',
    f'| the bare model | {bare:.2f} | 100 % | | | | | |',
  ]

  def row(name: str, summaries: list[dict[str, Any]]) -> str:
    rate = statistics.median(s['images_per_second'] for s in summaries)
    percentiles = [
      statistics.median(s['percentiles'][i] for s in summaries)
      for i in range(3)
    ]
    refused, lost = (sum(s[k] for s in summaries) for k in ('refused', 'lost'))
    return (
      f'| {name} | {rate:.2f} | {rate / bare:.0%} | '
      + ' | '.join(f'{p:.2f} s' for p in percentiles)
      + f' | {refused} | {lost} |'
    ).replace('%', ' %')

  for number, summaries in measured['clients'].items():
    rows.append(row(str(number), summaries))
  rows.append(
    row(f'{measured["overload_rate"]:.1f} images/s', [measured['overload']])
  )
  return '\n'.join(rows)


def main() -> int:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('--checkpoint_path', default='')
  parser.add_argument('--images', default=files.shipped('photos'))
  parser.add_argument('--clients', default='1,8,64')
  parser.add_argument('--seconds', type=float, default=30)
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument('--output', default='')
  parser.add_argument('flags_of_serve', nargs='*')
  options = parser.parse_args()
  try:
    captioner = library.Captioner.load(options.checkpoint_path or None)
    names = image_files.find([options.images]).files
    if not names:
      raise ValueError(f'no images in --images={options.images}')
    arguments = list(options.flags_of_serve)
    if options.checkpoint_path:
      arguments.append(f'--checkpoint_path={options.checkpoint_path}')
    measured = measure(
      captioner,
      [image_files.read(name) for name in names],
      [int(number) for number in options.clients.split(',')],
      options.seconds,
      options.rounds,
      arguments,
    )
  except (ValueError, OSError) as error:
    print(f'error: {error}', file=sys.stderr)
    return 1
  if options.output:
    files.write_json(options.output, measured)
  print(report(measured))
  lost = measured['overload']['lost'] + sum(
    summary['lost']
    for summaries in measured['clients'].values()
    for summary in summaries
  )
  return 1 if lost else 0


if __name__ == '__main__':
  sys.exit(main())
