# SPDX-License-Identifier: Apache-2.0
"""Fills --feature_cache_dir before training, by many workers if asked."""

from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import functools
from typing import Any

from im2txt import checkpoints
from im2txt import configuration
from im2txt import show_and_tell_model
from im2txt.data import shards
from im2txt.input_pipeline import captions as captions_lib
from im2txt.input_pipeline import feature_cache
from im2txt.input_pipeline import image_features
from im2txt.runtime import beam_workers
from im2txt.runtime import storage
from im2txt.runtime import workers
from im2txt.runtime.flag_dataclasses import field
from im2txt.text import vocabulary_stamp
from im2txt.training import options as options_lib
from im2txt.training import setup


@dataclasses.dataclass(frozen=True)
class CacheOptions(options_lib.FeatureOptions, beam_workers.RunnerOptions):
  """Options of `build_feature_cache`. Each field is a flag."""

  image_height: int = field(
    299, 'Height in pixels of the images that Inception v3 reads.', None, 75
  )
  image_width: int = field(
    299, 'Width in pixels of the images that Inception v3 reads.', None, 75
  )


@dataclasses.dataclass(frozen=True)
class _Recipe:
  """What a worker needs to encode images: names and numbers only.

  Attributes:
    names: paths of the shards.
    directory: of the cache.
    checkpoint: of Inception v3.
    image_height: of the images that it reads.
    image_width: of the images that it reads.
    views: distorted views of each image.
    seed: of the distortions.
    precision: of the encoder.
    block: whose inputs are kept; None: features.
  """

  names: tuple[str, ...]
  directory: str
  checkpoint: str
  image_height: int
  image_width: int
  views: int
  seed: int
  precision: str
  block: str | None

  def config(self) -> configuration.ModelConfig:
    return configuration.ModelConfig(
      image_height=self.image_height, image_width=self.image_width
    )


def build(
  options: CacheOptions, pool: workers.Pool | None = None
) -> image_features.CaptionedFeatures:
  """Opens or fills the cache; `train` opens it if it is given the same flags.

  Args:
    options: options of the program.
    pool: does the work; None: as the options say.

  Raises:
    ValueError: the input cannot be used, or the cache is of other input.
    OSError: reading or writing failed.
  """
  options.check_runner(options.feature_cache_dir)
  files = shards.list_files(options.input_file_pattern)
  recipe = _Recipe(
    tuple(map(storage.absolute, files)),
    storage.absolute(options.feature_cache_dir),
    storage.absolute(checkpoints.resolve(options.inception_checkpoint_file)),
    options.image_height,
    options.image_width,
    options.feature_views,
    options.feature_seed,
    options.feature_precision,
    options.train_inception_from,
  )
  config = recipe.config()
  stamp = vocabulary_stamp.first_known(vocabulary_stamp.of_shards(files))
  if stamp:
    config = dataclasses.replace(config, vocab_size=stamp.words)
  model = _model(recipe)

  def fill(numbers: Sequence[int]) -> Iterator[int]:
    storage.makedirs(options.feature_cache_dir)
    content = dataclasses.asdict(recipe)
    if pool:
      yield from pool.map(encode_file, ((content, n) for n in numbers))
      return
    with options.workers(options.feature_cache_dir) as found:
      yield from found.map(encode_file, ((content, n) for n in numbers))

  # In this process one encoder serves all files, and the images of the next are
  # decoded meanwhile.
  is_local = not pool and options.is_local
  return setup.open_features(
    options, model, config, files, None if is_local else fill
  )


def encode_file(recipe: dict[str, Any], number: int) -> int:
  """Writes a file of features, in a worker; returns its checksum.

  Args:
    recipe: fields of a `_Recipe`.
    number: of the file.
  """
  of_cache = _Recipe(**{**recipe, 'names': tuple(recipe['names'])})
  captions, encode_fn = _opened(of_cache)
  config = of_cache.config()
  (features,) = (
    features
    for features, _ in zip(
      image_features.encode(
        of_cache.names,
        captions,
        encode_fn,
        config,
        of_cache.views,
        of_cache.seed,
        number * image_features.IMAGES_PER_FILE,
        image_features.block_inputs(encode_fn, config)
        if of_cache.block
        else image_features.FEATURES,
      ),
      range(1),
    )
  )
  return feature_cache.write_features(
    feature_cache.path_of(of_cache.directory, number), features
  )


# A worker has one cache at a time, and many files of it.
@functools.lru_cache(maxsize=1)
def _opened(
  recipe: _Recipe,
) -> tuple[captions_lib.Captions, image_features.EncodeFn]:
  """Returns the captions of a cache, and what computes its features."""
  return feature_cache.read_captions(recipe.directory), setup.feature_encoder(
    _model(recipe), recipe.precision, recipe.block
  )


def _model(recipe: _Recipe) -> show_and_tell_model.ShowAndTellModel:
  """Returns a model with the weights of Inception that the recipe names."""
  model = show_and_tell_model.ShowAndTellModel(
    recipe.config(),
    train_inception=recipe.block is not None,
    train_inception_from=recipe.block,
  )
  assert model.inception
  checkpoints.load_inception(recipe.checkpoint, model.inception)
  return model
