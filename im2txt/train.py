# SPDX-License-Identifier: Apache-2.0
"""Trains the Show and Tell model: the LSTM on Inception v3, frozen or not."""

import os
import re
import signal
import time

from absl import flags
from absl import logging
import tensorflow as tf

from im2txt import checkpoints
from im2txt import configuration
from im2txt import program
from im2txt import show_and_tell_model
from im2txt.ops import inputs

FLAGS = flags.FLAGS

flags.DEFINE_string(
    'input_file_pattern', '',
    'File pattern of sharded TFRecord input files, e.g. '
    '"data/mscoco/train-?????-of-00256".')
flags.DEFINE_string(
    'inception_checkpoint_file', '',
    'Pretrained Inception v3 checkpoint; read at step 0 only.')
flags.DEFINE_string(
    'train_dir', '', 'Directory of checkpoints and TensorBoard events.')
flags.DEFINE_bool(
    'train_inception', False, 'Whether to train Inception v3 too.')
flags.DEFINE_integer('number_of_steps', 1000000, 'Step to train up to.')
flags.DEFINE_integer('log_every_n_steps', 1, 'Steps between log lines.')
flags.DEFINE_integer(
    'save_interval_secs', 600, 'Seconds between checkpoints.')
flags.DEFINE_integer(
    'save_summaries_secs', 600,
    'Seconds between histograms and images for TensorBoard.')
flags.DEFINE_bool(
    'cache_features', False,
    'Encode each image once, undistorted, before the first step, keep the '
    'features in memory (8 KiB an image) and train from them. Much faster; '
    'gives up the random distortion of images. Not with --train_inception.')
flags.DEFINE_integer(
    'random_seed', None, 'Seed of initial weights, dropout and example order.')
configuration.define_flags(flags)

# The smoothed loss forgets at this rate per step.
_SMOOTHING = 0.99


class SmoothedLoss:
  """Exponential moving average, unbiased from its first value on."""

  def __init__(self):
    self._sum = 0.0
    self._weight = 0.0

  def update(self, loss):
    self._sum = _SMOOTHING * self._sum + (1 - _SMOOTHING) * loss
    self._weight = _SMOOTHING * self._weight + (1 - _SMOOTHING)
    return self._sum / self._weight


class StopSignal:
  """Remembers SIGINT and SIGTERM until the step under way is done."""

  def __init__(self):
    self.received = None
    for number in (signal.SIGINT, signal.SIGTERM):
      signal.signal(number, self._on_signal)

  def _on_signal(self, number, unused_frame):
    if self.received:
      # At once: an exception out of the midst of TensorFlow's own calls can
      # crash it.
      os._exit(128 + number)  # pylint: disable=protected-access
    self.received = number
    logging.info('%s: finishing this step and saving (once more to leave '
                 'without)', signal.Signals(number).name)


