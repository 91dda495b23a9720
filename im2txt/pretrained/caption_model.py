# SPDX-License-Identifier: Apache-2.0
"""Packs a trained model into a small package, and unpacks it.

A checkpoint consists of an encoder, the public Inception v3 of 87 MB, and a
decoder. A package contains the decoder and names the encoder. If blocks of the
encoder were trained further, it also contains their changes:

  decoder.npz         the decoder's variables in float16, and global_step
  encoder.npz         only if the encoder was trained further: the change of
                      each changed variable, see `_pack_changes`
  word_counts.txt     the vocabulary
  configuration.json  the hyperparameters
  vocabulary.json     identifies the vocabulary, see `vocabulary_stamp`
  confidence.json     only if it was fitted, see `confidence_stamp`
  int8_calibration.json  only if it was made, see `int8_stamp`
  model.json          the manifest: SHA-256 of each of these files, the
                      encoder's `encoder_stamp.Stamp`, the fingerprint of the
                      changed encoder, and scores
"""

from collections.abc import Mapping
import dataclasses
import os
import re
import shutil
from typing import NamedTuple

import numpy as np

from im2txt import checkpoints
from im2txt import configuration
from im2txt import show_and_tell_model
from im2txt.checkpoints import confidence_stamp
from im2txt.checkpoints import encoder_stamp
from im2txt.checkpoints import int8_stamp
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
# Files that are copied beside the checkpoint.
_COPIED = (
  vocabulary.FILE_NAME,
  configuration.FILE_NAME,
  vocabulary_stamp.FILE_NAME,
)
_PARTS = (DECODER, *_COPIED)
# These too, where the model has them. They may be made anew there.
_OPTIONAL = (confidence_stamp.FILE_NAME, int8_stamp.FILE_NAME)
# Increase this number when the layout of packages changes.
_FORMAT = 1

# The package that the project ships.
DEFAULT_PACKAGE = files.shipped('flickr8k_coco')


@dataclasses.dataclass(frozen=True)
class Manifest:
  """The content of model.json.

  Attributes:
    format: _FORMAT.
    global_step: training steps of the model.
    parts: SHA-256 of each other file by name.
    encoder: the fields of an `encoder_stamp.Stamp`.
    scores: scores by name, as measured by the author of the package.
    changed_encoder: fingerprint of the encoder with the changes of ENCODER; ''
      if the package has none.
  """

  format: int
  global_step: int
  parts: dict[str, str]
  encoder: dict[str, str | bool]
  scores: dict[str, float] = dataclasses.field(default_factory=dict)
  changed_encoder: str = ''


class _Package(NamedTuple):
  """The content of a package.

  Attributes:
    manifest: the manifest.
    decoder: the decoder's variables in float32, and global_step, int32.
    changes: the content of ENCODER; empty if there is none.
  """

  manifest: Manifest
  decoder: dict[str, np.ndarray]
  changes: dict[str, np.ndarray]


class _Encoder(NamedTuple):
  """The encoder of a checkpoint.

  Attributes:
    stamp: stamp of the encoder that training started from.
    changes: content of ENCODER; empty if the encoder was not trained further.
    fingerprint: fingerprint of the encoder with these changes; '' if there are
      none.
  """

  stamp: encoder_stamp.Stamp
  changes: dict[str, np.ndarray]
  fingerprint: str


