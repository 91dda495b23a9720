# SPDX-License-Identifier: Apache-2.0
"""Trains the Show and Tell model: the LSTM on Inception v3, frozen or not."""

import contextlib
import functools
import math
import os
import secrets
import signal
import time

from absl import flags
from absl import logging

# Before TensorFlow, which im2txt keeps quiet while it is imported.
from im2txt import program
import numpy as np
import tensorflow as tf
from im2txt import checkpoints
from im2txt import configuration
from im2txt import encoder_stamp
from im2txt import files as files_lib
from im2txt import locks
from im2txt import show_and_tell_model
from im2txt import vocabulary_stamp
from im2txt.inference_utils import vocabulary
from im2txt.ops import folded_inception
from im2txt.ops import image_features
from im2txt.ops import inputs
from im2txt.training import optimizers
from im2txt.training import self_critical

FLAGS = flags.FLAGS

flags.DEFINE_string(
    'input_file_pattern', '',
    'File pattern of sharded TFRecord input files, e.g. '
    '"data/mscoco/train-?????-of-00256".')
flags.DEFINE_string(
    'inception_checkpoint_file', '',
    'Pretrained Inception v3 checkpoint; read at step 0 only.')
flags.DEFINE_bool(
    'random_inception', False,
    'Start from random weights of Inception v3 if there is no '
    '--inception_checkpoint_file. Without this flag a frozen Inception v3 '
    'needs a checkpoint.')
flags.DEFINE_string(
    'train_dir', '', 'Directory of checkpoints and TensorBoard events.')
flags.DEFINE_bool(
    'train_inception', False, 'Whether to train Inception v3 too.')
flags.DEFINE_enum(
    'train_inception_from', None, folded_inception.BLOCKS,
    'With --train_inception: the first block of Inception v3 that is trained, '
    'such as Mixed_7b, with those after it. Batch norm keeps its averages. The '
    'rate is --train_inception_learning_rate by the schedule, and the '
    "decoder's is --initial_learning_rate by the schedule. The default trains "
    'all of it at one constant rate.')
flags.DEFINE_integer('number_of_steps', 1000000, 'Step to train up to.')
flags.DEFINE_integer('log_every_n_steps', 1, 'Steps between log lines.')
flags.DEFINE_integer(
    'save_interval_secs', 600, 'Seconds between checkpoints.')
flags.DEFINE_integer(
    'save_summaries_secs', 600,
    'Seconds between histograms and images for TensorBoard.')
flags.DEFINE_string(
    'feature_cache_dir', '',
    'Directory for the Inception features of these input files: made before '
    'the first step if they are not there, then trained from, much faster. '
    'With --train_inception_from it holds the inputs of that block, 160 KiB '
    'per view. Not where all of Inception v3 is trained.')
# On photos the distortion makes a fifth of the features' variance, and four
# views already have a mean within a quarter of that of one from the mean of
# all; each more costs a pass of Inception over all images.
flags.DEFINE_integer(
    'feature_views', 4,
    'Randomly distorted views of each image in --feature_cache_dir, beside the '
    'undistorted one; 8 KiB and one pass of Inception each. With 0 training '
    'sees no distortion.')
flags.DEFINE_integer(
    'feature_seed', 0, 'Seed of the distortions in --feature_cache_dir.')
flags.DEFINE_enum(
    'feature_precision', 'float32', ['float32', 'bfloat16'],
    'Precision of Inception v3 when it fills --feature_cache_dir. bfloat16 '
    'takes half the time on processors that have it (AVX512 BF16, AMX); the '
    'features are good to 2 or 3 digits.')
flags.DEFINE_integer(
    'captions_per_image', 1,
    'Captions of an image that stand together in a batch. Without '
    '--feature_cache_dir they share one pass of Inception, and above 1 the '
    'input files are read once in advance. Must divide --batch_size. Where it '
    'does not divide the captions of an image, batches are smaller: for five '
    'of each give 5, and 30 as --batch_size, say.')
flags.DEFINE_bool(
    'feature_undistorted', False,
    'Train from the undistorted view in --feature_cache_dir too.')
flags.DEFINE_bool(
    'self_critical', False,
    'Self-critical training: captions are sampled and rewarded by their CIDEr '
    'against the references of the image. For a model that was trained without '
    'it, with --feature_cache_dir and a low --initial_learning_rate.')
