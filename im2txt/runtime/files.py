# SPDX-License-Identifier: Apache-2.0
"""Atomic file writes: temporary name, sync, then rename.

Paths may be remote, see `storage`.

A file gets its name only when its content is on the disk, and the file that it
replaces is there until then. Without that, a power cut can leave an empty file
under the new name, because a file system writes names and contents
independently.
"""

from collections.abc import Iterator
import contextlib
import ctypes
import dataclasses
import errno
import hashlib
import importlib.resources
import json
import os
import tempfile
from typing import Any
from typing import BinaryIO
from typing import cast
from typing import get_origin
from typing import NamedTuple
from typing import TYPE_CHECKING
from typing import TypeVar

import google_crc32c

from im2txt.runtime import storage

if TYPE_CHECKING:
  from _typeshed import DataclassInstance
  from _typeshed import ReadableBuffer
  from matplotlib import figure as matplotlib_figure

  _Dataclass = TypeVar('_Dataclass', bound=DataclassInstance)

StrPath = storage.StrPath

_BYTES_PER_READ = 1 << 22

# Errors of file systems that cannot sync a directory, such as some network
# file systems.
_NO_SYNC = (errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.ENOSYS)


def _checkout() -> str | None:
  """Returns the root of the checkout with this file; None in a wheel."""
  # Under Bazel this file is a link in the runfiles. The project's `data/` is
  # beside the file that the link points to.
  root = os.path.dirname(
    os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
  )
  return root if os.path.exists(os.path.join(root, 'pyproject.toml')) else None


def shipped(name: str) -> str:
  """Returns the path of a file or directory that the project ships.

  Args:
    name: path below `data/` of a checkout; a wheel has it in `im2txt/assets/`.
  """
  root = _checkout()
  if root:
    return os.path.join(root, 'data', name)
  return str(importlib.resources.files('im2txt') / 'assets' / name)


def data_directory(name: str) -> str:
  """Returns the default directory for data that a program downloads or makes.

  Args:
    name: name of the directory. It is in `data/` of a checkout, or in the
      user's home directory if im2txt is installed from a wheel.
  """
  root = _checkout()
  return os.path.join(
    os.path.join(root, 'data') if root else os.path.expanduser('~'), name
  )


def pretrained_directory() -> str:
  """Returns where the shipped model is joined with its encoder.

  `data/pretrained` of a checkout, `~/im2txt/pretrained` of a wheel.
  """
  root = _checkout()
  return (
    os.path.join(root, 'data', 'pretrained')
    if root
    else os.path.join(os.path.expanduser('~'), 'im2txt', 'pretrained')
  )


def split_names(names: str) -> list[str]:
  """Splits names at commas, except at those within the name of a file.

  Args:
    names: names or patterns separated by commas.
  """
  if storage.exists(names):
    return [names]
  parts = names.split(',')
  result = []
  while parts:
    # Names with more commas are not tried.
    length = next(
      (
        n
        for n in range(1, min(len(parts), 10) + 1)
        if storage.matches(','.join(parts[:n]))
      ),
      1,
    )
    result.append(','.join(parts[:length]))
    del parts[:length]
  return list(filter(None, result))


class State(NamedTuple):
  """What tells whether a file was changed, without reading it.

  Attributes:
    size: in bytes.
    mtime_ns: time of the last change, in ns.
  """

  size: int
  mtime_ns: int


def state(path: StrPath) -> State:
  """Returns the state of a file.

  Raises:
    OSError: there is no such file.
  """
  return State(*storage.stat(path))


def sha256(path: StrPath) -> str:
  """Returns the SHA-256 of a file, 64 hexadecimal digits."""
  with storage.open_read(path) as f:
    return hashlib.file_digest(cast(Any, f), 'sha256').hexdigest()


def sync(path: StrPath) -> None:
  """Waits until a file's content, or the names in a directory, are on disk.

  Args:
    path: a file or a directory. A remote one is durable already.

  Raises:
    OSError: there is no such file, or the disk is full or failed.
  """
  if storage.is_remote(path):
    return
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  except OSError as error:
    if not (os.path.isdir(path) and error.errno in _NO_SYNC):
      raise OSError(error.errno, error.strerror, str(path)) from error
  finally:
    os.close(descriptor)


def sync_tree(directory: StrPath) -> None:
  """Waits until all files below a directory are on disk, in one system call."""
  libc = ctypes.CDLL(None, use_errno=True)
  if not hasattr(libc, 'syncfs'):
    os.sync()
    return
  descriptor = os.open(directory, os.O_RDONLY)
  try:
    if libc.syncfs(descriptor):
      number = ctypes.get_errno()
      raise OSError(number, os.strerror(number), str(directory))
  finally:
    os.close(descriptor)


def rename(*pairs: tuple[StrPath, StrPath]) -> None:
  """Renames files durably, in this order.

  A file has its new name only if those before it have theirs.

  Args:
    *pairs: the current and the new path of a file or a directory. All new paths
      are in one directory.
  """
  for source, _ in pairs:
    sync(source)
  for source, target in pairs:
    os.replace(source, target)
  sync(os.path.dirname(pairs[-1][1]) or '.')


def unfinished(path: StrPath) -> str:
  """Returns the temporary name of `path`, in the same directory.

  It is hidden, so that no pattern of files matches it.
  """
  directory, name = os.path.split(path)
  return os.path.join(directory, f'.{name}.tmp')


