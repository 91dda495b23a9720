# SPDX-License-Identifier: Apache-2.0
"""A trained model as a small package, and the whole model out of one.

A checkpoint is an encoder that many have, Inception v3 of 87 MB, and a decoder.
A package holds the decoder and names the encoder. Where blocks of the encoder
were trained on, it also holds what changed in these:

  decoder.npz         the decoder's variables in float16, and global_step
  encoder.npz         only if the encoder was trained on: by how much each
                      changed variable differs, see `_pack_changes`
  word_counts.txt     the vocabulary
  configuration.json  the hyperparameters
  vocabulary.json     which vocabulary, see `vocabulary_stamp`
  model.json          the manifest: SHA-256 of each of these, the encoder's
                      `encoder_stamp.Stamp`, the fingerprint of the changed
                      encoder, and scores
"""

import dataclasses
import os
import re
import shutil

import numpy as np

from im2txt import checkpoints
from im2txt import configuration
from im2txt import show_and_tell_model
from im2txt.checkpoints import encoder_stamp
from im2txt.ops import image_embedding
from im2txt.pretrained import inception
from im2txt.runtime import files
from im2txt.runtime import locks
from im2txt.runtime import numpy_files
from im2txt.runtime.progress import log
from im2txt.text import vocabulary
from im2txt.text import vocabulary_stamp

MANIFEST = 'model.json'
DECODER = 'decoder.npz'
ENCODER = 'encoder.npz'
VOCABULARY = 'word_counts.txt'
# What goes beside the checkpoint as it is.
_COPIED = (VOCABULARY, configuration.FILE_NAME, vocabulary_stamp.FILE_NAME)
_PARTS = (DECODER, *_COPIED)
# Bump when a package is laid out in another way.
_FORMAT = 1

# The package that comes with the project.
DEFAULT_PACKAGE = files.shipped('flickr8k_coco')


@dataclasses.dataclass(frozen=True)
class Manifest:
  """What model.json tells.

  Attributes:
    format: _FORMAT.
    global_step: training steps that the model has made.
    parts: dict from the name of each other file to its SHA-256.
    encoder: dict, the fields of an `encoder_stamp.Stamp`.
    scores: dict from name to number, as measured by who made the package.
    changed_encoder: fingerprint of the encoder with the changes of ENCODER; ''
      if the package has none.
  """

  format: int
  global_step: int
  parts: dict
  encoder: dict
  scores: dict = dataclasses.field(default_factory=dict)
  changed_encoder: str = ''


def write(
  directory, checkpoint_path, vocab_file, inception_dir=None, scores=None
):
  """Makes a package of a trained model.

  Other files in the directory, such as a README.md, stay as they are.

  Args:
    directory: str, made if missing.
    checkpoint_path: see `checkpoints.resolve`.
    vocab_file: path of the vocabulary that the model was trained with.
    inception_dir: what `inception.get` left, of the encoder that training
      started from; None: the stamp beside the checkpoint tells. Needed if the
      encoder was trained on.
    scores: dict for the manifest.

  Returns:
    The `Manifest`.

  Raises:
    ValueError: the parts are not of one model; the encoder is none that can be
      got again; or float16 cannot hold a value.
    OSError: the directory cannot be written.
  """
  trained = checkpoints.load(checkpoint_path)
  checkpoint, train_dir = trained.checkpoint, trained.directory
  model_config, training_config = trained.model_config, trained.training_config
  decoder = {
    name: _half(checkpoint, name, value)
    for name, value in checkpoint.values(_decoder_shapes(model_config)).items()
  }
  vocab = vocabulary.Vocabulary(vocab_file)
  stamp = trained.check_vocabulary(vocab)
  encoder, changes, changed = _encoder_of(
    checkpoint.prefix, train_dir, inception_dir or train_dir
  )

  os.makedirs(directory, exist_ok=True)
  _save_arrays(
    os.path.join(directory, DECODER),
    {**decoder, 'global_step': np.int32(checkpoint.global_step)},
  )
  parts = _PARTS
  if changes:
    _save_arrays(os.path.join(directory, ENCODER), changes)
    parts = (*_PARTS, ENCODER)
  _copy(vocab_file, os.path.join(directory, VOCABULARY))
  configuration.save(directory, (model_config, training_config))
  vocabulary_stamp.save(
    directory,
    dataclasses.replace(stamp, file=VOCABULARY),
  )
  manifest = Manifest(
    _FORMAT,
    checkpoint.global_step,
    {name: files.sha256(os.path.join(directory, name)) for name in parts},
    dataclasses.asdict(encoder),
    scores or {},
    changed,
  )
  files.write_json(
    os.path.join(directory, MANIFEST), dataclasses.asdict(manifest)
  )
  return manifest