flags.DEFINE_integer(
    'samples_per_image', 5,
    'Captions sampled per image with --self_critical; each is compared with '
    'the mean of the others. Must divide --batch_size.', lower_bound=2)
flags.DEFINE_integer(
    'max_sample_length', 20, 'Longest sampled caption in words, the end word '
    'included.', lower_bound=2)
flags.DEFINE_string(
    'vocab_file', '',
    'Vocabulary of the shards, for --self_critical; word_counts.txt beside the '
    'shards if not given.')
flags.DEFINE_enum(
    'precision', 'float32', ['float32', 'bfloat16'],
    'Of the matrix products of the LSTM and the softmax layer in training, and '
    'of the blocks of --train_inception_from with --feature_cache_dir; weights '
    'and the loss are float32 either way.')
flags.DEFINE_integer(
    'random_seed', None,
    'Seed of initial weights, the order and distortion of examples, dropout '
    'and samples. A run that goes on with its seed ends as one that was never '
    'interrupted. The default is that of --train_dir, and in a new one it is '
    'drawn.', lower_bound=0)
configuration.define_flags(flags)

# Beside the checkpoints: the seed of the run.
_SEED_FILE = 'random_seed.json'

# The smoothed loss forgets at this rate per step.
_SMOOTHING = 0.99


class Losses:
  """The losses of the steps, read when they are needed.

  Reading one waits for its step; left alone, the next can be prepared.

  Attributes:
    last: float, the loss of the last step that was read, or None.
    smoothed: float, exponential moving average, unbiased from its first value
      on.
  """

  def __init__(self):
    self.last = None
    self.smoothed = None
    self._unread = []
    self._sum = 0.0
    self._weight = 0.0

  def add(self, step, loss):
    """Takes the loss of a step, a scalar tensor."""
    self._unread.append((step, loss))

  def read(self):
    """Reads the losses of all steps up to now.

    Raises:
      ValueError: one is not finite.
    """
    for step, loss in self._unread:
      self.last = float(loss)
      if not math.isfinite(self.last):
        raise ValueError(
            f'the loss is {self.last} at step {step}: training diverged; '
            f'resume from the last checkpoint in --train_dir={FLAGS.train_dir} '
            'with a lower --initial_learning_rate or --clip_gradients')
      self._sum = _SMOOTHING * self._sum + (1 - _SMOOTHING) * self.last
      self._weight = _SMOOTHING * self._weight + (1 - _SMOOTHING)
      self.smoothed = self._sum / self._weight
    self._unread.clear()


class Waiting:
  """Iterates over batches and adds up the seconds that it waits for them."""

  def __init__(self, batches):
    self._batches = iter(batches)
    self.seconds = 0.0

  def __iter__(self):
    return self

  def __next__(self):
    start = time.time()
    batch = next(self._batches)
    self.seconds += time.time() - start
    return batch


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
    # Not through logging or print: the signal may have come in the midst of
    # one, and neither can be entered twice.
    os.write(2, (
        f'{signal.Signals(number).name}: finishing this step and saving (once '
        'more to leave without)\n').encode())


