# SPDX-License-Identifier: Apache-2.0
"""Resumable, verified archive downloads, optionally unpacked.

For each archive X.zip that contains the folder X, a directory holds:

  .X.zip.part  an unfinished download; a later run resumes it
  X.zip        the archive, verified
  .X.zip.unzip a folder being unpacked; an interrupted run starts it again
  .X.zip.done  a stamp that says where X.zip came from
  X/           the content of the archive, complete, if it is unpacked
"""

import hashlib
import http.client
import json
import os
import shutil
import stat
import time
from typing import Any
from typing import IO
from typing import NamedTuple
import urllib.error
import urllib.parse
import urllib.request
import urllib.response
import zipfile

from im2txt.data import image_store
from im2txt.runtime import files
from im2txt.runtime.progress import log
from im2txt.runtime.progress import Progress

_CHUNK = 1 << 20
_TIMEOUT_SECONDS = 60
# Waits between failures in a row, in which not one byte arrived.
WAITS_SECONDS = (1, 2, 4, 8, 16, 32)
_TRIES = len(WAITS_SECONDS) + 1
# No archive of images or checkpoints is larger. A download of unknown size ends
# here at the latest.
MOST_BYTES = 100 << 30
# Largest ratio of unpacked to packed bytes. Captions shrink to a tenth.
_MOST_GROWTH = 100
# Lists of checksums that a server may keep beside its archives.
_SUMS = {'SHA256SUMS': 'sha256', 'MD5SUMS': 'md5'}


class UnreachableError(ConnectionError):
  """A server does not answer, or the connection breaks again and again.

  Attributes:
    reason: the reason in a few words.
  """

  def __init__(self, url: str, reason: str) -> None:
    super().__init__(
      f'cannot download {url} ({reason}): run the same command again later; '
      'it goes on from here'
    )
    self.reason = reason


class Archive(NamedTuple):
  """A zip archive on a server and the one folder that it makes.

  Attributes:
    url: address of the archive.
    folder: top folder inside the archive.
    size: bytes, None if not known.
    checksum: (algorithm, hexadecimal digest), None if not known.
    growth: approximate ratio of unpacked to packed size.
    unpack: whether to unpack the folder.
    flag: the flag that gave the server, for messages; '' if there is none.
  """

  url: str
  folder: str
  size: int | None = None
  checksum: tuple[str, str] | None = None
  growth: float = 1.1
  unpack: bool = True
  flag: str = ''

  def error(self, reason: str, advice: str) -> ValueError:
    """Returns an error with advice, which needs the flag, if there is one."""
    return ValueError(
      f'{self.url}: {reason}'
      + (f'; give {self.flag} {advice}' if self.flag else '')
    )

  @property
  def name(self) -> str:
    """Name of the archive's file."""
    return self.url.rpartition('/')[2]


def is_done(archive: Archive, directory: str) -> bool:
  """Returns whether the archive, or its folder, is in `directory`, complete.

  A folder gets its name when it is complete. So a folder without a stamp is
  complete, or the user put it there. It is not touched in either case.
  """
  return is_unpacked(archive, directory) or (
    not archive.unpack
    and os.path.exists(path := _path(archive, directory))
    and _read_stamp(archive, directory).get('bytes') == os.path.getsize(path)
  )


def is_unpacked(archive: Archive, directory: str) -> bool:
  """Returns whether the archive's folder is in `directory`, complete."""
  return os.path.isdir(os.path.join(directory, archive.folder))


def location(archive: Archive, directory: str) -> str:
  """Returns the path of the archive's folder if unpacked, or of the archive."""
  if is_unpacked(archive, directory):
    return os.path.join(directory, archive.folder)
  return _path(archive, directory)


def source(archive: Archive, directory: str) -> str | None:
  """Returns the URL that a finished archive came from, None if not known."""
  return _read_stamp(archive, directory).get('url')


