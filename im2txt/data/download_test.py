# SPDX-License-Identifier: Apache-2.0
"""Tests of download and of the program download_and_preprocess_mscoco."""

import collections
import contextlib
import glob
import hashlib
import http.server
import io
import json
import os
import pathlib
import re
import shutil
import sys
import threading
import urllib.error
import urllib.request
import zipfile

import numpy as np
from PIL import Image as PilImage
import pytest

from im2txt import testing
from im2txt.data import download
from im2txt.runtime import files


class _Server(http.server.ThreadingHTTPServer):
  """A server of `files` that can be made to misbehave.

  Attributes:
    files: path -> bytes.
    ranges: whether it knows ranges.
    break_after: list, the bytes after which the next answers with a body break
      off; None in it lets one pass.
    failing: list, the status that each of the next answers has.
    redirects: path -> URL that is answered instead.
    requests_seen: list of (path, Range header).
  """

  daemon_threads = True

  def __init__(self):
    super().__init__(('127.0.0.1', 0), _Handler)
    self.files, self.requests_seen, self.redirects = {}, [], {}
    self.ranges = self.tells_length = True
    self.break_after, self.failing = [], []
    self.url = f'http://127.0.0.1:{self.server_port}'


class _Handler(http.server.BaseHTTPRequestHandler):
  """Answers for _Server."""

  def log_message(self, *_):
    pass

  def do_GET(self):
    server = self.server
    wanted = self.headers.get('Range')
    server.requests_seen.append((self.path, wanted))
    if server.failing:
      self.send_error(server.failing.pop(0))
      return
    if self.path in server.redirects:
      self.send_response(302)
      self.send_header('Location', server.redirects[self.path])
      self.send_header('Content-Length', '0')
      self.end_headers()
      return
    content = server.files.get(self.path)
    if content is None:
      self.send_error(404)
      return
    start = int(wanted[len('bytes=') : -1]) if wanted and server.ranges else 0
    if start and start >= len(content):
      self.send_error(416)
      return
    self.send_response(206 if start else 200)
    if start:
      self.send_header(
        'Content-Range', f'bytes {start}-{len(content) - 1}/{len(content)}'
      )
    if server.tells_length:
      self.send_header('Content-Length', str(len(content) - start))
    self.end_headers()
    body = content[start:]
    if server.break_after:
      body = body[: server.break_after.pop(0)]
    with contextlib.suppress(OSError):  # The other side may stop reading.
      self.wfile.write(body)


@pytest.fixture(name='server')
def fixture_server(monkeypatch):
  monkeypatch.setattr(download, 'WAITS_SECONDS', (0,) * 6)
  monkeypatch.setenv('no_proxy', '127.0.0.1')
  server = _Server()
  thread = threading.Thread(target=server.serve_forever)
  thread.start()
  yield server
  server.shutdown()
  thread.join()
  server.server_close()


def _zip(files):
  """Returns the bytes of a zip archive: name -> bytes (or ZipInfo -> bytes)."""
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, 'w') as archive:
    for name, content in files.items():
      archive.writestr(name, content)
  return buffer.getvalue()


_FILES = {
  'train2014/': b'',
  'train2014/a.jpg': b'A' * 3000,
  'train2014/b.jpg': os.urandom(2_500_000),
  'README': b'elsewhere',
}


@pytest.fixture(name='archive')
def fixture_archive(server):
  """An Archive on the server, with its size and checksum."""
  content = _zip(_FILES)
  server.files['/zips/train2014.zip'] = content
  return download.Archive(
    server.url + '/zips/train2014.zip',
    'train2014',
    len(content),
    ('md5', hashlib.md5(content).hexdigest()),
    flag='--base_url',
  )


def _is_unpacked(directory):
  assert sorted(os.listdir(directory / 'train2014')) == ['a.jpg', 'b.jpg']
  for name in ('a.jpg', 'b.jpg'):
    assert (directory / 'train2014' / name).read_bytes() == _FILES[
      f'train2014/{name}'
    ]
  assert sorted(os.listdir(directory)) == [
    '.train2014.zip.done',
    'train2014',
    'train2014.zip',
  ]
  return True


