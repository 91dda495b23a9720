# SPDX-License-Identifier: Apache-2.0
"""Opens and checks the parts of a training run: model, batches, seed."""

from collections.abc import Iterator
from collections.abc import Sequence
import json
import os
import secrets

from absl import logging
import tensorflow as tf

from im2txt import checkpoints
from im2txt import configuration
from im2txt import show_and_tell_model
from im2txt.checkpoints import encoder_stamp
from im2txt.input_pipeline import feature_cache
from im2txt.input_pipeline import image_batches
from im2txt.input_pipeline import image_features
from im2txt.ops import folded_inception
from im2txt.runtime import distribution
from im2txt.runtime import files as files_lib
from im2txt.runtime import sharing
from im2txt.text import vocabulary
from im2txt.text import vocabulary_stamp
from im2txt.training import optimizers
from im2txt.training import options as options_lib
from im2txt.training import scheduled_sampling
from im2txt.training import schedules
from im2txt.training import steps

# Beside the checkpoints: the seed of the run.
_SEED_FILE = 'random_seed.json'


def open_checkpoint(train_dir: str) -> checkpoints.Checkpoint | None:
  """Returns the checkpoint to resume from; None if there is none yet.

  Raises:
    CheckpointError: there are some, and none is intact.
  """
  try:
    return checkpoints.Checkpoint(train_dir, training_state=True)
  except checkpoints.NoCheckpointYetError:
    return None


def make_configs(
  train_dir: str,
  given: configuration.Given,
  stamp: vocabulary_stamp.Stamp | None,
  checkpoint: checkpoints.Checkpoint | None,
) -> configuration.Configs:
  """Returns the hyperparameters that flags and directory ask for.

  Args:
    train_dir: directory of checkpoints.
    given: hyperparameters of the command line.
    stamp: of the vocabulary of the shards; None if not known. A new model has
      as many words unless a flag says otherwise.
    checkpoint: see `open_checkpoint`.

  Raises:
    ValueError: see `configuration.resolve`, and `check` of `optimizers`,
      `schedules` and `scheduled_sampling`.
  """
  configs = configuration.resolve(train_dir, given)
  if stamp and not checkpoint:
    before, configs = (
      configs,
      configuration.resolve(train_dir, given, {'vocab_size': stamp.words}),
    )
    if configs != before:
      logging.info(
        '--vocab_size=%d, the number of words of the vocabulary of the '
        'shards (%s)',
        stamp.words,
        stamp.file,
      )
  optimizers.check(configs.training)
  schedules.check(configs.training)
  scheduled_sampling.check(configs.training)
  return configs


def prepare_model(
  options: options_lib.TrainOptions,
  configs: configuration.Configs,
  holders: Sequence[vocabulary_stamp.Source],
  checkpoint: checkpoints.Checkpoint | None,
) -> tuple[show_and_tell_model.ShowAndTellModel, encoder_stamp.Stamp | None]:
  """Builds the model and restores it from train_dir or Inception's checkpoint.

  Args:
    options: options of the run.
    configs: size of the model.
    holders: `vocabulary_stamp.of_shards` of the input files.
    checkpoint: see `open_checkpoint`.

  Returns:
    (the model; the stamp of the Inception checkpoint that was loaded, None if
    none was).

  Raises:
    ValueError: a checkpoint does not fit or cannot be read.
  """
  inception = None
  if checkpoint:
    # Check sizes first: building the model takes minutes.
    for name, size in checkpoint.model_sizes().items():
      if getattr(configs.model, name) != size:
        raise ValueError(
          f'--{name}={getattr(configs.model, name)}, but the checkpoint '
          f'{checkpoint.prefix} has {size}; use --{name}={size} or another '
          '--train_dir'
        )
    holders = [*holders, vocabulary_stamp.of_checkpoint(checkpoint.prefix)]
  elif options.inception_checkpoint_file:
    # Only once, as it warns of each damaged checkpoint of a directory.
    inception = checkpoints.resolve(options.inception_checkpoint_file)
  elif not options.random_inception and (
    options.train_inception_from or not options.train_inception
  ):
    # The usual cause is a shell variable that is not set.
    raise ValueError(
      '--inception_checkpoint_file is required to train on a frozen '
      'Inception v3, as there is no checkpoint in '
      f'--train_dir={options.train_dir}: get_inception gets one; '
      '--random_inception starts from random weights'
    )
  vocabulary_stamp.check(
    holders,
    f'give --input_file_pattern={options.input_file_pattern} shards '
    f'that were made with the vocabulary of --train_dir={options.train_dir}, '
    'or another --train_dir; extend_checkpoint gives a model more words',
  )
  model = make_model(options, configs.model)
  assert model.inception
  if checkpoint:
    unused = checkpoint.restore(model.named_variables)
    if unused:
      logging.warning(
        '%s holds unknown variables, ignored: %s',
        checkpoint.prefix,
        ', '.join(unused),
      )
    logging.info('resuming from %s', checkpoint.prefix)
    return model, None
  if inception:
    checkpoints.load_inception(inception, model.inception)
    encoder = encoder_stamp.of_checkpoint(
      inception, model.inception.named_variables
    )
    logging.info(
      'Inception v3 initialized from %s: weights of source %s',
      options.inception_checkpoint_file,
      encoder,
    )
    return model, encoder
  logging.warning(
    'no --inception_checkpoint_file: Inception v3 starts from random weights'
  )
  return model, None