def get(directory, package_dir=DEFAULT_PACKAGE, inception_dir=None):
  """Makes `directory` a train directory with the model of a package.

  Nothing is done where all is there and whole; what is not is made again.

  Args:
    directory: str, made if missing. It gets the checkpoint of 383 variables,
      the state file, the configuration, both stamps and the vocabulary.
    package_dir: what `write` made.
    inception_dir: directory in which Inception v3's checkpoint is, or is got
      into; None: `directory`.

  Returns:
    The prefix of the checkpoint.

  Raises:
    ValueError: the package is damaged; the encoder is another one than the
      model was trained on; or the directory holds another model.
    OSError: a download or the disk failed; a later call goes on.
  """
  manifest, decoder, changes = _read(package_dir)
  os.makedirs(directory, exist_ok=True)
  with locks.hold(directory, 'get_model', wait=True):
    return _get(
      directory, package_dir, inception_dir, manifest, decoder, changes
    )


def _get(directory, package_dir, inception_dir, manifest, decoder, changes):
  """Does what `get` says of what `_read` returned, with the lock held."""
  if later := _trained_on(directory, manifest.global_step, package_dir):
    log(f'{later} was trained on from the model of {package_dir}: left alone.')
    return later
  prefix = os.path.join(
    directory, f'{checkpoints.PREFIX}-{manifest.global_step}'
  )
  encoder = encoder_stamp.Stamp(**manifest.encoder)
  if _is_whole(prefix, manifest, encoder, decoder):
    log(f'{prefix} is there already.')
    return prefix
  values = _changed(
    inception.read(_get_encoder(inception_dir or directory, encoder)), changes
  )
  if manifest.changed_encoder not in ('', encoder_stamp.fingerprint(values)):
    raise ValueError(
      f'{os.path.join(package_dir, ENCODER)} and the encoder do not give '
      f'that which {MANIFEST} tells of: get the package again'
    )
  for name in _COPIED:
    _copy(os.path.join(package_dir, name), os.path.join(directory, name))
  encoder_stamp.save(directory, encoder)
  # Last: a directory with a checkpoint has all that belongs to it.
  checkpoints.CheckpointManager(directory).save({**values, **decoder})
  log(
    f'The model is {prefix}, its vocabulary '
    f'{os.path.join(directory, VOCABULARY)}'
  )
  return prefix


def _decoder_shapes(config):
  """Returns a dict from the name of each decoder variable to its shape."""
  model = show_and_tell_model.ShowAndTellModel(config, with_inception=False)
  return {
    name: variable.shape.as_list()
    for name, variable in model.decoder_variables.items()
  }


def _half(checkpoint, name, value):
  """Returns an array as float16; a ValueError if that cannot hold it."""
  with np.errstate(over='ignore'):
    half = value.astype(np.float16)
  if not np.isfinite(half).all():
    raise ValueError(
      f'checkpoint {checkpoint.prefix}: {name} has values that float16 '
      f'cannot hold (from {value.min():g} to {value.max():g}): training '
      'diverged; give an earlier checkpoint'
    )
  return half


