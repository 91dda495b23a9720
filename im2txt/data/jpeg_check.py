# SPDX-License-Identifier: Apache-2.0
"""Finds the images that training could not decode, before shards are written."""

from collections.abc import Sequence

from im2txt.data import caption_files
from im2txt.data import image_formats
from im2txt.data import image_store
from im2txt.runtime import quiet_tensorflow
from im2txt.runtime import workers as workers_lib
from im2txt.runtime.progress import log
from im2txt.runtime.progress import Progress

_IMAGES_PER_TASK = 50


def find_undecodable(
  workers: workers_lib.Pool, paths: Sequence[str]
) -> dict[str, str]:
  """Returns the images that training could not decode, by path, and why.

  Every file is decoded once, by the decoder that training uses: Pillow, for
  example, accepts damage that this decoder refuses. Checking all images first
  is five times cheaper than decoding an image for each of its captions.
  """
  size = _IMAGES_PER_TASK * workers.grain
  tasks = [(paths[i : i + size],) for i in range(0, len(paths), size)]
  undecodable: dict[str, str] = {}
  turned: list[str] = []
  with Progress('Checking images', len(paths), 'images') as progress:
    for (part,), result in zip(tasks, workers.map(_decode_all, tasks)):
      undecodable.update(result[0])
      turned += result[1]
      progress.update(len(part))
  for path, reason in undecodable.items():
    log(f'Skipping {path}: {reason}')
  log(f'Checked {len(paths)} images, {len(undecodable)} cannot be decoded.')
  if turned:
    # As in 2016. Turning them would compress them again.
    log(
      f'Warning: {len(turned)} images are stored lying or upside down '
      f'according to their EXIF orientation ({caption_files.first(turned)}). '
      'Training sees them like that: turn the files first, for example with '
      'exiftran -ai or mogrify -auto-orient.'
    )
  return undecodable


def _decode_all(paths: Sequence[str]) -> tuple[dict[str, str], list[str]]:
  """Decodes some files.

  Returns:
    (why files are not sound JPEG images, by path; paths of the sound images
    that are stored turned).
  """
  undecodable: dict[str, str] = {}
  turned: list[str] = []
  for path in paths:
    try:
      content = image_store.read(path)
    except OSError as error:
      undecodable[path] = str(error)
      continue
    reason = why_undecodable(content)
    if reason:
      undecodable[path] = reason
    elif image_formats.read_header(content).orientation > 1:
      turned.append(path)
  return undecodable, turned


def why_undecodable(content: bytes) -> str | None:
  """Returns why bytes are not a sound JPEG image, in one line; None if they are.

  It is for worker processes, because it silences standard error meanwhile.
  """
  # The decoder accepts a PNG too, but image/data is JPEG by contract.
  kind = image_formats.kind_of(content)
  if kind != 'JPEG':
    return f'not a JPEG file{f" but {kind}" if kind else ""}'
  try:
    image_formats.check_for_decode_jpeg(content)
  except ValueError as error:
    return str(error)
  tf = workers_lib.worker_tensorflow()
  try:
    # At an eighth of the size all of the file is parsed too; only the pixels
    # are not computed. libjpeg prints its own line about damage.
    with quiet_tensorflow.silent_standard_error():
      tf.io.decode_jpeg(content, channels=3, ratio=8)
  except tf.errors.OpError as error:
    return quiet_tensorflow.reason(error)
  return None
