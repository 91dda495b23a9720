# SPDX-License-Identifier: Apache-2.0
"""Reads and decodes image files ahead of the model."""

import collections
from concurrent import futures
import os


def read_images(files, decode, ahead):
  """Reads and decodes files in other threads, while the caller captions.

  Args:
    files: list of names.
    decode: callable from a file's bytes to an image; raises ValueError.
    ahead: images that may wait for the caller.

  Yields:
    (name, image) in the order of `files`; an OSError or ValueError in the
    place of what cannot be read or decoded.
  """

  def read(name):
    try:
      with open(name, 'rb') as f:
        return decode(f.read())
    except (OSError, ValueError) as e:
      return e

  waiting = collections.deque()
  # No more threads than processors: large photos take much memory on the way.
  with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    for name in files:
      waiting.append((name, pool.submit(read, name)))
      if len(waiting) > ahead:
        name, image = waiting.popleft()
        yield name, image.result()
    for name, image in waiting:
      yield name, image.result()
