# SPDX-License-Identifier: Apache-2.0
"""Reads NumPy's files safely: no pickles, and no more memory than plausible."""

from collections.abc import Iterator
import contextlib
import io
import zipfile

import numpy as np

from im2txt.runtime import storage
from im2txt.runtime.files import StrPath

# The arrays of a file may take this many times its size.
_MOST_TIMES = 100


def read(path: StrPath, most_bytes: int = 1 << 26) -> dict[str, np.ndarray]:
  """Returns the arrays of an .npz file by name.

  Args:
    path: of the file.
    most_bytes: that its arrays may take, however small the file is.

  Raises:
    OSError: the file cannot be read.
    ValueError: the file is damaged. The message is one line that does not name
      the file.
  """
  with storage.open_read(path) as f:
    content = f.read()
  with _explaining():
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
      size = sum(info.file_size for info in archive.infolist())
    if size > max(_MOST_TIMES * len(content), most_bytes):
      raise ValueError(f'it claims to hold {size} bytes')
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
      result = dict(arrays)
    for name, array in result.items():
      if not isinstance(array, np.ndarray):
        raise ValueError(f'{name} is not an array')
    return result


def map_file(path: StrPath) -> np.ndarray:
  """Returns the array of an .npy file, mapped into memory; see `read`.

  A remote file cannot be mapped: all of it is read.
  """
  if storage.is_remote(path):
    with storage.open_read(path) as f:
      content = f.read()
    with _explaining():
      return np.load(io.BytesIO(content), allow_pickle=False)
  with open(path, 'rb'):  # Raises OSError if the file cannot be read.
    pass
  with _explaining():
    array = np.load(path, mmap_mode='r', allow_pickle=False)
    if not isinstance(array, np.ndarray):
      raise ValueError('it holds several arrays')
    return array


@contextlib.contextmanager
def _explaining() -> Iterator[None]:
  """Turns every error of NumPy and zipfile for a damaged file into ValueError."""
  try:
    yield
  except Exception as error:
    # There are ten kinds, from zlib's to those of Python's tokenizer.
    first, *_ = str(error).split('\n')
    raise ValueError(first or type(error).__name__) from error