def make_model(
  options: options_lib.TrainOptions, config: configuration.ModelConfig
) -> show_and_tell_model.ShowAndTellModel:
  """Builds the model, with random weights."""
  logging.info('building the network')
  return show_and_tell_model.ShowAndTellModel(
    config,
    train_inception=options.train_inception,
    train_inception_from=options.train_inception_from,
    training_dtype=tf.as_dtype(options.precision),
  )


def check_replicas(
  options: options_lib.TrainOptions,
  config: configuration.ModelConfig,
  files: Sequence[str],
  replicas: distribution.Replicas,
) -> None:
  """Checks that replicas can train together.

  Args:
    options: options of this process.
    config: batch size.
    files: shard file names of this process.
    replicas: those that train together.

  Raises:
    ValueError: a replica would have no share of a batch, or workers were
      started with other flags or other shards.
  """
  if replicas.count == 1:
    return
  if options.self_critical:
    raise ValueError(
      f'--self_critical trains on one device, not on {replicas.count}: give '
      '--distribution=one'
    )
  groups = config.batch_size // options.captions_per_image
  if groups < replicas.count:
    raise ValueError(
      f'--batch_size={config.batch_size} has {groups} image(s), fewer than the '
      f'{replicas.count} devices that share it: give --batch_size='
      f'{replicas.count * options.captions_per_image} or more'
    )
  # Paths and log intervals may differ between machines.
  alike = {
    name: getattr(options, name)
    for name in (
      'train_inception',
      'train_inception_from',
      'number_of_steps',
      'feature_views',
      'feature_seed',
      'feature_precision',
      'captions_per_image',
      'feature_undistorted',
      'precision',
    )
  }
  alike['feature_cache_dir'] = bool(options.feature_cache_dir)
  alike['word_vectors_file'] = bool(options.word_vectors_file)
  alike['shards'] = [
    [os.path.basename(file), tf.io.gfile.stat(file).length] for file in files
  ]
  chiefs = replicas.agree(lambda: alike)
  names = [name for name in alike if alike[name] != chiefs[name]]
  if not replicas.all_equal(json.dumps(alike)):
    who, what = 'a worker', 'flags or shards'
    if names:
      who = 'this worker'
      what = 'shards' if names[0] == 'shards' else f'--{names[0]}'
    raise ValueError(
      f'{who} was started with other {what} than the chief: start the same '
      'command on all workers'
    )


def open_vocabulary(
  path: str,
  files: Sequence[str],
  holders: Sequence[vocabulary_stamp.Source],
  vocab_size: int,
  flag: str,
) -> vocabulary.Vocabulary:
  """Opens the vocabulary of the shards.

  Args:
    path: the vocabulary file; '' for the one beside the shards.
    files: shard file names.
    holders: `vocabulary_stamp.of_shards` of the files.
    vocab_size: number of word ids of the model.
    flag: the flag that needs the vocabulary, for the error.

  Raises:
    ValueError: the file cannot be read, is not the vocabulary of the shards, or
      has more words than the model.
  """
  if not path:
    path = os.path.join(os.path.dirname(files[0]), vocabulary.FILE_NAME)
    if not os.path.exists(path):
      raise ValueError(
        f'--{flag} needs the vocabulary of the shards: '
        f'there is no {path}; give --vocab_file'
      )
  vocab = vocabulary.Vocabulary(path)
  vocabulary_stamp.check(
    [*holders, vocabulary_stamp.of_vocabulary(vocab)],
    'give --vocab_file the vocabulary of the shards',
  )
  vocab.check_fits_model(vocab_size)
  return vocab


