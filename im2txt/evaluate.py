# SPDX-License-Identifier: Apache-2.0
"""Watches a train directory and evaluates each new checkpoint.

Perplexity always; with --metrics also BLEU, CIDEr and so on of captions that it
writes. All goes to the log and to TensorBoard.
"""

import contextlib
import dataclasses
import glob
import math
import os
import time

from absl import flags
from absl import logging

# Before TensorFlow, which im2txt keeps quiet while it is imported.
from im2txt.runtime import program
import tensorflow as tf

from im2txt import checkpoints
from im2txt import configuration
from im2txt import show_and_tell_model
from im2txt.checkpoints import best as best_checkpoint
from im2txt.checkpoints import encoder_stamp
from im2txt.data import shards
from im2txt.evaluation import caption_evaluator
from im2txt.inference_utils import search_config
from im2txt.input_pipeline import feature_cache
from im2txt.input_pipeline import image_features
from im2txt.metrics import caption_scores
from im2txt.metrics import summary
from im2txt.runtime import locks
from im2txt.runtime.progress import Progress
from im2txt.text import tokenizer
from im2txt.text import vocabulary
from im2txt.text import vocabulary_stamp
from im2txt.visualization import caption_sheet

FLAGS = flags.FLAGS


# The page of samples: pictures, side by side, and captions of humans of each.
_SAMPLES = 12
_COLUMNS = 4
_HUMANS = 5


def define_flags():
  flags.DEFINE_string(
    'input_file_pattern',
    '',
    'File pattern of sharded TFRecord input files, e.g. '
    '"data/mscoco/val-?????-of-00004".',
  )
  flags.DEFINE_string(
    'checkpoint_dir',
    '',
    'Train directory to watch (or one checkpoint, with --run_once).',
  )
  flags.DEFINE_string('eval_dir', '', 'Directory for TensorBoard events.')
  flags.DEFINE_integer(
    'eval_interval_secs', 600, 'Seconds between looks for a new checkpoint.'
  )
  flags.DEFINE_integer(
    'num_eval_examples', 10132, 'Captions to evaluate; all there are if fewer.'
  )
  flags.DEFINE_integer(
    'min_global_step', 5000, 'Checkpoints of earlier steps are passed over.'
  )
  flags.DEFINE_bool(
    'run_once', False, 'Evaluate the latest checkpoint and stop.'
  )
  flags.DEFINE_integer(
    'number_of_steps',
    0,
    'Stop after evaluating a checkpoint of this step or later (what train '
    'was told); 0: watch until interrupted.',
  )
  flags.DEFINE_string(
    'feature_cache_dir',
    '',
    'Directory for the Inception features of these input files, as of '
    'train: made if they are not there. All checkpoints must have the same '
    'Inception weights.',
  )
  flags.DEFINE_integer(
    'eval_batch_size',
    0,
    'Captions scored at once; 0: the batch_size of the training.',
  )
  flags.DEFINE_list(
    'metrics',
    [],
    'Also caption the images and score the captions against those in the '
    f'shards: any of {", ".join(summary.METRICS)}, or all.',
  )
  flags.DEFINE_integer(
    'metrics_images',
    1000,
    'Images captioned for --metrics, the first of those that perplexity is '
    'of; 0: all of these.',
  )
  flags.DEFINE_string(
    'train_file_pattern',
    '',
    'File pattern of the shards the model is trained on: adds to --metrics '
    'the shares of captions that are copied from them.',
  )
  flags.DEFINE_integer(
    'ranking_images',
    0,
    'Adds to --metrics how well so many of the images find the first caption '
    'of each, and these the images, by likelihood. The cost grows with the '
    'square: minutes for 1,000. 0: none.',
  )
  flags.DEFINE_string(
    'vocab_file',
    '',
    'Vocabulary of the shards and the model, for --metrics; word_counts.txt '
    'beside the shards if not given.',
  )
  flags.DEFINE_string(
    'best_metric',
    '',
    'Keep the checkpoint with the best value of this in eval_dir/best: '
    'perplexity (the lowest), or one of --metrics but the measures of '
    'diversity. Empty: keep none.',
  )
  search_config.define_flags()


