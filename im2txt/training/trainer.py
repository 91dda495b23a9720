# SPDX-License-Identifier: Apache-2.0
"""Prepares a training run, and loops over its steps."""

from collections.abc import Iterable
from collections.abc import Sequence
import contextlib
import signal
import time
from typing import Any

from absl import logging
import tensorflow as tf

from im2txt import checkpoints
from im2txt import configuration
from im2txt import show_and_tell_model
from im2txt.checkpoints import encoder_stamp
from im2txt.input_pipeline import captions as captions_lib
from im2txt.input_pipeline import image_features
from im2txt.runtime import distribution
from im2txt.text import vocabulary
from im2txt.text import vocabulary_stamp
from im2txt.training import early_stopping
from im2txt.training import options as options_lib
from im2txt.training import reporting
from im2txt.training import scheduled_sampling
from im2txt.training import schedules
from im2txt.training import setup
from im2txt.training import steps
from im2txt.training import update as update_lib
from im2txt.training import word_vectors

# Exit statuses of a run that stops early: because the model no longer gets
# better, or by a signal.
_STATUSES = (0, 128 + signal.SIGINT, 128 + signal.SIGTERM)


def run(
  options: options_lib.TrainOptions,
  given: configuration.Given,
  files: Sequence[str],
  holders: Sequence[vocabulary_stamp.Source],
  replicas: distribution.Replicas,
) -> int:
  """Prepares and trains. In the chief the caller holds the directory's lock.

  The chief alone uses the train directory. The other workers get from it what
  all must have alike.

  Args:
    options: checked.
    given: hyperparameters of the command line.
    files: shard file names.
    holders: `vocabulary_stamp.of_shards` of the files.
    replicas: those that train together.

  Returns:
    The exit status of the process.

  Raises:
    ValueError: flags, input and checkpoint do not go together.
    ConnectionError: another worker was lost.
  """
  stamp = vocabulary_stamp.first_known(holders)
  checkpoint = None
  if replicas.is_chief:
    checkpoint = setup.open_checkpoint(options.train_dir)
  hyperparameters = replicas.agree(
    lambda: configuration.to_values(
      setup.make_configs(options.train_dir, given, stamp, checkpoint)
    )
  )
  configs = configuration.replace(
    configuration.Configs(), hyperparameters, 'the chief'
  )
  setup.check_replicas(options, configs.model, files, replicas)
  # Check flags before a cache is filled, which can take hours.
  per_image = 'samples' if options.self_critical else 'captions'
  captions_lib.check_captions_per_image(
    getattr(options, f'{per_image}_per_image'),
    configs.model.batch_size,
    f'{per_image}_per_image',
  )
  starts_words = bool(options.word_vectors_file) and not checkpoint
  vocab = None
  for flag, needed in (
    ('self_critical', options.self_critical),
    ('word_vectors_file', starts_words and replicas.is_chief),
  ):
    if needed:
      vocab = setup.open_vocabulary(
        options.vocab_file, files, holders, configs.model.vocab_size, flag
      )
  seed = replicas.agree(
    lambda: setup.run_seed(options.train_dir, options.random_seed)
  )
  tf.random.set_seed(seed)
  with replicas.scope():
    if replicas.is_chief:
      model, encoder = setup.prepare_model(
        options, configs, holders, checkpoint
      )
    else:
      model, encoder = setup.make_model(options, configs.model), None
  replicas.send(model.named_variables)
  manager = None
  if replicas.is_chief:
    manager = checkpoints.CheckpointManager(
      options.train_dir, configs.training.max_checkpoints_to_keep
    )
    manager.take_over(
      checkpoint.prefix if checkpoint else None,
      checkpoint.passed_over if checkpoint else [],
    )
  step = int(model.global_step.numpy())
  if step >= options.number_of_steps:
    logging.info(
      'nothing to do: --number_of_steps=%d is not above the current step %d '
      'of --train_dir=%s',
      options.number_of_steps,
      step,
      options.train_dir,
    )
    return 0
  stopping = early_stopping.EarlyStopping(
    options.early_stopping_patience, options.eval_dir
  )
  if replicas.agree(lambda: stopping.is_due(step)):
    return 0
  if stamp and stamp.words > configs.model.vocab_size:
    raise ValueError(
      f'the vocabulary of the shards has {stamp.words} words ({stamp.file}), '
      f'more than --vocab_size={configs.model.vocab_size}; use --vocab_size='
      f'{stamp.words}'
    )
  if replicas.is_chief:
    if vocab and starts_words:
      word_vectors.assign(options.word_vectors_file, vocab, model.embedding_map)
    configuration.save(options.train_dir, configs)
    # The shards do not tell which vocabulary an older checkpoint had.
    if stamp and not step:
      vocabulary_stamp.save(options.train_dir, stamp)
    if encoder:
      encoder_stamp.save(options.train_dir, encoder)
  if options.word_vectors_file:
    replicas.send({'seq_embedding/map': model.embedding_map})
  with replicas.scope():
    update = update_lib.Update(model, configs.training, replicas)
  if checkpoint and step:
    _restore_training_state(checkpoint, update, configs.training)
  replicas.send(update.named_slots)
  data = None
  if options.feature_cache_dir:
    data = _open_features(options, model, configs.model, files, replicas)
  # Self-critical training has both, see `TrainOptions.check`.
  if options.self_critical and vocab and data:
    step_fn, batches = _self_critical_training(
      options, model, configs, update, data, vocab, seed
    )
  else:
    step_fn, batches = _training(
      options, model, configs, update, data, files, seed, replicas
    )
  writer = None
  if replicas.is_chief:
    writer = tf.summary.create_file_writer(options.train_dir)
  return train(
    options,
    model,
    configs,
    batches,
    step_fn,
    update,
    writer,
    manager,
    stopping,
    replicas,
  )