def _encoder_of(prefix, train_dir, directory):
  """Compares the encoder of a checkpoint with that in a directory.

  Args:
    prefix: of the checkpoint.
    train_dir: where it lies, with the Stamp of what training started from.
    directory: with the Stamp of the encoder that training started from, and
      with its checkpoint if it was trained on.

  Returns:
    (that Stamp; dict for ENCODER, empty if it was not trained on; fingerprint
    of the encoder with these changes, '' likewise).

  Raises:
    ValueError: there is no such Stamp or checkpoint; or nobody else can get
      these weights.
  """
  values = inception.read(prefix)
  fingerprint = encoder_stamp.fingerprint(values)
  stamp = encoder_stamp.load(directory)
  if not stamp or stamp.source == encoder_stamp.FILE:
    raise ValueError(
      f'nothing in {directory} tells where the encoder of {prefix} can be '
      'got: give --inception_dir the directory that get_inception left'
    )
  if stamp.fingerprint == fingerprint:
    return stamp, {}, ''
  started = encoder_stamp.load(train_dir)
  found = inception.present(directory)
  if not (started and found and started.fingerprint == found.fingerprint):
    raise ValueError(
      f'the encoder of {prefix} (fingerprint {fingerprint[:16]}) is not that '
      f'which {directory} tells of ({stamp}): if it was trained on, give '
      '--inception_dir the directory that get_inception left, of the encoder '
      f'that {encoder_stamp.FILE_NAME} in {train_dir} names'
    )
  original = inception.read(os.path.join(directory, inception.CHECKPOINT))
  changes = _pack_changes(original, values)
  return found, changes, encoder_stamp.fingerprint(_changed(original, changes))


# Of the names of the scales in ENCODER.
_SCALE = '/scale'


def _pack_changes(original, values):
  """Returns by how much variables differ, small, a dict from name to array.

  Training changes a weight by little, so 8 bits for the change are as good as
  16 for the weight. A change is int8 [..., out] times a scale, float32 [out].
  Vectors are few: their change is float32 as it is.

  Args:
    original: dict from name to float32 array.
    values: the same, after training.
  """
  packed = {}
  for name, value in values.items():
    change = value - original[name]
    if not change.any():
      continue
    if change.ndim == 1:
      packed[name] = change
      continue
    scale = np.abs(change).max(axis=tuple(range(change.ndim - 1))) / 127
    packed[name] = np.round(change / np.where(scale, scale, 1)).astype(np.int8)
    packed[name + _SCALE] = scale
  return packed


def _changed(original, packed):
  """Returns the variables with what `_pack_changes` kept of their changes."""
  changes = {
    name: value for name, value in packed.items() if not name.endswith(_SCALE)
  }
  return {
    **original,
    **{
      name: original[name] + change * packed.get(name + _SCALE, np.float32(1))
      for name, change in changes.items()
    },
  }


def _save_arrays(path, arrays):
  with files.writing(path) as f:
    np.savez_compressed(f, **arrays)


def _copy(source, target):
  with files.replacing(target) as temporary:
    shutil.copyfile(source, temporary)


def _read(package_dir):
  """Reads a package.

  Args:
    package_dir: str.

  Returns:
    (Manifest, dict from name to array: the decoder's variables in float32 and
    global_step, int32; dict, what ENCODER holds, empty if there is none).

  Raises:
    ValueError: a part is missing, damaged, or not of this model.
  """
  path = os.path.join(package_dir, MANIFEST)
  try:
    manifest = files.read_fields(path, Manifest)
    files.to_fields(manifest.encoder, encoder_stamp.Stamp)
    if not all(isinstance(sha256, str) for sha256 in manifest.parts.values()):
      raise ValueError('a part has no SHA-256')
    if manifest.format != _FORMAT or set(manifest.parts) != {
      *_PARTS,
      *([ENCODER] if manifest.changed_encoder else []),
    }:
      raise ValueError(f'of format {manifest.format}, not {_FORMAT}')
  except OSError as error:
    raise ValueError(
      f'--package_dir={package_dir} is no package ({MANIFEST}: '
      f'{error.strerror}): give a directory that package_model made'
    ) from error
  except ValueError as error:
    raise ValueError(
      f'{path} cannot be used ({error}): get the package again'
    ) from error
  for name, wanted in manifest.parts.items():
    part = os.path.join(package_dir, name)
    found = files.sha256(part) if os.path.isfile(part) else 'no file'
    if found != wanted:
      raise ValueError(
        f'{part} is not what {MANIFEST} tells of (SHA-256 {wanted[:16]}..., '
        f'found {found[:16]}): get the package again'
      )
  config, _ = configuration.load(package_dir)
  shapes = {**_decoder_shapes(config), 'global_step': []}
  part = os.path.join(package_dir, DECODER)
  decoder = {
    name: value.astype(np.int32 if name == 'global_step' else np.float32)
    for name, value in _load_arrays(part).items()
  }
  if {name: list(value.shape) for name, value in decoder.items()} != shapes:
    raise ValueError(
      f'{part} does not hold the variables of {configuration.FILE_NAME} '
      'beside it: get the package again'
    )
  changes = {}
  if manifest.changed_encoder:
    part = os.path.join(package_dir, ENCODER)
    changes = _load_arrays(part)
    shapes = image_embedding.variable_shapes()
    shapes = {
      **shapes,
      **{name + _SCALE: shape[-1:] for name, shape in shapes.items()},
    }
    if any(
      name.removesuffix(_SCALE) not in changes
      or list(value.shape) != shapes.get(name)
      for name, value in changes.items()
    ):
      raise ValueError(
        f'{part} does not hold variables of Inception v3: get the package again'
      )
  return manifest, decoder, changes


