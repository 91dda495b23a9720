# SPDX-License-Identifier: Apache-2.0
"""Work that is started before its result is needed."""

import collections
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from typing import Any
from typing import TypeVar

_Started = TypeVar('_Started')


def ahead(
  start: Callable[..., _Started],
  arguments: Iterable[tuple[Any, ...]],
  depth: int,
) -> Iterator[_Started]:
  """Yields start(*args) in order, after `depth` more have been started.

  Args:
    start: starts some work and returns a handle to wait for, such as a future.
    arguments: the arguments of each call.
    depth: how many calls to start before the first result is yielded.
  """
  started: collections.deque[_Started] = collections.deque()
  for args in arguments:
    started.append(start(*args))
    if len(started) > depth:
      yield started.popleft()
  yield from started