def feature_encoder(
  model: show_and_tell_model.ShowAndTellModel,
  precision: str,
  block: str | None,
  replicas: distribution.Replicas = distribution.ALONE,
) -> image_features.EncodeFn:
  """Returns what computes the features of --feature_cache_dir.

  Args:
    model: has the weights.
    precision: of Inception v3.
    block: the block whose inputs are the features; None: all of Inception.
    replicas: share the images of a batch. The model is of their scope.
  """
  inception = model.inception
  assert inception
  if precision != 'float32' or block:
    folded = replicas.on_each(
      folded_inception.fold(
        lambda name: inception.named_variables[name].numpy(),
        tf.as_dtype(precision),
      )
    )
    return replicas.by_rows(
      lambda images: folded_inception.encode(images, folded, block),
      image_features.SMALLEST_BATCH,
      input_signature=[tf.TensorSpec([None, None, None, 3])],
    )
  return replicas.by_rows(
    model.encode_images, image_features.SMALLEST_BATCH, reduce_retracing=True
  )


def open_features(
  options: options_lib.FeatureOptions,
  model: show_and_tell_model.ShowAndTellModel,
  config: configuration.ModelConfig,
  files: Sequence[str],
  fill: feature_cache.Fill | None = None,
  may_write: bool = True,
  replicas: distribution.Replicas = distribution.ALONE,
) -> image_features.CaptionedFeatures:
  """Opens or fills --feature_cache_dir.

  Args:
    options: options of the run.
    model: computes the features.
    config: size of the images.
    files: shard file names.
    fill: see `feature_cache.open_or_build`.
    may_write: see `feature_cache.open_or_build`.
    replicas: see `feature_encoder`.
  """
  inception = model.inception
  assert inception
  # The features do not depend on the blocks that are trained.
  variables = {
    name: variable
    for name, variable in inception.named_variables.items()
    if name.split('/')[1] not in inception.trained_blocks
  }
  data = feature_cache.open_or_build(
    options.feature_cache_dir,
    files,
    feature_encoder(
      model,
      options.feature_precision,
      options.train_inception_from,
      replicas,
    ),
    variables,
    config,
    options.feature_views,
    options.feature_seed,
    options.feature_precision,
    options.train_inception_from,
    fill,
    may_write,
    image_features.BATCH_SIZE * replicas.count,
  )
  logging.info(
    'features of %d images, %d captions, in %s',
    len(data.captions.image_ids),
    len(data.captions),
    options.feature_cache_dir,
  )
  return data


def make_batches(
  options: options_lib.TrainOptions,
  config: configuration.ModelConfig,
  files: Sequence[str],
  data: image_features.CaptionedFeatures | None,
  seed: int,
  first_batch: int,
  shares: Sequence[sharing.Share],
) -> Iterator[image_batches.Batch]:
  """Returns an endless iterator of the shares of batches.

  Args:
    options: options of the run.
    config: batch size, and size of the images.
    files: shard file names.
    data: see `open_features`; None to train from images.
    seed: of the run.
    first_batch: place of the first batch among all batches of the run.
    shares: see `image_batches.ImageBatches.from_step`.
  """
  if not data:
    return image_batches.ImageBatches(
      files, config, options.captions_per_image
    ).from_step(seed, first_batch, shares)
  return iter(
    tf.data.Dataset.from_generator(
      lambda: data.training_batches(
        config.batch_size,
        seed,
        options.captions_per_image,
        options.feature_undistorted,
        first_batch,
        shares,
      ),
      output_signature=steps.batch_signature(config, source(options)),
    ).prefetch(4)
  )


def run_seed(train_dir: str, asked: int | None) -> int:
  """Returns the seed of a run, and saves it.

  Args:
    train_dir: directory of checkpoints, where the seed is saved.
    asked: the seed to use; None for the saved one, or a new one.

  Raises:
    ValueError: the file of the seed is damaged.
  """
  path = os.path.join(train_dir, _SEED_FILE)
  seed = saved = None
  if os.path.exists(path):
    try:
      saved = seed = files_lib.read_json(path)['random_seed']
      if not isinstance(seed, int) or seed < 0:
        raise ValueError(f'{seed!r:.100} is not a seed')
    except (OSError, ValueError, TypeError, KeyError) as error:
      raise ValueError(
        f'{path} is damaged ({error}): remove it, and give --random_seed if '
        'you know it; without it the examples come in a new order'
      ) from error
  if asked is not None:
    seed = asked
  elif seed is None:
    seed = secrets.randbits(31)
  if seed != saved:
    logging.info('--random_seed=%d', seed)
    files_lib.write_json(path, {'random_seed': seed})
  return seed


def source(options: options_lib.TrainOptions) -> str:
  """Returns what batches hold of images, see `steps.batch_signature`."""
  if not options.feature_cache_dir:
    return steps.IMAGES
  return steps.BLOCK_INPUTS if options.train_inception_from else steps.FEATURES
