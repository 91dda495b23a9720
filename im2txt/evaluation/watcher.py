# SPDX-License-Identifier: Apache-2.0
"""Evaluates each new checkpoint of a directory.

`EVALUATIONS` lists, by name, what is measured of each checkpoint; each is an
`Evaluation`.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import glob
import os
import time
from typing import Protocol

from absl import logging
import tensorflow as tf

from im2txt import checkpoints
from im2txt import configuration
from im2txt.checkpoints import best as best_checkpoint
from im2txt.data import shards
from im2txt.evaluation import caption_evaluator
from im2txt.evaluation import options as options_lib
from im2txt.evaluation import perplexity
from im2txt.evaluation import scoring
from im2txt.inference_utils import search_config
from im2txt.runtime import distribution
from im2txt.runtime import locks
from im2txt.text import vocabulary
from im2txt.text import vocabulary_stamp
from im2txt.visualization import caption_sheet

# The page of samples: images side by side, with references of each.
_SAMPLES = 12
_COLUMNS = 4
_REFERENCES = 5

Scores = dict[str, float]


class Evaluation(Protocol):
  """Measures one thing of every checkpoint."""

  def __call__(
    self, evaluator: perplexity.PerplexityEvaluator, checkpoint: str
  ) -> Scores:
    """Measures a checkpoint, logs the scores and writes them as summaries.

    Args:
      evaluator: holds the model and the images. The first evaluation fills
        it with the checkpoint.
      checkpoint: its prefix.

    Returns:
      Scores by name, which --best_metric may choose from.
    """


def _perplexity(
  options: options_lib.EvaluateOptions,
  files: Sequence[str],
  search: search_config.SearchConfig,
  replicas: distribution.Replicas,
) -> Evaluation:
  """Returns the evaluation that every checkpoint has."""
  del options, files, search, replicas

  def evaluate(
    evaluator: perplexity.PerplexityEvaluator, checkpoint: str
  ) -> Scores:
    start = time.time()
    result = evaluator.evaluate(checkpoint)
    logging.info(
      'global step %d: perplexity = %.4f (%.4f nats per word, %d words of %d '
      'captions, %.1f s)',
      result.global_step,
      result.perplexity,
      result.cross_entropy,
      result.num_words,
      result.num_captions,
      time.time() - start,
    )
    tf.summary.scalar('Perplexity', result.perplexity)
    tf.summary.scalar('losses/cross_entropy', result.cross_entropy)
    return {options_lib.PERPLEXITY: result.perplexity}

  return evaluate


def _captions(
  options: options_lib.EvaluateOptions,
  files: Sequence[str],
  search: search_config.SearchConfig,
  replicas: distribution.Replicas,
) -> Evaluation | None:
  """Returns the evaluation that --metrics asks for, None without.

  Raises:
    ValueError: the vocabulary is not that of the shards, or is not there.
  """
  stamp = vocabulary_stamp.first_known(
    [
      *vocabulary_stamp.of_shards(files),
      vocabulary_stamp.of_checkpoint(
        os.path.join(options.checkpoint_dir, checkpoints.PREFIX)
        if os.path.isdir(options.checkpoint_dir)
        else options.checkpoint_dir
      ),
    ]
  )
  split = scoring.split_of(stamp)
  metrics = options.available_metrics()
  if not metrics:
    for name in ('train_file_pattern', 'ranking_images'):
      if getattr(options, name):
        raise ValueError(
          f'--{name} needs one of --metrics that can be computed here'
        )
    return None
  vocab_file = options.vocab_file or os.path.join(
    os.path.dirname(files[0]), vocabulary.FILE_NAME
  )
  if not os.path.exists(vocab_file):
    raise ValueError(
      f'--metrics needs the vocabulary, and there is no {vocab_file}: give '
      '--vocab_file'
    )
  captions = caption_evaluator.CaptionEvaluator(
    files,
    vocabulary.Vocabulary(vocab_file),
    metrics,
    search,
    stamp.separator if stamp else ' ',
    split,
    options.num_eval_examples,
    scoring.training_captions(options.train_file_pattern, split),
    replicas,
  )

  def evaluate(
    evaluator: perplexity.PerplexityEvaluator, checkpoint: str
  ) -> Scores:
    del checkpoint
    start = time.time()
    model = evaluator.model
    n_best = captions.caption(
      model, *evaluator.images(options.metrics_images or None)
    )
    scores = captions.score(n_best)
    if options.ranking_images:
      scores.update(
        captions.rank(model, *evaluator.images(options.ranking_images))
      )
    if scores:
      logging.info(
        'global step %d: %s (%d images, %.1f s)',
        int(model.global_step.numpy()),
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
      page = caption_sheet.draw(
        samples, min(_COLUMNS, len(samples)), _REFERENCES
      )
      tf.summary.image('samples/page', tf.io.decode_png(page, 3)[tf.newaxis])
    except ValueError as e:
      logging.warning('no page of samples: %s', e)
    return scores

  return evaluate


# What makes each evaluation of a run; None if the options do not ask for it.
# In this order: perplexity opens the checkpoint for those after it.
EVALUATIONS: dict[
  str,
  Callable[
    [
      options_lib.EvaluateOptions,
      Sequence[str],
      search_config.SearchConfig,
      distribution.Replicas,
    ],
    Evaluation | None,
  ],
] = {options_lib.PERPLEXITY: _perplexity, 'captions': _captions}


@contextlib.contextmanager
def writing_events(
  writer: tf.summary.SummaryWriter, directory: str
) -> Iterator[None]:
  """Writes the events of its context to a directory.

  TensorFlow says nothing where it cannot write them.

  Args:
    writer: a summary writer.
    directory: that of the writer.

  Raises:
    OSError: they are not on the disk.
  """

  def written() -> list[str]:
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
      f'cannot write the events in --eval_dir={directory}, perhaps for want of '
      'space: the log has the result; make room, and run the same command again'
    )


class Watcher:
  """Evaluates the latest checkpoint whenever there is a new one.

  Args:
    options: what to evaluate, and where.
    files: shard file names.
    search: how captions are searched.
    replicas: evaluate together.

  Raises:
    ValueError: the shards, the vocabulary or what eval_dir/best holds cannot
      be used with these options.
  """

  def __init__(
    self,
    options: options_lib.EvaluateOptions,
    files: Sequence[str],
    search: search_config.SearchConfig,
    replicas: distribution.Replicas = distribution.ALONE,
  ):
    self._options = options
    self._evaluations = [
      evaluation
      for make in EVALUATIONS.values()
      if (evaluation := make(options, files, search, replicas))
    ]
    self._best = _best(options, search)
    self._evaluator = perplexity.PerplexityEvaluator(
      files,
      options.num_eval_examples,
      options.eval_batch_size,
      options.feature_cache_dir,
      replicas,
    )
    self._writer = tf.summary.create_file_writer(options.eval_dir)
    self._last_step: int | None = None

  def evaluate_latest(self) -> int | None:
    """Evaluates the latest checkpoint, if it is new.

    Returns:
      The step evaluated last, None if there is none yet.

    Raises:
      checkpoints.CheckpointError: there is none that can be read.
    """
    checkpoint = checkpoints.Checkpoint(self._options.checkpoint_dir)
    step = checkpoint.global_step
    if step < self._options.min_global_step:
      logging.info(
        'passing over %s: step %d < --min_global_step=%d',
        checkpoint.prefix,
        step,
        self._options.min_global_step,
      )
      return self._last_step
    if step == self._last_step:
      logging.info('no checkpoint newer than step %d', step)
      return step
    scores = {}
    with self._writer.as_default(step=step):
      for evaluation in self._evaluations:
        with writing_events(self._writer, self._options.eval_dir):
          # By its own name: a newer one may have come meanwhile.
          scores.update(evaluation(self._evaluator, checkpoint.prefix))
    if self._best:
      self._offer(self._best, scores, checkpoint.prefix, step)
    self._last_step = step
    return step

  def _offer(
    self,
    best: best_checkpoint.BestCheckpoint,
    scores: Scores,
    prefix: str,
    step: int,
  ) -> None:
    """Keeps the checkpoint evaluated last if it is the best so far."""
    if best.metric not in scores:
      logging.warning(
        'no %s of step %d: it cannot be the best', best.metric, step
      )
    elif best.offer(
      scores[best.metric],
      self._evaluator.model.named_variables,
      os.path.dirname(prefix),
    ):
      logging.info('global step %d: the best %s so far', step, best.metric)

  def run(self) -> None:
    """Watches until the step of the options; without one, until interrupted.

    Raises:
      ValueError: with `run_once`, the latest checkpoint is of too early a step.
      checkpoints.CheckpointError: with `run_once`, there is none to read.
    """
    if self._options.run_once:
      if self.evaluate_latest() is None:
        raise ValueError(
          'the latest checkpoint of '
          f'--checkpoint_dir={self._options.checkpoint_dir} is of a step below '
          f'--min_global_step={self._options.min_global_step}; lower that'
        )
      return
    while True:
      start = time.time()
      try:
        self.evaluate_latest()
      except checkpoints.CheckpointError as e:
        # Not there yet, or deleted by train while it was read: look again.
        logging.warning('%s', e)
      if self._is_last():
        return
      wait = self._options.eval_interval_secs - (time.time() - start)
      if wait > 0:
        time.sleep(wait)

  def _is_last(self) -> bool:
    if self._last_step is None:
      return False
    patience = self._options.early_stopping_patience
    if patience and self._best:
      count = self._best.count_not_better(self._last_step)
      if count >= patience:
        logging.info(
          '--early_stopping_patience=%d reached: the last %d checkpoint(s) '
          'were not better',
          patience,
          count,
        )
        return True
    last = self._options.number_of_steps
    if not last or self._last_step < last:
      return False
    logging.info('--number_of_steps=%d reached', last)
    return True


def _best(
  options: options_lib.EvaluateOptions, search: search_config.SearchConfig
) -> best_checkpoint.BestCheckpoint | None:
  """Returns what keeps the best checkpoint, None without --best_metric."""
  if not options.best_metric:
    return None
  measured_on = {
    'input_file_pattern': options.input_file_pattern,
    'num_eval_examples': options.num_eval_examples,
  }
  if options.best_metric != options_lib.PERPLEXITY:
    config, _ = configuration.load(
      options.checkpoint_dir
      if os.path.isdir(options.checkpoint_dir)
      else os.path.dirname(options.checkpoint_dir)
    )
    measured_on.update(
      metrics_images=options.metrics_images,
      **search.completed(config).as_dict(),
    )
  return best_checkpoint.BestCheckpoint(
    os.path.join(options.eval_dir, best_checkpoint.DIRECTORY),
    options.best_metric,
    measured_on,
    defaults=search_config.SearchConfig().completed().as_dict(),
  )


def run(
  options: options_lib.EvaluateOptions, search: search_config.SearchConfig
) -> None:
  """Evaluates as options say; see `Watcher`."""
  replicas = distribution.make_local(options.distribution)
  with contextlib.ExitStack() as stack:
    if options.best_metric:
      # Two may write their own events there, but not one best checkpoint.
      stack.enter_context(locks.hold(options.eval_dir, 'best', '--eval_dir'))
    files = shards.list_files(options.input_file_pattern)
    Watcher(options, files, search, replicas).run()
