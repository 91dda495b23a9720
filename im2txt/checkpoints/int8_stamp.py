# SPDX-License-Identifier: Apache-2.0
"""What `calibrate_encoder` found for an Inception v3: `int8_calibration.json`.

It lies beside the checkpoint, and `--precision=int8` needs it; see
`encoders.int8`.
"""

import dataclasses
import os

from im2txt.runtime import stamps

FILE_NAME = 'int8_calibration.json'


@dataclasses.dataclass(frozen=True)
class Calibration:
  """The content of int8_calibration.json.

  Attributes:
    fingerprint: of the weights of Inception v3, see `encoder_stamp.fingerprint`.
    images: number of images that it was made from.
    source: of these, as the user named them.
    largest: largest output of each convolution, by its name.
  """

  fingerprint: str
  images: int
  source: str
  largest: dict[str, float]


_FILE = stamps.StampFile(FILE_NAME, Calibration, 'without --precision=int8')
save = _FILE.save
find = _FILE.load


def load(prefix: str, fingerprint: str) -> Calibration:
  """Returns the calibration beside a checkpoint.

  Args:
    prefix: of the checkpoint.
    fingerprint: of its Inception v3.

  Raises:
    ValueError: there is none, it is damaged, or it is of another Inception v3.
  """
  directory = os.path.dirname(prefix)
  path = os.path.join(directory, FILE_NAME)
  found = _FILE.load(directory)
  if not found:
    raise ValueError(
      f'--precision=int8 needs {path}, which is not there: run '
      'calibrate_encoder'
    )
  if found.fingerprint != fingerprint:
    raise ValueError(
      f'{path} is of another Inception v3 (fingerprint '
      f'{found.fingerprint[:16]}) than checkpoint {prefix} '
      f'({fingerprint[:16]}): run calibrate_encoder again'
    )
  return found
