# SPDX-License-Identifier: Apache-2.0
"""Archives from a server, whole and checked, unpacked once if they are to be.

A directory that holds archives and what they contain has, for each archive
X.zip that makes the folder X:

  .X.zip.part  a download that is not finished; a later run goes on with it
  X.zip        the archive, checked
  .X.zip.unzip a folder being unpacked; begun anew when interrupted
  .X.zip.done  stamp: where X.zip came from
  X/           what the archive holds, complete, if it is unpacked
"""

import hashlib
import http.client
import json
import os
import shutil
import stat
import time
from typing import NamedTuple
import urllib.error
import urllib.parse
import urllib.request
import zipfile

from im2txt.data import image_store
from im2txt.runtime import files
from im2txt.runtime.progress import log
from im2txt.runtime.progress import Progress

_CHUNK = 1 << 20
_TIMEOUT_SECONDS = 60
# Failures in a row without a byte between them, and what to wait after each.
_WAITS_SECONDS = (1, 2, 4, 8, 16, 32)
_TRIES = len(_WAITS_SECONDS) + 1
# No archive of images or checkpoints is larger; one whose size nobody tells ends
# here at the latest.
_MOST_BYTES = 100 << 30
# Bytes unpacked per byte packed, at most: captions take a tenth of their size.
_MOST_GROWTH = 100
# Lists of checksums that a server may keep beside its archives.
_SUMS = {'SHA256SUMS': 'sha256', 'MD5SUMS': 'md5'}


class UnreachableError(ConnectionError):
  """A server that does not answer, or a connection that breaks for good.

  Attributes:
    reason: str, in a few words.
  """

  def __init__(self, url, reason):
    super().__init__(
      f'Cannot download {url} ({reason}): the same command goes '
      'on with what is there already.'
    )
    self.reason = reason


class Archive(NamedTuple):
  """A zip archive on a server and the one folder that it makes.

  Attributes:
    url: where it is.
    folder: top folder inside the archive.
    size: bytes, None if not known.
    checksum: (algorithm, hexadecimal digest), None if not known.
    growth: unpacked size over packed size, about.
    unpack: whether the folder is wanted; if not, the archive will do.
  """

  url: str
  folder: str
  size: int = None
  checksum: tuple = None
  growth: float = 1.1
  unpack: bool = True

  @property
  def name(self):
    return self.url.rpartition('/')[2]


def is_done(archive, directory):
  """Returns whether nothing is left to do for what is wanted of the archive.

  A folder gets its name when it is complete, so one without a stamp is either
  that or was put there by the user; it is not touched in either case.
  """
  return is_unpacked(archive, directory) or (
    not archive.unpack
    and os.path.exists(path := _path(archive, directory))
    and _read_stamp(archive, directory).get('bytes') == os.path.getsize(path)
  )


def is_unpacked(archive, directory):
  """Returns whether the archive's folder is in `directory`, complete."""
  return os.path.isdir(os.path.join(directory, archive.folder))


def place(archive, directory):
  """Returns where the pictures are: the archive's folder, or the archive."""
  if is_unpacked(archive, directory):
    return os.path.join(directory, archive.folder)
  return _path(archive, directory)


def source(archive, directory):
  """Returns the URL that a finished archive came from, None if not known."""
  return _read_stamp(archive, directory).get('url')


def described(archive, tries=_TRIES, timeout=_TIMEOUT_SECONDS):
  """Returns the archive with its size and checksum as the server tells them.

  For an archive whose size or checksum nobody knew before: the size is the
  server's, the checksum from a file SHA256SUMS or MD5SUMS beside it, if any.

  Args:
    archive: Archive.
    tries: int, how often to ask a server that does not answer.
    timeout: seconds to wait for an answer.

  Raises:
    ValueError: the archive is not there.
    UnreachableError: there is no answer.
  """
  with _open(archive.url, tries, timeout=timeout) as response:
    size = _int_or_none(response.headers.get('Content-Length'))
  checksum = None
  for name, algorithm in _SUMS.items():
    try:
      with _open(archive.url.rpartition('/')[0] + '/' + name, 1) as response:
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