@dataclasses.dataclass(frozen=True)
class Result:
  """What was measured at one checkpoint.

  Attributes:
    global_step: of the checkpoint.
    num_captions: evaluated.
    num_words: predicted, </S> included.
    cross_entropy: mean per word, in nats.
  """

  global_step: int
  num_captions: int
  num_words: int
  cross_entropy: float

  @property
  def perplexity(self):
    return math.exp(min(self.cross_entropy, 700.0))


class Evaluator:
  """Evaluates checkpoints on fixed examples.

  Every caption is scored exactly once. Images are encoded once each, and again
  only when a checkpoint's Inception weights have changed.

  Args:
    files: shard file names.
    num_examples: captions to evaluate at most.
    batch_size: captions scored at once; 0: that of the training.
    feature_cache_dir: keeps the images' features; '': in memory only.
  """

  def __init__(self, files, num_examples, batch_size=0, feature_cache_dir=''):
    self._files = files
    self._num_examples = num_examples
    self._batch_size = batch_size
    self._feature_cache_dir = feature_cache_dir
    self._model = None
    self._inception_fingerprint = None
    self._data = None

  def evaluate(self, checkpoint_path):
    """Returns the `Result` of a checkpoint.

    Raises:
      checkpoints.CheckpointError: it cannot be used (any more).
      ValueError: the input cannot be used.
    """
    checkpoint = checkpoints.Checkpoint(checkpoint_path)
    config, _ = configuration.load(os.path.dirname(checkpoint.prefix))
    config = dataclasses.replace(config, **checkpoint.model_sizes())
    if self._batch_size:
      config = dataclasses.replace(config, batch_size=self._batch_size)
    if self._model is None:
      vocabulary_stamp.check(
        [
          *vocabulary_stamp.of_shards(self._files),
          vocabulary_stamp.of_checkpoint(checkpoint.prefix),
        ],
        'give shards that were made with the vocabulary of the model',
      )
    if self._model is None or self._model.config != config:
      logging.info('building the network')
      self._model = show_and_tell_model.ShowAndTellModel(config)
      self._inception_fingerprint = None
      self._encode = tf.function(
        self._model.encode_images, autograph=False, reduce_retracing=True
      )
      self._score = tf.function(
        self._model.cross_entropies, autograph=False, reduce_retracing=True
      )
    checkpoint.restore(self._model.named_variables)
    fingerprint = encoder_stamp.fingerprint(
      self._model.inception.named_variables
    )
    if fingerprint != self._inception_fingerprint:
      if self._feature_cache_dir:
        self._data = feature_cache.open_or_build(
          self._feature_cache_dir,
          self._files,
          self._encode,
          self._model.inception.named_variables,
          config,
        )
      else:
        self._data = image_features.encode_in_memory(
          self._files, self._encode, config, limit=self._num_examples
        )
      self._inception_fingerprint = fingerprint
      if len(self._data.captions) < self._num_examples:
        logging.info(
          '%d captions (--num_eval_examples=%d)',
          len(self._data.captions),
          self._num_examples,
        )
    total, captions, words = 0.0, 0, 0
    usable = len(self._data.usable(self._num_examples))
    with Progress('Evaluating', usable, 'captions') as progress:
      for batch in self._data.batches(config.batch_size, self._num_examples):
        losses = self._score(*(tf.constant(x) for x in batch)).numpy()
        total += float(losses.sum(dtype='float64'))
        captions += len(batch[0])
        words += losses.size
        progress.update(len(batch[0]))
    if not words:
      raise ValueError(f'no word to predict in {self._files[0]} ...')
    return Result(int(self._model.global_step), captions, words, total / words)

  def named_variables(self):
    """Returns those of the checkpoint evaluated last."""
    return self._model.named_variables

  def model_and_images(self, max_images):
    """Returns what there is to caption with the checkpoint evaluated last.

    Args:
      max_images: of those whose captions are evaluated, the first so many;
        None: all.

    Returns:
      (`ShowAndTellModel`, image ids int64 [images], features float32
      [images, 2048]).
    """
    return self._model, *self._data.images(self._num_examples, max_images)