def test_downloads_and_unpacks_once(server, archive, tmp_path):
  assert not download.is_done(archive, tmp_path)
  assert download.space_needed(archive, tmp_path) == int(2.1 * archive.size)
  download.obtain(archive, str(tmp_path))
  assert _is_unpacked(tmp_path)
  assert download.is_done(archive, tmp_path)
  assert download.source(archive, tmp_path) == archive.url
  assert download.space_needed(archive, tmp_path) == 0

  (tmp_path / 'train2014' / 'a.jpg').write_bytes(b'my own')
  os.remove(tmp_path / 'train2014.zip')  # Not needed any more.
  server.requests_seen.clear()
  download.obtain(archive, str(tmp_path))
  assert server.requests_seen == []
  assert (tmp_path / 'train2014' / 'a.jpg').read_bytes() == b'my own'


def test_what_has_its_name_is_on_the_disk(archive, tmp_path, monkeypatch):
  calls = []

  def recorded(module, name):
    function = getattr(module, name)
    monkeypatch.setattr(
      module,
      name,
      lambda *paths: (
        calls.append((name, os.path.basename(paths[-1]))),
        function(*paths),
      )[1],
    )

  recorded(files, 'sync')
  recorded(files, 'sync_tree')
  recorded(os, 'replace')
  download.obtain(archive, str(tmp_path))
  here = ('sync', tmp_path.name)
  assert calls == [
    ('sync', '.train2014.zip.part'),
    ('replace', 'train2014.zip'),
    here,
    # The folder shows that nothing is left to do.
    ('sync_tree', '.train2014.zip.unzip'),
    ('sync', '..train2014.zip.done.tmp'),
    ('replace', '.train2014.zip.done'),
    here,
    ('sync', 'train2014'),
    ('replace', 'train2014'),
    here,
  ]


def test_a_folder_without_a_stamp_is_left_alone(server, archive, tmp_path):
  (tmp_path / 'train2014').mkdir()
  download.obtain(archive, str(tmp_path))
  assert server.requests_seen == []
  assert os.listdir(tmp_path) == ['train2014']


def test_a_broken_transfer_goes_on_where_it_broke(server, archive, tmp_path):
  server.break_after = [1_000_000, 700_000]
  download.obtain(archive, str(tmp_path))
  assert _is_unpacked(tmp_path)
  assert [wanted for _, wanted in server.requests_seen] == [
    None,
    'bytes=1000000-',
    'bytes=1700000-',
  ]


def test_a_later_run_goes_on_with_the_part(server, archive, tmp_path):
  content = server.files['/zips/train2014.zip']
  (tmp_path / '.train2014.zip.part').write_bytes(content[:12345])
  assert download.space_needed(archive, tmp_path) == int(
    2.1 * archive.size - 12345
  )
  download.obtain(archive, str(tmp_path))
  assert _is_unpacked(tmp_path)
  assert [wanted for _, wanted in server.requests_seen] == ['bytes=12345-']


def test_a_whole_part_and_a_whole_archive_are_not_fetched(
  server, archive, tmp_path
):
  content = server.files['/zips/train2014.zip']
  for name in ('.train2014.zip.part', 'train2014.zip'):
    directory = tmp_path / name.strip('.')
    directory.mkdir()
    (directory / name).write_bytes(content)
    download.obtain(archive, str(directory))
    assert _is_unpacked(directory)
  assert server.requests_seen == []


def test_a_server_without_ranges_starts_over(server, archive, tmp_path):
  server.ranges = False
  server.break_after = [1_000_000, None]
  download.obtain(archive, str(tmp_path))
  assert _is_unpacked(tmp_path)
  assert len(server.requests_seen) == 2


def test_a_server_that_stumbles_is_asked_again(server, archive, tmp_path):
  server.failing = [503, 500, 429]
  download.obtain(archive, str(tmp_path))
  assert _is_unpacked(tmp_path)


def test_gives_up_on_a_server_that_never_sends_anything(
  server, archive, tmp_path
):
  content = server.files['/zips/train2014.zip']
  (tmp_path / '.train2014.zip.part').write_bytes(content[:1000])
  server.break_after = [0] * 50
  with pytest.raises(OSError, match='the connection broke at 1000 of'):
    download.obtain(archive, str(tmp_path))
  assert len(server.requests_seen) == 7
  # What is there stays for the next time.
  assert (tmp_path / '.train2014.zip.part').read_bytes() == content[:1000]