def space_needed(archive, directory):
  """Returns the bytes that getting the archive, and its folder, will take."""
  if is_done(archive, directory) or not archive.size:
    return 0
  needed = archive.size * archive.growth if archive.unpack else 0
  if not os.path.exists(_path(archive, directory)):
    needed += archive.size - _size(_part(archive, directory))
  return int(needed)


def obtain(archive, directory):
  """Gets the archive, and unpacks it if it is to be, unless that is done.

  Args:
    archive: Archive.
    directory: str, exists.

  Raises:
    ValueError: the server has no such archive, or another one than expected.
    OSError: the download or the disk failed; a later call goes on.
  """
  if is_done(archive, directory):
    url = source(archive, directory)
    log(
      f'{place(archive, directory)} is there already'
      + (f' (from {url}).' if url else '.')
    )
    return
  path = _path(archive, directory)
  _download(archive, directory, path)
  if archive.unpack:
    _unzip(archive, directory, path)
  else:
    _save_stamp(archive, directory, path)


def _path(archive, directory):
  return os.path.join(directory, archive.name)


def _part(archive, directory):
  return os.path.join(directory, f'.{archive.name}.part')


def _stamp(archive, directory):
  return os.path.join(directory, f'.{archive.name}.done')


def _save_stamp(archive, directory, path):
  files.write_json(
    _stamp(archive, directory),
    {'url': archive.url, 'bytes': os.path.getsize(path)},
  )


def _read_stamp(archive, directory):
  """Returns what the stamp says, a dict; empty without a sound stamp."""
  try:
    with open(_stamp(archive, directory), encoding='utf-8') as f:
      stamp = json.load(f)
  except (OSError, ValueError, RecursionError):
    return {}
  return stamp if isinstance(stamp, dict) else {}


def _size(path):
  return os.path.getsize(path) if os.path.exists(path) else 0


def _int_or_none(text):
  return int(text) if text and text.isdecimal() else None


# Download --------------------------------------------------------------------


class _Redirects(urllib.request.HTTPRedirectHandler):
  """Follows a server to http and https, and never from https to http."""

  def redirect_request(self, req, fp, code, msg, headers, newurl):
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


def _opener():
  return urllib.request.build_opener(_Redirects)