def _restore_training_state(
  checkpoint: checkpoints.Checkpoint,
  update: update_lib.Update,
  config: configuration.TrainingConfig,
) -> None:
  """Restores slots and averages, or warns that there are none."""
  if update.named_slots and not checkpoints.restore_training_state(
    checkpoint.prefix, update.named_slots
  ):
    logging.warning(
      'no state of --optimizer=%s and --moving_average_decay=%g beside the '
      'checkpoint of step %d: both start from scratch',
      config.optimizer,
      config.moving_average_decay,
      checkpoint.global_step,
    )


def _open_features(
  options: options_lib.TrainOptions,
  model: show_and_tell_model.ShowAndTellModel,
  config: configuration.ModelConfig,
  files: Sequence[str],
  replicas: distribution.Replicas,
) -> image_features.CaptionedFeatures:
  """Opens --feature_cache_dir. The chief fills it, and the others wait."""
  data = None
  if replicas.is_chief:
    data = setup.open_features(
      options,
      model,
      config,
      files,
      replicas=distribution.ALONE if replicas.is_cluster else replicas,
    )
  replicas.agree(lambda: None)
  return data or setup.open_features(
    options, model, config, files, may_write=False
  )


def _training(
  options: options_lib.TrainOptions,
  model: show_and_tell_model.ShowAndTellModel,
  configs: configuration.Configs,
  update: update_lib.Update,
  data: image_features.CaptionedFeatures | None,
  files: Sequence[str],
  seed: int,
  replicas: distribution.Replicas,
) -> tuple[steps.StepFn, Iterable[Any]]:
  """Returns the step of training on references, and its batches."""
  step_fn = steps.make_step_fn(
    model, update, seed, setup.source(options), configs.training, replicas
  )
  batches = setup.make_batches(
    options,
    configs.model,
    files,
    data,
    seed,
    _first_batch(model, configs),
    replicas.shares,
  )
  return step_fn, replicas.prefetch(batches)


def _self_critical_training(
  options: options_lib.TrainOptions,
  model: show_and_tell_model.ShowAndTellModel,
  configs: configuration.Configs,
  update: update_lib.Update,
  data: image_features.CaptionedFeatures,
  vocab: vocabulary.Vocabulary,
  seed: int,
) -> tuple[steps.StepFn, Iterable[Any]]:
  """Returns the step of self-critical training, and its batches."""
  if (
    configs.training.label_smoothing
    or configs.training.scheduled_sampling != scheduled_sampling.NONE
  ):
    logging.warning(
      '--label_smoothing and --scheduled_sampling have no effect with '
      '--self_critical'
    )
  step_fn = steps.make_self_critical_step_fn(
    model,
    update,
    data,
    vocab,
    seed,
    options.samples_per_image,
    options.max_sample_length,
    options.self_critical_baseline,
    configs.training.accumulate_steps,
  )
  batches = data.training_images(
    configs.model.batch_size,
    seed,
    options.samples_per_image,
    options.feature_undistorted,
    _first_batch(model, configs),
  )
  return step_fn, batches