def test_a_damaged_part_is_fetched_again(server, archive, tmp_path, capsys):
  (tmp_path / '.train2014.zip.part').write_bytes(b'x' * 1000)
  download.obtain(archive, str(tmp_path))
  assert _is_unpacked(tmp_path)
  assert 'md5' in capsys.readouterr().out
  assert [wanted for _, wanted in server.requests_seen] == ['bytes=1000-', None]


def test_a_part_that_is_too_long_is_fetched_again(server, archive, tmp_path):
  (tmp_path / '.train2014.zip.part').write_bytes(b'x' * (archive.size + 1))
  download.obtain(archive, str(tmp_path))
  assert _is_unpacked(tmp_path)


def test_a_damaged_archive_on_disk_is_fetched_again(archive, tmp_path):
  (tmp_path / 'train2014.zip').write_bytes(b'PK half')
  download.obtain(archive, str(tmp_path))
  assert _is_unpacked(tmp_path)


def test_a_part_of_unknown_size_that_ends_beyond_the_file(
  server, archive, tmp_path
):
  (tmp_path / '.train2014.zip.part').write_bytes(b'x' * (archive.size + 9))
  download.obtain(archive._replace(size=None), str(tmp_path))
  assert _is_unpacked(tmp_path)
  assert len(server.requests_seen) == 2


def test_lying_content_is_refused_after_a_second_try(server, archive, tmp_path):
  content = bytearray(server.files['/zips/train2014.zip'])
  content[5000] ^= 1
  server.files['/zips/train2014.zip'] = bytes(content)
  with pytest.raises(ValueError, match='md5 .* is expected, twice') as error:
    download.obtain(archive, str(tmp_path))
  assert archive.url in str(error.value)
  assert len(server.requests_seen) == 2
  assert os.listdir(tmp_path) == []


def test_lying_length_is_refused_before_thetransfer(server, archive, tmp_path):
  server.files['/zips/train2014.zip'] += b'more'
  with pytest.raises(ValueError, match=f'{archive.size} are expected'):
    download.obtain(archive, str(tmp_path))
  assert os.listdir(tmp_path) == []


def test_missing_archive_is_told_at_once_and_keeps_the_part(
  server, archive, tmp_path
):
  del server.files['/zips/train2014.zip']
  (tmp_path / '.train2014.zip.part').write_bytes(b'x' * 10)
  with pytest.raises(ValueError, match='404.*--base_url'):
    download.obtain(archive, str(tmp_path))
  assert len(server.requests_seen) == 1
  assert os.listdir(tmp_path) == ['.train2014.zip.part']


def test_unreachable_server(archive, tmp_path, server):
  del server
  gone = archive._replace(url='http://127.0.0.1:9/train2014.zip')
  with pytest.raises(OSError, match='refused.*goes on'):
    download.obtain(gone, str(tmp_path))


@pytest.mark.parametrize('name', ['SHA256SUMS', 'MD5SUMS'])
def test_look_up_reads_sums_beside_the_archive(server, archive, name):
  content = server.files['/zips/train2014.zip']
  algorithm = {'SHA256SUMS': 'sha256', 'MD5SUMS': 'md5'}[name]
  digest = hashlib.new(algorithm, content).hexdigest()
  server.files[f'/zips/{name}'] = (
    f'{"0" * 32}  other.zip\n{digest} *train2014.zip\n'.encode()
  )
  found = download.look_up(archive._replace(size=None, checksum=None))
  assert found.size == len(content)
  assert found.checksum == (algorithm, digest)


