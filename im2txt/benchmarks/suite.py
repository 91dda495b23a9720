# SPDX-License-Identifier: Apache-2.0
"""The measurements of `benchmark`, each beside its limit."""

import collections
from collections.abc import Callable
import concurrent.futures
import contextlib
import dataclasses
import functools
import io
import itertools
import json
import os
import random
import re
import shutil
import statistics
import sys
import time
from typing import Any
from unittest import mock

import numpy as np
import tensorflow as tf

from im2txt import checkpoints
from im2txt import configuration
from im2txt import show_and_tell_model
from im2txt.benchmarks import devices
from im2txt.benchmarks import timing
from im2txt.benchmarks import training
from im2txt.data import shards
from im2txt.inference_utils import captioner as captioner_lib
from im2txt.inference_utils import image_files
from im2txt.inference_utils import search_config
from im2txt.ops import folded_inception
from im2txt.ops import image_embedding
from im2txt.ops import image_processing
from im2txt.runtime.progress import log
from im2txt.sample import scenes
from im2txt.text import vocabulary
from im2txt.text import vocabulary_stamp

_TRAINING_BATCH = 32
_CAPTIONING_BATCH = 16
# Matrices whose products tell the rate of a GPU.
_GPU_PRODUCTS = dict(size=8192, products=8)
# Of joint training.
_CAPTIONS_PER_IMAGE = (1, 4)


def jpegs(count: int) -> list[bytes]:
  """Returns JPEG files of 640 x 480 pixels, the size of COCO's images."""
  rng = random.Random(0)
  noise = np.random.default_rng(0).normal(0, 12, [480, 640, 3])
  found = []
  for _ in range(min(count, 16)):
    scene = scenes.render(scenes.make_scene(rng), rng)
    # Noise makes the files as large as photos.
    pixels = np.asarray(scene.resize((640, 480)), np.float32) + noise
    out = io.BytesIO()
    scenes.Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(
      out, 'JPEG', quality=90
    )
    found.append(out.getvalue())
  return [found[i % len(found)] for i in range(count)]


def write_random_model(
  directory: str, config: configuration.ModelConfig
) -> None:
  """Writes a checkpoint of random weights and a vocabulary that fits it."""
  # A narrow normal distribution keeps the values of 94 layers finite.
  inception = image_embedding.InceptionV3()
  values = dict(inception.named_variables)
  for name, variable in inception.named_variables.items():
    if name.endswith('/weights'):
      fan_in = np.prod(variable.shape[:-1])
      values[name] = tf.random.normal(variable.shape, stddev=fan_in**-0.5)
  model = show_and_tell_model.ShowAndTellModel(config, with_inception=False)
  values.update(model.named_variables)
  checkpoints.write(os.path.join(directory, 'model.ckpt-0'), values)
  path = os.path.join(directory, vocabulary.FILE_NAME)
  training.write_vocabulary(path, config.vocab_size)
  stamp = vocabulary_stamp.of_vocabulary(vocabulary.Vocabulary(path)).stamp
  assert stamp
  vocabulary_stamp.save(directory, stamp)


def _first_gradient(
  run: Callable[[], tuple[tf.Tensor, list[tf.Tensor]]],
) -> np.ndarray:
  """Runs one of `training.lstm_variants`, and waits for it."""
  return run()[1][0].numpy()