def look_up(
  archive: Archive, tries: int = _TRIES, timeout: float = _TIMEOUT_SECONDS
) -> Archive:
  """Returns the archive with the size and checksum that the server states.

  The checksum is from a file SHA256SUMS or MD5SUMS beside the archive, if there
  is one.

  Args:
    archive: an archive of unknown size or checksum.
    tries: how often to ask a server that does not answer.
    timeout: seconds to wait for an answer.

  Raises:
    ValueError: the server does not have the archive.
    UnreachableError: the server does not answer.
  """
  with _open(archive, archive.url, tries, timeout=timeout) as response:
    size = _int_or_none(response.headers.get('Content-Length'))
  checksum = None
  for name, algorithm in _SUMS.items():
    try:
      with _open(
        archive, archive.url.rpartition('/')[0] + '/' + name, 1
      ) as response:
        lines = response.read(_CHUNK).decode('utf-8', 'replace').splitlines()
    except ValueError:
      continue
    # As sha256sum writes them: digest, then the name, with a * if binary.
    digests = {
      fields[1].lstrip('*').removeprefix('./'): fields[0].lower()
      for fields in (line.split() for line in lines)
      if len(fields) == 2
    }
    if archive.name in digests:
      checksum = (algorithm, digests[archive.name])
      break
  return archive._replace(size=size, checksum=checksum)


def space_needed(archive: Archive, directory: str) -> int:
  """Returns the bytes of disk that `obtain` will take."""
  if is_done(archive, directory) or not archive.size:
    return 0
  needed = archive.size * archive.growth if archive.unpack else 0.0
  if not os.path.exists(_path(archive, directory)):
    needed += archive.size - _size(_part(archive, directory))
  return int(needed)


def obtain(archive: Archive, directory: str) -> None:
  """Downloads the archive, and unpacks it if wanted, unless that is done.

  Args:
    archive: the archive.
    directory: an existing directory.

  Raises:
    ValueError: the server does not have this archive.
    OSError: the download or the disk failed; a later call goes on.
  """
  if is_done(archive, directory):
    url = source(archive, directory)
    log(
      f'{location(archive, directory)} is there already'
      + (f' (from {url}).' if url else '.')
    )
    return
  path = _path(archive, directory)
  _download(archive, directory, path)
  if archive.unpack:
    _unzip(archive, directory, path)
  else:
    _save_stamp(archive, directory, path)


def _path(archive: Archive, directory: str) -> str:
  return os.path.join(directory, archive.name)


def _part(archive: Archive, directory: str) -> str:
  return os.path.join(directory, f'.{archive.name}.part')


def _stamp(archive: Archive, directory: str) -> str:
  return os.path.join(directory, f'.{archive.name}.done')


def _save_stamp(archive: Archive, directory: str, path: str) -> None:
  files.write_json(
    _stamp(archive, directory),
    {'url': archive.url, 'bytes': os.path.getsize(path)},
  )


def _read_stamp(archive: Archive, directory: str) -> dict[str, Any]:
  """Returns the content of the stamp; {} if it is missing or damaged."""
  try:
    with open(_stamp(archive, directory), encoding='utf-8') as f:
      stamp = json.load(f)
  except (OSError, ValueError, RecursionError):
    return {}
  return stamp if isinstance(stamp, dict) else {}


def _size(path: str) -> int:
  return os.path.getsize(path) if os.path.exists(path) else 0


def _int_or_none(text: str | None) -> int | None:
  return int(text) if text and text.isdecimal() else None


# Download --------------------------------------------------------------------


class _Redirects(urllib.request.HTTPRedirectHandler):
  """Follows redirections to http and https, but never from https to http."""

  def redirect_request(
    self,
    req: urllib.request.Request,
    fp: IO[bytes],
    code: int,
    msg: str,
    headers: http.client.HTTPMessage,
    newurl: str,
  ) -> urllib.request.Request | None:
    scheme = urllib.parse.urlsplit(newurl).scheme
    if scheme != 'https' and (scheme, req.type) != ('http', 'http'):
      raise urllib.error.HTTPError(
        req.full_url,
        code,
        f"{msg} - Redirection to url '{newurl}' is not allowed",
        headers,
        fp,
      )
    return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
  return urllib.request.build_opener(_Redirects)


