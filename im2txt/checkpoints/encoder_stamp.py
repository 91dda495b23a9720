# SPDX-License-Identifier: Apache-2.0
"""Which weights of Inception v3 a checkpoint has: `inception_v3.json`.

Two trainings of the network have the same names and shapes, and a decoder that
was trained on the one writes nonsense with the other. `get_inception` writes
the file beside what it gets, and `train` beside its checkpoints, where it tells
what training started from. Checkpoints without the file are taken as they are.
"""

from collections.abc import Mapping
import dataclasses
import hashlib
import os
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from im2txt.runtime import stamps

if TYPE_CHECKING:
  import tensorflow as tf

FILE_NAME = 'inception_v3.json'

PUBLISHED = 'published'  # The archive that Google published in 2016.
PACKAGE = 'package'  # A package of the Python package index.
URL = 'url'  # An archive of the user's, laid out as the published one.
FILE = 'file'  # A checkpoint that `get_inception` did not get.


@dataclasses.dataclass(frozen=True)
class Stamp:
  """Weights of Inception v3, told from others.

  Attributes:
    fingerprint: of the variables, see `fingerprint`.
    source: PUBLISHED, PACKAGE, URL or FILE.
    origin: URL of the archive, name and version of the package, or path.
    sha256: of the archive or the package; '' if there is none.
    refitted: whether some of the weights were fitted again after that.
    licence: what is known of the terms, a str.
    base: fingerprint of the weights that these were trained from, if another
      model has trained them further; '' if none is known to have.
  """

  fingerprint: str
  source: str
  origin: str
  sha256: str = ''
  refitted: bool = False
  licence: str = ''
  base: str = ''

  def __str__(self) -> str:
    refitted = ', refitted' if self.refitted else ''
    return (
      f'{self.source} ({self.origin}{refitted}), fingerprint '
      f'{self.fingerprint[:16]}'
    )


def fingerprint(values: Mapping[str, 'tf.Variable | npt.NDArray']) -> str:
  """Returns 64 hexadecimal digits that tell weights from others.

  Args:
    values: dict from name (`InceptionV3/...`) to variable or array.
  """
  digest = hashlib.sha256()
  for name, value in sorted(values.items()):
    digest.update(name.encode())
    digest.update(np.asarray(value).tobytes())
  return digest.hexdigest()


_FILE = stamps.StampFile(
  FILE_NAME, Stamp, 'without knowing where the encoder is from'
)
save = _FILE.save
load = _FILE.load
copy = _FILE.copy
remove = _FILE.remove


def of_checkpoint(
  prefix: str, values: Mapping[str, 'tf.Variable | npt.NDArray']
) -> Stamp:
  """Returns the Stamp of a checkpoint's weights.

  Args:
    prefix: of the checkpoint, beside which the file may lie.
    values: see `fingerprint`.

  Returns:
    What the file tells if it is of these weights, or else a Stamp of FILE. If
    there is a file, its weights were trained further, and are the base.

  Raises:
    ValueError: the file is damaged.
  """
  found = fingerprint(values)
  stamp = load(os.path.dirname(prefix))
  if stamp and stamp.fingerprint == found:
    return stamp
  base = (stamp.base or stamp.fingerprint) if stamp else ''
  return Stamp(found, FILE, prefix, base=base)
