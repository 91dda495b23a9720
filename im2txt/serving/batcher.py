# SPDX-License-Identifier: Apache-2.0
"""Items of many clients, worked on in batches, in the order they came.

TensorFlow's `BatchFunction` batches too, but inside a graph: each item waits in
a thread of its own, has no deadline, cannot leave the queue, and nobody can ask
how full it is. Here an item is a future of the event loop, which costs nothing
while it waits.
"""

import asyncio
import collections
from collections.abc import Callable
from collections.abc import Iterator
from concurrent import futures
import contextlib
import dataclasses
import math
import time
from typing import Any

from im2txt.serving import errors

# Weight of the newest batch in the moving average of seconds per item.
_WEIGHT = 0.2


@dataclasses.dataclass(frozen=True)
class _Entry:
  item: Any
  result: asyncio.Future
  arrived: float
  deadline: float


class Batcher:
  """Collects items into batches; to be used in one event loop.

  Args:
    function: callable from a list of items to a list of results; it is called
      in one thread, never twice at a time.
    batch_size: items of a batch at most.
    max_wait: seconds that an item waits for others while `function` is idle.
    capacity: items admitted at a time, see `admit`.
    most_seconds: nothing more is admitted while the admitted items would take
      longer than this, at the latest speed.
    on_batch: called with the number of items and the seconds of each batch.
  """

  def __init__(
    self,
    function: Callable[[list], list],
    batch_size: int,
    max_wait: float,
    capacity: int,
    most_seconds: float = math.inf,
    on_batch: Callable[[int, float], None] = lambda items, seconds: None,
  ) -> None:
    self._function = function
    self._batch_size = batch_size
    self._max_wait = max_wait
    self._capacity = capacity
    self._most_seconds = most_seconds
    self._on_batch = on_batch
    self._thread = futures.ThreadPoolExecutor(1, thread_name_prefix='model')
    self._waiting: collections.deque[_Entry] = collections.deque()
    self._changed = asyncio.Event()
    self._admitted = 0
    self._seconds_per_item = 0.0
    self._task: asyncio.Task | None = None

  @property
  def admitted(self) -> int:
    """Items admitted that have no result yet."""
    return self._admitted

  def start(self) -> None:
    """Starts working, in the running event loop."""
    self._task = asyncio.create_task(self._work())

  async def close(self) -> None:
    """Stops working; items that wait are given up."""
    if self._task:
      self._task.cancel()
      with contextlib.suppress(asyncio.CancelledError):
        await self._task
    for entry in self._waiting:
      entry.result.cancel()
    self._thread.shutdown(wait=True, cancel_futures=True)

  @contextlib.contextmanager
  def admit(self, items: int) -> Iterator[None]:
    """Holds room for items, within a context: all of them or none.

    Raises:
      errors.RequestError: there is not so much room; status 429.
    """
    wait = self._admitted * self._seconds_per_item
    if self._admitted + items > self._capacity or wait > self._most_seconds:
      raise errors.RequestError(
        429,
        f'{self._admitted} images are waiting: try again later',
        max(1, math.ceil(wait)),
      )
    self._admitted += items
    try:
      yield
    finally:
      self._admitted -= items

  async def submit(self, item: Any, deadline: float = math.inf) -> Any:
    """Returns the result of an item.

    Args:
      item: what `function` gets in a list.
      deadline: of `loop.time()`; an item that is not in a batch by then is
        given up.

    Raises:
      TimeoutError: it was given up.
      Exception: whatever `function` raised for its batch.
    """
    loop = asyncio.get_running_loop()
    entry = _Entry(item, loop.create_future(), loop.time(), deadline)
    self._waiting.append(entry)
    self._changed.set()
    return await entry.result

  async def run(self, function: Callable[[], Any]) -> Any:
    """Returns function(), called in the thread of the batches, between two."""
    return await asyncio.get_running_loop().run_in_executor(
      self._thread, function
    )

  def _live(self) -> int:
    """Gives up what is too late; returns how many items wait."""
    now = asyncio.get_running_loop().time()
    kept = collections.deque[_Entry]()
    for entry in self._waiting:
      if entry.result.done():  # Cancelled: nobody waits for it any more.
        continue
      if entry.deadline <= now:
        entry.result.set_exception(TimeoutError())
        continue
      kept.append(entry)
    self._waiting = kept
    return len(kept)

  async def _batch(self) -> list[_Entry]:
    """Returns the entries of the next batch, once there is one."""
    loop = asyncio.get_running_loop()
    while True:
      self._changed.clear()
      live = self._live()
      until = self._waiting[0].arrived + self._max_wait if live else math.inf
      if live >= self._batch_size or until <= loop.time():
        return [
          self._waiting.popleft() for _ in range(min(live, self._batch_size))
        ]
      with contextlib.suppress(TimeoutError):
        async with asyncio.timeout_at(until if live else None):
          await self._changed.wait()

  async def _work(self) -> None:
    while True:
      entries = await self._batch()
      start = time.perf_counter()
      try:
        results = await self.run(
          lambda items=[e.item for e in entries]: self._function(items)  # type: ignore[misc]
        )
        if len(results) != len(entries):
          raise ValueError(f'{len(results)} results of {len(entries)} items')
      except asyncio.CancelledError:
        for entry in entries:
          entry.result.cancel()
        raise
      except Exception as error:  # Of this batch; the next may be well.
        for entry in entries:
          if not entry.result.done():
            entry.result.set_exception(error)
        continue
      seconds = time.perf_counter() - start
      self._on_batch(len(entries), seconds)
      mean, new = self._seconds_per_item, seconds / len(entries)
      self._seconds_per_item = mean + _WEIGHT * (new - mean) if mean else new
      for entry, result in zip(entries, results):
        if not entry.result.done():
          entry.result.set_result(result)