def test_without_sums_the_archive_checks_itself(server, archive, tmp_path):
  bare = archive._replace(size=None, checksum=None)
  described = download.look_up(bare)
  assert described.checksum is None
  content = bytearray(server.files['/zips/train2014.zip'])
  content[5000] ^= 1
  server.files['/zips/train2014.zip'] = bytes(content)
  with pytest.raises(ValueError, match='b.jpg in it is damaged, twice'):
    download.obtain(described, str(tmp_path))
  server.files['/zips/train2014.zip'] = b'<html>' + b'x' * (described.size - 6)
  with pytest.raises(ValueError, match='not a sound zip archive'):
    download.obtain(described, str(tmp_path))
  server.files['/zips/train2014.zip'] = _zip(_FILES)
  download.obtain(described, str(tmp_path))
  assert _is_unpacked(tmp_path)


def _symlink(name):
  info = zipfile.ZipInfo(name)
  info.external_attr = 0o120777 << 16
  return info


@pytest.mark.parametrize(
  'name',
  [
    'train2014/../../evil.jpg',
    '/evil.jpg',
    '..\\evil.jpg',
    _symlink('train2014/link'),
  ],
)
def test_an_archive_that_reaches_outside_is_refused(server, tmp_path, name):
  server.files['/x/train2014.zip'] = _zip(
    {'train2014/a.jpg': b'a', name: b'/etc/passwd'}
  )
  archive = download.look_up(
    download.Archive(server.url + '/x/train2014.zip', 'train2014')
  )
  target = tmp_path / 'in' / 'raw'
  target.mkdir(parents=True)
  with pytest.raises(ValueError, match='outside of its folder'):
    download.obtain(archive, str(target))
  assert os.listdir(target) == ['train2014.zip']
  assert os.listdir(tmp_path / 'in') == ['raw']


def test_an_archive_that_unpacks_to_too_much_is_refused(server, tmp_path):
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED) as archive_file:
    archive_file.writestr('train2014/a.jpg', bytes(1 << 20))
  server.files['/x/train2014.zip'] = buffer.getvalue()
  archive = download.look_up(
    download.Archive(server.url + '/x/train2014.zip', 'train2014')
  )
  with pytest.raises(ValueError, match='would unpack .* do not trust'):
    download.obtain(archive, str(tmp_path))
  assert os.listdir(tmp_path) == ['train2014.zip']


def test_a_device_in_an_archive_becomes_a_file(server, tmp_path):
  device = zipfile.ZipInfo('train2014/a.jpg')
  device.external_attr = 0o020666 << 16
  server.files['/x/train2014.zip'] = _zip({device: b'a'})
  download.obtain(
    download.look_up(
      download.Archive(server.url + '/x/train2014.zip', 'train2014')
    ),
    str(tmp_path),
  )
  assert (tmp_path / 'train2014' / 'a.jpg').is_file()


@pytest.mark.parametrize('tells', [True, False])
def test_a_download_without_end_is_refused(
  server, tmp_path, monkeypatch, tells
):
  monkeypatch.setattr(download, 'MOST_BYTES', 1000)
  server.files['/x/a.zip'] = bytes(2000)
  server.tells_length = tells
  with pytest.raises(ValueError, match='it has more than'):
    download.obtain(
      download.Archive(server.url + '/x/a.zip', 'a'), str(tmp_path)
    )


def test_follows_a_server_to_http(server, archive, tmp_path):
  server.redirects['/old/train2014.zip'] = archive.url
  download.obtain(
    archive._replace(url=server.url + '/old/train2014.zip'), str(tmp_path)
  )
  assert _is_unpacked(tmp_path)


@pytest.mark.parametrize(
  'place', ['file:///etc/passwd', 'ftp://127.0.0.1/train2014.zip', 'data:,x']
)
def test_follows_a_server_to_nothing_else(server, tmp_path, place):
  server.redirects['/x/train2014.zip'] = place
  with pytest.raises(ValueError) as error:
    download.obtain(
      download.Archive(server.url + '/x/train2014.zip', 'train2014'),
      str(tmp_path),
    )
  assert f"Redirection to url '{place}' is not allowed" in str(error.value)
  assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
  'old, new, good',
  [
    ('http://a/x', 'http://b/x', True),
    ('http://a/x', 'https://a/x', True),
    ('https://a/x', 'https://b/x', True),
    ('https://a/x', 'http://a/x', False),
    ('https://a/x', 'ftp://a/x', False),
    ('http://a/x', 'ftp://a/x', False),
  ],
)
def test_redirects_keep_what_is_encrypted_so(old, new, good):
  def follow():
    return download._Redirects().redirect_request(
      urllib.request.Request(old), None, 302, 'Found', {}, new
    )

  if good:
    assert follow().full_url == new
  else:
    with pytest.raises(urllib.error.HTTPError, match='is not allowed'):
      follow()


