# SPDX-License-Identifier: Apache-2.0
"""Tests of batcher."""

import asyncio
import math
import sys
import threading

import pytest

from im2txt.serving import batcher as batcher_lib
from im2txt.serving import errors


class _Work:
  """A function of batches that waits to be let go, and what it was given.

  Attributes:
    batches: list of the lists it was called with.
    gate: `threading.Event`, set at first.
    begun: `threading.Event`, set by each call.
  """

  def __init__(self):
    self.batches = []
    self.gate = threading.Event()
    self.gate.set()
    self.begun = threading.Event()

  def __call__(self, items):
    self.batches.append(items)
    self.begun.set()
    assert self.gate.wait(timeout=60)
    return [-item for item in items]


def _run(test, work=None, batch_size=3, max_wait=0.0, capacity=100, **options):
  """Runs test(batcher, work) in an event loop."""
  work = work or _Work()

  async def main():
    batcher = batcher_lib.Batcher(
      work, batch_size, max_wait, capacity, **options
    )
    batcher.start()
    try:
      return await test(batcher, work)
    finally:
      work.gate.set()
      await batcher.close()

  return asyncio.run(main())


async def _in_thread(event):
  assert await asyncio.to_thread(event.wait, 60)


async def _started(tasks):
  """Returns once tasks wait for what is outside of the loop."""
  for _ in range(3 * len(tasks) + 3):
    await asyncio.sleep(0)


def test_what_comes_while_a_batch_runs_is_the_next_batch_in_order():
  seen = []

  async def test(batcher, work):
    work.gate.clear()
    first = asyncio.create_task(batcher.submit(1))
    await _in_thread(work.begun)
    rest = [asyncio.create_task(batcher.submit(i)) for i in range(2, 7)]
    await _started(rest)
    work.gate.set()
    assert await asyncio.gather(first, *rest) == [-1, -2, -3, -4, -5, -6]
    assert work.batches == [[1], [2, 3, 4], [5, 6]]

  _run(test, on_batch=lambda items, seconds: seen.append(items))
  assert seen == [1, 3, 2]


def test_an_idle_batcher_waits_for_a_full_batch():
  async def test(batcher, work):
    tasks = [asyncio.create_task(batcher.submit(i)) for i in (1, 2)]
    await _started(tasks)
    assert not work.batches
    tasks.append(asyncio.create_task(batcher.submit(3)))
    assert await asyncio.gather(*tasks) == [-1, -2, -3]
    assert work.batches == [[1, 2, 3]]

  _run(test, max_wait=3600)


def test_no_item_waits_longer_than_it_may():
  async def test(batcher, work):
    assert await batcher.submit(1) == -1
    assert work.batches == [[1]]

  _run(test, max_wait=0.001)


def test_what_is_too_late_or_wanted_no_more_is_given_up():
  async def test(batcher, work):
    work.gate.clear()
    first = asyncio.create_task(batcher.submit(1))
    await _in_thread(work.begun)
    late = asyncio.create_task(batcher.submit(2, deadline=0))
    gone = asyncio.create_task(batcher.submit(3))
    last = asyncio.create_task(batcher.submit(4, deadline=math.inf))
    await _started([late, gone, last])
    gone.cancel()
    work.gate.set()
    with pytest.raises(TimeoutError):
      await late
    assert await asyncio.gather(first, last) == [-1, -4]
    assert work.batches == [[1], [4]]

  _run(test)


def test_all_of_a_request_is_admitted_or_nothing():
  async def test(batcher, work):
    del work
    with batcher.admit(3):
      with batcher.admit(2):
        assert batcher.admitted == 5
        with pytest.raises(errors.RequestError) as refused:
          with batcher.admit(1):
            pass
        assert refused.value.status == 429
        assert refused.value.retry_after >= 1
      with pytest.raises(errors.RequestError):
        with batcher.admit(3):
          pass
      assert batcher.admitted == 3
    assert not batcher.admitted

  _run(test, capacity=5)


def test_no_more_is_admitted_than_there_is_time_for():
  async def test(batcher, work):
    assert await batcher.submit(1) == -1  # Tells how long one takes.
    del work
    with batcher.admit(50):
      # The first of a time may be large; nothing comes behind it.
      with pytest.raises(errors.RequestError) as refused:
        with batcher.admit(1):
          pass
      assert refused.value.status == 429
    with batcher.admit(1):
      pass

  _run(test, most_seconds=1e-9)


def test_a_failure_is_that_of_its_batch_only():
  def work(items):
    if 1 in items:
      raise KeyError('broken')
    return items[: 1 if 3 in items else None]

  work.gate = threading.Event()

  async def test(batcher, work):
    del work
    with pytest.raises(KeyError):
      await batcher.submit(1)
    with pytest.raises(ValueError, match='1 results of 2 items'):
      await asyncio.gather(batcher.submit(3), batcher.submit(4))
    assert await batcher.submit(2) == 2

  _run(test, work, max_wait=0.001)


def test_other_work_is_done_in_the_same_thread():
  async def test(batcher, work):
    del work
    thread = await batcher.run(threading.get_ident)
    assert thread == await batcher.run(threading.get_ident)
    assert thread != threading.get_ident()

  _run(test)


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