def duration(seconds):
  """Formats seconds as 1h02m, 3m20s or 45s."""
  minutes, seconds = divmod(int(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f'{hours}h{minutes:02}m'
  return f'{minutes}m{seconds:02}s' if minutes else f'{seconds}s'


def prepare_model(train_dir, configs):
  """Builds the model and fills it from train_dir or Inception's checkpoint.

  Returns:
    A `ShowAndTellModel`.

  Raises:
    ValueError: a checkpoint that does not fit or cannot be read.
  """
  try:
    checkpoint = checkpoints.Checkpoint(train_dir)
  except checkpoints.NoCheckpointYetError:
    checkpoint = None
  if checkpoint:
    # Sizes asked for by flag but not those of the checkpoint: say so before
    # the minutes that the rest takes.
    for name, size in checkpoint.model_sizes().items():
      if getattr(configs[0], name) != size:
        raise ValueError(
            f'--{name}={getattr(configs[0], name)}, but the checkpoint '
            f'{checkpoint.prefix} has {size}; use --{name}={size} or another '
            '--train_dir')
  elif FLAGS.inception_checkpoint_file:
    checkpoints.resolve(FLAGS.inception_checkpoint_file)
  model = show_and_tell_model.ShowAndTellModel(
      configs[0], train_inception=FLAGS.train_inception)
  if checkpoint:
    unused = checkpoint.restore(model.named_variables)
    if unused:
      logging.warning('%s holds unknown variables, ignored: %s',
                      checkpoint.prefix, ', '.join(unused))
    logging.info('resuming from %s', checkpoint.prefix)
  elif FLAGS.inception_checkpoint_file:
    checkpoints.load_inception(
        FLAGS.inception_checkpoint_file, model.inception)
    logging.info('Inception v3 initialized from %s',
                 FLAGS.inception_checkpoint_file)
  else:
    logging.warning(
        'no --inception_checkpoint_file: Inception v3 starts from random '
        'weights')
  return model


def make_batches(model, configs):
  """Returns (endless iterator of batches, whether they hold features)."""
  files = inputs.list_files(FLAGS.input_file_pattern)
  if not FLAGS.cache_features:
    return iter(
        inputs.training_batches(files, configs[0], FLAGS.random_seed)), False
  start = time.time()
  logging.info('encoding the images of %d file(s)', len(files))
  encode = tf.function(model.encode_images, reduce_retracing=True)

  def report(count):
    logging.log_every_n_seconds(
        logging.INFO, '%d captions read, %.1f a second', 10, count,
        count / (time.time() - start))

  data = inputs.encode_captioned_images(
      files, encode, configs[0], progress=report)
  logging.info('%d images of %d captions encoded in %s, %d skipped',
               len(data.features), len(data.captions),
               duration(time.time() - start), len(data.skipped))
  return data.endless_shuffled_batches(
      configs[0].batch_size, FLAGS.random_seed), True


def user_errors(batches):
  """Yields the batches; a wrong word id becomes a ValueError of one line."""
  try:
    yield from batches
  except tf.errors.InvalidArgumentError as e:
    reason = re.search(r'assertion failed: \[(.*?)\]', e.message)
    if not reason:
      raise
    raise ValueError(
        f'--input_file_pattern={FLAGS.input_file_pattern}: '
        + reason.group(1).replace('\\', '')) from e


def make_step_fn(model, clip_gradients, cached):
  """Returns a compiled callable (batch, learning_rate) -> dict of scalars."""

  def step(images_or_features, input_seqs, target_seqs, mask, learning_rate):
    return show_and_tell_model.sgd_step(
        model,
        (lambda: images_or_features) if cached else
        (lambda: model.encode_images(images_or_features, is_training=True)),
        input_seqs, target_seqs, mask, learning_rate, clip_gradients)

  config = model.config
  first = (tf.TensorSpec([None, 2048]) if cached else tf.TensorSpec(
      [None, config.image_height, config.image_width, 3]))
  words = tf.TensorSpec([None, None], tf.int64)
  return tf.function(
      step, autograph=False,
      input_signature=[first, words, words,
                       tf.TensorSpec([None, None], tf.int32),
                       tf.TensorSpec([])])


def write_summaries(model, images):
  """Writes parameter histograms and, if there are any, sample images."""
  for name, variable in model.named_variables.items():
    if variable.trainable and (
        model.train_inception or not name.startswith('InceptionV3/')):
      tf.summary.histogram('parameters/' + name, variable)
  if images is not None:
    tf.summary.image('images/distorted', (images + 1) / 2, max_outputs=3)


def train(model, configs, batches, cached, writer):
  """Trains up to --number_of_steps; returns the process's exit status."""
  model_config, training_config = configs
  manager = checkpoints.CheckpointManager(
      FLAGS.train_dir, training_config.max_checkpoints_to_keep)
  step_fn = make_step_fn(model, training_config.clip_gradients, cached)
  stop = StopSignal()
  smoothed = SmoothedLoss()
  step = first_step = int(model.global_step)
  saved_step = None if step == 0 else step
  last_save = time.time()
  last_summary = 0.0
  logged_step, logged_time = step, time.time()
  loss = None

  def save():
    prefix = manager.save(model.named_variables)
    logging.info('saved %s', prefix)
    return step

  for batch in user_errors(batches):
    if stop.received or step >= FLAGS.number_of_steps:
      break
    learning_rate = training_config.learning_rate(
        model_config.batch_size, FLAGS.train_inception, step)
    losses = step_fn(*batch, tf.constant(learning_rate, tf.float32))
    step += 1
    loss = float(losses['total_loss'])
    if loss != loss or loss in (float('inf'), float('-inf')):
      raise ValueError(
          f'the loss is {loss} at step {step}: training diverged; resume from '
          f'the last checkpoint in --train_dir={FLAGS.train_dir} with a lower '
          '--initial_learning_rate or --clip_gradients')
    smooth = smoothed.update(loss)
    if step == first_step + 1:
      # The first step compiles; a rate that counted it would mislead.
      logged_step, logged_time = step, time.time()
    if step % FLAGS.log_every_n_steps == 0 or step == FLAGS.number_of_steps:
      now = time.time()
      seconds = (now - logged_time) / max(step - logged_step, 1)
      rate = f'{seconds:.3f} sec/step, ' if step > logged_step else ''
      if rate:
        rate += (f'{model_config.batch_size / seconds:.1f} examples/s, ETA '
                 f'{duration(seconds * (FLAGS.number_of_steps - step))}, ')
      logging.info('global step %d: loss = %.4f (smoothed %.4f, %slr %g)',
                   step, loss, smooth, rate, learning_rate)
      with writer.as_default(step=step):
        tf.summary.scalar('losses/batch_loss', losses['batch_loss'])
        tf.summary.scalar('losses/total_loss', loss)
        tf.summary.scalar('losses/smoothed_loss', smooth)
        tf.summary.scalar('learning_rate', learning_rate)
        tf.summary.scalar('global_norm', losses['global_norm'])
        if step > logged_step:
          tf.summary.scalar('examples_per_sec',
                            model_config.batch_size / seconds)
      logged_step, logged_time = step, now
    if time.time() - last_summary >= FLAGS.save_summaries_secs:
      with writer.as_default(step=step):
        write_summaries(model, None if cached else batch[0])
      last_summary = time.time()
    if time.time() - last_save >= FLAGS.save_interval_secs:
      saved_step = save()
      last_save = time.time()
  if loss is None and step < FLAGS.number_of_steps and not stop.received:
    raise ValueError(
        f'--input_file_pattern={FLAGS.input_file_pattern} holds less than one '
        f'batch of {model_config.batch_size} usable captions; lower '
        '--batch_size')
  if saved_step != step:
    save()
  writer.flush()
  return 128 + stop.received if stop.received else 0


def main(_):
  program.require(FLAGS, 'input_file_pattern', 'train_dir')
  if FLAGS.train_inception and FLAGS.cache_features:
    raise ValueError('--cache_features needs a frozen Inception v3: leave out '
                     '--train_inception')
  if FLAGS.log_every_n_steps < 1:
    raise ValueError('--log_every_n_steps should be 1 or more')
  inputs.list_files(FLAGS.input_file_pattern)
  os.makedirs(FLAGS.train_dir, exist_ok=True)
  configs = configuration.from_flags(FLAGS, FLAGS.train_dir)
  if FLAGS.random_seed is not None:
    tf.random.set_seed(FLAGS.random_seed)
  model = prepare_model(FLAGS.train_dir, configs)
  if int(model.global_step) >= FLAGS.number_of_steps:
    logging.info(
        'nothing to do: --number_of_steps=%d is not above the current step %d '
        'of --train_dir=%s', FLAGS.number_of_steps, int(model.global_step),
        FLAGS.train_dir)
    return 0
  configuration.save(FLAGS.train_dir, configs)
  batches, cached = make_batches(model, configs)
  writer = tf.summary.create_file_writer(FLAGS.train_dir)
  return train(model, configs, batches, cached, writer)


if __name__ == '__main__':
  program.run(main)