def test_a_damaged_stamp_is_none(archive, tmp_path):
  (tmp_path / '.train2014.zip.done').write_text('[' * 100_000)
  assert download.source(archive, str(tmp_path)) is None


def test_an_archive_of_something_else_is_refused(server, tmp_path):
  server.files['/x/train2014.zip'] = _zip({'train2017/a.jpg': b'a'})
  archive = download.look_up(
    download.Archive(server.url + '/x/train2014.zip', 'train2014')
  )
  with pytest.raises(ValueError, match='no folder train2014/'):
    download.obtain(archive, str(tmp_path))


def test_an_interrupted_unpacking_begins_anew(archive, tmp_path):
  staging = tmp_path / '.train2014.zip.unzip' / 'train2014'
  staging.mkdir(parents=True)
  (staging / 'half.jpg').write_bytes(b'x')
  download.obtain(archive, str(tmp_path))
  assert _is_unpacked(tmp_path)


# The program.


def _coco_files():
  """Returns URL path -> bytes of a tiny data set as COCO publishes its own."""
  files = {}
  annotations = {}
  number = 0
  for name, size in (('train', 6), ('val', 20)):
    pictures, images, captions = {}, [], []
    for _ in range(size):
      number += 1
      file_name = f'COCO_{name}2014_{number:012d}.jpg'
      buffer = io.BytesIO()
      PilImage.fromarray(np.full((8, 8, 3), number, np.uint8)).save(
        buffer, 'JPEG'
      )
      pictures[f'{name}2014/{file_name}'] = buffer.getvalue()
      images.append({'id': number, 'file_name': file_name})
      captions.append(
        {'id': number, 'image_id': number, 'caption': 'A grey square.'}
      )
    files[f'/zips/{name}2014.zip'] = _zip(pictures)
    annotations[f'annotations/captions_{name}2014.json'] = json.dumps(
      {'images': images, 'annotations': captions}
    )
  files['/annotations/annotations_trainval2014.zip'] = _zip(annotations)
  return files


def _run_program(*arguments):
  return testing.run_program('download_and_preprocess_mscoco', *arguments)


def test_downloads_and_leaves_packed(server, archive, tmp_path):
  packed = archive._replace(unpack=False)
  assert download.space_needed(packed, tmp_path) == archive.size
  download.obtain(packed, str(tmp_path))
  assert sorted(os.listdir(tmp_path)) == [
    '.train2014.zip.done',
    'train2014.zip',
  ]
  assert download.location(packed, tmp_path) == str(tmp_path / 'train2014.zip')
  assert download.is_done(packed, tmp_path)
  assert not download.is_done(archive, tmp_path)
  assert download.space_needed(packed, tmp_path) == 0
  server.requests_seen.clear()
  download.obtain(packed, str(tmp_path))

  # Unpacked after all, it is the folder that counts.
  download.obtain(archive, str(tmp_path))
  assert server.requests_seen == []
  assert _is_unpacked(tmp_path)
  assert download.location(packed, tmp_path) == str(tmp_path / 'train2014')
  os.remove(tmp_path / 'train2014.zip')
  assert download.is_done(packed, tmp_path)


def test_another_archive_than_the_stamp_tells_is_fetched_again(
  server, archive, tmp_path
):
  packed = archive._replace(unpack=False)
  download.obtain(packed, str(tmp_path))
  (tmp_path / 'train2014.zip').write_bytes(b'half')
  assert not download.is_done(packed, tmp_path)
  download.obtain(packed, str(tmp_path))
  assert os.path.getsize(tmp_path / 'train2014.zip') == archive.size
  assert len(server.requests_seen) == 2