def _first_batch(
  model: show_and_tell_model.ShowAndTellModel, configs: configuration.Configs
) -> int:
  """Returns the place of the next batch in the order of all batches."""
  return int(model.global_step.numpy()) * configs.training.accumulate_steps


def train(
  options: options_lib.TrainOptions,
  model: show_and_tell_model.ShowAndTellModel,
  configs: configuration.Configs,
  batches: Iterable[Any],
  step_fn: steps.StepFn,
  update: update_lib.Update,
  writer: tf.summary.SummaryWriter | None,
  manager: checkpoints.CheckpointManager | None,
  stopping: early_stopping.EarlyStopping,
  replicas: distribution.Replicas,
) -> int:
  """Trains up to a step.

  Args:
    options: step to train up to, and intervals.
    model: the model to train.
    configs: batch size and learning rates.
    batches: batches of the kind that `step_fn` takes, one by one, each as the
      shares of the replicas of this process.
    step_fn: takes a step.
    update: knows what to save.
    writer: writes TensorBoard events; None except in the chief, as the next.
    manager: writes checkpoints.
    stopping: is asked after each checkpoint.
    replicas: those that train together.

  Returns:
    The exit status of the process: 0, or 128 plus the number of the signal.

  Raises:
    ValueError: training diverged, or the input is damaged.
    OSError: input cannot be read, or a checkpoint cannot be written.
  """
  stop = reporting.StopSignal()
  wishes = distribution.Wishes(replicas, _STATUSES)
  own_wishes: set[int] = set()
  statuses: set[int] = set()
  losses = reporting.Losses(options.train_dir)
  step = first_step = int(model.global_step.numpy())
  saved_step = None if step == 0 else step
  last_save = time.time()
  last_summary = 0.0
  batches_per_step = configs.training.accumulate_steps
  captions_per_step = batches_per_step * configs.model.batch_size
  batches_of_steps = reporting.TimedBatches(
    zip(*[iter(batches)] * (batches_per_step * replicas.local_count))
  )

  log = reporting.StepLog(
    writer,
    losses,
    batches_of_steps,
    captions_per_step,
    options.number_of_steps,
  )

  def save() -> int:
    losses.read()  # Raises if training has diverged: that is not saved.
    if manager:
      prefix = manager.save(update.named_variables(), update.named_slots)
      logging.info('saved %s', prefix)
    return step

  logging.info('the first step takes longer than others: it is compiled')
  try:
    for batches_of_step in batches_of_steps:
      if step >= options.number_of_steps:
        break
      if stop.received:
        own_wishes.add(128 + stop.received)
      with replicas.naming_lost_workers():
        statuses = wishes.of_all(own_wishes)
      if statuses:
        break
      learning_rate, inception_rate = schedules.learning_rates(
        configs.training,
        captions_per_step,
        step,
        options.train_inception,
        options.train_inception_from,
      )
      with replicas.naming_lost_workers():
        scalars = step_fn(
          batches_of_step,
          tf.constant(learning_rate, tf.float32),
          tf.constant(inception_rate, tf.float32),
        )
      step += 1
      # Without the weight decay of Inception, which would make the loss jump
      # where joint training begins.
      losses.add(step, scalars['batch_loss'])
      if step == first_step + 1:
        # The first step includes compilation, so the rate leaves it out.
        log.start(step)
      if (
        step % options.log_every_n_steps == 0 or step == options.number_of_steps
      ):
        log.write(step, scalars, learning_rate)
      if writer and time.time() - last_summary >= options.save_summaries_secs:
        with writer.as_default(step=step):
          reporting.write_summaries(
            model,
            None if options.feature_cache_dir else batches_of_step[0].inputs,
          )
        last_summary = time.time()
      if manager and time.time() - last_save >= options.save_interval_secs:
        saved_step = save()
        last_save = time.time()
        if stopping.is_due(step):
          own_wishes.add(0)
  except (OSError, ValueError) as error:
    # The input may be damaged, or a worker lost. Save the steps that are done,
    # unless the one that broke off has changed the averages of batch norm. It
    # has changed nothing else.
    is_whole = not (
      isinstance(error, ConnectionError) and options.trains_batch_norm
    )
    if is_whole and step > first_step and saved_step != step:
      with contextlib.suppress(ValueError):  # Training has diverged.
        save()
    raise
  if saved_step != step:
    save()
  if writer:
    writer.flush()
  # None ends before the chief has saved: it would seem lost.
  with replicas.naming_lost_workers():
    replicas.agree(lambda: None)
  return max(statuses, default=0)
