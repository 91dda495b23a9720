# SPDX-License-Identifier: Apache-2.0
"""Trains on streams larger than the memory that it may take.

  python -m im2txt.stress.long_input --output=docs/memory.png \
      [--directory=/tmp/long_input] [--steps=10000] [--sources=shards,cache]

`train` runs with a tiny decoder, the mean color of an image in the place of
Inception, and its usual input pipeline, from shards and from a cache of
features. It reads each image of gigabytes once. After the
first steps the operating system refuses it more than --growth megabytes of
further memory (RLIMIT_DATA), a fraction of what it has yet to read. Its memory
is noted every few steps, drawn, and compared: the median of the last tenth of
the steps with that of the second tenth. The status is 1 if it has grown by more
than a fiftieth of what was read meanwhile, or if the program failed.

The data are made in --directory, some 3 GB at a time, and removed. Linux only.
"""

import argparse
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import os
import re
import resource
import shutil
import statistics
import sys
import tempfile
import time
from typing import Any
from unittest import mock

import numpy as np
import tensorflow as tf

from im2txt import checkpoints
from im2txt import configuration
from im2txt import show_and_tell_model
from im2txt.data import shards
from im2txt.input_pipeline import captions as captions_lib
from im2txt.input_pipeline import feature_cache
from im2txt.input_pipeline import image_features
from im2txt.runtime import files as files_lib
from im2txt.stress import programs
from im2txt.visualization import memory

SOURCES = ('shards', 'cache')
# Inception v3 takes no smaller images.
_SIZE = 75
_MODEL: dict[str, Any] = {
  'vocab_size': 16,
  'embedding_size': 8,
  'num_lstm_units': 8,
  'image_height': _SIZE,
  'image_width': _SIZE,
}
_IMAGES_PER_SHARD = 1000
# Captions per step, each of an image of its own.
_BATCH_SIZE = {'shards': 2, 'cache': 32}
# Bytes of an image of the shards. Most of them are comments in the JPEG, so
# that bytes pass, which takes memory, and few pixels, which take time.
_IMAGE_BYTES = 150_000
_MOST_COMMENT_BYTES = 65_000
# Views per image in the cache: an image takes 8 KiB for each.
_VIEWS = 16
_FEATURES = 2048
_FEATURE_BYTES = 4 * _FEATURES
# The program has what it needs after this share of its steps.
_WARM = 0.1
_MOST_GROWTH = 1 / 50


