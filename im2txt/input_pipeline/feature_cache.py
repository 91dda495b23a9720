# SPDX-License-Identifier: Apache-2.0
"""Features of a data set on disk, checked and made once.

A cache is a directory:

  cache.json            what it was made from, and the checksums of the other
                        files; once it is whole, also which images could not be
                        decoded
  captions.npz          the fields of `captions.Captions`
  features-00000.npy    float32 [1024, views + 1, 2048], the first 1,024 images
  features-00001.npy    the next, and so on; the last may hold fewer

The input of a block is float16 [1024, views + 1, rows, columns, channels].

Each file has its name once it is on the disk, so what is there is whole, and a
build that was killed or lost its power goes on after the last finished file.
"""

import dataclasses
import os
import re

from absl import logging
import numpy as np

from im2txt.checkpoints import encoder_stamp
from im2txt.input_pipeline import captions as captions_lib
from im2txt.input_pipeline import image_features
from im2txt.runtime import files as files_lib
from im2txt.runtime import locks
from im2txt.runtime import numpy_files
from im2txt.runtime import progress

# Bump when the same input gives other features.
_FORMAT = 1
_CAPTIONS = 'captions.npz'


def fingerprint(names, variables, config):
  """Returns what features depend on beside their views, a dict for JSON.

  Args:
    names: shard file names. Told apart by size and time, as they can be too
      large to read again and again.
    variables: dict from name to variable of Inception v3.
    config: a `configuration.ModelConfig`.
  """
  # Without the directory, so that data and cache can be moved together.
  keys = [os.path.basename(name) for name in names]
  if len(set(keys)) < len(keys):
    keys = names
  stats = {key: os.stat(name) for key, name in zip(keys, names)}
  return {
    'format': _FORMAT,
    'image_size': [config.image_height, config.image_width],
    'inception': encoder_stamp.fingerprint(variables),
    'shards': {key: [s.st_size, s.st_mtime_ns] for key, s in stats.items()},
  }


def _difference(found, wanted):
  """Says in a few words what a cache was made from, if not what is wanted."""
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
  # Caches of earlier versions do not say their precision, nor what is kept.
  found = {'precision': 'float32', 'block': None, **found}
  if found['block'] != wanted['block']:
    return (
      f'the inputs of {found["block"] or "the decoder"}, not those of '
      f'{wanted["block"] or "the decoder"}'
    )
  for key in ('views', 'seed', 'precision'):
    if found[key] != wanted.get(key, found[key]):
      return f'--feature_{key}={found[key]}, not {wanted[key]}'
  return None


