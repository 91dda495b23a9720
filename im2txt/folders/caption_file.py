# SPDX-License-Identifier: Apache-2.0
"""A file of captions that grows, and that a later run goes on with.

It has JSON lines or CSV, by its suffix. The lines of an image or a video are
appended by one write, so a process that is killed leaves whole lines, and at
most the beginning of the next ones; the next run cuts these off. Each line has
the size and the time of the image and a fingerprint of the model. An image is
done if its last line has all three as they are now.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import csv
import io
import json
import os
import time
from typing import Any
from typing import BinaryIO
from typing import NamedTuple
from typing import Protocol
from typing import Self

from absl import logging

from im2txt.runtime import files
from im2txt.runtime import locks

# Seconds of work that a power cut may cost.
_SECONDS_TO_SYNC = 1.0
# Bytes of a line that was cut short, at most; lines are far shorter.
_MOST_OF_A_LINE = 1 << 20
# What decoding a line raises if it is none that was written here.
_NOT_A_LINE = (ValueError, KeyError, TypeError, RecursionError, csv.Error)


class Recorded(NamedTuple):
  """What the file says of an image.

  Attributes:
    model: fingerprint of the model.
    state: of the image when it was read; None if it could not be.
    caption: the best caption; '' without one.
    error: why it has no captions, or ''.
    frames: lines of a video; 1 for an image.
  """

  model: str
  state: files.State | None
  caption: str
  error: str
  frames: int


class _Format(Protocol):
  """A kind of lines.

  Attributes:
    header: the first line, b'' if there is none.
    start: how each other line begins.
  """

  header: bytes
  start: bytes

  def is_whole(self, line: bytes) -> bool:
    """Whether what ends with a line end is a whole line."""
    ...

  def encode(self, record: dict[str, Any]) -> bytes: ...

  def decode(self, line: bytes) -> dict[str, Any]:
    """Returns what `encode` was given, a part of it for CSV.

    Raises:
      _NOT_A_LINE: it is no such line.
    """
    ...


class _JsonLines:
  """An object per line."""

  header = b''
  start = b'{"image": '

  def is_whole(self, line: bytes) -> bool:
    del line
    return True

  def encode(self, record: dict[str, Any]) -> bytes:
    # A name that is not UTF-8 has half a surrogate pair for each such byte, and
    # JSON has an escape for that.
    text = json.dumps(record, ensure_ascii=False) + '\n'
    return text.encode('utf-8', 'backslashreplace')

  def decode(self, line: bytes) -> dict[str, Any]:
    return json.loads(line)


class _Csv:
  """A row per image, with the best caption."""

  _COLUMNS = (
    'image',
    'time',
    'caption',
    'probability',
    'log_probability',
    'confidence',
    'error',
    'size',
    'mtime_ns',
    'model',
    'frame',
    'frames',
  )
  _NUMBERS = ('size', 'mtime_ns', 'frame', 'frames')

  def __init__(self) -> None:
    self.header = ','.join(self._COLUMNS).encode() + b'\n'
    self.start = b''

  def is_whole(self, line: bytes) -> bool:
    # A line end within quotes belongs to a name.
    return line.count(b'"') % 2 == 0

  def encode(self, record: dict[str, Any]) -> bytes:
    best = record['captions'][0] if record['captions'] else {}
    confidence = record.get('abstained_at_confidence')
    values = {'confidence': confidence, **record, **best}
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerow(
      [values.get(name) for name in self._COLUMNS]
    )
    return text.getvalue().encode('utf-8', 'backslashreplace')

  def decode(self, line: bytes) -> dict[str, Any]:
    (row,) = csv.reader(io.StringIO(line.decode(), newline=''), strict=True)
    record: dict[str, Any] = dict(zip(self._COLUMNS, row, strict=True))
    for name in self._NUMBERS:
      record[name] = int(record[name]) if record[name] else None
    record['captions'] = (
      [{'caption': record['caption']}] if record['log_probability'] else []
    )
    return record


_FORMATS: dict[str, type[_Format]] = {'.jsonl': _JsonLines, '.csv': _Csv}


def check_name(path: str) -> None:
  """Raises ValueError if the suffix of a path names no format."""
  if os.path.splitext(path)[1].lower() not in _FORMATS:
    raise ValueError(
      f'--output_file={path}: its suffix says what is written: give a name '
      f'that ends with {" or ".join(_FORMATS)}'
    )


class CaptionFile:
  """A file of captions; a context manager that holds a lock on it.

  Args:
    path: where it is or will be, in an existing directory.
    model: fingerprint of the model and of its settings.

  Raises:
    ValueError: another process writes it, or it is no file of captions. The
      message names it.
    OSError: it cannot be read or written.
  """

  def __init__(self, path: str, model: str) -> None:
    check_name(path)
    self._path = path
    self._model = model
    self._format = _FORMATS[os.path.splitext(path)[1].lower()]()
    self._recorded: dict[str, Recorded] = {}
    self._synced = 0.0

  def __enter__(self) -> Self:
    with contextlib.ExitStack() as stack:
      directory, name = os.path.split(self._path)
      stack.enter_context(
        locks.hold(directory or '.', f'run_inference.{name}', '--output_file')
      )
      self._file = stack.enter_context(
        open(self._path, 'a+b', buffering=0)  # Each write is one system call.
      )
      stack.enter_context(files.naming(self._path))
      self._read()
      files.sync(directory or '.')
      self._stack = stack.pop_all()
    return self

  def __exit__(self, *exception: Any) -> None:
    with self._stack:
      with files.naming(self._path):
        os.fsync(self._file.fileno())

  def recorded(self, name: str, state: files.State | None) -> Recorded | None:
    """Returns what the file says of an image; None if it is to be captioned.

    Args:
      name: of the file.
      state: of the file, as it is now; None if it cannot be read.
    """
    found = self._recorded.get(_key(name))
    if found and state and (found.model, found.state) == (self._model, state):
      return found
    return None

  @property
  def num_captioned(self) -> int:
    """Images and frames with captions by this model."""
    return sum(
      found.frames
      for found in self._recorded.values()
      if found.model == self._model and not found.error
    )

  def add(
    self,
    name: str,
    state: files.State | None,
    captioned: Sequence[dict[str, Any]],
  ) -> None:
    """Appends the lines of an image or a video.

    An error of a file that cannot be read is written once, and the file is
    tried again in each run.

    Args:
      name: of the file.
      state: of the file when it was read; None if it could not be.
      captioned: of the image, or of each frame, what
        `caption_lines.record` returns, with `error` where that is the reason
        that there are no captions.
    """
    told = {
      'size': state.size if state else None,
      'mtime_ns': state.mtime_ns if state else None,
      'model': self._model,
    }
    of_video = len(captioned) > 1 or 'time' in captioned[0]
    records = [
      {
        **of_frame,
        **told,
        **({'frame': i, 'frames': len(captioned)} if of_video else {}),
      }
      for i, of_frame in enumerate(captioned)
    ]
    recorded = _recorded(records[0])
    if recorded == self._recorded.get(_key(name)):
      return
    data = b''.join(map(self._format.encode, records))
    with files.naming(self._path):
      if self._format.header and not os.fstat(self._file.fileno()).st_size:
        data = self._format.header + data
      while data:
        data = data[self._file.write(data) :]
      self._recorded[_key(name)] = recorded
      now = time.monotonic()
      if now - self._synced >= _SECONDS_TO_SYNC:
        os.fsync(self._file.fileno())
        self._synced = now

  def _read(self) -> None:
    """Reads what is recorded, and cuts off what is not whole."""
    position = end = 0  # The latter is after the last whole image or video.
    with open(self._path, 'rb') as f:
      for number, line, is_whole in _lines(f, self._format):
        position += len(line)
        if line == self._format.header and number == 1:
          end = position
          continue
        if not is_whole:
          self._check_is_ours(line, number)
          break
        try:
          record = self._format.decode(line)
          name, recorded = record['image'], _recorded(record)
        except _NOT_A_LINE as error:
          raise self._foreign(number) from error
        if int(record.get('frame') or 0) + 1 == recorded.frames:
          self._recorded[_key(name)] = recorded
          end = position
    if end < os.fstat(self._file.fileno()).st_size:
      logging.info(
        '%s: the last lines were not whole and are removed', self._path
      )
      os.ftruncate(self._file.fileno(), end)

  def _check_is_ours(self, rest: bytes, number: int) -> None:
    """Raises ValueError if what is no whole line is not the start of one."""
    start = self._format.start
    if number == 1 and self._format.header:
      start = self._format.header
    is_ours = rest.startswith(start[: len(rest)]) and (
      len(rest) <= _MOST_OF_A_LINE
    )
    # After a quote that somebody removed there would be whole lines.
    for line in rest.splitlines(keepends=True)[1:-1]:
      with contextlib.suppress(*_NOT_A_LINE):
        self._format.decode(line)
        is_ours = False
    if not is_ours:
      raise self._foreign(number)

  def _foreign(self, number: int) -> ValueError:
    return ValueError(
      f'--output_file={self._path}: line {number} is none that run_inference '
      'writes: give another name, or remove the line'
    )


def _key(name: str) -> str:
  # As CSV has it, where a byte that is not UTF-8 is written as an escape.
  return os.path.abspath(name.encode('utf-8', 'backslashreplace').decode())


def _recorded(record: dict[str, Any]) -> Recorded:
  """Returns what a line says.

  Raises:
    _NOT_A_LINE: it is none of this file.
  """
  captions, state = record['captions'], None
  if record['size'] is not None:
    state = files.State(int(record['size']), int(record['mtime_ns']))
  return Recorded(
    str(record['model']),
    state,
    str(captions[0]['caption']) if captions else '',
    record.get('error') or '',
    int(record.get('frames') or 1),
  )


def _lines(file: BinaryIO, of: _Format) -> Iterator[tuple[int, bytes, bool]]:
  """Yields (number of the first line, bytes, whether they are a whole line)."""
  pending, first = b'', 1
  for number, line in enumerate(file, 1):
    pending += line
    if pending.endswith(b'\n') and of.is_whole(pending):
      yield first, pending, True
      pending, first = b'', number + 1
  if pending:
    yield first, pending, False
