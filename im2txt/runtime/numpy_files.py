# SPDX-License-Identifier: Apache-2.0
"""Reads NumPy's files: arrays, and never a pickle or more than there can be."""

import contextlib
import io
import zipfile

import numpy as np

# Of what a file's arrays may take: this many times its size, or this much.
_MOST_TIMES, _MOST_BYTES = 100, 1 << 26


def read(path):
  """Returns the arrays of an .npz file, a dict from name to array.

  Raises:
    OSError: it cannot be read.
    ValueError: it is damaged; one line that does not name it.
  """
  with open(path, 'rb') as f:
    content = f.read()
  with _explaining():
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
      size = sum(info.file_size for info in archive.infolist())
    if size > max(_MOST_TIMES * len(content), _MOST_BYTES):
      raise ValueError(f'it claims to hold {size} bytes')
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
      result = dict(arrays)
    for name, array in result.items():
      if not isinstance(array, np.ndarray):
        raise ValueError(f'{name} is no array')
    return result


def map_file(path):
  """Returns the array of an .npy file, mapped into memory; see `read`."""
  with open(path, 'rb'):  # Can it be read?
    pass
  with _explaining():
    array = np.load(path, mmap_mode='r', allow_pickle=False)
    if not isinstance(array, np.ndarray):
      raise ValueError('it holds several arrays')
    return array


@contextlib.contextmanager
def _explaining():
  """Makes what NumPy and zipfile raise for damaged files a ValueError."""
  try:
    yield
  except Exception as error:
    # That is of ten kinds, from zlib's to the tokenizer's of Python.
    first, *_ = str(error).split('\n')
    raise ValueError(first or type(error).__name__) from error
