# SPDX-License-Identifier: Apache-2.0
"""Tests of numpy_files."""

import ast
import io
import os
import sys
import zipfile

import numpy as np
import pytest

import im2txt
from im2txt.runtime import numpy_files

_ARRAYS = {
  'a': np.arange(6, dtype=np.float32).reshape(2, 3),
  'b': np.int32(7),
  'c': np.zeros([0, 2]),
}


def _npz(save=np.savez_compressed, **arrays):
  out = io.BytesIO()
  save(out, **arrays)
  return out.getvalue()


def _npy(array):
  out = io.BytesIO()
  np.save(out, array)
  return out.getvalue()


def _zip(**members):
  out = io.BytesIO()
  with zipfile.ZipFile(out, 'w', zipfile.ZIP_DEFLATED) as archive:
    for name, data in members.items():
      archive.writestr(name, data)
  return out.getvalue()


def _read_all(path, content, read=numpy_files.read):
  path.write_bytes(content)
  return read(str(path))


def error(path, content, read=numpy_files.read):
  with pytest.raises(ValueError) as caught:
    _read_all(path, content, read)
  message = str(caught.value)
  assert message and '\n' not in message
  return message


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_reads_arrays(tmp_path, save):
  found = _read_all(tmp_path / 'a.npz', _npz(save, **_ARRAYS))
  assert set(found) == set(_ARRAYS)
  for name, array in _ARRAYS.items():
    np.testing.assert_array_equal(found[name], array)
  mapped = _read_all(
    tmp_path / 'a.npy', _npy(_ARRAYS['a']), numpy_files.map_file
  )
  np.testing.assert_array_equal(mapped, _ARRAYS['a'])
  assert isinstance(mapped, np.memmap)


class _Payload:
  """What runs a program when it is unpickled."""

  def __init__(self, path):
    self._path = path

  def __reduce__(self):
    return os.mkdir, (self._path,)


def test_no_pickle_is_loaded(tmp_path):
  made = tmp_path / 'made'
  pickled = np.array([_Payload(str(made))], object)
  # This would be the harm.
  np.load(io.BytesIO(_npy(pickled)), allow_pickle=True)
  assert made.exists()
  made.rmdir()
  raw = pickled.dumps()
  for content in (
    _npz(a=pickled),
    raw,
    _zip(**{'a.npy': raw}),
    _zip(a=_npy(pickled)),
  ):
    error(tmp_path / 'a.npz', content)
  for content in _npy(pickled), raw, _npz(a=pickled):
    error(tmp_path / 'a.npy', content, numpy_files.map_file)
  assert not made.exists()


def test_no_module_could_load_one():
  """But for this room, no module reads files of NumPy; none has pickles."""
  root = os.path.dirname(os.path.abspath(im2txt.__file__))
  loads, seen = set(), 0
  for folder, _, names in os.walk(root):
    for name in names:
      if not name.endswith('.py') or name.endswith('_test.py'):
        continue
      seen += 1
      with open(os.path.join(folder, name), encoding='utf-8') as f:
        tree = ast.parse(f.read())
      for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
          modules = [getattr(node, 'module', None) or ''] + [
            alias.name for alias in node.names
          ]
          assert not {module.partition('.')[0] for module in modules} & {
            'pickle',
            'cPickle',
            'dill',
            'cloudpickle',
            'joblib',
            'marshal',
            'shelve',
            'torch',
            'yaml',
          }, (name, modules)
        elif isinstance(node, ast.keyword) and node.arg == 'allow_pickle':
          assert node.value.value is False, name
        elif (
          isinstance(node, ast.Attribute)
          and node.attr == 'load'
          and getattr(node.value, 'id', '') in ('np', 'numpy')
        ):
          loads.add(name)
  assert loads == {'numpy_files.py'} and seen > 50


@pytest.mark.parametrize(
  'content',
  [
    b'',
    b'garbage',
    b'PK\3\4',
    _zip(a=b'no array'),
    _zip(**{'a.npy': b''}),
    _zip(**{'a.npy': b'\x93NUMPY'}),
    _npy(_ARRAYS['a']),
    # Headers that are no Python, or none of an array.
    *(
      _zip(
        **{
          'a.npy': b'\x93NUMPY\1\0' + len(header).to_bytes(2, 'little') + header
        }
      )
      for header in (b'', b'(', b"{'descr'", b'[' * 900, b'  {\n 1', b'{}')
    ),
    # One that claims 4 TB.
    _zip(
      **{
        'a.npy': _npy(_ARRAYS['a']).replace(
          b"'shape': (2, 3), }                     ",
          b"'shape': (1000000000000, ), }          ",
        )
      }
    ),
  ],
)
def test_what_is_no_file_of_arrays(tmp_path, content):
  error(tmp_path / 'a.npz', content)
  if content != _npy(_ARRAYS['a']):
    error(tmp_path / 'a.npy', content, numpy_files.map_file)


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_damage_of_any_byte_is_one_line(tmp_path, save):
  """Or it does no harm."""
  content = _npz(save, a=_ARRAYS['a'])
  refused = 0
  for place in range(len(content)):
    for damaged in (
      content[:place],
      content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :],
    ):
      try:
        found = _read_all(tmp_path / 'a.npz', damaged)
      except ValueError as e:
        assert str(e) and '\n' not in str(e)
        refused += 1
      else:
        for array in found.values():
          np.testing.assert_array_equal(array, _ARRAYS['a'])
  assert refused > 1.4 * len(content)


def test_a_small_file_holds_no_end_of_zeros(tmp_path):
  content = _npz(a=np.zeros(1 << 20, np.uint8))
  assert len(content) < 5000
  assert _read_all(tmp_path / 'a.npz', content)['a'].shape == (1 << 20,)
  with pytest.raises(ValueError, match='it claims to hold 10487'):
    numpy_files.read(tmp_path / 'a.npz', most_bytes=1 << 16)


def test_what_is_not_there_is_an_os_error(tmp_path):
  for read in numpy_files.read, numpy_files.map_file:
    with pytest.raises(FileNotFoundError, match='none'):
      read(str(tmp_path / 'none'))


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
