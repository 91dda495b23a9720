# SPDX-License-Identifier: Apache-2.0
"""Files of this machine and of remote stores, by the same functions.

A path with a scheme, such as gs://bucket/images, is remote. It is opened by
TensorFlow if that knows the scheme (gs://; s3:// and hdfs:// with the package
tensorflow-io), else by Apache Beam (s3://, hdfs://, with the extras `aws` and
`hadoop` of apache-beam). All other paths are of this machine: their functions
are those of `os`.

Every error of a store is an OSError that names the path.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import errno
import functools
import glob
import io
import os
import re
import shutil
from typing import Any
from typing import BinaryIO
from typing import cast
from typing import NamedTuple
from typing import Protocol

# Paths as the standard library takes them.
StrPath = str | os.PathLike[str]

# Addresses of the web are not files.
_SCHEME = re.compile(r'(?!https?:)([A-Za-z][A-Za-z0-9+.-]+)://')
_BYTES_PER_COPY = 1 << 22


class Status(NamedTuple):
  """Size of a file in bytes, and the time of its last change in ns."""

  size: int
  mtime_ns: int


def is_remote(path: StrPath) -> bool:
  """Returns whether a path has a scheme.

  >>> [is_remote(p) for p in ('gs://bucket/train', '/data/train', 'a:b')]
  [True, False, False]
  """
  return _SCHEME.match(os.fspath(path)) is not None


def absolute(path: StrPath) -> str:
  """Returns a path that does not depend on the current directory."""
  return os.fspath(path) if is_remote(path) else os.path.abspath(path)


def exists(path: StrPath) -> bool:
  if is_remote(path):
    return _store(path).exists(os.fspath(path))
  return os.path.exists(path)


def isdir(path: StrPath) -> bool:
  if is_remote(path):
    return _store(path).isdir(os.fspath(path))
  return os.path.isdir(path)


def isfile(path: StrPath) -> bool:
  if is_remote(path):
    store = _store(path)
    return store.exists(os.fspath(path)) and not store.isdir(os.fspath(path))
  return os.path.isfile(path)


def stat(path: StrPath) -> Status:
  """Returns size and time of a file; a store may not tell the time: 0.

  Raises:
    OSError: there is no such file.
  """
  if is_remote(path):
    return _store(path).stat(os.fspath(path))
  status = os.stat(path)
  return Status(status.st_size, status.st_mtime_ns)


def getsize(path: StrPath) -> int:
  return stat(path).size


def listdir(directory: StrPath) -> list[str]:
  """Returns the names in a directory."""
  if is_remote(directory):
    # Stores list a directory with a slash at its end.
    return [
      name.rstrip('/')
      for name in _store(directory).listdir(os.fspath(directory))
    ]
  return os.listdir(directory)


def walk(
  directory: str, onerror: Callable[[OSError], object]
) -> Iterator[tuple[str, list[str], list[str]]]:
  """Yields a directory and all below it, as `os.walk` does."""
  if not is_remote(directory):
    yield from os.walk(directory, onerror=onerror)
    return
  try:
    names = listdir(directory)
  except OSError as error:
    onerror(error)
    return
  folders = [name for name in names if isdir(f'{directory}/{name}')]
  yield directory, folders, sorted(set(names) - set(folders))
  for folder in folders:
    yield from walk(f'{directory}/{folder}', onerror)


def makedirs(directory: StrPath) -> None:
  """Makes a directory and those above it, unless they are there."""
  if is_remote(directory):
    _store(directory).makedirs(os.fspath(directory))
  else:
    os.makedirs(directory, exist_ok=True)


def remove(path: StrPath) -> None:
  if is_remote(path):
    _store(path).remove(os.fspath(path))
  else:
    os.remove(path)


def remove_tree(directory: StrPath) -> None:
  """Removes a directory and all that is in it."""
  if is_remote(directory):
    _store(directory).remove_tree(os.fspath(directory))
  else:
    shutil.rmtree(directory)


def matches(pattern: str) -> list[str]:
  """Returns the paths that a pattern matches, sorted.

  A name that exists is taken literally, brackets and all. On this machine so
  are the existing directories before a pattern.
  """
  if is_remote(pattern):
    store = _store(pattern)
    if store.exists(pattern):
      return [pattern]
    return sorted(store.glob(pattern)) if glob.has_magic(pattern) else []
  if os.path.exists(pattern):
    return [pattern]
  directory = os.path.dirname(pattern)
  while directory and not os.path.isdir(directory):
    directory = os.path.dirname(directory)
  return sorted(glob.glob(glob.escape(directory) + pattern[len(directory) :]))


def starting_with(prefix: str) -> list[str]:
  """Returns the paths of the files whose paths begin so, sorted."""
  directory, start = os.path.split(prefix)
  try:
    names = listdir(directory or '.')
  except OSError:
    return []
  return sorted(
    os.path.join(directory, name) for name in names if name.startswith(start)
  )


def require_local(flag: str, directory: str) -> None:
  """Raises ValueError if a directory is remote.

  Args:
    flag: the flag that gave it.
    directory: the directory.
  """
  if is_remote(directory):
    raise ValueError(
      f'--{flag}={directory} must be a directory of this machine: give one, '
      'and copy it to the store afterwards'
    )


def require_directory_of(flag: str, path: str) -> None:
  """Raises ValueError if the directory of a file to write does not exist.

  Args:
    flag: the flag that gave the path.
    path: of the file.
  """
  directory = os.path.dirname(path)
  if directory and not os.path.isdir(directory):
    raise ValueError(
      f'--{flag}={path}: there is no directory {directory}: make it first'
    )


def open_read(path: StrPath, buffering: int = -1) -> BinaryIO:
  """Opens a file to read bytes.

  Args:
    path: path of the file.
    buffering: as in `open`, for a file of this machine.

  Raises:
    OSError: the file cannot be read.
  """
  if is_remote(path):
    with _naming(path):
      return _store(path).open(os.fspath(path))
  return open(path, 'rb', buffering=buffering)


def open_text(
  path: StrPath, encoding: str = 'utf-8', newline: str | None = None
) -> io.TextIOWrapper:
  """Opens a file to read text; encoding and newline as in `open`."""
  return io.TextIOWrapper(open_read(path), encoding=encoding, newline=newline)


def upload(source: StrPath, target: str, temporary: str) -> None:
  """Copies a file of this machine to a store, whole or not at all.

  In a store of objects (gs://, s3://) an object appears when its last byte is
  written. In one of files (hdfs://) a name appears by a rename. Writing under a
  temporary name and renaming is right for both.

  Args:
    source: path of the file.
    target: remote path.
    temporary: remote path in the same directory.

  Raises:
    OSError: the store refused.
  """
  store = _store(target)
  with open(source, 'rb') as f:
    with _naming(target), store.create(temporary) as copy:
      shutil.copyfileobj(f, copy, _BYTES_PER_COPY)
  store.rename(temporary, target)


class _Store(Protocol):
  """A way to remote files. Every method raises OSError."""

  def exists(self, path: str) -> bool: ...
  def isdir(self, path: str) -> bool: ...
  def stat(self, path: str) -> Status: ...
  def listdir(self, path: str) -> list[str]: ...
  def makedirs(self, path: str) -> None: ...
  def remove(self, path: str) -> None: ...
  def remove_tree(self, path: str) -> None: ...
  def rename(self, source: str, target: str) -> None: ...
  def glob(self, pattern: str) -> list[str]: ...
  def open(self, path: str) -> BinaryIO: ...
  def create(self, path: str) -> BinaryIO: ...


def _store(path: StrPath) -> _Store:
  """Returns the way to a remote path.

  Raises:
    OSError: neither TensorFlow nor Beam knows its scheme.
  """
  match = _SCHEME.match(os.fspath(path))
  assert match
  if match[1] in _tensorflow_schemes():
    return _TensorFlowStore()
  if _is_known_to_beam(os.fspath(path)):
    return _BeamStore()
  raise OSError(
    errno.EPROTONOSUPPORT,
    f'nothing here opens {match[1]}://: install tensorflow-io, or apache-beam '
    'with the extra of that store (see docs/beam.md)',
    os.fspath(path),
  )


@functools.cache
def _tensorflow_schemes() -> frozenset[str]:
  import tensorflow as tf

  # The package adds s3://, hdfs:// and others when it is imported.
  with contextlib.suppress(ImportError):
    import tensorflow_io  # noqa: F401
  return frozenset(tf.io.gfile.get_registered_schemes())


def _is_known_to_beam(path: str) -> bool:
  try:
    from apache_beam.io import filesystems

    filesystems.FileSystems.get_filesystem(path)
  except (ImportError, ValueError):
    return False
  return True


@contextlib.contextmanager
def _naming(path: StrPath) -> Iterator[None]:
  """Turns the errors of TensorFlow and Beam into OSError with the path.

  An OSError gets the path if it has none. Python's other errors are faults of
  the program and stay as they are.
  """
  try:
    yield
  except Exception as error:
    if isinstance(error, OSError):
      if error.errno is None or error.filename is not None:
        raise
      raise OSError(error.errno, error.strerror, os.fspath(path)) from error
    if type(error).__module__ == 'builtins':
      raise
    number, reason = _reason(error)
    raise OSError(number, reason, os.fspath(path)) from error


def _reason(error: Exception) -> tuple[int, str]:
  """Returns (errno, text) of an error of TensorFlow or Beam."""
  kind = type(error).__name__
  for name, number in (
    ('NotFound', errno.ENOENT),
    ('PermissionDenied', errno.EACCES),
    ('ResourceExhausted', errno.ENOSPC),
  ):
    if kind.startswith(name):
      return number, os.strerror(number)
  # Messages of Beam have a part for each of several paths.
  text = str(error).split('\n')[0].strip()
  return errno.EIO, text or kind


def _guarded(cls: type) -> type:
  """Makes every method of a class raise OSError with its first argument."""

  def guard(method: Any) -> Any:
    @functools.wraps(method)
    def call(self: object, path: str, *args: Any) -> Any:
      with _naming(path):
        return method(self, path, *args)

    return call

  for name, value in list(vars(cls).items()):
    if not name.startswith('_') and callable(value):
      setattr(cls, name, guard(value))
  return cls


class _TensorFlowFile(io.RawIOBase):
  """A file of TensorFlow as Python's own, so that its errors are OSError."""

  def __init__(self, path: str, mode: str) -> None:
    import tensorflow as tf

    self._path = path
    self._mode = mode
    self._file = tf.io.gfile.GFile(path, mode)
    if mode == 'rb':
      # GFile opens when it first reads.
      with _naming(path):
        self._size = self._file.size()

  def readable(self) -> bool:
    return self._mode == 'rb'

  def writable(self) -> bool:
    return self._mode == 'wb'

  def seekable(self) -> bool:
    return self._mode == 'rb'

  def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
    with _naming(self._path):
      self._file.seek(offset, whence)
      return self._file.tell()

  def tell(self) -> int:
    with _naming(self._path):
      return self._file.tell()

  def readinto(self, buffer: Any) -> int:
    with _naming(self._path):
      data = self._file.read(len(buffer))
    buffer[: len(data)] = data
    return len(data)

  def readall(self) -> bytes:
    with _naming(self._path):
      return self._file.read()

  def write(self, data: Any) -> int:
    with _naming(self._path):
      self._file.write(bytes(data))
    return len(data)

  def close(self) -> None:
    if not self.closed:
      try:
        with _naming(self._path):
          self._file.close()
      finally:
        super().close()


@_guarded
class _TensorFlowStore:
  """Remote files by `tf.io.gfile`."""

  def __init__(self) -> None:
    import tensorflow as tf

    self._gfile = tf.io.gfile

  def exists(self, path: str) -> bool:
    return self._gfile.exists(path)

  def isdir(self, path: str) -> bool:
    return self._gfile.isdir(path)

  def stat(self, path: str) -> Status:
    found = self._gfile.stat(path)
    return Status(found.length, found.mtime_nsec)

  def listdir(self, path: str) -> list[str]:
    return self._gfile.listdir(path)

  def makedirs(self, path: str) -> None:
    self._gfile.makedirs(path)

  def remove(self, path: str) -> None:
    self._gfile.remove(path)

  def remove_tree(self, path: str) -> None:
    self._gfile.rmtree(path)

  def rename(self, source: str, target: str) -> None:
    self._gfile.rename(source, target, overwrite=True)

  def glob(self, pattern: str) -> list[str]:
    return self._gfile.glob(pattern)

  def open(self, path: str) -> BinaryIO:
    return cast(BinaryIO, io.BufferedReader(_TensorFlowFile(path, 'rb')))

  def create(self, path: str) -> BinaryIO:
    return cast(BinaryIO, _TensorFlowFile(path, 'wb'))


@_guarded
class _BeamStore:
  """Remote files by Apache Beam's file systems."""

  def __init__(self) -> None:
    from apache_beam.io import filesystem
    from apache_beam.io import filesystems

    self._systems = filesystems.FileSystems
    # By default Beam decompresses what is named .gz.
    self._plain = filesystem.CompressionTypes.UNCOMPRESSED

  def _files(self, pattern: str) -> list[Any]:
    (found,) = self._systems.match([pattern])
    return found.metadata_list

  def exists(self, path: str) -> bool:
    return self._systems.exists(path) or self.isdir(path)

  def isdir(self, path: str) -> bool:
    # A store of objects has no directories, only names with slashes.
    (found,) = self._systems.match([path.rstrip('/') + '/**'], [1])
    return bool(found.metadata_list)

  def stat(self, path: str) -> Status:
    found = self._files(path)
    if not found:
      raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return Status(
      found[0].size_in_bytes,
      int((found[0].last_updated_in_seconds or 0) * 10**9),
    )

  def listdir(self, path: str) -> list[str]:
    start = path.rstrip('/') + '/'
    return sorted(
      {
        found.path[len(start) :].split('/')[0]
        for found in self._files(start + '**')
      }
    )

  def makedirs(self, path: str) -> None:
    if not self.isdir(path):
      # Beam refuses a directory that exists, empty or not.
      with contextlib.suppress(OSError):
        self._systems.mkdirs(path)

  def remove(self, path: str) -> None:
    self._systems.delete([path])

  def remove_tree(self, path: str) -> None:
    # Beam's delete takes directories too.
    self._systems.delete([path.rstrip('/') + '/'])

  def rename(self, source: str, target: str) -> None:
    if self._systems.exists(target):
      self._systems.delete([target])
    self._systems.rename([source], [target])

  def glob(self, pattern: str) -> list[str]:
    return [found.path for found in self._files(pattern)]

  def open(self, path: str) -> BinaryIO:
    return self._systems.open(path, compression_type=self._plain)

  def create(self, path: str) -> BinaryIO:
    return self._systems.create(path, compression_type=self._plain)
