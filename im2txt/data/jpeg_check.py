# SPDX-License-Identifier: Apache-2.0
"""Which images training could not decode, found before shards are written."""

from im2txt.data import caption_files
from im2txt.data import image_formats
from im2txt.data import image_store
from im2txt.runtime import quiet_tensorflow
from im2txt.runtime import workers as workers_lib
from im2txt.runtime.progress import log
from im2txt.runtime.progress import Progress

_IMAGES_PER_TASK = 50


def find_undecodable(workers, paths):
  """Returns the pictures that training could not decode, dict path -> reason.

  Every file is decoded once, by the decoder that training uses: another one
  (Pillow was tried) accepts damage that this one refuses. Looking at all of
  them first is five times cheaper than decoding for every caption.

  Args:
    workers: Workers.
    paths: list of str.
  """
  tasks = (
    (paths[i : i + _IMAGES_PER_TASK],)
    for i in range(0, len(paths), _IMAGES_PER_TASK)
  )
  undecodable, turned = {}, []
  checked = 0
  with Progress('Checking images', len(paths), 'images') as progress:
    for result in workers.map(_decode_all, tasks):
      undecodable.update(result[0])
      turned += result[1]
      number = min(_IMAGES_PER_TASK, len(paths) - checked)
      checked += number
      progress.update(number)
  for path, reason in undecodable.items():
    log(f'Skipping {path}: {reason}')
  log(f'Checked {len(paths)} images, {len(undecodable)} cannot be decoded.')
  if turned:
    # As in 2016. To turn them would be to compress them anew.
    log(
      f'Warning: {len(turned)} images are stored lying or upside down, as '
      f'their EXIF orientation tells ({caption_files.first(turned)}), and '
      'would be trained on like that: turn the files first, such as with '
      'exiftran -ai or mogrify -auto-orient.'
    )
  return undecodable


def _decode_all(paths):
  """Returns what is to be said of some files.

  Args:
    paths: list of str.

  Returns:
    ({path: reason} of those that are no sound JPEG pictures, list of the paths
    of sound ones that are stored turned).
  """
  undecodable, turned = {}, []
  for path in paths:
    try:
      content = image_store.read(path)
      reason = why_undecodable(content)
    except OSError as error:
      reason = str(error)
    if reason:
      undecodable[path] = reason
    elif image_formats.read_header(content).orientation > 1:
      turned.append(path)
  return undecodable, turned


def why_undecodable(content):
  """Returns why bytes are no sound JPEG picture, a line; None if they are."""
  # The decoder would take a PNG too, but image/data is JPEG by contract.
  kind = image_formats.kind_of(content)
  if kind != 'JPEG':
    return f'not a JPEG file{f" but {kind}" if kind else ""}'
  try:
    image_formats.check_for_decode_jpeg(content)
  except ValueError as error:
    return str(error)
  tf = workers_lib.worker_tensorflow()
  try:
    # All of the file is parsed at an eighth of the size too, only the pixels
    # are not computed.
    tf.io.decode_jpeg(content, channels=3, ratio=8)
  except tf.errors.OpError as error:
    return quiet_tensorflow.reason(error)
  return None