class Benchmark:
  """Measures speed and memory, one method after another.

  Args:
    directory: for temporary files.
    repeats: measurements per figure.
    num_images: number of JPEG files to caption.
    num_prepared: number of images to make shards of.
    checkpoint_path: model to caption with; '' for random weights.
    vocab_file: its vocabulary.

  Attributes:
    directory: see above.
    repeats: see above.
    config: of the model with random weights, and of training.
    results: what was measured, by name: `value` and `unit`, and `share`, the
      value in units of the figure named by `share_of`. `... parts` has the
      values of parts, and `growth` has lists of points.
  """

  def __init__(
    self,
    directory: str,
    repeats: int,
    num_images: int,
    num_prepared: int = 0,
    checkpoint_path: str = '',
    vocab_file: str = '',
  ) -> None:
    self.directory = directory
    self.repeats = repeats
    self.results: dict[str, dict[str, Any]] = {}
    self.config = configuration.ModelConfig(batch_size=_TRAINING_BATCH)
    self._prefix = checkpoint_path
    self._vocab_file = vocab_file
    self._encoded = jpegs(num_images)
    self._num_prepared = num_prepared

  def run(self, with_growth: bool = True) -> dict[str, dict[str, Any]]:
    """Measures all, in an order in which each finds what it is compared with.

    Args:
      with_growth: whether to measure how costs grow.

    Returns:
      See `results`.
    """
    tf.random.set_seed(1)  # The length of captions depends on the weights.
    self.machine()
    self.training()
    self.joint()
    self.switches()
    self.lstm()
    self.captioning()
    self.programs()
    self.saving()
    if self._num_prepared:
      self.preparing()
    if with_growth:
      self.growth()
    return self.results

  def _add(
    self, name: str, value: float, unit: str, share_of: str | None = None
  ) -> None:
    self.results[name] = {'value': value, 'unit': unit}
    text = f'{value:10.4g} {unit}'
    if share_of:
      limit = self.results[share_of]['value']
      self.results[name].update(share=value / limit, share_of=share_of)
      text += f'  = {value / limit:.2f} x {share_of}'
    print(f'{name:45} {text}', flush=True)

  def _gpu_memory(self, name: str) -> contextlib.AbstractContextManager[None]:
    """A context: what it uses at most of a GPU's memory is added."""
    return devices.peak_memory(
      lambda peak: self._add(
        f'{name}, peak memory of the GPU', peak / 1e9, 'GB'
      )
    )

  def _seconds(self, fn: Callable[[], object]) -> float:
    return timing.median_seconds(fn, self.repeats)

  def machine(self) -> None:
    """Measures the limits of the machine, and names it."""
    device = devices.find()
    self.results['device'] = dataclasses.asdict(device)
    print(f'{"device":45} {device}', flush=True)
    for name, dtype in (('float32', tf.float32), ('bfloat16', tf.bfloat16)):
      self._add(
        f'matrix products, {name}',
        timing.matmul_rate(
          dtype, self.repeats, **_GPU_PRODUCTS if device.is_gpu else {}
        )
        / 1e9,
        'GFLOP/s',
      )
    process = tf.function(image_processing.process_image, autograph=False)
    dataset = tf.data.Dataset.from_tensor_slices(self._encoded).map(
      process, num_parallel_calls=os.cpu_count()
    )

    def decode() -> None:
      for _ in dataset:
        pass

    self._add(
      'decoding JPEGs, all processors',
      len(self._encoded) / self._seconds(decode),
      'images/s',
    )

  def training(self) -> None:
    """Compares a training step with the rate of matrix products."""
    flops = training.flops_per_caption(self.config)
    self._add('training, per caption', flops / 1e9, 'GFLOP')
    size = self.config.batch_size
    seconds = {}
    for name, dtype, group in (
      ('from features', tf.float32, None),
      ('from features, bfloat16', tf.bfloat16, None),
      ('from images', tf.float32, 1),
      ('from images, 4 captions per image', tf.float32, 4),
    ):
      with self._gpu_memory(f'training {name}'):
        seconds[name] = self._seconds(
          training.training_step(self.config, dtype, group)
        )
        self._add(
          f'training {name}',
          size / seconds[name],
          'captions/s',
          'training from features' if name != 'from features' else None,
        )
    self._add(
      'training from features, rate',
      flops * size / seconds['from features'] / 1e9,
      'GFLOP/s',
      'matrix products, float32',
    )
    forward = self._seconds(training.forward_pass(self.config))
    self._add(
      'evaluating from features',
      size / forward,
      'captions/s',
      'training from features',
    )
    self.results['training step, parts'] = {
      'unit': 'ms per caption',
      'forward': 1e3 * forward / size,
      'backward and update': 1e3 * (seconds['from features'] - forward) / size,
    }

  def joint(self) -> None:
    """Compares joint training with the rate of matrix products.

    With bfloat16 the decoder is computed in it, and so are top blocks from their
    cached inputs. The rest of Inception is float32.
    """
    rates = {
      dtype: 1e9 * self.results[f'matrix products, {dtype.name}']['value']
      for dtype in (tf.float32, tf.bfloat16)
    }
    size = self.config.batch_size
    for per_image in _CAPTIONS_PER_IMAGE:
      for name, step in training.joint_steps(self.config, per_image):
        name = f'joint training, {name}, {per_image} per image'
        limit = f'{name}, all at the rate of matrix products'
        self._add(limit, size / step.limit(rates), 'captions/s')
        with self._gpu_memory(name):
          seconds = timing.median_seconds(step.run, min(self.repeats, 3))
          self._add(name, size / seconds, 'captions/s', limit)

  def switches(self) -> None:
    """Compares steps that have a switch on with one that has none."""
    seconds = timing.alternating_medians(
      training.switched_steps(self.config), self.repeats
    )
    first = next(iter(seconds))
    for name, value in seconds.items():
      self._add(
        f'training from features, {name}',
        self.config.batch_size / value,
        'captions/s',
        f'training from features, {first}' if name != first else None,
      )
    seconds = timing.alternating_medians(
      training.self_critical_steps(self.config, self.directory), self.repeats
    )
    first = next(iter(seconds))
    for name, value in seconds.items():
      self._add(
        f'self-critical step, {name}',
        1e3 * value,
        'ms',
        f'self-critical step, {first}' if name != first else None,
      )

  def lstm(self) -> None:
    """Compares the LSTM with other ways to compute it."""
    for name, run in training.lstm_variants(self.config).items():
      self._add(
        f'LSTM, forward and back, {name}',
        1e3 * self._seconds(functools.partial(_first_gradient, run)),
        'ms',
        'LSTM, forward and back, own gradient'
        if name != 'own gradient'
        else None,
      )

  def _captioner(self, **kwargs: Any) -> captioner_lib.Captioner:
    return captioner_lib.Captioner(self._prefix, self._vocab_file, **kwargs)

  def captioning(self) -> None:
    """Compares captioning with Inception v3 alone."""
    if not self._prefix:
      self._prefix = self.directory
      self._vocab_file = os.path.join(self.directory, vocabulary.FILE_NAME)
      write_random_model(self.directory, self.config)
    checkpoint = checkpoints.Checkpoint(self._prefix)
    size = _CAPTIONING_BATCH
    for precision in ('float32', 'bfloat16'):
      # As in the captioner: one graph with constant weights.
      folded = folded_inception.fold(checkpoint.get, tf.as_dtype(precision))
      captioner = self._captioner(precision=precision)
      images = [captioner.decode(data) for data in self._encoded[:size]]
      encode = tf.function(
        lambda x, w=folded: folded_inception.encode(x, w), autograph=False
      )
      stacked = tf.stack(images)
      alone = self._seconds(lambda: encode(stacked).numpy())
      with self._gpu_memory(f'captioning, {precision}'):
        whole = self._seconds(lambda: captioner.caption(images))
      self._add(
        f'Inception v3 alone, {precision}',
        size / alone,
        'images/s',
        'Inception v3 alone, float32' if precision != 'float32' else None,
      )
      self._add(
        f'captioning, {precision}',
        size / whole,
        'images/s',
        f'Inception v3 alone, {precision}',
      )
      if precision == 'float32':
        self._decode_and_caption(captioner, alone / size, whole / size)

  def _decode_and_caption(
    self, captioner: captioner_lib.Captioner, inception: float, caption: float
  ) -> None:
    """Measures captioning from files.

    Args:
      captioner: decodes and captions.
      inception: seconds per image of Inception v3.
      caption: seconds per image of captioning decoded images.
    """
    names = []
    for i, data in enumerate(self._encoded):
      names.append(os.path.join(self.directory, f'{i}.jpg'))
      with open(names[-1], 'wb') as f:
        f.write(data)
    decode = self._seconds(lambda: captioner.decode(self._encoded[0]).numpy())

    def run() -> None:
      images = image_files.read_images(
        names, captioner.decode, ahead=2 * _CAPTIONING_BATCH
      )
      while batch := list(itertools.islice(images, _CAPTIONING_BATCH)):
        captioner.caption([image for _, image in batch])

    seconds = timing.median_seconds(run, 3)
    self._add(
      'captioning from files',
      len(names) / seconds,
      'images/s',
      'Inception v3 alone, float32',
    )
    self.results['captioning, parts'] = {
      'unit': 'ms per image',
      'decoding': 1e3 * decode,
      'Inception v3': 1e3 * inception,
      'beam search': 1e3 * (caption - inception),
    }

  def programs(self) -> None:
    """Measures whole processes: time from a cold start, and memory."""
    start, _ = timing.median_process(
      [sys.executable, '-c', 'import tensorflow']
    )
    self._add('importing tensorflow', start, 's')
    python = [sys.executable, '-m']
    image = os.path.join(self.directory, '0.jpg')
    seconds, memory = timing.median_process(
      [
        *python,
        'im2txt.run_inference',
        f'--checkpoint_path={self._prefix}',
        f'--vocab_file={self._vocab_file}',
        f'--input_files={image}',
      ]
    )
    self._add(
      'run_inference of one image', seconds, 's', 'importing tensorflow'
    )
    self._add('run_inference, peak memory', memory / 1e9, 'GB')
    shard = os.path.join(self.directory, 'train-00000-of-00001')
    with shards.Writer(shard) as writer:
      for i, data in enumerate(self._encoded):
        writer.write(
          shards.serialize(i, data, ['<S>', 'w0', '</S>'], [0, 2, 1])
        )
    train_dir = os.path.join(self.directory, 'train')
    train = [
      *python,
      'im2txt.train',
      f'--input_file_pattern={shard}',
      f'--train_dir={train_dir}',
      '--random_inception',
    ]
    cache = f'--feature_cache_dir={os.path.join(self.directory, "features")}'
    joint = ['--train_inception', '--number_of_steps=2']
    for name, command in (
      (
        'train from features',
        [*train, cache, '--feature_views=0', '--number_of_steps=3'],
      ),
      (
        'train from images',
        [*train, '--number_of_steps=10', '--log_every_n_steps=10'],
      ),
      (
        'train all of Inception',
        [*train, f'--train_dir={train_dir}-all', *joint],
      ),
      (
        'train the top blocks',
        [
          *train,
          f'--train_dir={train_dir}-top',
          *joint,
          '--train_inception_from=Mixed_7b',
        ],
      ),
      (
        'evaluate',
        [
          *python,
          'im2txt.evaluate',
          f'--input_file_pattern={shard}',
          f'--checkpoint_dir={train_dir}',
          '--run_once',
          '--min_global_step=0',
          f'--eval_dir={os.path.join(self.directory, "eval")}',
        ],
      ),
    ):
      _, memory, written = timing.run_process(command)
      self._add(f'{name}, peak memory', memory / 1e9, 'GB')
      if name == 'train from images':
        waiting = re.search(r'(\d+)% waiting for input', written)
        assert waiting, written
        self._add(f'{name}, waiting for input', int(waiting.group(1)), '%')

  def saving(self) -> None:
    """Compares saving a checkpoint with and without flushing it to disk."""
    values = {
      **image_embedding.InceptionV3().named_variables,
      **show_and_tell_model.ShowAndTellModel(
        self.config, with_inception=False
      ).named_variables,
    }
    prefixes = (
      os.path.join(self.directory, f'saved-{i}', 'model.ckpt-0')
      for i in itertools.count()
    )

    def save() -> None:
      # A new name each time, as in `train`: ext4 flushes a file that replaces
      # another.
      prefix = next(prefixes)
      os.makedirs(os.path.dirname(prefix))
      checkpoints.write(prefix, values)
      shutil.rmtree(os.path.dirname(prefix))

    with mock.patch('os.fsync', lambda descriptor: None):
      save()  # A virtual machine first gets memory from its host.
      self._add(
        'saving a checkpoint, not flushed to disk', self._seconds(save), 's'
      )
    self._add(
      'saving a checkpoint',
      self._seconds(save),
      's',
      'saving a checkpoint, not flushed to disk',
    )

  def preparing(self) -> None:
    """Compares making shards with decoding the same files, without start-up."""
    few, many = self._num_prepared // 4, self._num_prepared
    paths = [self._image(i) for i in range(many - few)]

    def decode(path: str) -> None:
      with open(path, 'rb') as f:
        tf.io.decode_jpeg(f.read(), channels=3)

    # As many threads as `prepare` has workers. The decoder releases Python's
    # lock.
    executor = concurrent.futures.ThreadPoolExecutor(os.cpu_count())

    def decode_all() -> float:
      start = time.perf_counter()
      collections.deque(executor.map(decode, paths), maxlen=0)
      return time.perf_counter() - start

    def prepare(layout: str) -> float:
      # The difference of two runs does not include start-up.
      return self._prepare(layout, many) - self._prepare(layout, few)

    # The first runs take twice as long on a virtual machine, which must first
    # get memory from its host.
    for _ in range(min(self.repeats, 3)):
      self._prepare('pairs', many)
    # In turn, so that other load on the machine affects all alike.
    seconds = [
      (decode_all(), prepare('pairs'), prepare('compact'))
      for _ in range(min(self.repeats, 5))
    ]
    alone, pairs, compact = (
      len(paths) / statistics.median(column) for column in zip(*seconds)
    )
    self._add('reading and decoding JPEGs', alone, 'images/s')
    for layout, value in (('pairs', pairs), ('compact', compact)):
      self._add(
        f'preparing {layout}, 5 captions per image',
        value,
        'images/s',
        'reading and decoding JPEGs',
      )

  def _image(self, index: int) -> str:
    """Returns the path of a JPEG file, and makes it if it is missing."""
    path = os.path.join(self.directory, f'prepared-{index}.jpg')
    if not os.path.exists(path):
      with open(path, 'wb') as f:
        f.write(self._encoded[index % len(self._encoded)])
    return path

  def _prepare(self, layout: str, count: int) -> float:
    """Returns the seconds that it takes to make shards of some images."""
    output = os.path.join(self.directory, 'prepared')
    command = [
      sys.executable,
      '-m',
      'im2txt.build_mscoco_data',
      f'--layout={layout}',
      f'--output_dir={output}',
      f'--word_counts_output_file={output}/word_counts.txt',
    ]
    for part, numbers in (('train', range(20, 20 + count)), ('val', range(20))):
      captions_file = os.path.join(self.directory, f'captions_{part}.json')
      with open(captions_file, 'w', encoding='utf-8') as f:
        json.dump(
          {
            'images': [
              {'id': i, 'file_name': os.path.basename(self._image(i))}
              for i in numbers
            ],
            'annotations': [
              {'image_id': i, 'caption': f'An image of {j} words, all red.'}
              for i in numbers
              for j in range(5)
            ],
          },
          f,
        )
      command += [
        f'--{part}_image_dir={self.directory}',
        f'--{part}_captions_file={captions_file}',
      ]
    seconds, _, _ = timing.run_process(command)
    shutil.rmtree(output)
    return seconds

  def growth(self) -> None:
    """Measures how the cost per caption grows: lists of (x, milliseconds)."""
    found = self.results['growth'] = {}
    size = _CAPTIONING_BATCH

    def caption_ms(batch: int, **settings: Any) -> float:
      captioner = self._captioner(search=search_config.SearchConfig(**settings))
      images = [captioner.decode(data) for data in self._encoded[:batch]]
      return (
        1e3
        / batch
        * timing.median_seconds(lambda: captioner.caption(images), 3)
      )

    log('Measuring growth')
    found['captioning: batch size'] = [
      (n, caption_ms(n)) for n in (1, 2, 4, 8, 16, 32)
    ]
    found['captioning: beam size'] = [
      (n, caption_ms(size, beam_size=n)) for n in (1, 3, 5, 10, 20)
    ]
    found['captioning: longest caption'] = [
      (n, caption_ms(size, max_caption_length=n)) for n in (5, 10, 20, 40)
    ]
    found['training: batch size'] = [
      (n, self._step_ms(batch_size=n)) for n in (8, 16, 32, 64, 128)
    ]
    found['training: vocabulary'] = [
      (n, self._step_ms(vocab_size=n)) for n in (1000, 4000, 12000, 24000)
    ]

  def _step_ms(self, **changes: Any) -> float:
    config = dataclasses.replace(self.config, **changes)
    return (
      1e3
      / config.batch_size
      * timing.median_seconds(training.training_step(config), 3)
    )