def open_or_build(
  directory,
  names,
  encode_fn,
  variables,
  config,
  views=None,
  seed=None,
  precision='float32',
  block=None,
):
  """Opens the cache in a directory, after making or finishing it if need be.

  Args:
    directory: of one data set.
    names: shard file names.
    encode_fn: see `image_features.encode`.
    variables: dict from name to variable of Inception v3.
    config: a `configuration.ModelConfig`.
    views: distorted views of each image; None: whatever the cache has.
    seed: of the distortions; None: whatever the cache has.
    precision: of `encode_fn`, 'float32' or 'bfloat16'. Compared only where
      `views` is.
    block: of Inception, the one whose input `encode_fn` returns; None: it
      returns features.

  Returns:
    `image_features.CaptionedFeatures`, mapped from disk.

  Raises:
    ValueError: the cache was made from something else or is damaged; or see
      `image_features.encode_in_memory`.
    OSError: it cannot be written.
  """
  os.makedirs(directory, exist_ok=True)
  wanted = {**fingerprint(names, variables, config), 'block': block}
  if views is not None:
    wanted.update(views=views, seed=seed, precision=precision)
  with locks.hold(directory, 'features', wait=True):
    captions, description = _open(directory, wanted)
    if captions is None:
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
    paths = [
      os.path.join(directory, f'features-{number:05}.npy')
      for number in range(
        -(-len(captions.image_ids) // image_features.IMAGES_PER_FILE)
      )
    ]
    missing = [n for n, path in enumerate(paths) if not os.path.exists(path)]
    if missing:
      # Files are finished in order, so this one and all after it are missing.
      number = missing[0]
      if number:
        logging.info(
          '%s: going on after %d of %d files', directory, number, len(paths)
        )
      for path, features in zip(
        paths[number:],
        image_features.encode(
          names,
          captions,
          encode_fn,
          config,
          description['views'],
          description['seed'],
          number * image_features.IMAGES_PER_FILE,
          kept,
        ),
      ):
        _save(directory, os.path.basename(path), description, np.save, features)
    _check(paths, description)
    if 'undecodable' not in description:
      # An interruption may have come between a file and its checksum.
      known = description.get('checksums', {})
      description['checksums'] = {
        name: known[name]
        if name in known
        else files_lib.checksum(os.path.join(directory, name))
        for name in (_CAPTIONS, *map(os.path.basename, paths))
      }
    files = [
      _map_features(path, captions, description['views'], *kept)
      for path in paths
    ]
    # What has a checksum was looked at when it was made.
    known = description.get('checksums', {})
    if 'undecodable' not in description or not known.keys() >= set(
      map(os.path.basename, paths)
    ):
      try:
        description['undecodable'] = image_features.undecodable_images(
          files, captions
        )
      except ValueError as error:
        raise ValueError(
          f'{error}, and delete --feature_cache_dir={directory}'
        ) from error
      _write_description(directory, description)
  return image_features.CaptionedFeatures(
    captions, files, description['undecodable']
  )


def _open(directory, wanted):
  """Returns the captions and description of a cache; None twice if new."""
  path = os.path.join(directory, 'cache.json')
  if not os.path.exists(path):
    if any(
      re.fullmatch(r'features-\d+\.npy', name) for name in os.listdir(directory)
    ):
      raise ValueError(
        f'--feature_cache_dir={directory} holds features but no '
        'cache.json that tells of what; give another directory, '
        'or delete this one'
      )
    return None, None
  try:
    description = files_lib.read_json(path)
    if not isinstance(description, dict):
      raise ValueError('cache.json is no JSON object')
    difference = _difference(description, wanted)
    if not difference:
      for key, kind in (
        ('views', int),
        ('seed', int),
        ('checksums', dict),
        ('undecodable', list),
      ):
        if not isinstance(description.get(key, kind()), kind):
          raise ValueError(f'cache.json: {key} is no {kind.__name__}')
      captions = os.path.join(directory, _CAPTIONS)
      _check([captions], description)
      return captions_lib.Captions(**numpy_files.read(captions)), description
  except (ValueError, LookupError, TypeError, OSError) as e:
    raise ValueError(
      f'--feature_cache_dir={directory} is damaged ({e}); delete it'
    ) from e
  raise ValueError(
    f'--feature_cache_dir={directory} was made from {difference}; give '
    'another directory, or delete this one to make it again'
  )


def _map_features(path, captions, views, kept_shape, dtype):
  """Maps one file into memory, see `image_features.FEATURES`."""
  number = int(path[-len('00000.npy') : -len('.npy')])
  most = image_features.IMAGES_PER_FILE
  shape = (
    min(most, len(captions.image_ids) - number * most),
    views + 1,
    *kept_shape,
  )
  try:
    features = numpy_files.map_file(path)
  except (ValueError, OSError) as e:
    raise ValueError(f'{path} is damaged ({e}); delete it') from e
  if features.shape != shape or features.dtype != dtype:
    raise ValueError(
      f'{path} holds {features.dtype} {features.shape}, not '
      f'{np.dtype(dtype)} {shape}; delete it'
    )
  return features


def _check(paths, description):
  """Raises ValueError if a file is not as it was written.

  All of it is read, which takes a second for 2 GB in memory and else as long as
  the disk needs; training reads all of it in its first epoch anyway.

  Args:
    paths: list of str.
    description: dict, what cache.json tells. Caches of earlier versions know no
      checksums.
  """
  known = description.get('checksums', {})
  with progress.Progress('Checking features', len(paths), 'files') as bar:
    for path in paths:
      expected = known.get(os.path.basename(path))
      if expected is not None and files_lib.checksum(path) != expected:
        raise ValueError(
          f'{path} is damaged: it has another checksum than when it was '
          'written; delete it, and it is made again'
        )
      bar.update(1)


def _save(directory, name, description, save, *args, **kwargs):
  """Writes a file of a cache by NumPy's `save` or `savez`, and its checksum."""
  with files_lib.writing(os.path.join(directory, name)) as f:
    save(f, *args, **kwargs)
  # A cache that an earlier version began has none of its first files.
  description.setdefault('checksums', {})[name] = f.checksum
  _write_description(directory, description)


def _write_description(directory, description):
  files_lib.write_json(os.path.join(directory, 'cache.json'), description)