def evaluate_captions(evaluator, captions, step):
  """Captions images with the checkpoint evaluated last; logs how well.

  Args:
    evaluator: an `Evaluator`.
    captions: a `caption_evaluator.CaptionEvaluator`.
    step: of the checkpoint.

  Returns:
    dict, name of the metric -> number.
  """
  start = time.time()
  n_best = captions.caption(
    *evaluator.model_and_images(FLAGS.metrics_images or None)
  )
  scores = captions.score(n_best)
  if FLAGS.ranking_images:
    scores.update(
      captions.rank(*evaluator.model_and_images(FLAGS.ranking_images))
    )
  if scores:
    logging.info(
      'global step %d: %s (%d images, %.1f s)',
      step,
      ', '.join(
        f'{name} = '
        + (f'{value:.4f}' if isinstance(value, float) else str(value))
        for name, value in scores.items()
      ),
      len(n_best),
      time.time() - start,
    )
  for name, value in scores.items():
    tf.summary.scalar(f'metrics/{name}', value)
  samples = captions.sample(n_best, _SAMPLES)
  tf.summary.text('samples/captions', caption_evaluator.markdown(samples))
  try:
    page = caption_sheet.draw(samples, min(_COLUMNS, len(samples)), _HUMANS)
    tf.summary.image('samples/page', tf.io.decode_png(page, 3)[tf.newaxis])
  except ValueError as e:
    logging.warning('no page of samples: %s', e)
  return scores


@contextlib.contextmanager
def writing_events(writer, directory):
  """Writes the events of its context to a directory.

  TensorFlow says nothing where it cannot write them.

  Args:
    writer: a summary writer.
    directory: str, its directory.

  Raises:
    OSError: they are not on the disk.
  """

  def written():
    """Returns the files of events of this process, the newest last."""
    return sorted(
      glob.glob(
        os.path.join(
          glob.escape(directory), f'events.out.tfevents.*.{os.getpid()}.*'
        )
      ),
      key=os.path.getmtime,
    )

  writer.flush()
  before = sum(map(os.path.getsize, written()))
  yield
  writer.flush()
  if os.path.isdir(directory) and (
    sum(map(os.path.getsize, written())) == before
    or not shards.is_whole(written()[-1])
  ):
    raise OSError(
      f'cannot write the events in --eval_dir={directory}, for want of '
      'space, perhaps: the result stands in the log; make room, and run the '
      'same command again'
    )