def _open(url, tries, start=0, timeout=_TIMEOUT_SECONDS):
  """Returns the response to a GET of `url` from byte `start`.

  Args:
    url: str.
    tries: int, how often to ask a server that does not answer.
    start: int, a range is asked for if it is not 0.
    timeout: seconds to wait for an answer.

  Raises:
    ValueError: the server says that it has not got that.
    UnreachableError: there is no answer.
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
        # Only these say that asking again may help.
        if error.code < 500 and error.code not in (408, 429):
          raise ValueError(
            f'{url}: the server answers {error.code} {error.reason}. Give '
            '--base_url the place of the archives.'
          ) from error
        reason = f'{error.code} {error.reason}'
    except urllib.error.URLError as error:
      # A missing file:// is no passing trouble.
      if urllib.parse.urlsplit(url).scheme == 'file':
        raise ValueError(
          f'{url}: {error.reason}. Give --base_url the place of the archives.'
        ) from error
      reason = error.reason
    except (OSError, http.client.HTTPException) as error:
      reason = str(error) or type(error).__name__
    if attempt + 1 < tries:
      time.sleep(_WAITS_SECONDS[attempt])
  raise UnreachableError(url, reason)


def _download(archive, directory, path):
  """Leaves the checked archive at `path`."""
  if os.path.exists(path):
    if fault(archive, path) is None:
      log(f'{path} is there already.')
      return
    log(f'{path} is not what it should be: downloading it again.')
    os.remove(path)
  part = _part(archive, directory)
  # One more time for a file that was damaged on the way or is an old part.
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
  raise ValueError(
    f'{archive.url}: {wrong}, twice. The server has another file than it '
    'should: give --base_url another place.'
  )


def transfer(archive, part):
  """Downloads what is missing of `part`, as often as the line breaks."""
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
    time.sleep(_WAITS_SECONDS[min(failures, len(_WAITS_SECONDS) - 1)])


def _transfer_once(archive, part, start):
  """Appends to `part` until the file or the connection ends.

  Args:
    archive: Archive.
    part: path of the unfinished file.
    start: int, its size.

  Returns:
    None if the file is complete, else what went wrong.
  """
  try:
    response = _open(archive.url, _TRIES, start)
  except ValueError as error:
    if getattr(error.__cause__, 'code', None) != 416:
      raise
    # There is nothing after what we have, so it is of another file.
    os.remove(part)
    return 'the server cannot go on from there'
  with response:
    # A server that does not know ranges sends everything from the beginning.
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
      raise ValueError(
        f'{archive.url} has {total} bytes where {archive.size} are expected: '
        'give --base_url a place with the right archives.'
      )
    if total is not None and total > _MOST_BYTES:
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
        if f.tell() + len(chunk) > _MOST_BYTES:
          raise _too_large(archive)
        f.write(chunk)
        progress.update(len(chunk))
  if total is not None and _size(part) != total:
    return f'the connection broke at {_size(part)} of {total} bytes'
  return None


def _too_large(archive):
  return ValueError(
    f'{archive.url} has more than the {_MOST_BYTES >> 30} GB that are '
    'downloaded: give --base_url a place with the right archives.'
  )


def fault(archive, path):
  """Returns what is wrong with `path` as the archive, None if it is right."""
  size = os.path.getsize(path)
  if archive.size is not None and size != archive.size:
    return f'{size} bytes where {archive.size} are expected'
  if archive.checksum is None:
    # The archive's own checksums are the only ones then.
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


def _unzip(archive, directory, path):
  """Unpacks the archive's folder under another name, then names it."""
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
    # Before the folder, which shows that nothing is left to do.
    _save_stamp(archive, directory, path)
    files.rename(
      (
        os.path.join(staging, archive.folder),
        os.path.join(directory, archive.folder),
      )
    )
  except image_store.BAD_ZIP as error:
    raise ValueError(
      f'Cannot unpack {path} ({error}): remove it to have it downloaded again.'
    ) from error
  finally:
    shutil.rmtree(staging, ignore_errors=True)
  log(
    f'Unpacked {len(members)} files into '
    f'{os.path.join(directory, archive.folder)}'
  )


def _safe_members(zip_file, archive, size):
  """Returns the members in the archive's folder.

  Args:
    zip_file: ZipFile.
    archive: Archive.
    size: int, bytes of the archive.

  Raises:
    ValueError: there are none, one would be written somewhere else, or they
      would take far more room than the archive.
  """
  members = []
  for member in zip_file.infolist():
    parts = member.filename.replace('\\', '/').split('/')
    # extract() would mend such names; an archive that has them is no archive
    # of pictures.
    if (
      '..' in parts or not parts[0] or stat.S_ISLNK(member.external_attr >> 16)
    ):
      raise ValueError(
        f'{archive.url} would write {member.filename!r}, outside of its '
        'folder: do not trust this archive.'
      )
    if parts[0] == archive.folder and len(parts) > 1:
      members.append(member)
  if not members:
    raise ValueError(
      f'{archive.url} has no folder {archive.folder}/: give '
      '--base_url the place of the right archives.'
    )
  unpacked = sum(member.file_size for member in members)
  if unpacked > _MOST_GROWTH * size:
    raise ValueError(
      f'{archive.url} would unpack {size} bytes to {unpacked}: do not trust '
      'this archive.'
    )
  return members
