# SPDX-License-Identifier: Apache-2.0
"""Measures what training and captioning reach of what the machine can do.

  benchmark --output_dir=DIR

First the machine's own limits: the rate of matrix products, of Inception v3
alone and of decoding JPEGs. Beside them, in the same run: the training step
from cached features and from images, the LSTM beside other ways to compute it,
captioning, preparing shards, and the programs as whole processes with their
peak memory. Each figure is a median after a warm-up.

A table is printed; DIR gets benchmark.json, time.png (where the time goes) and
growth.png (how cost grows with batch, beam, caption length and vocabulary).

Without --checkpoint_path the model has random weights of the default size. Its
captions never end by themselves, so the search takes all of its steps: the
slowest case.
"""

import collections
import concurrent.futures
import dataclasses
import io
import itertools
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from absl import flags
import numpy as np

# Before TensorFlow, which im2txt keeps quiet while it is imported.
from im2txt import program
import tensorflow as tf
from im2txt import checkpoints
from im2txt import configuration
from im2txt import show_and_tell_model
from im2txt import vocabulary_stamp
from im2txt.data import sample_scenes
from im2txt.data import shards
from im2txt.inference_utils import captioner as captioner_lib
from im2txt.inference_utils import search_config
from im2txt.inference_utils import image_files
from im2txt.inference_utils import vocabulary
from im2txt.ops import folded_inception
from im2txt.ops import image_embedding
from im2txt.ops import image_processing
from im2txt.ops import lstm
from im2txt.files import replacing
from im2txt.files import write_json
from im2txt.progress import log

FLAGS = flags.FLAGS

flags.DEFINE_string('output_dir', '', 'Directory for the JSON and the plots.')
flags.DEFINE_string(
    'checkpoint_path', '', 'Model to caption with; empty: random weights.')
flags.DEFINE_string('vocab_file', '', 'Vocabulary of --checkpoint_path.')
flags.DEFINE_integer('repeats', 7, 'Measurements, of which the median counts.')
flags.DEFINE_integer('num_images', 64, 'JPEG files to caption.')
flags.DEFINE_integer(
    'num_prepared', 2000,
    'Pictures of which shards are made, 1 MB of disk each; 0: none.')
flags.DEFINE_bool('growth', True, 'Whether to measure what growth.png shows.')

# A caption of the benchmark: so many words are predicted, </S> among them.
WORDS = 12
_TRAINING_BATCH = 32
_CAPTIONING_BATCH = 16


def flops_per_caption(config, words=WORDS):
  """Returns the floating-point operations to train on one caption.

  Those of the matrix products alone, 2 for a multiplication and addition: the
  image's embedding, the LSTM (the image and `words` words) and the logits of
  `words` words; twice as many backwards, but for the image's embedding, whose
  input needs no gradient.

  Args:
    config: a `configuration.ModelConfig`.
    words: number of predicted words.
  """
  embedding, units = config.embedding_size, config.num_lstm_units
  image = 2 * folded_inception.FEATURE_SIZE * embedding
  lstm = 2 * (embedding + units) * 4 * units * (words + 1)
  logits = 2 * units * config.vocab_size * words
  return 2 * image + 3 * (lstm + logits)


def median_seconds(fn, repeats):
  """Returns the median time of a call of `fn`, after two that do not count."""
  times = []
  for i in range(repeats + 2):
    start = time.perf_counter()
    fn()
    if i > 1:
      times.append(time.perf_counter() - start)
  return statistics.median(times)


def matmul_rate(dtype, repeats, size=2048):
  """Returns the floating-point operations a second of matrix products."""
  a = tf.cast(tf.random.normal([size, size]), dtype)
  product = tf.function(lambda: tf.reduce_sum(tf.matmul(a, a)))
  return 2 * size**3 / median_seconds(lambda: product().numpy(), repeats)


def jpegs(count):
  """Returns the bytes of some JPEG files of 640 x 480 pixels, as COCO's are."""
  rng = random.Random(0)
  noise = np.random.default_rng(0).normal(0, 12, [480, 640, 3])
  found = []
  for _ in range(min(count, 16)):
    scene = sample_scenes.render(sample_scenes.make_scene(rng), rng)
    # With the grain that makes a file as long as a photo's.
    pixels = np.asarray(scene.resize((640, 480)), np.float32) + noise
    out = io.BytesIO()
    sample_scenes.Image.fromarray(
        np.clip(pixels, 0, 255).astype(np.uint8)).save(out, 'JPEG', quality=90)
    found.append(out.getvalue())
  return [found[i % len(found)] for i in range(count)]