def evaluate_latest(evaluator, captions, best, writer, last_step):
  """Evaluates the latest checkpoint, if there is a new one.

  Args:
    evaluator: an `Evaluator`.
    captions: a `caption_evaluator.CaptionEvaluator`, None without --metrics.
    best: a `best_checkpoint.BestCheckpoint`, None to keep none.
    writer: a summary writer.
    last_step: step evaluated last, or None.

  Returns:
    The step evaluated last, now.

  Raises:
    checkpoints.CheckpointError: there is none that can be read.
  """
  checkpoint = checkpoints.Checkpoint(FLAGS.checkpoint_dir)
  step = checkpoint.global_step
  if step < FLAGS.min_global_step:
    logging.info(
      'passing over %s: step %d < --min_global_step=%d',
      checkpoint.prefix,
      step,
      FLAGS.min_global_step,
    )
    return last_step
  if step == last_step:
    logging.info('no checkpoint newer than step %d', step)
    return last_step
  start = time.time()
  # The latest again, by its own name: a newer one may have come meanwhile.
  result = evaluator.evaluate(checkpoint.prefix)
  logging.info(
    'global step %d: perplexity = %.4f (%.4f nats a word, %d words of %d '
    'captions, %.1f s)',
    result.global_step,
    result.perplexity,
    result.cross_entropy,
    result.num_words,
    result.num_captions,
    time.time() - start,
  )
  scores = {'perplexity': result.perplexity}
  with writer.as_default(step=result.global_step):
    with writing_events(writer, FLAGS.eval_dir):
      tf.summary.scalar('Perplexity', result.perplexity)
      tf.summary.scalar('losses/cross_entropy', result.cross_entropy)
    if captions:
      with writing_events(writer, FLAGS.eval_dir):
        scores.update(
          evaluate_captions(evaluator, captions, result.global_step)
        )
  if best and best.metric not in scores:
    logging.warning(
      'no %s of step %d: it cannot be the best', best.metric, result.global_step
    )
  elif best and best.offer(
    scores[best.metric],
    evaluator.named_variables(),
    os.path.dirname(checkpoint.prefix),
  ):
    logging.info(
      'global step %d: the best %s so far', result.global_step, best.metric
    )
  return result.global_step


def check_metrics():
  """Returns those of --metrics that this machine can compute, a list.

  What it cannot is told in a line each.

  Raises:
    ValueError: one is not known, or --best_metric is none that can be had.
  """
  asked = list(summary.METRICS) if 'all' in FLAGS.metrics else FLAGS.metrics
  for name in asked:
    if name not in summary.METRICS:
      raise ValueError(
        f'--metrics={",".join(FLAGS.metrics)}: {name!r} is none of '
        f'{", ".join(summary.METRICS)}, all; perplexity is always computed'
      )
  unavailable = caption_scores.unavailable()
  if FLAGS.best_metric not in ('', 'perplexity'):
    if FLAGS.best_metric not in caption_scores.METRICS:
      raise ValueError(
        f'--best_metric={FLAGS.best_metric} is none of perplexity, '
        + ', '.join(caption_scores.METRICS)
      )
    if FLAGS.best_metric not in asked:
      raise ValueError(
        f'--best_metric={FLAGS.best_metric} is not in '
        f'--metrics={",".join(FLAGS.metrics)}; add it'
      )
    if FLAGS.best_metric in unavailable:
      raise ValueError(
        f'--best_metric={FLAGS.best_metric}: ' + unavailable[FLAGS.best_metric]
      )
  if asked:
    for line in caption_scores.shortcomings(asked):
      logging.info('%s', line)
  return [name for name in asked if name not in unavailable]


def make_caption_evaluator(files, search):
  """Returns the `CaptionEvaluator` that --metrics asks for, None without.

  Args:
    files: shard file names.
    search: a `search_config.SearchConfig`.

  Raises:
    ValueError: the flags do not go together, or the vocabulary is not that of
      the shards.
  """
  stamp = vocabulary_stamp.first_known(
    [
      *vocabulary_stamp.of_shards(files),
      vocabulary_stamp.of_checkpoint(
        os.path.join(FLAGS.checkpoint_dir, checkpoints.PREFIX)
        if os.path.isdir(FLAGS.checkpoint_dir)
        else FLAGS.checkpoint_dir
      ),
    ]
  )
  split = tokenizer.for_scores(stamp) or caption_scores.tokenize
  metrics = check_metrics()
  for name in ('train_file_pattern', 'ranking_images'):
    if getattr(FLAGS, name) and not metrics:
      raise ValueError(f'--{name} needs --metrics')
  if not metrics:
    return None
  vocab_file = FLAGS.vocab_file or os.path.join(
    os.path.dirname(files[0]), 'word_counts.txt'
  )
  if not os.path.exists(vocab_file):
    raise ValueError(
      f'--metrics needs the vocabulary, and there is no '
      f'{vocab_file}: give --vocab_file'
    )
  training = None
  if FLAGS.train_file_pattern:
    training = set(
      split(
        shards.distinct_captions(
          shards.list_files(FLAGS.train_file_pattern, 'train_file_pattern')
        )
      )
    )
  return caption_evaluator.CaptionEvaluator(
    files,
    vocabulary.Vocabulary(vocab_file),
    metrics,
    search,
    stamp.separator if stamp else ' ',
    split,
    FLAGS.num_eval_examples,
    training,
  )