def write(
  directory: str,
  checkpoint_path: str,
  vocab_file: str,
  inception_dir: str | None = None,
  scores: Mapping[str, float] | None = None,
) -> Manifest:
  """Makes a package of a trained model.

  Other files in the directory, such as a README.md, stay as they are.

  Args:
    directory: the directory; made if missing.
    checkpoint_path: see `checkpoints.resolve`.
    vocab_file: path of the vocabulary that the model was trained with.
    inception_dir: directory of `inception.get` with the encoder that training
      started from; None: the stamp beside the checkpoint is enough. It is
      required if the encoder was trained further.
    scores: scores for the manifest.

  Raises:
    ValueError: the parts are not of one model; nobody can download the encoder
      again; or float16 cannot represent a value.
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
    {**decoder, 'global_step': np.array(checkpoint.global_step, np.int32)},
  )
  parts: tuple[str, ...] = _PARTS
  if changes:
    _save_arrays(os.path.join(directory, ENCODER), changes)
    parts = (*parts, ENCODER)
  _copy(vocab_file, os.path.join(directory, vocabulary.FILE_NAME))
  configuration.save(directory, (model_config, training_config))
  vocabulary_stamp.save(
    directory,
    dataclasses.replace(stamp, file=vocabulary.FILE_NAME),
  )
  confidence = confidence_stamp.load(train_dir, checkpoint.global_step)
  if confidence:
    confidence_stamp.save(directory, confidence)
    parts = (*parts, confidence_stamp.FILE_NAME)
  calibration = int8_stamp.find(train_dir)
  if calibration and calibration.fingerprint == (
    changed or encoder.fingerprint
  ):
    int8_stamp.save(directory, calibration)
    parts = (*parts, int8_stamp.FILE_NAME)
  manifest = Manifest(
    _FORMAT,
    checkpoint.global_step,
    {name: files.sha256(os.path.join(directory, name)) for name in parts},
    dataclasses.asdict(encoder),
    dict(scores or {}),
    changed,
  )
  files.write_json(
    os.path.join(directory, MANIFEST), dataclasses.asdict(manifest)
  )
  return manifest


def get(
  directory: str,
  package_dir: str = DEFAULT_PACKAGE,
  inception_dir: str | None = None,
) -> str:
  """Makes `directory` a train directory with the model of a package.

  Nothing is done if all files are there and sound.

  Args:
    directory: the directory; made if missing. It gets the checkpoint of 383
      variables, the state file, the configuration, both stamps and the
      vocabulary.
    package_dir: a directory that `write` made.
    inception_dir: directory of Inception v3's checkpoint, which is downloaded
      if missing; None: `directory`.

  Returns:
    The prefix of the checkpoint.

  Raises:
    ValueError: the package is damaged; the encoder is not the one that the
      model was trained on; or the directory has another model.
    OSError: a download or the disk failed; a later call goes on.
  """
  package = _read(package_dir)
  os.makedirs(directory, exist_ok=True)
  with locks.hold(directory, 'get_model', wait=True):
    return _get(directory, package_dir, inception_dir, package)


def _get(
  directory: str, package_dir: str, inception_dir: str | None, package: _Package
) -> str:
  """Implements `get` for the content of a package, with the lock held."""
  manifest, decoder, changes = package
  if later := _trained_on(directory, manifest.global_step, package_dir):
    log(f'{later} was trained on from the model of {package_dir}: left alone.')
    return later
  prefix = os.path.join(
    directory, f'{checkpoints.PREFIX}-{manifest.global_step}'
  )
  encoder = files.to_fields(manifest.encoder, encoder_stamp.Stamp)
  optional = [name for name in _OPTIONAL if name in manifest.parts]
  if all(
    os.path.exists(os.path.join(directory, name)) for name in optional
  ) and _is_whole(prefix, manifest, encoder, decoder):
    log(f'{prefix} is there already.')
    return prefix
  values = _changed(
    inception.read(_get_encoder(inception_dir or directory, encoder)), changes
  )
  if manifest.changed_encoder not in ('', encoder_stamp.fingerprint(values)):
    raise ValueError(
      f'{os.path.join(package_dir, ENCODER)} and the encoder do not give the '
      f'encoder that {MANIFEST} describes: get the package again'
    )
  for name in (*_COPIED, *optional):
    _copy(os.path.join(package_dir, name), os.path.join(directory, name))
  encoder_stamp.save(directory, encoder)
  # Last: a directory with a checkpoint has all its other files.
  checkpoints.CheckpointManager(directory).save({**values, **decoder})
  log(
    f'The model is {prefix}, its vocabulary '
    f'{os.path.join(directory, vocabulary.FILE_NAME)}'
  )
  return prefix


def _decoder_shapes(config: configuration.ModelConfig) -> dict[str, list[int]]:
  """Returns the shape of each decoder variable by name."""
  model = show_and_tell_model.ShowAndTellModel(config, with_inception=False)
  return {
    name: variable.shape.as_list()
    for name, variable in model.decoder_variables.items()
  }


def _half(
  checkpoint: checkpoints.Checkpoint, name: str, value: np.ndarray
) -> np.ndarray:
  """Returns an array as float16; raises ValueError if a value does not fit."""
  with np.errstate(over='ignore'):
    half = value.astype(np.float16)
  if not np.isfinite(half).all():
    raise ValueError(
      f'checkpoint {checkpoint.prefix}: {name} has values that float16 '
      f'cannot hold (from {value.min():g} to {value.max():g}): training '
      'diverged; give an earlier checkpoint'
    )
  return half


def _encoder_of(prefix: str, train_dir: str, directory: str) -> _Encoder:
  """Compares the encoder of a checkpoint with that in a directory.

  Args:
    prefix: prefix of the checkpoint.
    train_dir: directory of the checkpoint, with the stamp of the encoder that
      training started from.
    directory: directory with the stamp of the encoder that training started
      from, and with its checkpoint if it was trained further.

  Raises:
    ValueError: there is no such stamp or checkpoint; or nobody else can download
      these weights.
  """
  values = inception.read(prefix)
  fingerprint = encoder_stamp.fingerprint(values)
  stamp = encoder_stamp.load(directory)
  if not stamp or stamp.source == encoder_stamp.FILE:
    raise ValueError(
      f'nothing in {directory} tells where the encoder of {prefix} can be '
      'downloaded: give --inception_dir the directory that get_inception made'
    )
  if stamp.fingerprint == fingerprint:
    return _Encoder(stamp, {}, '')
  started = encoder_stamp.load(train_dir)
  found = inception.present(directory)
  if not (
    started
    and found
    and found.fingerprint in (started.fingerprint, started.base)
  ):
    raise ValueError(
      f'the encoder of {prefix} (fingerprint {fingerprint[:16]}) is not the one '
      f'that {directory} describes ({stamp}): if it was trained further, give '
      '--inception_dir the directory that get_inception made, with the encoder '
      f'that {encoder_stamp.FILE_NAME} in {train_dir} names'
    )
  original = inception.read(os.path.join(directory, inception.CHECKPOINT))
  changes = _pack_changes(original, values)
  return _Encoder(
    found, changes, encoder_stamp.fingerprint(_changed(original, changes))
  )


# Suffix of the names of scales in ENCODER.
_SCALE = '/scale'


def _pack_changes(
  original: Mapping[str, np.ndarray], values: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
  """Returns the changes of variables in a compact form, by name.

  Training changes a weight only slightly, so 8 bits for the change are as good
  as 16 bits for the weight. A change is int8 [..., out] times a scale, float32
  [out]. The changes of vectors are small arrays and stay float32.

  Args:
    original: float32 arrays by name.
    values: the same variables after training.
  """
  packed: dict[str, np.ndarray] = {}
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


def _changed(
  original: Mapping[str, np.ndarray], packed: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
  """Returns the variables with the changes of `_pack_changes`."""
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


def _save_arrays(path: str, arrays: Mapping[str, np.ndarray]) -> None:
  with files.writing(path) as f:
    # mypy takes the names for that of a flag, `allow_pickle`.
    np.savez_compressed(f, **arrays)  # type: ignore[arg-type]


def _copy(source: str, target: str) -> None:
  with files.replacing(target) as temporary:
    shutil.copyfile(source, temporary)


def _read(package_dir: str) -> _Package:
  """Reads a package.

  Raises:
    ValueError: a part is missing, damaged, or not of this model.
  """
  path = os.path.join(package_dir, MANIFEST)
  try:
    manifest = files.read_fields(path, Manifest)
    files.to_fields(manifest.encoder, encoder_stamp.Stamp)
    if not all(isinstance(sha256, str) for sha256 in manifest.parts.values()):
      raise ValueError('a part has no SHA-256')
    if manifest.format != _FORMAT or {*manifest.parts} - {*_OPTIONAL} != {
      *_PARTS,
      *([ENCODER] if manifest.changed_encoder else []),
    }:
      raise ValueError(f'of format {manifest.format}, not {_FORMAT}')
  except OSError as error:
    raise ValueError(
      f'--package_dir={package_dir} is not a package ({MANIFEST}: '
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
        f'{part} is not the file that {MANIFEST} describes (SHA-256 '
        f'{wanted[:16]}..., found {found[:16]}): get the package again'
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
  changes: dict[str, np.ndarray] = {}
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
  return _Package(manifest, decoder, changes)


def _load_arrays(path: str) -> dict[str, np.ndarray]:
  """Returns the arrays of an .npz file by name, all of finite numbers."""
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


def _trained_on(directory: str, step: int, package_dir: str) -> str | None:
  """Returns the prefix of a later checkpoint of the same model, or None.

  Raises:
    ValueError: the directory has a checkpoint of another model.
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
  here = vocabulary_stamp.load(directory)
  packed = vocabulary_stamp.load(package_dir)
  if (
    max(steps) < step
    or not here
    or not packed
    or here.fingerprint != packed.fingerprint
  ):
    raise ValueError(
      f'{directory} holds another model ({latest}): give another directory'
    )
  return latest


def _is_whole(
  prefix: str,
  manifest: Manifest,
  encoder: encoder_stamp.Stamp,
  decoder: Mapping[str, np.ndarray],
) -> bool:
  """Returns whether a directory has all files of `get`, undamaged."""
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


def _get_encoder(directory: str, wanted: encoder_stamp.Stamp) -> str:
  """Returns the path of the encoder's checkpoint; downloads it if missing.

  Args:
    directory: directory of the encoder.
    wanted: stamp of the encoder.

  Raises:
    ValueError: the directory has another encoder.
  """
  path = os.path.join(directory, inception.CHECKPOINT)
  found = inception.present(directory)
  if not found:
    if wanted.source == encoder_stamp.URL:
      path, found = inception.get(directory, url=wanted.origin, flag='')
    else:
      path, found = inception.get(directory, wanted.source, flag='')
  if found.fingerprint != wanted.fingerprint:
    raise ValueError(
      f'{path} is of source {found}, but the model needs the encoder that it '
      f'was trained on, of source {wanted}: remove it, or give '
      '--inception_dir another directory'
    )
  return path
