# SPDX-License-Identifier: Apache-2.0
"""Tests of the program get_inception, from a server and from files."""

import contextlib
import http.server
import io
import os
import subprocess
import sys
import tarfile
import threading

import pytest

# Noise, so that the archive is not smaller than the bytes that tests cut off.
_WEIGHTS = os.urandom(300_000)
_PATH = '/models/inception_v3_2016_08_28.tar.gz'
_V1 = {'inception_v3.ckpt': _WEIGHTS}
_V2 = {'slim/inception_v3.ckpt.index': b'index',
       'slim/inception_v3.ckpt.data-00000-of-00001': _WEIGHTS}


def _archive(files):
  buffer = io.BytesIO()
  with tarfile.open(fileobj=buffer, mode='w:gz') as archive:
    for name, content in {'README.txt': b'Read me.', **files}.items():
      member = tarfile.TarInfo(name)
      member.size = len(content)
      archive.addfile(member, io.BytesIO(content))
  return buffer.getvalue()


class _Handler(http.server.BaseHTTPRequestHandler):
  """Serves server.files, the rest of a file too; notes what it is asked."""

  def log_message(self, *_):
    pass

  def do_GET(self):  # pylint: disable=invalid-name
    wanted = self.headers.get('Range')
    self.server.seen.append((self.path, wanted))
    content = self.server.files.get(self.path)
    if content is None:
      self.send_error(404)
      return
    start = int(wanted[len('bytes='):-1]) if wanted else 0
    self.send_response(206 if start else 200)
    if start:
      self.send_header('Content-Range',
                       f'bytes {start}-{len(content) - 1}/{len(content)}')
    self.send_header('Content-Length', str(len(content) - start))
    self.end_headers()
    # The other side may only want the length.
    with contextlib.suppress(OSError):
      self.wfile.write(content[start:])


@pytest.fixture(name='server')
def fixture_server():
  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), _Handler)
  server.files, server.seen = {_PATH: _archive(_V1)}, []
  server.url = f'http://127.0.0.1:{server.server_port}{_PATH}'
  thread = threading.Thread(target=server.serve_forever)
  thread.start()
  yield server
  server.shutdown()
  thread.join()
  server.server_close()


def _run(*arguments, **environment):
  return subprocess.run(
      [sys.executable, '-m', 'im2txt.get_inception', *arguments],
      env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path),
               no_proxy='127.0.0.1', **environment),
      capture_output=True, text=True, check=False)


def _file_url(path, content):
  path.write_bytes(content)
  return path.as_uri()


def test_downloads_once(server, tmp_path):
  directory = tmp_path / 'new' / 'inception'
  result = _run(f'--url={server.url}', str(directory))
  assert result.returncode == 0, result.stderr
  assert os.listdir(directory) == ['inception_v3.ckpt']
  assert (directory / 'inception_v3.ckpt').read_bytes() == _WEIGHTS

  server.seen.clear()
  result = _run(f'--url={server.url}', str(directory))
  assert result.returncode == 0
  assert 'is there already' in result.stdout
  assert not server.seen


def test_goes_on_with_a_part(server, tmp_path):
  part = tmp_path / ('.' + os.path.basename(_PATH) + '.part')
  part.write_bytes(server.files[_PATH][:123_456])
  result = _run(f'--url={server.url}', str(tmp_path))
  assert result.returncode == 0, result.stderr
  assert server.seen[-1] == (_PATH, 'bytes=123456-')
  assert os.listdir(tmp_path) == ['inception_v3.ckpt']
  assert (tmp_path / 'inception_v3.ckpt').read_bytes() == _WEIGHTS


def test_takes_two_file_checkpoints_from_files(tmp_path):
  url = _file_url(tmp_path / 'other.tar.gz', _archive(_V2))
  directory = tmp_path / 'out'
  result = _run(str(directory), INCEPTION_URL=url)
  assert result.returncode == 0, result.stderr
  assert sorted(os.listdir(directory)) == [
      'inception_v3.ckpt.data-00000-of-00001', 'inception_v3.ckpt.index']
  assert _run(str(directory), INCEPTION_URL='http://nowhere/').returncode == 0


def test_a_checkpoint_by_half_is_not_one(tmp_path):
  url = _file_url(tmp_path / 'other.tar.gz', _archive(_V2))
  directory = tmp_path / 'out'
  directory.mkdir()
  (directory / 'inception_v3.ckpt.data-00000-of-00001').write_bytes(b'old')
  assert _run(f'--url={url}', str(directory)).returncode == 0
  assert (directory / 'inception_v3.ckpt.data-00000-of-00001'
         ).read_bytes() == _WEIGHTS


def _damaged():
  content = bytearray(_archive(_V1))
  content[-5] ^= 1  # In the checksum at the end.
  return bytes(content)


@pytest.mark.parametrize('content, message', [
    (b'<html>Not what you want.</html>', 'not a sound .tar.gz archive'),
    (_archive(_V1)[:-100_000], 'not a sound .tar.gz archive'),
    (_damaged(), 'not a sound .tar.gz archive'),
    (_archive({}), 'there is no inception_v3.ckpt in it'),
    (_archive({'inception_v3.ckpt.index': b''}), 'there is no inception_v3'),
])
def test_refuses_archives(tmp_path, content, message):
  url = _file_url(tmp_path / 'bad.tar.gz', content)
  directory = tmp_path / 'out'
  result = _run(f'--url={url}', str(directory))
  assert result.returncode == 1
  assert result.stderr.startswith(f'error: {url}: {message}')
  assert result.stderr.count('\n') == 1
  assert not os.listdir(directory)


def test_an_archive_cannot_write_elsewhere(tmp_path):
  url = _file_url(tmp_path / 'evil.tar.gz',
                  _archive({'../../inception_v3.ckpt': b'evil'}))
  directory = tmp_path / 'a' / 'b'
  assert _run(f'--url={url}', str(directory)).returncode == 0
  assert os.listdir(directory) == ['inception_v3.ckpt']
  assert os.listdir(tmp_path / 'a') == ['b']


@pytest.mark.parametrize('url, message', [
    ('file:///nonexistent.tar.gz', 'error: file:///nonexistent.tar.gz: '),
    ('ftp://x', 'error: --url=ftp://x must begin with'),
])
def test_refuses_urls_in_one_line(tmp_path, url, message):
  result = _run(f'--url={url}', str(tmp_path))
  assert result.returncode == 1
  assert result.stderr.startswith(message)
  assert result.stderr.count('\n') == 1


def test_missing_archive_names_the_flag(server, tmp_path):
  server.files.clear()
  result = _run(f'--url={server.url}', str(tmp_path))
  assert result.returncode == 1
  assert '404' in result.stderr and '--url' in result.stderr
  assert '--base_url' not in result.stderr


def test_needs_a_directory():
  result = _run()
  assert result.returncode == 1
  assert 'Give one directory' in result.stdout + result.stderr


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
