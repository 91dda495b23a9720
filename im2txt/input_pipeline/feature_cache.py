# SPDX-License-Identifier: Apache-2.0
"""A cache of a data set's features on disk, verified whenever it is opened.

A cache is a directory:

  cache.json            the description: what the features were made from, and
                        the checksums of the other files; when the cache is
                        complete, also the images that cannot be decoded
  captions.npz          the fields of `captions.Captions`
  features-00000.npy    float32 [1024, views + 1, 2048], the first 1,024 images
  features-00001.npy    the next 1,024, and so on; the last may have fewer

The input of a block is float16 [1024, views + 1, rows, columns, channels].

A file gets its name only when its content is on the disk, so every file is
complete. A build that was interrupted goes on after the last finished file.
"""

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import dataclasses
import os
import re
from typing import cast
from typing import TypedDict

from absl import logging
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from im2txt.checkpoints import encoder_stamp
from im2txt.input_pipeline import captions as captions_lib
from im2txt.input_pipeline import image_batches
from im2txt.input_pipeline import image_features
from im2txt.runtime import files as files_lib
from im2txt.runtime import locks
from im2txt.runtime import numpy_files
from im2txt.runtime import progress
from im2txt.runtime import storage

# Increase this number when the same input gives other features.
_FORMAT = 1
_CAPTIONS = 'captions.npz'


# Writes the files of these numbers, and yields the checksum of each.
Fill = Callable[[Sequence[int]], Iterator[int]]


class _Description(TypedDict, total=False):
  """The content of cache.json.

  Attributes:
    format: _FORMAT.
    image_size: [height, width] of the network's images.
    inception: fingerprint of the weights of Inception v3.
    shards: for each shard its size in bytes and the time of its change in ns.
    block: the block of Inception whose inputs are kept; None: features.
    views: number of distorted views.
    seed: seed of the distortions.
    precision: precision of the encoder.
    checksums: CRC-32C of each file.
    undecodable: indices of the images that cannot be decoded.
    finite: whether all features were checked to be finite. Earlier versions
      did not check what they wrote.
  """

  format: int
  image_size: list[int]
  inception: str
  shards: dict[str, list[int]]
  block: str | None
  views: int | None
  seed: int | None
  precision: str
  checksums: dict[str, int]
  undecodable: list[int]
  finite: bool


def fingerprint(
  names: Sequence[str],
  variables: Mapping[str, tf.Variable | np.ndarray],
  config: image_batches.InputConfig,
) -> _Description:
  """Returns a description of all that features depend on, except the views.

  Args:
    names: paths of shards. They are identified by size and time, because they
      can be too large to read again and again.
    variables: the variables of Inception v3 by name.
    config: configuration of the model.
  """
  # Without the directory, so that data and cache can be moved together.
  keys = [os.path.basename(name) for name in names]
  if len(set(keys)) < len(keys):
    keys = list(names)
  stats = {key: storage.stat(name) for key, name in zip(keys, names)}
  return {
    'format': _FORMAT,
    'image_size': [config.image_height, config.image_width],
    'inception': encoder_stamp.fingerprint(variables),
    'shards': {key: list(status) for key, status in stats.items()},
  }


def _difference(found: _Description, wanted: _Description) -> str | None:
  """Describes how the cache differs from what is requested, or None."""
  if found.get('format') != wanted['format']:
    return 'another version of this program'
  if found['inception'] != wanted['inception']:
    return 'other Inception v3 weights'
  if found['image_size'] != wanted['image_size']:
    return 'images of {}x{} pixels, not {}x{}'.format(
      *found['image_size'], *wanted['image_size']
    )
  if set(found['shards']) != set(wanted['shards']):
    name = min(set(found['shards']) ^ set(wanted['shards']))
    return (
      f'{len(found["shards"])} shard(s), not these '
      f'{len(wanted["shards"])} (see {name})'
    )
  for name, stat in wanted['shards'].items():
    if found['shards'][name] != stat:
      return f'another {name} (its size or time has changed)'
  # Caches of earlier versions state neither their precision nor their block.
  found = {'precision': 'float32', 'block': None, **found}
  if found['block'] != wanted['block']:
    return (
      f'the inputs of {found["block"] or "the decoder"}, not those of '
      f'{wanted["block"] or "the decoder"}'
    )
  flags = cast(Mapping[str, object], found)
  wanted_flags = cast(Mapping[str, object], wanted)
  for key in ('views', 'seed', 'precision'):
    if flags[key] != wanted_flags.get(key, flags[key]):
      return f'--feature_{key}={flags[key]}, not {wanted_flags[key]}'
  return None