def _load_arrays(path):
  """Returns the arrays of a .npz file, a dict from name to array of numbers."""
  try:
    arrays = numpy_files.read(path)
    for name, value in arrays.items():
      if value.dtype.kind not in 'fiu' or not np.isfinite(value).all():
        raise ValueError(f'{name} holds NaN, infinity or no numbers')
    return arrays
  except (OSError, ValueError) as error:
    raise ValueError(
      f'{path} is damaged ({error}): get the package again'
    ) from error


def _trained_on(directory, step, package_dir):
  """Returns the prefix of a later checkpoint of the same model, or None.

  Raises:
    ValueError: the directory holds a checkpoint of another model.
  """
  steps = {
    int(match[1])
    for match in (
      re.fullmatch(re.escape(checkpoints.PREFIX) + r'-(\d+)\.index', name)
      for name in os.listdir(directory)
    )
    if match
  } - {step}
  if not steps:
    return None
  latest = os.path.join(directory, f'{checkpoints.PREFIX}-{max(steps)}')
  stamps = [vocabulary_stamp.load(d) for d in (directory, package_dir)]
  if (
    max(steps) < step
    or not stamps[0]
    or (stamps[0].fingerprint != stamps[1].fingerprint)
  ):
    raise ValueError(
      f'{directory} holds another model ({latest}): give another directory'
    )
  return latest


def _is_whole(prefix, manifest, encoder, decoder):
  """Returns whether a directory has all that `get` leaves, undamaged."""
  directory = os.path.dirname(prefix)
  try:
    stamp = encoder_stamp.load(directory)
    if (
      not stamp
      or stamp.fingerprint != encoder.fingerprint
      or any(
        files.sha256(os.path.join(directory, name)) != manifest.parts[name]
        for name in _COPIED
      )
    ):
      return False
    if (
      not os.path.exists(os.path.join(directory, 'checkpoint'))
      or checkpoints.resolve(directory) != prefix
    ):
      return False
    checkpoint = checkpoints.Checkpoint(prefix)
    values = checkpoint.values(
      {name: list(value.shape) for name, value in decoder.items()}
    )
    return all(
      np.array_equal(values[name], decoder[name]) for name in decoder
    ) and encoder_stamp.fingerprint(inception.read(prefix)) == (
      manifest.changed_encoder or encoder.fingerprint
    )
  except (ValueError, FileNotFoundError):
    return False


def _get_encoder(directory, wanted):
  """Returns the path of the encoder's checkpoint, got if it is not there.

  Args:
    directory: str.
    wanted: `encoder_stamp.Stamp`.

  Raises:
    ValueError: it is another one.
  """
  path = os.path.join(directory, inception.CHECKPOINT)
  found = inception.present(directory)
  if not found:
    if wanted.source == encoder_stamp.URL:
      path, found = inception.get(directory, url=wanted.origin)
    else:
      path, found = inception.get(directory, wanted.source)
  if found.fingerprint != wanted.fingerprint:
    raise ValueError(
      f'{path} is of source {found}, but the model needs the encoder that it '
      f'was trained on, of source {wanted}: remove it, or give '
      '--inception_dir another directory'
    )
  return path
