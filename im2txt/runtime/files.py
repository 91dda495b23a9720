# SPDX-License-Identifier: Apache-2.0
"""Files that last: whole or not there, also after a power cut.

A file gets its name once its content is on the disk, and what it replaces is
there until then. Without that, a power cut can leave an empty file under the
new name: to a file system the name and the content are two things, which it
writes when it likes.
"""

import contextlib
import ctypes
import dataclasses
import errno
import glob
import hashlib
import importlib.resources
import json
import os

import google_crc32c

_BYTES_PER_READ = 1 << 22

# What file systems say that cannot sync a directory, such as some of networks.
_NO_SYNC = (errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.ENOSYS)


def _checkout():
  """Returns the root of the checkout that this file is of; None in a wheel."""
  # Under Bazel this file is a link in the runfiles; what the project ships in
  # `data/` lies beside what it points to.
  root = os.path.dirname(
    os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
  )
  return root if os.path.exists(os.path.join(root, 'pyproject.toml')) else None


def shipped(name):
  """Returns the path of what the project ships, a str.

  Args:
    name: below `data/` of a checkout, which is `im2txt/assets/` of a wheel.
  """
  root = _checkout()
  if root:
    return os.path.join(root, 'data', name)
  return str(importlib.resources.files('im2txt') / 'assets' / name)


def data_directory(name):
  """Returns the default place of data that a program gets, a str.

  Args:
    name: of a directory in `data/` of a checkout, which is in the user's home
      directory where im2txt is installed from a wheel.
  """
  root = _checkout()
  return os.path.join(
    os.path.join(root, 'data') if root else os.path.expanduser('~'), name
  )


def matches(name):
  """Returns the paths that a name or a pattern stands for, sorted.

  What exists is taken literally, brackets and all: a name, and the directories
  before a pattern.
  """
  if os.path.exists(name):
    return [name]
  directory = os.path.dirname(name)
  while directory and not os.path.isdir(directory):
    directory = os.path.dirname(directory)
  return sorted(glob.glob(glob.escape(directory) + name[len(directory) :]))


def split_names(names):
  """Splits names at commas, except those of files that have commas.

  Args:
    names: str, names or patterns separated by commas.

  Returns:
    list of str.
  """
  if os.path.exists(names):
    return [names]
  parts = names.split(',')
  result = []
  while parts:
    # A name with more commas is not looked for.
    length = next(
      (
        n
        for n in range(1, min(len(parts), 10) + 1)
        if matches(','.join(parts[:n]))
      ),
      1,
    )
    result.append(','.join(parts[:length]))
    del parts[:length]
  return list(filter(None, result))


def sha256(path):
  """Returns the SHA-256 of a file, 64 hexadecimal digits."""
  with open(path, 'rb') as f:
    return hashlib.file_digest(f, 'sha256').hexdigest()


def sync(path):
  """Returns once a file's content, or the names in a directory, are on disk.

  Args:
    path: str, of a file or a directory.

  Raises:
    OSError: it is not there, or the disk is full or failed.
  """
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  except OSError as error:
    if not (os.path.isdir(path) and error.errno in _NO_SYNC):
      raise OSError(error.errno, error.strerror, path) from error
  finally:
    os.close(descriptor)


def sync_tree(directory):
  """Returns once all below a directory is on disk: at once, not file by file."""
  libc = ctypes.CDLL(None, use_errno=True)
  if not hasattr(libc, 'syncfs'):
    os.sync()
    return
  descriptor = os.open(directory, os.O_RDONLY)
  try:
    if libc.syncfs(descriptor):
      number = ctypes.get_errno()
      raise OSError(number, os.strerror(number), directory)
  finally:
    os.close(descriptor)


def rename(*pairs):
  """Gives files their names for good, in this order.

  A later one has its name only if those before it have theirs.

  Args:
    *pairs: (str, str), the path of a file or a directory and that which it is
      to have, all in one directory.
  """
  for source, _ in pairs:
    sync(source)
  for source, target in pairs:
    os.replace(source, target)
  sync(os.path.dirname(pairs[-1][1]) or '.')


def unfinished(path):
  """Returns the name, in the same directory, of what is to become `path`.

  It is hidden, so that no pattern of files matches it.
  """
  directory, name = os.path.split(path)
  return os.path.join(directory, f'.{name}.tmp')


