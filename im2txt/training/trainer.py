# SPDX-License-Identifier: Apache-2.0
"""A training run: prepared, and the loop over its steps."""

import contextlib
import time

from absl import logging
import tensorflow as tf

from im2txt import checkpoints
from im2txt import configuration
from im2txt.checkpoints import encoder_stamp
from im2txt.input_pipeline import captions as captions_lib
from im2txt.text import vocabulary_stamp
from im2txt.training import reporting
from im2txt.training import schedules
from im2txt.training import setup
from im2txt.training import steps
from im2txt.training import update as update_lib


def run(options, given, files, holders):
  """Prepares and trains, while nobody else trains in the directory.

  Args:
    options: `options.TrainOptions`, checked.
    given: a `configuration.Given`, hyperparameters of the command line.
    files: shard file names.
    holders: their `vocabulary_stamp.of_shards`.

  Returns:
    The process's exit status.

  Raises:
    ValueError: flags, input and checkpoint do not go together.
  """
  stamp = vocabulary_stamp.first_known(holders)
  checkpoint = setup.open_checkpoint(options.train_dir)
  configs = setup.make_configs(options.train_dir, given, stamp, checkpoint)
  # What is wrong with flags is said before the hours that a cache can take.
  per_image = 'samples' if options.self_critical else 'captions'
  captions_lib.check_captions_per_image(
    getattr(options, f'{per_image}_per_image'),
    configs[0].batch_size,
    f'{per_image}_per_image',
  )
  vocab = None
  if options.self_critical:
    vocab = setup.open_vocabulary(
      options.vocab_file, files, holders, configs[0].vocab_size
    )
  seed = setup.run_seed(options.train_dir, options.random_seed)
  tf.random.set_seed(seed)
  model, encoder = setup.prepare_model(options, configs, holders, checkpoint)
  manager = checkpoints.CheckpointManager(
    options.train_dir, configs[1].max_checkpoints_to_keep
  )
  manager.take_over(
    checkpoint and checkpoint.prefix,
    checkpoint.passed_over if checkpoint else [],
  )
  if int(model.global_step) >= options.number_of_steps:
    logging.info(
      'nothing to do: --number_of_steps=%d is not above the current step %d '
      'of --train_dir=%s',
      options.number_of_steps,
      int(model.global_step),
      options.train_dir,
    )
    return 0
  if stamp and stamp.words > configs[0].vocab_size:
    raise ValueError(
      f'the vocabulary of the shards has {stamp.words} words ({stamp.file}), '
      f'more than --vocab_size={configs[0].vocab_size}; use --vocab_size='
      f'{stamp.words}'
    )
  configuration.save(options.train_dir, configs)
  # What a checkpoint was trained with before is not known from the shards.
  if stamp and not int(model.global_step):
    vocabulary_stamp.save(options.train_dir, stamp)
  if encoder:
    encoder_stamp.save(options.train_dir, encoder)
  update = update_lib.Update(model, configs[1])
  step = int(model.global_step)
  if (
    step
    and update.named_slots
    and not checkpoints.restore_training_state(
      checkpoint.prefix, update.named_slots
    )
  ):
    logging.warning(
      'no state of --optimizer=%s and --moving_average_decay=%g beside the '
      'checkpoint of step %d: both begin anew',
      configs[1].optimizer,
      configs[1].moving_average_decay,
      step,
    )
  data = None
  if options.feature_cache_dir:
    data = setup.open_features(options, model, configs[0], files)
  if options.self_critical:
    step_fn = steps.make_self_critical_step_fn(
      model,
      update,
      data,
      vocab,
      seed,
      options.samples_per_image,
      options.max_sample_length,
    )
    batches = data.training_images(
      configs[0].batch_size,
      seed,
      options.samples_per_image,
      options.feature_undistorted,
      step,
    )
  else:
    step_fn = steps.make_step_fn(model, update, seed, setup.source(options))
    batches = setup.make_batches(options, configs[0], files, data, seed, step)
  writer = tf.summary.create_file_writer(options.train_dir)
  return train(
    options, model, configs, batches, step_fn, update, writer, manager
  )


def train(options, model, configs, batches, step_fn, update, writer, manager):
  """Trains up to a step.

  Args:
    options: `options.TrainOptions`.
    model: a `ShowAndTellModel`.
    configs: (ModelConfig, TrainingConfig).
    batches: iterator of what `step_fn` takes.
    step_fn: of `steps`.
    update: an `update.Update`.
    writer: a summary writer.
    manager: a `checkpoints.CheckpointManager`.

  Returns:
    The process's exit status: 0, or 128 and the number of the signal.

  Raises:
    ValueError: training diverged, or the input is damaged.
    OSError: input cannot be read, or a checkpoint not written.
  """
  model_config, training_config = configs
  stop = reporting.StopSignal()
  losses = reporting.Losses(options.train_dir)
  step = first_step = int(model.global_step)
  saved_step = None if step == 0 else step
  last_save = time.time()
  last_summary = 0.0
  logged_step, logged_time = step, time.time()
  batches = reporting.Waiting(batches)

  def save():
    losses.read()  # Nothing that has diverged is saved.
    prefix = manager.save(update.named_variables(), update.named_slots)
    logging.info('saved %s', prefix)
    return step

  logging.info('the first step takes longer than others: it is compiled')
  try:
    for batch in batches:
      if stop.received or step >= options.number_of_steps:
        break
      learning_rate, inception_rate = schedules.learning_rates(
        training_config,
        model_config.batch_size,
        step,
        options.train_inception,
        options.train_inception_from,
      )
      scalars = step_fn(
        batch,
        tf.constant(learning_rate, tf.float32),
        tf.constant(inception_rate, tf.float32),
      )
      step += 1
      losses.add(step, scalars['total_loss'])
      if step == first_step + 1:
        # The first step compiles; a rate that counted it would mislead.
        losses.read()
        logged_step, logged_time, batches.seconds = step, time.time(), 0.0
      if (
        step % options.log_every_n_steps == 0 or step == options.number_of_steps
      ):
        losses.read()
        now = time.time()
        seconds = (now - logged_time) / max(step - logged_step, 1)
        rate = ''
        left = options.number_of_steps - step
        if step > logged_step:
          rate = (
            f'{seconds:.3f} sec/step, '
            f'{model_config.batch_size / seconds:.1f} examples/s, '
            f'{batches.seconds / (now - logged_time):.0%} waiting for '
            'input, ETA '
            f'{reporting.duration(seconds * left)}, '
          )
        logging.info(
          'global step %d: loss = %.4f (smoothed %.4f, %slr %g)',
          step,
          losses.last,
          losses.smoothed,
          rate,
          learning_rate,
        )
        with writer.as_default(step=step):
          tf.summary.scalar('losses/batch_loss', scalars['batch_loss'])
          tf.summary.scalar('losses/total_loss', losses.last)
          tf.summary.scalar('losses/smoothed_loss', losses.smoothed)
          tf.summary.scalar('learning_rate', learning_rate)
          tf.summary.scalar('global_norm', scalars['global_norm'])
          if step > logged_step:
            tf.summary.scalar(
              'examples_per_sec', model_config.batch_size / seconds
            )
        logged_step, logged_time, batches.seconds = step, now, 0.0
      if time.time() - last_summary >= options.save_summaries_secs:
        with writer.as_default(step=step):
          reporting.write_summaries(
            model, None if options.feature_cache_dir else batch.inputs
          )
        last_summary = time.time()
      if time.time() - last_save >= options.save_interval_secs:
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
