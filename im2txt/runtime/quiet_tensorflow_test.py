# SPDX-License-Identifier: Apache-2.0
"""Tests of quiet_tensorflow: what processes write while they start."""

import ast
import glob
import json
import os
import signal
import subprocess
import sys

import pytest

from im2txt.runtime import quiet_tensorflow

_ROOT = os.path.dirname(
  os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
)

# Stands in for TensorFlow; what it writes is what real ones wrote.
_REMARKS = r'''
import os, sys
WRITTEN = b"""\
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795612506.735384    6028 port.cc:153] oneDNN custom operations are on. You may see slightly different numerical results due to floating-point round-off errors from different computation orders. To turn them off, set the environment variable `TF_ENABLE_ONEDNN_OPTS=0`.
I0000 00:00:1795612506.977865    6028 cpu_feature_guard.cc:227] This TensorFlow binary is optimized to use available CPU instructions in performance-critical operations.
To enable the following instructions: AVX2 AVX512F FMA, in other operations, rebuild TensorFlow with the appropriate compiler flags.
E0000 00:00:1746612212.123456     123 cuda_fft.cc:467] Unable to register cuFFT factory: Attempting to register factory for plugin cuFFT when one has already been registered
W0000 00:00:1746612212.123456     123 computation_placer.cc:177] computation placer already registered. Please check linkage and avoid linking the same target more than once.
I0000 00:00:1746612212.123456     123 cudart_stub.cc:31] Could not find cuda drivers on your machine, GPU will not be used.
"""
assert os.write(2, WRITTEN) == len(WRITTEN)
os.write(2, b'a real error\n')
LEVEL = os.environ['TF_CPP_MIN_LOG_LEVEL']
'''


def _run(*arguments, path=_ROOT, **environ):
  """Runs Python; the level of logging is only what `environ` says."""
  inherited = {
    name: value
    for name, value in os.environ.items()
    if name != 'TF_CPP_MIN_LOG_LEVEL'
  }
  return subprocess.run(
    [sys.executable, *arguments],
    capture_output=True,
    text=True,
    check=False,
    timeout=300,
    env={
      **inherited,
      **environ,
      'PYTHONPATH': os.pathsep.join([str(path), _ROOT, *sys.path]),
    },
  )


@pytest.fixture(name='stand_in')
def fixture_stand_in(tmp_path):
  """Returns a function that makes a package that is imported as tensorflow."""
  (tmp_path / 'tensorflow').mkdir()

  def make(code=''):
    (tmp_path / 'tensorflow' / '__init__.py').write_text(_REMARKS + code)
    return tmp_path

  return make


def test_remarks_are_left_out_and_nothing_else(stand_in):
  result = _run(
    '-c',
    """
import im2txt
import os, sys
print('before', file=sys.stderr)
import tensorflow
print('after', file=sys.stderr)
os.write(2, b'] computation placer already registered, said later\\n')
print(tensorflow.LEVEL, os.environ.get('TF_CPP_MIN_LOG_LEVEL'))
""",
    path=stand_in(),
  )
  assert result.stderr == (
    'before\na real error\nafter\n'
    '] computation placer already registered, said later\n'
  )
  assert result.stdout == '2 None\n'


def test_who_sets_a_level_sees_all(stand_in):
  result = _run(
    '-c',
    'import im2txt, tensorflow; print(tensorflow.LEVEL)',
    path=stand_in(),
    TF_CPP_MIN_LOG_LEVEL='0',
  )
  assert 'port.cc' in result.stderr and 'a real error' in result.stderr
  assert result.stdout == '0\n'


def test_an_exception_is_told_as_ever(stand_in):
  result = _run(
    '-c',
    """
import im2txt
try:
  import tensorflow
except ImportError as error:
  assert error.__context__ is None
  raise
""",
    path=stand_in('raise ImportError("libcuda is of another version")'),
  )
  assert result.returncode == 1
  assert result.stderr.startswith('a real error\nTraceback')
  assert result.stderr.endswith('ImportError: libcuda is of another version\n')


def test_the_last_words_of_a_process_that_is_killed_there(stand_in):
  result = _run(
    '-c',
    'import im2txt, tensorflow',
    path=stand_in("""
os.write(2, b'F0000 cpu_feature_guard.cc:37] compiled to use AVX instructions')
os.kill(os.getpid(), 6)
"""),
  )
  assert result.returncode == -signal.SIGABRT
  assert result.stderr == (
    'a real error\n'
    'F0000 cpu_feature_guard.cc:37] compiled to use AVX instructions\n'
  )


