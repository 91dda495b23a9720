# SPDX-License-Identifier: Apache-2.0
"""Work that is started before its result is needed."""

import collections


def ahead(start, arguments, depth):
  """Yields start(*args) in order, after `depth` more have been started.

  Args:
    start: callable that starts some work and returns what to wait for.
    arguments: iterable of tuples.
    depth: int.
  """
  started = collections.deque()
  for args in arguments:
    started.append(start(*args))
    if len(started) > depth:
      yield started.popleft()
  yield from started