def open_or_build(
  directory: str,
  names: Sequence[str],
  encode_fn: image_features.EncodeFn,
  variables: Mapping[str, tf.Variable | np.ndarray],
  config: image_batches.InputConfig,
  views: int | None = None,
  seed: int | None = None,
  precision: str = 'float32',
  block: str | None = None,
  fill: Fill | None = None,
  may_write: bool = True,
  batch_size: int = image_features.BATCH_SIZE,
) -> image_features.CaptionedFeatures:
  """Opens the cache in a directory, and makes or finishes it first if needed.

  Args:
    directory: directory of the cache of one data set.
    names: paths of shards.
    encode_fn: see `image_features.encode`.
    variables: the variables of Inception v3 by name.
    config: configuration of the model.
    views: distorted views of each image; None: any number.
    seed: seed of the distortions; None: any seed.
    precision: precision of `encode_fn`, 'float32' or 'bfloat16'. It is compared
      only if `views` is.
    block: the block of Inception whose input `encode_fn` returns; None: it
      returns features.
    fill: writes the missing files in the place of this process.
    may_write: False where another process writes the cache. It must be
      complete, and nothing is written or locked.
    batch_size: see `image_features.encode`.

  Returns:
    The captions and features, mapped from disk.

  Raises:
    ValueError: `may_write` is False and the cache is not complete; the cache
      was made from something else or is damaged; or see
      `image_features.encode_in_memory`.
    OSError: the cache cannot be written.
  """
  if may_write:
    storage.makedirs(directory)
  wanted = fingerprint(names, variables, config)
  wanted['block'] = block
  if views is not None:
    wanted['views'] = views
    wanted['seed'] = seed
    wanted['precision'] = precision
  with contextlib.ExitStack() as stack:
    if may_write:
      stack.enter_context(locks.hold(directory, 'features', wait=True))
    elif not storage.isdir(directory):
      raise _incomplete(directory)
    opened = _open(directory, wanted)
    if not may_write and not (opened and opened[1].get('finite')):
      raise _incomplete(directory)
    if opened:
      captions, description = opened
    else:
      captions = captions_lib.read_captions(names)
      description = {
        'views': 0,
        'seed': 0,
        'precision': precision,
        **wanted,
        'checksums': {},
      }
      _save(
        directory,
        _CAPTIONS,
        description,
        np.savez,
        **{
          name: value
          for name, value in dataclasses.asdict(captions).items()
          if name != 'offsets'
        },
      )
    captions.check_ids(config.vocab_size)
    kept = (
      image_features.block_inputs(encode_fn, config)
      if block
      else image_features.FEATURES
    )
    views, seed = description['views'] or 0, description['seed'] or 0
    paths = [
      path_of(directory, number)
      for number in range(
        -(-len(captions.image_ids) // image_features.IMAGES_PER_FILE)
      )
    ]
    missing = [n for n, path in enumerate(paths) if not storage.exists(path)]
    if missing and not may_write:
      raise _incomplete(directory)
    if missing:
      if len(missing) < len(paths):
        logging.info(
          '%s: going on after %d of %d files',
          directory,
          len(paths) - len(missing),
          len(paths),
        )

      def fill_here(numbers: Sequence[int]) -> Iterator[int]:
        # This process finishes files in order, so all from here on are missing.
        for path, features in zip(
          paths[numbers[0] :],
          image_features.encode(
            names,
            captions,
            encode_fn,
            config,
            views,
            seed,
            numbers[0] * image_features.IMAGES_PER_FILE,
            kept,
            batch_size,
          ),
        ):
          yield write_features(path, features)

      if not fill:
        fill, missing = fill_here, list(range(missing[0], len(paths)))
      for number, checksum in zip(missing, fill(missing)):
        _note(directory, os.path.basename(paths[number]), description, checksum)
    _check(paths, description)
    if 'undecodable' not in description:
      # A build may have been interrupted between a file and its checksum.
      known = description.get('checksums', {})
      description['checksums'] = {
        name: known[name]
        if name in known
        else files_lib.checksum(os.path.join(directory, name))
        for name in (_CAPTIONS, *map(os.path.basename, paths))
      }
    arrays = [_map_features(path, captions, views, kept) for path in paths]
    # Once is enough for files that have a checksum.
    known = description.get('checksums', {})
    if not description.get('finite') or not known.keys() >= set(
      map(os.path.basename, paths)
    ):
      try:
        undecodable = image_features.undecodable_images(arrays, captions)
      except ValueError as error:
        raise ValueError(
          f'{error}, and delete --feature_cache_dir={directory}'
        ) from error
      if undecodable != description.setdefault('undecodable', undecodable):
        raise ValueError(
          f'--feature_cache_dir={directory} is damaged (images without features '
          'are not those of cache.json); delete it'
        )
      description['finite'] = True
      _write_description(directory, description)
  return image_features.CaptionedFeatures(
    captions, arrays, description['undecodable']
  )


def _incomplete(directory: str) -> ValueError:
  return ValueError(
    f'--feature_cache_dir={directory} is not complete here: give a directory '
    'that all workers share, or copy to each what the chief has made'
  )


def _open(
  directory: str, wanted: _Description
) -> tuple[captions_lib.Captions, _Description] | None:
  """Returns the captions and description of a cache; None if it is new."""
  path = os.path.join(directory, 'cache.json')
  if not storage.exists(path):
    if any(
      re.fullmatch(r'features-\d+\.npy', name)
      for name in storage.listdir(directory)
    ):
      raise ValueError(
        f'--feature_cache_dir={directory} has features but no cache.json '
        'that describes them; give another directory, or delete this one'
      )
    return None
  try:
    description = files_lib.read_json(path)
    if not isinstance(description, dict):
      raise ValueError('cache.json is not a JSON object')
    difference = _difference(cast(_Description, description), wanted)
    if not difference:
      for key, kind in (
        ('views', int),
        ('seed', int),
        ('checksums', dict),
        ('undecodable', list),
        ('finite', bool),
      ):
        if not isinstance(description.get(key, kind()), kind):
          raise ValueError(f'cache.json: {key} is not of type {kind.__name__}')
      _check(
        [os.path.join(directory, _CAPTIONS)], cast(_Description, description)
      )
      return read_captions(directory), cast(_Description, description)
  except (ValueError, LookupError, TypeError, OSError) as e:
    raise ValueError(
      f'--feature_cache_dir={directory} is damaged ({e}); delete it'
    ) from e
  raise ValueError(
    f'--feature_cache_dir={directory} was made from {difference}; give '
    'another directory, or delete this one to make it again'
  )


def path_of(directory: str, number: int) -> str:
  """Returns the path of a file of features of a cache."""
  return os.path.join(directory, f'features-{number:05}.npy')


def read_captions(directory: str) -> captions_lib.Captions:
  """Returns the captions that a cache was made for.

  Raises:
    OSError: the file cannot be read.
    ValueError: it is damaged.
  """
  return captions_lib.Captions(
    **numpy_files.read(os.path.join(directory, _CAPTIONS))
  )


def write_features(path: str, features: np.ndarray) -> int:
  """Writes a file of features; returns its checksum."""
  with files_lib.writing(path) as f:
    np.save(f, features)
  return f.checksum


def _map_features(
  path: str,
  captions: captions_lib.Captions,
  views: int,
  kept: image_features.Kept,
) -> np.ndarray:
  """Maps one file into memory."""
  number = int(path[-len('00000.npy') : -len('.npy')])
  most = image_features.IMAGES_PER_FILE
  shape = (
    min(most, len(captions.image_ids) - number * most),
    views + 1,
    *kept.shape,
  )
  try:
    features = numpy_files.map_file(path)
  except (ValueError, OSError) as e:
    raise ValueError(f'{path} is damaged ({e}); delete it') from e
  if features.shape != shape or features.dtype != kept.dtype:
    raise ValueError(
      f'{path} holds {features.dtype} {features.shape}, not '
      f'{np.dtype(kept.dtype)} {shape}; delete it'
    )
  return features


def _check(paths: Collection[str], description: _Description) -> None:
  """Raises ValueError if a file has changed since it was written.

  All of it is read: 2 GB take a second from memory, and longer from the disk.
  Training reads all of it in its first epoch anyway.

  Args:
    paths: paths of the files.
    description: with the checksums. Caches of earlier versions have none.
  """
  known = description.get('checksums', {})
  with progress.Progress('Checking features', len(paths), 'files') as bar:
    for path in paths:
      expected = known.get(os.path.basename(path))
      if expected is not None and files_lib.checksum(path) != expected:
        raise ValueError(
          f'{path} is damaged: it has another checksum than when it was '
          'written; delete it, and run the same command again'
        )
      bar.update(1)


def _save(
  directory: str,
  name: str,
  description: _Description,
  save: Callable[..., object],
  *args: npt.ArrayLike,
  **kwargs: npt.ArrayLike,
) -> None:
  """Writes a file of a cache by NumPy's `save` or `savez`, and its checksum."""
  with files_lib.writing(os.path.join(directory, name)) as f:
    save(f, *args, **kwargs)
  _note(directory, name, description, f.checksum)


def _note(
  directory: str, name: str, description: _Description, checksum: int
) -> None:
  """Writes down that a file of a cache is finished."""
  # A cache that an earlier version began has no checksums of its first files.
  description.setdefault('checksums', {})[name] = checksum
  description.pop('finite', None)
  _write_description(directory, description)


def _write_description(directory: str, description: _Description) -> None:
  files_lib.write_json(os.path.join(directory, 'cache.json'), description)