def _open(
  archive: Archive,
  url: str,
  tries: int,
  start: int = 0,
  timeout: float = _TIMEOUT_SECONDS,
) -> http.client.HTTPResponse | urllib.response.addinfourl:
  """Returns the response to a GET of `url` from byte `start`.

  Args:
    archive: the archive, for messages.
    url: address of the archive, or of a file beside it.
    tries: how often to ask a server that does not answer.
    start: first byte; if it is not 0, a range is requested.
    timeout: seconds to wait for an answer.

  Raises:
    ValueError: the server says that it does not have the file.
    UnreachableError: the server does not answer.
  """
  headers = {'User-Agent': 'im2txt'}
  if start:
    headers['Range'] = f'bytes={start}-'
  for attempt in range(tries):
    try:
      return _opener().open(
        urllib.request.Request(url, headers=headers), timeout=timeout
      )
    except urllib.error.HTTPError as error:
      with error:
        # For other codes, asking again does not help.
        if error.code < 500 and error.code not in (408, 429):
          raise archive._replace(url=url).error(
            f'the server answers {error.code} {error.reason}',
            'the address of the archives',
          ) from error
        reason = f'{error.code} {error.reason}'
    except urllib.error.URLError as error:
      # A missing file:// stays missing.
      if urllib.parse.urlsplit(url).scheme == 'file':
        raise archive._replace(url=url).error(
          str(error.reason), 'the address of the archives'
        ) from error
      reason = str(error.reason)
    except (OSError, http.client.HTTPException) as error:
      reason = str(error) or type(error).__name__
    if attempt + 1 < tries:
      time.sleep(WAITS_SECONDS[attempt])
  raise UnreachableError(url, reason)


def _download(archive: Archive, directory: str, path: str) -> None:
  """Downloads and verifies the archive as `path`."""
  if os.path.exists(path):
    if fault(archive, path) is None:
      log(f'{path} is there already.')
      return
    log(f'{path} is damaged or another file: downloading it again.')
    os.remove(path)
  part = _part(archive, directory)
  # A second try in case the file was damaged on the way, or the part is old.
  for attempt in range(2):
    transfer(archive, part)
    wrong = fault(archive, part)
    if wrong is None:
      files.rename((part, path))
      log(f'Downloaded {archive.url}')
      return
    os.remove(part)
    if not attempt:
      log(f'{archive.url}: {wrong}. Downloading it again.')
  raise archive.error(
    f'{wrong}, twice: the server has another file', 'another address'
  )


def transfer(archive: Archive, part: str) -> None:
  """Downloads the rest of `part`, again whenever the connection breaks."""
  failures = 0
  while True:
    start = _size(part)
    if archive.size is not None and start == archive.size:
      return
    if archive.size is not None and start > archive.size:
      os.remove(part)
      continue
    reason = _transfer_once(archive, part, start)
    if reason is None:
      return
    failures = 0 if _size(part) > start else failures + 1
    if failures == _TRIES:
      raise UnreachableError(archive.url, reason)
    log(f'{archive.url}: {reason}. Going on.')
    time.sleep(WAITS_SECONDS[min(failures, len(WAITS_SECONDS) - 1)])


def _transfer_once(archive: Archive, part: str, start: int) -> str | None:
  """Appends to `part` until the file or the connection ends.

  Args:
    archive: the archive.
    part: path of the unfinished file.
    start: size of the unfinished file.

  Returns:
    None if the file is complete, else what went wrong.
  """
  try:
    response = _open(archive, archive.url, _TRIES, start)
  except ValueError as error:
    if getattr(error.__cause__, 'code', None) != 416:
      raise
    # The server's file ends before, so the part belongs to another file.
    os.remove(part)
    return 'the server cannot resume the download'
  with response:
    # A server without ranges sends everything from the beginning.
    if start and not (
      response.status == 206
      and response.headers.get('Content-Range', '').startswith(
        f'bytes {start}-'
      )
    ):
      start = 0
    length = _int_or_none(response.headers.get('Content-Length'))
    total = archive.size if length is None else start + length
    if archive.size is not None and total != archive.size:
      raise archive.error(
        f'{total} bytes where {archive.size} are expected',
        'an address with the right archives',
      )
    if total is not None and total > MOST_BYTES:
      raise _too_large(archive)
    with (
      files.naming(part),
      open(part, 'ab' if start else 'wb') as f,
      Progress(archive.name, total, 'B', done=start, scale=True) as progress,
    ):
      while True:
        try:
          chunk = response.read(_CHUNK)
        except (OSError, http.client.HTTPException) as error:
          return f'the connection broke ({error or type(error).__name__})'
        if not chunk:
          break
        if f.tell() + len(chunk) > MOST_BYTES:
          raise _too_large(archive)
        f.write(chunk)
        progress.update(len(chunk))
  if total is not None and _size(part) != total:
    return f'the connection broke at {_size(part)} of {total} bytes'
  return None