@contextlib.contextmanager
def naming(path):
  """Gives the errors of its context the name of a file, if they have none.

  What fails in the midst of a file, for want of space, say, knows it by number.
  """
  try:
    yield
  except OSError as error:
    if error.errno is None or error.filename is not None:
      raise
    raise OSError(error.errno, error.strerror, path) from error


@contextlib.contextmanager
def replacing(path):
  """Yields another name in the same directory; what is there becomes `path`.

  If the block fails, `path` stays as it was and what was written goes.

  Args:
    path: str.

  Raises:
    OSError: it names `path`, if what failed in the block names no other.
  """
  temporary = unfinished(path)
  try:
    yield temporary
    rename((temporary, path))
  except OSError as error:
    # The file is known by the name that it is to have.
    if error.errno is None or error.filename not in (None, temporary):
      raise
    raise OSError(error.errno, error.strerror, path) from error
  finally:
    with contextlib.suppress(FileNotFoundError):
      os.remove(temporary)


class Output:
  """A file to write, which knows the checksum of what was written.

  It has no more methods than NumPy needs to write an array piece by piece:
  into files of the system NumPy writes in a way that hides why that failed.

  Args:
    file: a file open for binary writing.

  Attributes:
    checksum: int, the CRC-32C so far.
  """

  read = None  # NumPy takes for a file what has this.

  def __init__(self, file):
    self._file = file
    self.checksum = 0

  def write(self, data):
    self.checksum = google_crc32c.extend(self.checksum, bytes(data))
    return self._file.write(data)

  def flush(self):
    self._file.flush()


@contextlib.contextmanager
def writing(path):
  """Yields an `Output`; what is written becomes `path`, see `replacing`."""
  with replacing(path) as temporary, open(temporary, 'wb') as f:
    yield Output(f)


def checksum(path):
  """Returns the CRC-32C of a file, an int."""
  value = 0
  with open(path, 'rb') as f:
    while data := f.read(_BYTES_PER_READ):
      value = google_crc32c.extend(value, data)
  return value


def masked(checksum):
  """Returns a CRC-32C as TensorFlow writes it into files, 4 bytes.

  It is changed, as one of data with a CRC in it would not be a good one.

  Args:
    checksum: int.
  """
  rotated = checksum >> 15 | checksum << 17 & 0xFFFFFFFF
  return (rotated + 0xA282EAD8 & 0xFFFFFFFF).to_bytes(4, 'little')


def write_json(path, content, indent=1):
  """Writes a value as JSON, `indent` as in `json.dump`."""
  with replacing(path) as temporary:
    with open(temporary, 'w', encoding='utf-8') as f:
      json.dump(content, f, ensure_ascii=False, indent=indent)
      f.write('\n')


def _refuse_constant(name):
  raise ValueError(f'{name} is no number of JSON')


def read_json(path):
  """Returns the value in a JSON file.

  Raises:
    OSError: it cannot be read.
    ValueError: it is no JSON, such as where it has NaN or infinity, which is
      Python's own; the message does not name it.
  """
  try:
    # Editors on Windows put a mark at the start.
    with open(path, encoding='utf-8-sig') as f:
      return json.load(f, parse_constant=_refuse_constant)
  except RecursionError as error:
    raise ValueError('nested too deeply') from error


def read_fields(path, kind):
  """Returns the dataclass whose fields a JSON file has.

  Raises:
    OSError: it cannot be read.
    ValueError: see `to_fields`; the message does not name the file.
  """
  return to_fields(read_json(path), kind)


def to_fields(content, kind):
  """Returns the dataclass whose fields are the content of a JSON file.

  Args:
    content: what `read_json` returns, or a part of it.
    kind: a dataclass with fields of simple types.

  Raises:
    ValueError: it has other fields or types.
  """
  if not isinstance(content, dict):
    raise ValueError('not a JSON object')
  try:
    value = kind(**content)
  except TypeError as error:
    raise ValueError(str(error).rpartition('__init__() ')[2]) from error
  for field in dataclasses.fields(kind):
    if type(getattr(value, field.name)) is not field.type:
      raise ValueError(f'{field.name} is no {field.type.__name__}')
  return value