def test_a_process_without_grep(stand_in):
  result = _run(
    '-c',
    'import im2txt, tensorflow; print(tensorflow.LEVEL)',
    path=stand_in(),
    PATH='/nowhere',
  )
  assert result.stdout == '2\n' and 'a real error' in result.stderr


def test_silence_covers_c_libraries_and_ends_with_its_context(capfd):
  with pytest.raises(KeyError):
    with quiet_tensorflow.silent_standard_error():
      os.write(2, b'of a library')
      raise KeyError
  os.write(2, b'heard')
  assert capfd.readouterr().err == 'heard'


def test_a_process_without_standard_error(tmp_path):
  (tmp_path / 'tensorflow.py').write_text('A = 3')
  result = _run(
    '-c',
    'import im2txt, os; os.close(2); import tensorflow; print(tensorflow.A)',
    path=tmp_path,
  )
  assert (result.returncode, result.stdout) == (0, '3\n')


def _programs():
  """Returns the paths of all programs."""
  return sorted(
    path
    for path in glob.glob(os.path.join(_ROOT, 'im2txt', '*.py'))
    if 'program.run(main' in open(path, encoding='utf-8').read()
    and not path.endswith('_test.py')
  )


# Imports what the programs import, and forks for each: so it is loaded once.
_HELPS = r"""
import importlib, json, os, runpy, sys
for path in sys.argv[2:]:
  importlib.import_module('im2txt.' + os.path.basename(path).removesuffix('.py'))
assert 'tensorflow' in sys.modules and 'keras' not in sys.modules
ends = {}
for path in sys.argv[2:]:
  name = os.path.basename(path)
  files = [f'{sys.argv[1]}/{name}.{stream}' for stream in ('out', 'err')]
  child = os.fork()
  if not child:
    for number, file in enumerate(files, 1):
      os.dup2(os.open(file, os.O_CREAT | os.O_WRONLY), number)
    sys.argv = [path, '--help']
    sys.path.insert(0, os.path.dirname(path))
    runpy.run_path(path, run_name='__main__')  # It calls sys.exit.
    raise AssertionError('it did not end')
  _, status = os.waitpid(child, 0)
  ends[name] = [os.waitstatus_to_exitcode(status), *map(
      lambda file: open(file).read(), files)]
print(json.dumps(ends))
"""


def test_the_help_of_every_program_is_quiet(tmp_path):
  """Each is run as Bazel runs it, from its file."""
  result = _run('-c', _HELPS, str(tmp_path), *_programs())
  assert result.returncode == 0 and result.stderr == '', result.stderr
  ends = json.loads(result.stdout)
  assert {'train.py', 'run_inference.py', 'plot.py'} <= set(ends)
  for name, (status, out, err) in ends.items():
    assert (name, status, err) == (name, 0, '')
    assert '--' in out


@pytest.mark.parametrize(
  'name, flag', [('train.py', '--helpfull'), ('benchmark.py', '--help')]
)
def test_a_program_that_imports_tensorflow_itself_is_quiet(name, flag):
  """The second does so by name."""
  result = _run(os.path.join(_ROOT, 'im2txt', name), flag)
  assert (result.returncode, result.stderr) == (0, '')
  assert '--' in result.stdout


def test_every_program_imports_im2txt_before_what_imports_tensorflow():
  early = set()
  for path in _programs():
    with open(path, encoding='utf-8') as f:
      imports = [
        node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.parse(f.read()).body
        if isinstance(node, (ast.Import, ast.ImportFrom))
      ]
    packages = [name.partition('.')[0] for name in imports]
    early.update(packages[: packages.index('im2txt')])
  assert 'absl' in early
  assert early - sys.stdlib_module_names <= {'absl', 'numpy', 'PIL'}


def test_workers_are_quiet(tmp_path):
  program = tmp_path / 'workers.py'
  program.write_text("""
from im2txt.data import jpeg_check
from im2txt.runtime import workers
if __name__ == '__main__':
  with workers.Workers(1) as workers:
    print(*workers.map(jpeg_check.why_undecodable, [(b'\\xff\\xd8 no',)]))
""")
  result = _run(str(program))
  assert 'JPEG' in result.stdout and result.stderr == ''


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