@testing.needs_punkt()
def test_program_from_a_server_then_again(server, tmp_path, monkeypatch):
  testing.without_workers(monkeypatch)
  server.files = _coco_files()
  server.break_after = [None] * 5 + [100]
  directory = str(tmp_path / 'mscoco')
  arguments = [f'--base_url={server.url}/', '--min_word_count=1', directory]
  result = _run_program(*arguments)
  assert result.returncode == 0, result.stderr
  assert re.fullmatch(
    r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: Finished processing all 2 '
    r"image-caption pairs in data set 'test'\.",
    result.stdout.splitlines()[-1],
  )
  for name, number in (('train', 256), ('val', 4), ('test', 8)):
    pattern = os.path.join(directory, f'{name}-?????-of-{number:05d}')
    assert len(glob.glob(pattern)) == number
  with open(os.path.join(directory, 'word_counts.txt'), encoding='utf-8') as f:
    assert f.read() == '<S> 23\na 23\ngrey 23\nsquare 23\n. 23\n</S> 23'

  def shards():
    return {
      path: pathlib.Path(path).read_bytes()
      for path in glob.glob(os.path.join(directory, '*-of-*'))
    }

  def raw_data():
    return sorted(
      name
      for name in os.listdir(os.path.join(directory, 'raw-data'))
      if name[0] != '.'
    )

  assert raw_data() == [
    'annotations',
    'annotations_trainval2014.zip',
    'train2014.zip',
    'val2014.zip',
  ]

  server.requests_seen.clear()
  result = _run_program(*arguments)
  assert result.returncode == 0
  assert server.requests_seen == []
  assert 'Everything is built' in result.stdout

  packed = shards()
  result = _run_program(*arguments, '--unpack_images')
  assert result.returncode == 0, result.stderr
  assert 'Downloaded' not in result.stdout
  assert {'train2014', 'val2014'} < set(raw_data())
  assert shards() == packed


@testing.needs_punkt()
def test_program_from_files_with_other_flags(tmp_path, monkeypatch):
  for path, content in _coco_files().items():
    file = tmp_path / 'source' / path[1:]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
  directory = tmp_path / 'mscoco'
  vocabulary = tmp_path / 'words.txt'
  monkeypatch.setenv('MSCOCO_BASE_URL', f'file://{tmp_path}/source')
  result = _run_program(
    '--train_shards=2',
    '--val_shards=1',
    '--test_shards=1',
    '--num_threads=2',
    '--num_workers=1',
    f'--word_counts_output_file={vocabulary}',
    directory,
  )
  assert result.returncode == 0, result.stderr
  assert sorted(glob.glob('*-of-*', root_dir=directory)) == [
    'test-00000-of-00001',
    'train-00000-of-00002',
    'train-00001-of-00002',
    'val-00000-of-00001',
  ]
  assert vocabulary.exists()


@testing.needs_punkt()
@pytest.mark.parametrize(
  'arguments, message',
  [
    (['--base_url=file:///nonexistent'], 'error: file:///nonexistent/anno'),
    (['--base_url=ftp://x'], 'error: --base_url=ftp://x must begin with'),
    (['--train_shards=9'], 'error: --train_shards=9 is not divisible'),
  ],
)
def test_program_refuses_in_one_line(tmp_path, arguments, message):
  result = _run_program(*arguments, str(tmp_path))
  assert result.returncode == 1
  assert result.stderr.startswith(message)
  assert result.stderr.count('\n') == 1


@testing.needs_punkt()
def test_program_checks_the_disk_before_it_downloads(
  server, tmp_path, monkeypatch
):
  server.files = _coco_files()
  usage = collections.namedtuple('usage', 'total used free')
  monkeypatch.setattr(shutil, 'disk_usage', lambda _: usage(9, 0, 999))
  public = '--base_url=http://images.cocodataset.org'
  for needed, *arguments in (
    ('0.0', f'--base_url={server.url}'),
    ('122.1', public),
    ('144.2', public, '--unpack_images'),
    ('41.4', public, '--layout=compact'),
  ):
    result = _run_program(*arguments, tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith(
      f'error: {tmp_path}/raw-data needs about {needed} GB, and '
    )
    assert result.stderr.count('\n') == 1
  assert os.listdir(tmp_path / 'raw-data') == []


def test_program_needs_a_directory():
  result = _run_program()
  assert result.returncode == 1
  assert 'give one directory' in result.stdout + result.stderr


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