class ColorModel(show_and_tell_model.ShowAndTellModel):
  """A model that sees the mean color of an image only, which takes no time."""

  def encode_images(
    self,
    images: tf.Tensor,
    is_training: bool = False,
    seed: tf.Tensor | None = None,
    places: tf.Tensor | None = None,
  ) -> tf.Tensor:
    color = tf.reduce_mean(images, [1, 2])
    return tf.tile(color, [1, -(-_FEATURES // 3)])[:, :_FEATURES]


def padded_jpeg(seed: int, size: int) -> bytes:
  """Returns a small JPEG image with comments, of about `size` bytes.

  Args:
    seed: of its pixels and comments.
    size: of the file; too small a size gives an image without comments.
  """
  rng = np.random.default_rng(seed)
  image = tf.io.encode_jpeg(rng.integers(0, 256, [40, 60, 3], np.uint8)).numpy()
  parts = [image[:2]]
  left = size - len(image)
  while left > 4:
    length = min(left - 4, _MOST_COMMENT_BYTES)
    parts += [b'\xff\xfe', (length + 2).to_bytes(2, 'big'), rng.bytes(length)]
    left -= length + 4
  return b''.join([*parts, image[2:]])


def write_shards(directory: str, num_images: int, size: int) -> list[str]:
  """Writes shards of images with one caption each.

  Args:
    directory: an existing directory.
    num_images: number of images.
    size: see `padded_jpeg`.

  Returns:
    The paths of the shards.
  """
  number = max(num_images // _IMAGES_PER_SHARD, 1)
  paths = [
    os.path.join(directory, f'train-{i:05d}-of-{number:05d}')
    for i in range(number)
  ]
  edges = np.linspace(0, num_images, number + 1).astype(int).tolist()
  for path, start, end in zip(paths, edges[:-1], edges[1:]):
    with shards.Writer(path) as writer:
      for image in range(start, end):
        writer.write(
          shards.serialize(
            image + 1,
            padded_jpeg(image, size),
            ['<S>', 'a', 'dog', '</S>'],
            [0, 2, 3, 1],
          )
        )
  return paths


def write_inception(directory: str) -> str:
  """Writes a checkpoint with an Inception v3 of random weights."""
  model = show_and_tell_model.ShowAndTellModel(
    configuration.ModelConfig(**_MODEL)
  )
  return checkpoints.CheckpointManager(directory).save(model.named_variables)


def write_cache(directory: str, paths: Sequence[str], inception: str) -> None:
  """Writes a cache of features that are random numbers.

  Args:
    directory: of the cache.
    paths: the shards.
    inception: checkpoint that `train` will be given.
  """
  config = configuration.ModelConfig(**_MODEL)
  model = show_and_tell_model.ShowAndTellModel(config)
  assert model.inception
  checkpoints.load_inception(inception, model.inception)
  rng = np.random.default_rng(0)

  def encode(
    names: Sequence[str], captions: captions_lib.Captions, *_: object
  ) -> Iterator[np.ndarray]:
    most = image_features.IMAGES_PER_FILE
    for start in range(0, len(captions.image_ids), most):
      size = min(most, len(captions.image_ids) - start)
      yield rng.random([size, _VIEWS, _FEATURES], np.float32)

  # Hours of Inception would change nothing about the memory of training.
  with mock.patch.object(image_features, 'encode', encode):
    feature_cache.open_or_build(
      directory,
      paths,
      model.encode_images,
      model.inception.named_variables,
      config,
      _VIEWS - 1,
      0,
    )


def _status(pid: int) -> dict[str, int]:
  """Returns what /proc tells of a process's memory, bytes by name."""
  with open(f'/proc/{pid}/status', encoding='utf-8') as f:
    return {
      name: int(value) * 1024
      for name, value in re.findall(r'^(\w+):\s+(\d+) kB$', f.read(), re.M)
    }


def watch(
  program: programs.Program,
  steps: int,
  bytes_per_step: int,
  growth: int,
  seconds: float = 0.2,
) -> Iterator[memory.Sample]:
  """Yields the memory of `train`, and limits it once it is warm.

  Args:
    program: the running program; its log tells the step.
    steps: number of its steps.
    bytes_per_step: what it reads per step.
    growth: bytes that it may take beyond what it has when it is warm.
    seconds: between two samples.
  """
  known, limited = 0, False
  while program.is_running():
    found = re.findall(r'global step (\d+):', program.text())
    with contextlib.suppress(OSError, KeyError):  # It may end meanwhile.
      if found and (step := int(found[-1])) > known:
        known, status = step, _status(program.pid)
        yield memory.Sample(
          step, status['RssAnon'], status['RssFile'], step * bytes_per_step
        )
        if not limited and step >= _WARM * steps:
          limited = True
          limit = status['VmData'] + growth
          resource.prlimit(program.pid, resource.RLIMIT_DATA, (limit, limit))
    time.sleep(seconds)


def growth_of(samples: Sequence[memory.Sample]) -> tuple[int, int]:
  """Returns the bytes by which memory has grown, and those read meanwhile.

  Both are from the second tenth of the steps to the last tenth; for the memory
  the median of each.

  >>> growth_of([memory.Sample(i, 50 + i // 10, 0, i) for i in range(1, 101)])
  (8, 80)
  """
  last = samples[-1].step

  def within(start: float, end: float) -> list[memory.Sample]:
    return [s for s in samples if start * last < s.step <= end * last]

  first, final = within(_WARM, 2 * _WARM), within(1 - _WARM, 1)
  if not first or not final:
    raise ValueError(
      f'{len(samples)} samples are too few to tell: give more --steps'
    )
  return (
    int(
      statistics.median(s.private for s in final)
      - statistics.median(s.private for s in first)
    ),
    final[-1].read - first[-1].read,
  )


def run(
  source: str, directory: str, steps: int, growth: int
) -> list[memory.Sample]:
  """Makes the data, trains on them, and removes them.

  Args:
    source: one of SOURCES.
    directory: an existing directory.
    steps: number of steps.
    growth: see `watch`.

  Returns:
    The memory of the program.

  Raises:
    RuntimeError: the program failed.
  """
  size = _BATCH_SIZE[source]
  with tempfile.TemporaryDirectory(dir=directory) as place:
    inception = write_inception(os.path.join(place, 'inception'))
    arguments: dict[str, Any] = {
      'input_file_pattern': os.path.join(place, 'train-*'),
      'inception_checkpoint_file': inception,
      'train_dir': os.path.join(place, 'train_dir'),
      'number_of_steps': steps,
      'log_every_n_steps': max(steps // 200, 1),
      'batch_size': size,
      'random_seed': 1,
      **_MODEL,
    }
    if source == 'shards':
      write_shards(place, steps * size, _IMAGE_BYTES)
      bytes_per_step = size * _IMAGE_BYTES
    else:
      # Each step reads one view of each of its images.
      paths = write_shards(place, steps * size // _VIEWS, 0)
      arguments['feature_cache_dir'] = os.path.join(place, 'features')
      arguments['feature_views'] = _VIEWS - 1
      write_cache(arguments['feature_cache_dir'], paths, inception)
      bytes_per_step = size * _FEATURE_BYTES
    program = programs.Program(
      'train',
      [f'--{name}={value}' for name, value in arguments.items()],
      os.path.join(place, 'log'),
      {'im2txt.show_and_tell_model.ShowAndTellModel': ColorModel},
    )
    try:
      samples = list(watch(program, steps, bytes_per_step, growth))
      status = program.wait(60)
    finally:
      program.kill_all()
    if status:
      shutil.copy(os.path.join(place, 'log'), directory)
      raise RuntimeError(
        f'train from {source} ended with status {status} after step '
        f'{samples[-1].step if samples else 0}: see {directory}/log'
      )
    return samples


def report(runs: Mapping[str, Sequence[memory.Sample]]) -> tuple[str, bool]:
  """Returns (a table in Markdown, whether memory was flat everywhere)."""
  lines = [
    '| from | steps | read | own memory, warm | at the end | growth per GB |',
    '| --- | --: | --: | --: | --: | --: |',
  ]
  flat = True
  for source, samples in runs.items():
    grown, read = growth_of(samples)
    flat = flat and grown <= _MOST_GROWTH * read
    end = samples[-1]
    lines.append(
      f'| {source} | {end.step:,} | {end.read / 1e9:.1f} GB '
      f'| {(end.private - grown) / 1e6:,.0f} MB | {end.private / 1e6:,.0f} MB '
      f'| {grown / 1e6 / (read / 1e9):.1f} MB |'
    )
  return '\n'.join(lines), flat


def main() -> int:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--output', default='memory.png', help='PNG to write.')
  parser.add_argument(
    '--directory', default=tempfile.gettempdir(), help='place for the data'
  )
  parser.add_argument('--steps', type=int, default=10000)
  parser.add_argument(
    '--growth', type=int, default=300, help='megabytes that it may take yet'
  )
  parser.add_argument('--sources', default=','.join(SOURCES))
  args = parser.parse_args()
  os.makedirs(args.directory, exist_ok=True)
  runs = {
    source: run(source, args.directory, args.steps, args.growth * 10**6)
    for source in args.sources.split(',')
  }
  table, flat = report(runs)
  print(table)
  result = memory.draw({f'from {name}': s for name, s in runs.items()})
  files_lib.write_figure(args.output, result)
  return 0 if flat else 1


if __name__ == '__main__':
  sys.exit(main())