def main(_):
  program.require(FLAGS, 'input_file_pattern', 'checkpoint_dir', 'eval_dir')
  if (
    FLAGS.num_eval_examples < 1
    or min(
      FLAGS.eval_interval_secs,
      FLAGS.eval_batch_size,
      FLAGS.metrics_images,
      FLAGS.ranking_images,
    )
    < 0
  ):
    raise ValueError(
      '--num_eval_examples should be above zero, and --eval_interval_secs, '
      '--eval_batch_size, --metrics_images and --ranking_images not below'
    )
  if 0 < FLAGS.number_of_steps < FLAGS.min_global_step and not FLAGS.run_once:
    raise ValueError(
      f'--number_of_steps={FLAGS.number_of_steps} is below '
      f'--min_global_step={FLAGS.min_global_step}, so that its checkpoint '
      'would be passed over; lower --min_global_step'
    )
  os.makedirs(FLAGS.eval_dir, exist_ok=True)
  with contextlib.ExitStack() as stack:
    if FLAGS.best_metric:
      # Two may write their own events there, but not one best checkpoint.
      stack.enter_context(locks.hold(FLAGS.eval_dir, 'best', '--eval_dir'))
    return watch()


def watch():
  """Does the work of `main`; returns the process's exit status."""
  search = search_config.from_flags(FLAGS)
  files = shards.list_files(FLAGS.input_file_pattern)
  captions = make_caption_evaluator(files, search)
  best = None
  if FLAGS.best_metric:
    measured_on = {
      'input_file_pattern': FLAGS.input_file_pattern,
      'num_eval_examples': FLAGS.num_eval_examples,
    }
    if FLAGS.best_metric != 'perplexity':
      config, _ = configuration.load(
        FLAGS.checkpoint_dir
        if os.path.isdir(FLAGS.checkpoint_dir)
        else os.path.dirname(FLAGS.checkpoint_dir)
      )
      measured_on.update(
        metrics_images=FLAGS.metrics_images,
        **search.completed(config).as_dict(),
      )
    best = best_checkpoint.BestCheckpoint(
      os.path.join(FLAGS.eval_dir, 'best'),
      FLAGS.best_metric,
      measured_on,
      defaults=search_config.SearchConfig().completed().as_dict(),
    )
  evaluator = Evaluator(
    files,
    FLAGS.num_eval_examples,
    FLAGS.eval_batch_size,
    FLAGS.feature_cache_dir,
  )
  writer = tf.summary.create_file_writer(FLAGS.eval_dir)
  last_step = None
  if FLAGS.run_once:
    if evaluate_latest(evaluator, captions, best, writer, None) is None:
      raise ValueError(
        f'the latest checkpoint of --checkpoint_dir={FLAGS.checkpoint_dir} is '
        f'of a step below --min_global_step={FLAGS.min_global_step}; lower '
        'that'
      )
    return 0
  while True:
    start = time.time()
    try:
      last_step = evaluate_latest(evaluator, captions, best, writer, last_step)
    except checkpoints.CheckpointError as e:
      # Not there yet, or deleted by train while it was read: look again.
      logging.warning('%s', e)
    if (
      FLAGS.number_of_steps
      and last_step is not None
      and last_step >= FLAGS.number_of_steps
    ):
      logging.info('--number_of_steps=%d reached', FLAGS.number_of_steps)
      return 0
    wait = FLAGS.eval_interval_secs - (time.time() - start)
    if wait > 0:
      time.sleep(wait)


if __name__ == '__main__':
  program.run(main, define_flags)