def random_batch(config, num_images, captions_per_image=1):
  """Returns (features or None, rows, input_seqs, target_seqs, mask)."""
  rng = np.random.default_rng(0)
  captions = num_images * captions_per_image
  ids = rng.integers(0, config.vocab_size, [captions, WORDS + 1])
  return (tf.constant(rng.random([num_images, 2048], np.float32)),
          tf.constant(np.repeat(np.arange(num_images), captions_per_image)),
          tf.constant(ids[:, :-1]), tf.constant(ids[:, 1:]),
          tf.ones([captions, WORDS], tf.int32))


def training_step(config, dtype=tf.float32, captions_per_image=None):
  """Returns a callable that takes one training step and waits for it.

  Args:
    config: a `configuration.ModelConfig`.
    dtype: of the decoder's matrix products.
    captions_per_image: None to train from features; else from images, each
      with so many captions of the batch.
  """
  from_images = captions_per_image is not None
  model = show_and_tell_model.ShowAndTellModel(
      config, with_inception=from_images, training_dtype=dtype)
  group = captions_per_image or 1
  features, rows, *captions = random_batch(
      config, config.batch_size // group, group)
  images = tf.random.uniform(
      [config.batch_size // group, 299, 299, 3], -1.0, 1.0)

  @tf.function(autograph=False)
  def step():
    encode = (lambda: tf.gather(model.encode_images(images, True), rows)
              ) if from_images else (lambda: features)
    return show_and_tell_model.sgd_step(
        model, encode, *captions, tf.constant(0.01), 5.0)['total_loss']

  return lambda: step().numpy()


def forward_pass(config):
  """Returns a callable that computes a batch's losses, without gradients."""
  model = show_and_tell_model.ShowAndTellModel(config, with_inception=False)
  features, _, *captions = random_batch(config, config.batch_size)
  losses = tf.function(lambda: model.losses(features, *captions)[0])
  return lambda: losses().numpy()


def lstm_variants(config):
  """Returns ways to run the LSTM forward and back over a batch of captions.

  Args:
    config: a `configuration.ModelConfig`.

  Returns:
    dict, name -> callable without arguments that returns (outputs
    [steps, batch, units] of ones as inputs, gradients of their sum by inputs,
    kernel and bias). All but Keras have the same weights.
  """
  steps, batch = WORDS + 1, config.batch_size
  size, units = config.embedding_size, config.num_lstm_units
  x = tf.ones([steps, batch, size])
  zeros = tf.zeros([batch, units])
  kernel = tf.random.stateless_uniform(
      [size + units, 4 * units], [0, 0], -0.08, 0.08)
  bias = tf.zeros([4 * units])
  peephole = tf.zeros([units])

  def ours(x, kernel, bias):
    outputs = lstm.lstm_sequence(
        tf.reshape(x, [-1, size]), tf.fill([steps], batch), kernel, bias)
    return tf.reshape(outputs, [steps, batch, units])

  def block_lstm(x, kernel, bias):
    return tf.raw_ops.BlockLSTM(
        seq_len_max=tf.constant(steps, tf.int64), x=x, cs_prev=zeros,
        h_prev=zeros, w=kernel, wci=peephole, wcf=peephole, wco=peephole,
        b=bias, forget_bias=lstm.FORGET_BIAS, cell_clip=-1.0).h

  def unrolled(x, kernel, bias):
    from_inputs = tf.unstack(tf.reshape(
        tf.matmul(tf.reshape(x, [-1, size]), kernel[:size]) + bias,
        [steps, batch, 4 * units]))
    c, h, outputs = zeros, zeros, []
    for gates in from_inputs:
      c, h = lstm.next_state(gates + tf.matmul(h, kernel[size:]), c)
      outputs.append(h)
    return tf.stack(outputs)

  layer = tf.keras.layers.LSTM(units, return_sequences=True, time_major=True)
  layer(x)

  def keras(x, kernel, bias):
    del kernel, bias  # The layer has its own.
    return layer(x)

  def run(fn, weights):
    def outputs_and_gradients():
      with tf.GradientTape() as tape:
        tape.watch([x, *weights])
        outputs = fn(x, kernel, bias)
        total = tf.reduce_sum(outputs)
      return outputs, tape.gradient(total, [x, *weights])
    return tf.function(outputs_and_gradients, autograph=False)

  return {
      'own gradient': run(ours, [kernel, bias]),
      'BlockLSTM': run(block_lstm, [kernel, bias]),
      'unrolled': run(unrolled, [kernel, bias]),
      'tf.keras': run(keras, [layer.cell.kernel, layer.cell.recurrent_kernel,
                              layer.cell.bias])}


def write_random_model(directory, config):
  """Writes a checkpoint of random weights and a vocabulary of its size."""
  # A narrow normal keeps the signal of 94 layers finite.
  inception = image_embedding.InceptionV3()
  values = dict(inception.named_variables)
  for name, variable in inception.named_variables.items():
    if name.endswith('/weights'):
      fan_in = np.prod(variable.shape[:-1])
      values[name] = tf.random.normal(variable.shape, stddev=fan_in**-0.5)
  model = show_and_tell_model.ShowAndTellModel(config, with_inception=False)
  values.update(model.named_variables)
  checkpoints.write(os.path.join(directory, 'model.ckpt-0'), values)
  with open(os.path.join(directory, 'word_counts.txt'), 'w',
            encoding='utf-8') as f:
    f.write('<S> 2\n</S> 2\n')
    f.writelines(f'w{i} 1\n' for i in range(config.vocab_size - 3))
  holder = vocabulary_stamp.of_vocabulary(vocabulary.Vocabulary(f.name))
  vocabulary_stamp.save(directory, holder.stamp)


# Starts a program and prints how it ended, its time and its peak memory. The
# kernel counts a process's memory from its fork on, so one forked from here
# would seem as large as this one.
_LAUNCHER = """
import json, os, subprocess, sys, time
start = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=sys.stderr)
_, status, usage = os.wait4(process.pid, 0)
print(json.dumps([os.waitstatus_to_exitcode(status),
                  time.perf_counter() - start, usage.ru_maxrss * 1024]))
"""


def run_process(command):
  """Runs a command to its end.

  Returns:
    (seconds, peak resident memory in bytes, what it wrote: str).

  Raises:
    ValueError: it failed.
  """
  launcher = subprocess.run(
      [sys.executable, '-c', _LAUNCHER, *command], check=True,
      capture_output=True, text=True)
  status, seconds, memory = json.loads(launcher.stdout)
  if status:
    raise ValueError(f'{" ".join(command)} failed: {launcher.stderr[-500:]}')
  return seconds, memory, launcher.stderr


def median_process(command, repeats=3):
  """Returns the medians of seconds and memory of `run_process`.

  A first run does not count.
  """
  run_process(command)
  seconds, memory, _ = zip(*(run_process(command) for _ in range(repeats)))
  return statistics.median(seconds), statistics.median(memory)


class Benchmark:
  """Measures one thing after another; what was found is in `results`.

  Args:
    directory: of files that last as long as the run.
    repeats: measurements of each figure.
  """

  def __init__(self, directory, repeats):
    self.directory = directory
    self.repeats = repeats
    self.results = {}
    self.config = configuration.ModelConfig(batch_size=_TRAINING_BATCH)
    self._prefix = FLAGS.checkpoint_path
    self._vocab_file = FLAGS.vocab_file
    self._encoded = jpegs(FLAGS.num_images)

  def _add(self, name, value, unit, share_of=None):
    self.results[name] = {'value': value, 'unit': unit}
    text = f'{value:10.4g} {unit}'
    if share_of:
      limit = self.results[share_of]['value']
      self.results[name].update(share=value / limit, share_of=share_of)
      text += f'  = {value / limit:.2f} x {share_of}'
    print(f'{name:45} {text}', flush=True)

  def _seconds(self, fn):
    return median_seconds(fn, self.repeats)

  def machine(self):
    """The limits: what the rest is compared with."""
    for name, dtype in (('float32', tf.float32), ('bfloat16', tf.bfloat16)):
      self._add(f'matrix products, {name}',
                matmul_rate(dtype, self.repeats) / 1e9, 'GFLOP/s')
    process = tf.function(image_processing.process_image, autograph=False)
    dataset = tf.data.Dataset.from_tensor_slices(self._encoded).map(
        process, num_parallel_calls=os.cpu_count())
    decode = lambda: [None for _ in dataset]
    self._add('decoding JPEGs, all processors',
              len(self._encoded) / self._seconds(decode), 'images/s')

  def training(self):
    """The training step against the rate of matrix products."""
    flops = flops_per_caption(self.config)
    self._add('training, per caption', flops / 1e9, 'GFLOP')
    size = self.config.batch_size
    seconds = {}
    for name, dtype, group in (
        ('from features', tf.float32, None),
        ('from features, bfloat16', tf.bfloat16, None),
        ('from images', tf.float32, 1),
        ('from images, 4 captions an image', tf.float32, 4)):
      seconds[name] = self._seconds(
          training_step(self.config, dtype, group))
      self._add(f'training {name}', size / seconds[name], 'captions/s',
                'training from features' if name != 'from features' else None)
    self._add('training from features, rate',
              flops * size / seconds['from features'] / 1e9, 'GFLOP/s',
              'matrix products, float32')
    forward = self._seconds(forward_pass(self.config))
    self._add('evaluating from features', size / forward, 'captions/s',
              'training from features')
    self.results['training step, parts'] = {
        'unit': 'ms a caption', 'forward': 1e3 * forward / size,
        'backward and update': 1e3 * (seconds['from features'] - forward) / size}

  def lstm(self):
    """The LSTM, and other ways to compute it."""
    for name, run in lstm_variants(self.config).items():
      self._add(f'LSTM, forward and back, {name}',
                1e3 * self._seconds(lambda run=run: run()[1][0].numpy()), 'ms',
                'LSTM, forward and back, own gradient'
                if name != 'own gradient' else None)

  def _captioner(self, **kwargs):
    return captioner_lib.Captioner(self._prefix, self._vocab_file, **kwargs)

  def captioning(self):
    """Captioning against Inception v3 alone."""
    if not self._prefix:
      self._prefix = self.directory
      self._vocab_file = os.path.join(self.directory, 'word_counts.txt')
      write_random_model(self.directory, self.config)
    checkpoint = checkpoints.Checkpoint(self._prefix)
    size = _CAPTIONING_BATCH
    for precision in ('float32', 'bfloat16'):
      # As the captioner has it: one graph, its weights constants.
      folded = folded_inception.fold(checkpoint.get, tf.as_dtype(precision))
      captioner = self._captioner(precision=precision)
      images = [captioner.decode(data) for data in self._encoded[:size]]
      encode = tf.function(
          lambda x, w=folded: folded_inception.encode(x, w),
          autograph=False)
      stacked = tf.stack(images)
      alone = self._seconds(lambda: encode(stacked).numpy())
      whole = self._seconds(lambda: captioner.caption(images))
      self._add(f'Inception v3 alone, {precision}', size / alone, 'images/s',
                'Inception v3 alone, float32' if precision != 'float32'
                else None)
      self._add(f'captioning, {precision}', size / whole, 'images/s',
                f'Inception v3 alone, {precision}')
      if precision == 'float32':
        self._decode_and_caption(captioner, alone / size, whole / size)

  def _decode_and_caption(self, captioner, inception, caption):
    """From files on; `inception` and `caption` are seconds an image."""
    names = []
    for i, data in enumerate(self._encoded):
      names.append(os.path.join(self.directory, f'{i}.jpg'))
      with open(names[-1], 'wb') as f:
        f.write(data)
    decode = self._seconds(
        lambda: captioner.decode(self._encoded[0]).numpy())

    def run():
      images = image_files.read_images(
          names, captioner.decode, ahead=2 * _CAPTIONING_BATCH)
      while batch := list(itertools.islice(images, _CAPTIONING_BATCH)):
        captioner.caption([image for _, image in batch])

    seconds = median_seconds(run, 3)
    self._add('captioning from files', len(names) / seconds, 'images/s',
              'Inception v3 alone, float32')
    self.results['captioning, parts'] = {
        'unit': 'ms an image', 'decoding': 1e3 * decode,
        'Inception v3': 1e3 * inception,
        'beam search': 1e3 * (caption - inception)}

  def programs(self):
    """Whole processes: time from a cold start, and memory."""
    start, _ = median_process([sys.executable, '-c', 'import tensorflow'])
    self._add('importing tensorflow', start, 's')
    python = [sys.executable, '-m']
    image = os.path.join(self.directory, '0.jpg')
    seconds, memory = median_process([
        *python, 'im2txt.run_inference', f'--checkpoint_path={self._prefix}',
        f'--vocab_file={self._vocab_file}', f'--input_files={image}'])
    self._add('run_inference of one image', seconds, 's',
              'importing tensorflow')
    self._add('run_inference, peak memory', memory / 1e9, 'GB')
    shard = os.path.join(self.directory, 'train-00000-of-00001')
    with shards.Writer(shard) as writer:
      for i, data in enumerate(self._encoded):
        writer.write(shards.serialize(i, data, ['<S>', 'w0', '</S>'], [0, 2, 1]))
    train_dir = os.path.join(self.directory, 'train')
    train = [*python, 'im2txt.train', f'--input_file_pattern={shard}',
             f'--train_dir={train_dir}', '--random_inception']
    cache = f'--feature_cache_dir={os.path.join(self.directory, "features")}'
    for name, command in (
        ('train from features', [
            *train, cache, '--feature_views=0', '--number_of_steps=3']),
        ('train from images', [
            *train, '--number_of_steps=10', '--log_every_n_steps=10']),
        ('evaluate', [
            *python, 'im2txt.evaluate', f'--input_file_pattern={shard}',
            f'--checkpoint_dir={train_dir}', '--run_once',
            '--min_global_step=0',
            f'--eval_dir={os.path.join(self.directory, "eval")}'])):
      _, memory, written = run_process(command)
      self._add(f'{name}, peak memory', memory / 1e9, 'GB')
      if name == 'train from images':
        waiting = re.search(r'(\d+)% waiting for input', written)
        self._add(f'{name}, waiting for input', int(waiting.group(1)), '%')

  def preparing(self):
    """Making shards against decoding the same files, start-up left out."""
    few, many = FLAGS.num_prepared // 4, FLAGS.num_prepared
    paths = [self._picture(i) for i in range(many - few)]

    def decode(path):
      with open(path, 'rb') as f:
        tf.io.decode_jpeg(f.read(), channels=3)

    # As many threads as `prepare` has workers; the decoder runs without
    # Python's lock.
    executor = concurrent.futures.ThreadPoolExecutor(os.cpu_count())

    def decode_all():
      start = time.perf_counter()
      collections.deque(executor.map(decode, paths), maxlen=0)
      return time.perf_counter() - start

    def prepare(layout):
      # What more pictures add is free of what starting takes.
      return self._prepare(layout, many) - self._prepare(layout, few)

    # A virtual machine first has to get the memory for what is written from its
    # host, which takes as long as writing.
    for _ in range(min(self.repeats, 3)):
      self._prepare('pairs', many)
    # In turn, so that what slows the machine for a while slows all of them.
    seconds = [(decode_all(), prepare('pairs'), prepare('compact'))
               for _ in range(min(self.repeats, 5))]
    alone, pairs, compact = (
        len(paths) / statistics.median(column) for column in zip(*seconds))
    self._add('reading and decoding JPEGs', alone, 'images/s')
    for layout, value in (('pairs', pairs), ('compact', compact)):
      self._add(f'preparing {layout}, 5 captions an image', value, 'images/s',
                'reading and decoding JPEGs')

  def _picture(self, index):
    """Returns the path of a JPEG file, made if it is not there."""
    path = os.path.join(self.directory, f'prepared-{index}.jpg')
    if not os.path.exists(path):
      with open(path, 'wb') as f:
        f.write(self._encoded[index % len(self._encoded)])
    return path

  def _prepare(self, layout, count):
    """Returns the seconds that shards of so many pictures take."""
    output = os.path.join(self.directory, 'prepared')
    command = [
        sys.executable, '-m', 'im2txt.build_mscoco_data',
        f'--layout={layout}', f'--output_dir={output}',
        f'--word_counts_output_file={output}/word_counts.txt']
    for part, numbers in (('train', range(20, 20 + count)),
                          ('val', range(20))):
      captions_file = os.path.join(self.directory, f'captions_{part}.json')
      with open(captions_file, 'w', encoding='utf-8') as f:
        json.dump({
            'images': [
                {'id': i, 'file_name': os.path.basename(self._picture(i))}
                for i in numbers],
            'annotations': [
                {'image_id': i, 'caption': f'A picture of {j} words, all red.'}
                for i in numbers for j in range(5)]}, f)
      command += [f'--{part}_image_dir={self.directory}',
                  f'--{part}_captions_file={captions_file}']
    seconds, _, _ = run_process(command)
    shutil.rmtree(output)
    return seconds

  def growth(self):
    """How the cost of a caption grows; lists of (x, milliseconds)."""
    found = self.results['growth'] = {}
    size = _CAPTIONING_BATCH

    def caption_ms(batch, **settings):
      captioner = self._captioner(
          search=search_config.SearchConfig(**settings))
      images = [captioner.decode(data) for data in self._encoded[:batch]]
      return 1e3 * median_seconds(lambda: captioner.caption(images), 3) / batch

    log('Measuring growth')
    found['captioning: batch size'] = [
        (n, caption_ms(n)) for n in (1, 2, 4, 8, 16, 32)]
    found['captioning: beam size'] = [
        (n, caption_ms(size, beam_size=n)) for n in (1, 3, 5, 10, 20)]
    found['captioning: longest caption'] = [
        (n, caption_ms(size, max_caption_length=n)) for n in (5, 10, 20, 40)]
    found['training: batch size'] = [
        (n, self._step_ms(batch_size=n)) for n in (8, 16, 32, 64, 128)]
    found['training: vocabulary'] = [
        (n, self._step_ms(vocab_size=n)) for n in (1000, 4000, 12000, 24000)]

  def _step_ms(self, **changes):
    config = dataclasses.replace(self.config, **changes)
    return 1e3 * median_seconds(training_step(config), 3) / config.batch_size


def draw(results, directory):
  """Draws time.png and, if it was measured, growth.png."""
  import matplotlib  # pylint: disable=g-import-not-at-top
  matplotlib.use('Agg')
  from matplotlib import pyplot  # pylint: disable=g-import-not-at-top

  def save(figure, name):
    with replacing(os.path.join(directory, name)) as temporary:
      figure.savefig(temporary, format='png', dpi=100, bbox_inches='tight')

  figure, axis = pyplot.subplots(figsize=(8, 2.2))
  for name in ('captioning, parts', 'training step, parts'):
    parts = {k: max(v, 0) for k, v in results[name].items() if k != 'unit'}
    total = sum(parts.values())
    left = 0.0
    for part, value in parts.items():
      axis.barh(f'{name.split(",")[0]}\n{total:.3g} {results[name]["unit"]}',
                100 * value / total, left=left, label=part)
      left += 100 * value / total
  axis.set_xlabel('% of the time')
  axis.legend(loc='upper center', bbox_to_anchor=(0.5, 1.3), ncols=5,
              fontsize=8)
  save(figure, 'time.png')
  if 'growth' not in results:
    return
  growth = results['growth']
  figure, axes = pyplot.subplots(1, len(growth), figsize=(3 * len(growth), 2.6))
  for axis, (name, points) in zip(axes, growth.items()):
    axis.plot(*zip(*points), marker='o')
    axis.set_title(name, fontsize=9)
    axis.set_ylim(bottom=0)
    axis.set_ylabel('ms an image' if name.startswith('captioning')
                    else 'ms a caption', fontsize=8)
  figure.tight_layout()
  save(figure, 'growth.png')


def main(_):
  program.require(FLAGS, 'output_dir')
  if bool(FLAGS.checkpoint_path) != bool(FLAGS.vocab_file):
    raise ValueError('--checkpoint_path and --vocab_file go together')
  for name, least in (('repeats', 1), ('num_images', 32)):
    if FLAGS[name].value < least:
      raise ValueError(f'--{name}={FLAGS[name].value} should be {least} or more')
  # Of fewer, the time is lost in that of starting.
  if 0 < FLAGS.num_prepared < 1000:
    raise ValueError(
        f'--num_prepared={FLAGS.num_prepared} should be 0, or 1000 or more')
  os.makedirs(FLAGS.output_dir, exist_ok=True)
  tf.random.set_seed(1)  # Other weights end captions elsewhere.
  with tempfile.TemporaryDirectory() as directory:
    benchmark = Benchmark(directory, FLAGS.repeats)
    benchmark.machine()
    benchmark.training()
    benchmark.lstm()
    benchmark.captioning()
    benchmark.programs()
    if FLAGS.num_prepared:
      benchmark.preparing()
    if FLAGS.growth:
      benchmark.growth()
  write_json(os.path.join(FLAGS.output_dir, 'benchmark.json'), {
      'processors': os.cpu_count(), 'tensorflow': tf.__version__,
      **benchmark.results})
  draw(benchmark.results, FLAGS.output_dir)
  print(f'{FLAGS.output_dir}: benchmark.json, time.png'
        + (', growth.png' if FLAGS.growth else ''))


if __name__ == '__main__':
  program.run(main)