def duration(seconds):
  """Formats seconds as 1h02m, 3m20s or 45s."""
  minutes, seconds = divmod(int(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f'{hours}h{minutes:02}m'
  return f'{minutes}m{seconds:02}s' if minutes else f'{seconds}s'


def open_checkpoint(train_dir):
  """Returns the `Checkpoint` to go on from, None if there has been none yet.

  Raises:
    CheckpointError: there have been some, and none is whole.
  """
  try:
    return checkpoints.Checkpoint(train_dir, training_state=True)
  except checkpoints.NoCheckpointYetError:
    return None


def make_configs(train_dir, stamp, checkpoint):
  """Returns the (ModelConfig, TrainingConfig) that flags and directory say.

  Args:
    train_dir: directory of checkpoints.
    stamp: the `vocabulary_stamp.Stamp` of the shards, whose size is that of a
      new model unless another is given; None if not known.
    checkpoint: what `open_checkpoint` returns.

  Raises:
    ValueError: see `configuration.from_flags`.
  """
  configs = configuration.from_flags(FLAGS, train_dir)
  if stamp and not checkpoint:
    given, configs = configs, configuration.from_flags(
        FLAGS, train_dir, {'vocab_size': stamp.words})
    if configs != given:
      logging.info(
          '--vocab_size=%d, the number of words of the vocabulary of the '
          'shards (%s)', stamp.words, stamp.file)
  return configs


def prepare_model(train_dir, configs, shards, checkpoint):
  """Builds the model and fills it from train_dir or Inception's checkpoint.

  Args:
    train_dir: directory of checkpoints.
    configs: (ModelConfig, TrainingConfig).
    shards: `vocabulary_stamp.of_shards` of the input files.
    checkpoint: what `open_checkpoint` returns.

  Returns:
    (`ShowAndTellModel`, `encoder_stamp.Stamp` of the Inception checkpoint that
    it was filled from; None if it was not).

  Raises:
    ValueError: a checkpoint that does not fit or cannot be read.
  """
  inception = None
  if checkpoint:
    # Sizes asked for by flag but not those of the checkpoint: say so before
    # the minutes that the rest takes.
    for name, size in checkpoint.model_sizes().items():
      if getattr(configs[0], name) != size:
        raise ValueError(
            f'--{name}={getattr(configs[0], name)}, but the checkpoint '
            f'{checkpoint.prefix} has {size}; use --{name}={size} or another '
            '--train_dir')
    shards = [*shards, vocabulary_stamp.of_checkpoint(checkpoint.prefix)]
  elif FLAGS.inception_checkpoint_file:
    # Once: of a directory, what is damaged is told once.
    inception = checkpoints.resolve(FLAGS.inception_checkpoint_file)
  elif not FLAGS.random_inception and (
      FLAGS.train_inception_from or not FLAGS.train_inception):
    # A shell variable that was never set, most often.
    raise ValueError(
        '--inception_checkpoint_file is required to train on a frozen '
        f'Inception v3, as there is no checkpoint in --train_dir={train_dir}: '
        'get_inception gets one; --random_inception starts from random weights')
  vocabulary_stamp.check(
      shards, f'give --input_file_pattern={FLAGS.input_file_pattern} shards '
      f'that were made with the vocabulary of --train_dir={train_dir}, or '
      'another --train_dir; extend_checkpoint gives a model more words')
  logging.info('building the network')
  model = show_and_tell_model.ShowAndTellModel(
      configs[0], train_inception=FLAGS.train_inception,
      train_inception_from=FLAGS.train_inception_from,
      training_dtype=tf.as_dtype(FLAGS.precision))
  if checkpoint:
    unused = checkpoint.restore(model.named_variables)
    if unused:
      logging.warning('%s holds unknown variables, ignored: %s',
                      checkpoint.prefix, ', '.join(unused))
    logging.info('resuming from %s', checkpoint.prefix)
    return model, None
  if inception:
    checkpoints.load_inception(inception, model.inception)
    encoder = encoder_stamp.of_checkpoint(
        inception, model.inception.named_variables)
    logging.info('Inception v3 initialized from %s: weights of source %s',
                 FLAGS.inception_checkpoint_file, encoder)
    return model, encoder
  logging.warning(
      'no --inception_checkpoint_file: Inception v3 starts from random weights')
  return model, None


def open_vocabulary(files, shards, vocab_size):
  """Returns the `Vocabulary` of --vocab_file, or of that beside the shards.

  Args:
    files: shard file names.
    shards: their `vocabulary_stamp.of_shards`.
    vocab_size: ids of the model.

  Raises:
    ValueError: it cannot be read, is not that of the shards, or has more words
      than the model has ids.
  """
  path = FLAGS.vocab_file
  if not path:
    path = os.path.join(os.path.dirname(files[0]), 'word_counts.txt')
    if not os.path.exists(path):
      raise ValueError('--self_critical needs the vocabulary of the shards: '
                       f'there is no {path}; give --vocab_file')
  vocab = vocabulary.Vocabulary(path)
  vocabulary_stamp.check(
      [*shards, vocabulary_stamp.of_vocabulary(vocab)],
      'give --vocab_file the vocabulary of the shards')
  vocab.check_fits_model(vocab_size)
  return vocab


def open_features(model, config, files):
  """Returns the `CaptionedFeatures` of --feature_cache_dir."""
  # What is trained is not part of what the cache is made with.
  variables = {
      name: variable
      for name, variable in model.inception.named_variables.items()
      if name.split('/')[1] not in model.inception.trained_blocks}
  data = image_features.open_or_build(
      FLAGS.feature_cache_dir, files,
      folded_inception.make_encoder(
          lambda name: model.inception.named_variables[name].numpy(),
          FLAGS.feature_precision, FLAGS.train_inception_from)
      if FLAGS.feature_precision != 'float32' or FLAGS.train_inception_from else
      tf.function(model.encode_images, reduce_retracing=True),
      variables, config, FLAGS.feature_views, FLAGS.feature_seed,
      FLAGS.feature_precision, FLAGS.train_inception_from)
  logging.info('training from the features of %d images, %d captions, in %s',
               len(data.captions.image_ids), len(data.captions),
               FLAGS.feature_cache_dir)
  return data


def make_batches(config, files, data, seed, step):
  """Returns an endless iterator of `inputs.Batch`es, from a step on.

  Args:
    config: a `configuration.ModelConfig`.
    files: shard file names.
    data: what `open_features` returns; None to train from images.
    seed: int, of the run.
    step: int, the step to begin with.
  """
  if not data:
    return inputs.ImageBatches(
        files, config, FLAGS.captions_per_image).from_step(seed, step)
  return iter(tf.data.Dataset.from_generator(
      lambda: data.training_batches(
          config.batch_size, seed, FLAGS.captions_per_image,
          FLAGS.feature_undistorted, step),
      output_signature=batch_signature(config)).prefetch(4))


def batch_signature(config):
  """Returns an `inputs.Batch` of TensorSpecs."""
  if not FLAGS.feature_cache_dir:
    encoder_inputs = tf.TensorSpec(
        [None, config.image_height, config.image_width, 3])
  elif FLAGS.train_inception_from:
    encoder_inputs = tf.TensorSpec([None, None, None, None])
  else:
    encoder_inputs = tf.TensorSpec([None, folded_inception.FEATURE_SIZE])
  words = tf.TensorSpec([None, None], tf.int64)
  return inputs.Batch(encoder_inputs, tf.TensorSpec([None], tf.int64), words,
                      words, tf.TensorSpec([None, None], tf.int32))


def step_seed(model, seed):
  """Returns an int64 [2] tensor, the seed of a step; to be traced."""
  return tf.stack([tf.constant(seed, tf.int64),
                   tf.cast(model.global_step, tf.int64)])


def run_seed(train_dir):
  """Returns the seed of a run, an int: from the flag, its directory, or new."""
  path = os.path.join(train_dir, _SEED_FILE)
  seed = saved = None
  if os.path.exists(path):
    try:
      saved = seed = files_lib.read_json(path)['random_seed']
      if not isinstance(seed, int) or seed < 0:
        raise ValueError(f'{seed!r:.100} is no seed')
    except (OSError, ValueError, TypeError, KeyError) as error:
      raise ValueError(
          f'{path} is damaged ({error}): remove it, and give --random_seed if '
          'you know it; otherwise the order of examples begins anew'
      ) from error
  if FLAGS.random_seed is not None:
    seed = FLAGS.random_seed
  elif seed is None:
    seed = secrets.randbits(31)
  if seed != saved:
    logging.info('--random_seed=%d', seed)
    files_lib.write_json(path, {'random_seed': seed})
  return seed


class Update:
  """What a step does once it knows its losses; and what that remembers.

  Args:
    model: a `ShowAndTellModel`.
    config: a `configuration.TrainingConfig`.

  Attributes:
    named_slots: dict from name to variable: what must be saved beside a
      checkpoint for training to go on from it.
  """

  def __init__(self, model, config):
    variables = model.trained_variables
    self._model = model
    self._clip_gradients = config.clip_gradients
    self._optimizer = optimizers.BY_NAME[config.optimizer](
        variables, config.weight_decay)
    self._average = None
    self.named_slots = self._optimizer.named_slots
    if config.moving_average_decay:
      self._average = optimizers.MovingAverage(
          variables, config.moving_average_decay)
      self.named_slots = {**self.named_slots, **self._average.named_slots}

  def __call__(self, losses_fn, learning_rate, inception_rate=None):
    """Takes a step, see `show_and_tell_model.train_step`; to be traced."""
    scalars = show_and_tell_model.train_step(
        self._model, self._optimizer, losses_fn, learning_rate,
        self._clip_gradients, inception_rate)
    if self._average:
      self._average.update()
    return scalars

  def named_variables(self):
    """Returns what a checkpoint holds, dict from name to variable."""
    averages = self._average.named_averages if self._average else {}
    return {**self._model.named_variables, **averages}


def make_step_fn(model, update, seed):
  """Returns a compiled callable that takes one step.

  Its arguments are an `inputs.Batch`, and the learning rates of the decoder and
  of Inception. It returns a dict of scalars.

  Args:
    model: a `ShowAndTellModel`.
    update: an `Update`.
    seed: int, of the run.
  """

  def step(batch, learning_rate, inception_rate):
    seeds = step_seed(model, seed)

    def losses():
      encoded = batch.inputs
      if not FLAGS.feature_cache_dir:
        encoded = model.encode_images(encoded, True, seeds)
      elif FLAGS.train_inception_from:
        encoded = model.inception.encode_from_block(
            encoded, model.training_dtype)
      return model.losses(tf.gather(encoded, batch.rows), batch.input_seqs,
                          batch.target_seqs, batch.mask, seeds)

    return update(losses, learning_rate, inception_rate)

  return tf.function(step, autograph=False, input_signature=[
      batch_signature(model.config), tf.TensorSpec([]), tf.TensorSpec([])])


def make_self_critical_step_fn(model, update, data, vocab, seed):
  """Returns a callable that takes one step of self-critical training.

  Its arguments are a pair that `CaptionedFeatures.training_images` yields, and
  two learning rates, see `make_step_fn`. It returns a dict of scalars, in which
  total_loss is the negative mean reward.

  Args:
    model: a `ShowAndTellModel`.
    update: an `Update`.
    data: `image_features.CaptionedFeatures`.
    vocab: the `Vocabulary` of the shards.
    seed: int, of the run.
  """
  captions = data.captions
  references = [[] for _ in captions.image_ids]
  for index, image in enumerate(captions.images):
    references[image].append(captions.caption(index)[1:].tolist())
  reward = self_critical.CiderReward(references, vocab.unk_id)
  left_out = [vocab.unk_id, *range(len(vocab), model.config.vocab_size)]
  features_spec, _, *words_specs = batch_signature(model.config)

  @functools.partial(
      tf.function, autograph=False, input_signature=[features_spec])
  def sample(features):
    return self_critical.sample(
        model, features, vocab.start_id, vocab.end_id, left_out,
        FLAGS.max_sample_length, step_seed(model, seed))

  @functools.partial(tf.function, autograph=False, input_signature=[
      features_spec, *words_specs, tf.TensorSpec([None]), tf.TensorSpec([])])
  def learn(features, sources, targets, mask, weights, learning_rate):
    def losses():
      loss = self_critical.loss(
          model, features, sources, targets, mask, weights,
          step_seed(model, seed))
      return loss, loss
    return update(losses, learning_rate)

  def step(batch, learning_rate, unused_inception_rate):
    images, features = batch
    features = np.repeat(features, FLAGS.samples_per_image, axis=0)
    drawn = sample(features).numpy()
    # A caption ends with its first end word, or not at all.
    lengths = np.where(
        (drawn == vocab.end_id).any(axis=1),
        np.argmax(drawn == vocab.end_id, axis=1) + 1, drawn.shape[1])
    rewards = np.array([
        reward(words[:length].tolist(), image) for words, length, image in zip(
            drawn, lengths, np.repeat(images, FLAGS.samples_per_image))])
    mask = (np.arange(drawn.shape[1]) < lengths[:, np.newaxis]).astype(np.int32)
    sources = np.concatenate(
        [np.full([len(drawn), 1], vocab.start_id), drawn[:, :-1]], axis=1)
    scalars = learn(
        *map(tf.constant, (features, sources, drawn, mask,
                           self_critical.advantages(
                               rewards, FLAGS.samples_per_image))),
        learning_rate)
    return {**scalars, 'total_loss': -rewards.mean(),
            'batch_loss': -rewards.mean()}

  return step


def write_summaries(model, images):
  """Writes parameter histograms and, if there are any, sample images."""
  for name, variable in model.trained_variables.items():
    tf.summary.histogram('parameters/' + name, variable)
  if images is not None:
    tf.summary.image('images/distorted', (images + 1) / 2, max_outputs=3)


def learning_rates(config, batch_size, step):
  """Returns the rates of the decoder and of Inception at a step, floats."""
  if FLAGS.train_inception_from:
    return (config.learning_rate(batch_size, False, step),
            config.top_blocks_learning_rate(batch_size, step))
  rate = config.learning_rate(batch_size, FLAGS.train_inception, step)
  return rate, rate


def train(model, configs, batches, step_fn, update, writer, manager):
  """Trains up to --number_of_steps; returns the process's exit status."""
  model_config, training_config = configs
  stop = StopSignal()
  losses = Losses()
  step = first_step = int(model.global_step)
  saved_step = None if step == 0 else step
  last_save = time.time()
  last_summary = 0.0
  logged_step, logged_time = step, time.time()
  batches = Waiting(batches)

  def save():
    losses.read()  # Nothing that has diverged is saved.
    prefix = manager.save(update.named_variables(), update.named_slots)
    logging.info('saved %s', prefix)
    return step

  logging.info('the first step takes longer than others: it is compiled')
  try:
    for batch in batches:
      if stop.received or step >= FLAGS.number_of_steps:
        break
      learning_rate, inception_rate = learning_rates(
          training_config, model_config.batch_size, step)
      scalars = step_fn(batch, tf.constant(learning_rate, tf.float32),
                        tf.constant(inception_rate, tf.float32))
      step += 1
      losses.add(step, scalars['total_loss'])
      if step == first_step + 1:
        # The first step compiles; a rate that counted it would mislead.
        losses.read()
        logged_step, logged_time, batches.seconds = step, time.time(), 0.0
      if step % FLAGS.log_every_n_steps == 0 or step == FLAGS.number_of_steps:
        losses.read()
        now = time.time()
        seconds = (now - logged_time) / max(step - logged_step, 1)
        rate = ''
        if step > logged_step:
          rate = (f'{seconds:.3f} sec/step, '
                  f'{model_config.batch_size / seconds:.1f} examples/s, '
                  f'{batches.seconds / (now - logged_time):.0%} waiting for '
                  'input, ETA '
                  f'{duration(seconds * (FLAGS.number_of_steps - step))}, ')
        logging.info('global step %d: loss = %.4f (smoothed %.4f, %slr %g)',
                     step, losses.last, losses.smoothed, rate, learning_rate)
        with writer.as_default(step=step):
          tf.summary.scalar('losses/batch_loss', scalars['batch_loss'])
          tf.summary.scalar('losses/total_loss', losses.last)
          tf.summary.scalar('losses/smoothed_loss', losses.smoothed)
          tf.summary.scalar('learning_rate', learning_rate)
          tf.summary.scalar('global_norm', scalars['global_norm'])
          if step > logged_step:
            tf.summary.scalar('examples_per_sec',
                              model_config.batch_size / seconds)
        logged_step, logged_time, batches.seconds = step, now, 0.0
      if time.time() - last_summary >= FLAGS.save_summaries_secs:
        with writer.as_default(step=step):
          write_summaries(
              model, None if FLAGS.feature_cache_dir else batch.inputs)
        last_summary = time.time()
      if time.time() - last_save >= FLAGS.save_interval_secs:
        saved_step = save()
        last_save = time.time()
  except (OSError, ValueError):
    # A damaged shard, say: nothing that is done is lost.
    if step > first_step and saved_step != step:
      with contextlib.suppress(ValueError):  # It has diverged.
        save()
    raise
  if saved_step != step:
    save()
  writer.flush()
  return 128 + stop.received if stop.received else 0


def main(_):
  program.require(FLAGS, 'input_file_pattern', 'train_dir')
  if FLAGS.feature_cache_dir:
    if FLAGS.train_inception and not FLAGS.train_inception_from:
      raise ValueError('--feature_cache_dir needs a frozen Inception v3: leave '
                       'out --train_inception, or train its top blocks alone '
                       'by --train_inception_from')
    if FLAGS.feature_views < 0:
      raise ValueError('--feature_views should be 0 or more')
  if FLAGS.train_inception_from and not FLAGS.train_inception:
    raise ValueError(
        f'--train_inception_from={FLAGS.train_inception_from} needs '
        '--train_inception')
  if FLAGS.self_critical and FLAGS.train_inception_from:
    raise ValueError('--self_critical needs a frozen Inception v3: leave out '
                     '--train_inception and --train_inception_from')
  if FLAGS.self_critical and not FLAGS.feature_cache_dir:
    raise ValueError('--self_critical needs --feature_cache_dir: give it a '
                     'directory for the features of --input_file_pattern')
  if FLAGS.feature_undistorted and not FLAGS.feature_cache_dir:
    raise ValueError('--feature_undistorted needs --feature_cache_dir: images '
                     'that are not cached are always distorted')
  if FLAGS.self_critical and FLAGS.captions_per_image > 1:
    raise ValueError(
        f'--captions_per_image={FLAGS.captions_per_image} has no effect with '
        '--self_critical: give --samples_per_image')
  if FLAGS.log_every_n_steps < 1:
    raise ValueError('--log_every_n_steps should be 1 or more')
  files = inputs.list_files(FLAGS.input_file_pattern)
  shards = vocabulary_stamp.of_shards(files)
  os.makedirs(FLAGS.train_dir, exist_ok=True)
  with locks.hold(FLAGS.train_dir, 'train', '--train_dir'):
    return prepare_and_train(files, shards)


def prepare_and_train(files, shards):
  """Does the work of `main` once nobody else trains in --train_dir.

  Args:
    files: shard file names.
    shards: their `vocabulary_stamp.of_shards`.

  Returns:
    The process's exit status.

  Raises:
    ValueError: flags, input and checkpoint do not go together.
  """
  stamp = vocabulary_stamp.first_known(shards)
  checkpoint = open_checkpoint(FLAGS.train_dir)
  configs = make_configs(FLAGS.train_dir, stamp, checkpoint)
  # What is wrong with flags is said before the hours that a cache can take.
  per_image = 'samples' if FLAGS.self_critical else 'captions'
  inputs.check_captions_per_image(
      FLAGS[f'{per_image}_per_image'].value, configs[0].batch_size,
      f'{per_image}_per_image')
  vocab = (open_vocabulary(files, shards, configs[0].vocab_size)
           if FLAGS.self_critical else None)
  seed = run_seed(FLAGS.train_dir)
  tf.random.set_seed(seed)
  model, encoder = prepare_model(
      FLAGS.train_dir, configs, shards, checkpoint)
  if int(model.global_step) >= FLAGS.number_of_steps:
    logging.info(
        'nothing to do: --number_of_steps=%d is not above the current step %d '
        'of --train_dir=%s', FLAGS.number_of_steps, int(model.global_step),
        FLAGS.train_dir)
    return 0
  if stamp and stamp.words > configs[0].vocab_size:
    raise ValueError(
        f'the vocabulary of the shards has {stamp.words} words ({stamp.file}), '
        f'more than --vocab_size={configs[0].vocab_size}; use --vocab_size='
        f'{stamp.words}')
  manager = checkpoints.CheckpointManager(
      FLAGS.train_dir, configs[1].max_checkpoints_to_keep)
  manager.take_over(checkpoint and checkpoint.prefix,
                    checkpoint.passed_over if checkpoint else [])
  configuration.save(FLAGS.train_dir, configs)
  # What a checkpoint was trained with before is not known from the shards.
  if stamp and not int(model.global_step):
    vocabulary_stamp.save(FLAGS.train_dir, stamp)
  if encoder:
    encoder_stamp.save(FLAGS.train_dir, encoder)
  update = Update(model, configs[1])
  step = int(model.global_step)
  if step and update.named_slots and not checkpoints.restore_training_state(
      checkpoint.prefix, update.named_slots):
    logging.warning(
        'no state of --optimizer=%s and --moving_average_decay=%g beside the '
        'checkpoint of step %d: both begin anew', configs[1].optimizer,
        configs[1].moving_average_decay, step)
  data = (open_features(model, configs[0], files) if FLAGS.feature_cache_dir
          else None)
  if FLAGS.self_critical:
    step_fn = make_self_critical_step_fn(model, update, data, vocab, seed)
    batches = data.training_images(
        configs[0].batch_size, seed, FLAGS.samples_per_image,
        FLAGS.feature_undistorted, step)
  else:
    step_fn = make_step_fn(model, update, seed)
    batches = make_batches(configs[0], files, data, seed, step)
  writer = tf.summary.create_file_writer(FLAGS.train_dir)
  return train(model, configs, batches, step_fn, update, writer, manager)


if __name__ == '__main__':
  program.run(main)