@contextlib.contextmanager
def naming(path: StrPath) -> Iterator[None]:
  """Adds the name of a file to errors of the context that name none.

  A write that fails, for want of space for example, knows its file only by its
  number.
  """
  try:
    yield
  except OSError as error:
    if error.errno is None or error.filename is not None:
      raise
    raise OSError(error.errno, error.strerror, str(path)) from error


@contextlib.contextmanager
def replacing(path: StrPath) -> Iterator[str]:
  """Yields a temporary name; the file written there then becomes `path`.

  If the block fails, `path` stays as it was and the temporary file is removed.
  A remote file is written on this machine first, then copied.

  Args:
    path: the file to make or replace.

  Yields:
    The temporary name, always of this machine.

  Raises:
    OSError: writing failed. It names `path` unless the error of the block names
      another file.
  """
  remote = storage.is_remote(path)
  with contextlib.ExitStack() as stack:
    if remote:
      directory = stack.enter_context(tempfile.TemporaryDirectory())
      temporary = os.path.join(directory, os.path.basename(path))
    else:
      temporary = unfinished(path)
    with _becoming(path, temporary):
      yield temporary
      if remote:
        storage.upload(temporary, os.fspath(path), unfinished(path))
      else:
        rename((temporary, path))


@contextlib.contextmanager
def _becoming(path: StrPath, temporary: str) -> Iterator[None]:
  """Removes a temporary file at the end; errors name `path` in its place."""
  try:
    yield
  except OSError as error:
    # The user knows the file by its final name.
    if error.errno is None or error.filename not in (None, temporary):
      raise
    raise OSError(error.errno, error.strerror, str(path)) from error
  finally:
    with contextlib.suppress(FileNotFoundError):
      os.remove(temporary)


class Output:
  """A file to write that keeps the checksum of its content.

  It has only the methods that NumPy needs to write an array piece by piece.
  NumPy writes into real files in a way that hides why a write failed.

  Args:
    file: a file open for binary writing.

  Attributes:
    checksum: the CRC-32C so far.
  """

  read = None  # NumPy takes an object with this attribute for a file.

  def __init__(self, file: BinaryIO) -> None:
    self._file = file
    self.checksum: int = 0

  def write(self, data: 'ReadableBuffer') -> int:
    self.checksum = google_crc32c.extend(self.checksum, bytes(data))
    return self._file.write(data)

  def flush(self) -> None:
    self._file.flush()


@contextlib.contextmanager
def writing(path: StrPath) -> Iterator[Output]:
  """Yields an `Output` whose content becomes `path`; see `replacing`."""
  with replacing(path) as temporary, open(temporary, 'wb') as f:
    yield Output(f)


def checksum(path: StrPath) -> int:
  """Returns the CRC-32C of a file."""
  value = 0
  with storage.open_read(path) as f:
    while data := f.read(_BYTES_PER_READ):
      value = google_crc32c.extend(value, data)
  return value


def masked(checksum: int) -> bytes:
  """Returns a CRC-32C as TensorFlow writes it into files, 4 bytes.

  It is masked because the CRC of data that contain a CRC is a poor checksum.
  """
  rotated = checksum >> 15 | checksum << 17 & 0xFFFFFFFF
  return (rotated + 0xA282EAD8 & 0xFFFFFFFF).to_bytes(4, 'little')


def write_json(path: StrPath, content: object, indent: int | None = 1) -> None:
  """Writes a value as JSON, `indent` as in `json.dump`."""
  with replacing(path) as temporary:
    with open(temporary, 'w', encoding='utf-8') as f:
      json.dump(content, f, ensure_ascii=False, indent=indent)
      f.write('\n')


def write_figure(
  path: StrPath, figure: 'matplotlib_figure.Figure', **options: Any
) -> None:
  """Writes a figure of matplotlib as PNG, `options` as of its `savefig`."""
  with replacing(path) as temporary:
    figure.savefig(temporary, format='png', dpi=100, **options)


def _refuse_constant(name: str) -> object:
  raise ValueError(f'{name} is not a JSON number')


def read_json(path: StrPath) -> Any:
  """Returns the value in a JSON file.

  Raises:
    OSError: the file cannot be read.
    ValueError: the file is not JSON. NaN and infinity, which Python would
      accept, are not JSON. The message does not name the file.
  """
  try:
    # Editors on Windows put a byte order mark at the start.
    with storage.open_text(path, 'utf-8-sig') as f:
      return json.load(f, parse_constant=_refuse_constant)
  except RecursionError as error:
    raise ValueError('nested too deeply') from error


def read_fields(path: StrPath, kind: 'type[_Dataclass]') -> '_Dataclass':
  """Returns the dataclass whose fields are in a JSON file.

  Raises:
    OSError: the file cannot be read.
    ValueError: see `to_fields`; the message does not name the file.
  """
  return to_fields(read_json(path), kind)


def to_fields(content: object, kind: 'type[_Dataclass]') -> '_Dataclass':
  """Returns the dataclass whose fields are the content of a JSON file.

  Args:
    content: the value that `read_json` returns, or a part of it.
    kind: a dataclass with fields of simple types.

  Raises:
    ValueError: the content has other fields or types.
  """
  if not isinstance(content, dict):
    raise ValueError('not a JSON object')
  try:
    value = kind(**content)
  except TypeError as error:
    raise ValueError(str(error).rpartition('__init__() ')[2]) from error
  for field in dataclasses.fields(kind):
    # The values within a dict or a list are not checked.
    wanted = cast(type, get_origin(field.type) or field.type)
    if type(getattr(value, field.name)) is not wanted:
      raise ValueError(f'{field.name} is not of type {wanted.__name__}')
  return value