def _too_large(archive: Archive) -> ValueError:
  return archive.error(
    f'it has more than {MOST_BYTES >> 30} GB, the most that is downloaded',
    'an address with the right archives',
  )


def fault(archive: Archive, path: str) -> str | None:
  """Returns why `path` is not the archive, None if it is."""
  size = os.path.getsize(path)
  if archive.size is not None and size != archive.size:
    return f'{size} bytes where {archive.size} are expected'
  if archive.checksum is None:
    # Only the archive's own checksums are left.
    try:
      with zipfile.ZipFile(path) as archive_file:
        damaged = archive_file.testzip()
      return f'{damaged} in it is damaged' if damaged else None
    except image_store.BAD_ZIP as error:
      return f'not a sound zip archive ({error})'
  algorithm, expected = archive.checksum
  digest = hashlib.new(algorithm, usedforsecurity=False)
  with (
    open(path, 'rb') as f,
    Progress(f'Checking {archive.name}', size, 'B', scale=True) as progress,
  ):
    while chunk := f.read(_CHUNK):
      digest.update(chunk)
      progress.update(len(chunk))
  if digest.hexdigest() != expected:
    return f'{algorithm} {digest.hexdigest()} where {expected} is expected'
  return None


# Unpacking -------------------------------------------------------------------


def _unzip(archive: Archive, directory: str, path: str) -> None:
  """Unpacks the archive's folder under a temporary name, then renames it."""
  staging = os.path.join(directory, f'.{archive.name}.unzip')
  shutil.rmtree(staging, ignore_errors=True)
  os.mkdir(staging)
  try:
    with files.naming(staging), zipfile.ZipFile(path) as zip_file:
      members = _safe_members(zip_file, archive, os.path.getsize(path))
      with Progress(
        f'Unpacking {archive.name}', len(members), 'files'
      ) as progress:
        for member in members:
          zip_file.extract(member, staging)
          progress.update(1)
    files.sync_tree(staging)
    # Before the folder, whose presence means that all is done.
    _save_stamp(archive, directory, path)
    files.rename(
      (
        os.path.join(staging, archive.folder),
        os.path.join(directory, archive.folder),
      )
    )
  except image_store.BAD_ZIP as error:
    raise ValueError(
      f'cannot unpack {path} ({error}): remove it, and run the same command '
      'again'
    ) from error
  finally:
    shutil.rmtree(staging, ignore_errors=True)
  log(
    f'Unpacked {len(members)} files into '
    f'{os.path.join(directory, archive.folder)}'
  )


def _safe_members(
  zip_file: zipfile.ZipFile, archive: Archive, size: int
) -> list[zipfile.ZipInfo]:
  """Returns the members in the archive's folder.

  Args:
    zip_file: the opened archive.
    archive: the archive.
    size: bytes of the archive.

  Raises:
    ValueError: there are none, a member would be written outside the folder, or
      they would take far more room than the archive.
  """
  members: list[zipfile.ZipInfo] = []
  for member in zip_file.infolist():
    parts = member.filename.replace('\\', '/').split('/')
    # extract() would change such names, but no archive of images has them.
    if (
      '..' in parts or not parts[0] or stat.S_ISLNK(member.external_attr >> 16)
    ):
      raise ValueError(
        f'{archive.url} would write {member.filename!r}, outside of its '
        'folder: do not trust this archive'
      )
    if parts[0] == archive.folder and len(parts) > 1:
      members.append(member)
  if not members:
    raise archive.error(
      f'there is no folder {archive.folder}/ in it',
      'an address with the right archives',
    )
  unpacked = sum(member.file_size for member in members)
  if unpacked > _MOST_GROWTH * size:
    raise ValueError(
      f'{archive.url} would unpack {size} bytes to {unpacked}: do not trust '
      'this archive'
    )
  return members
