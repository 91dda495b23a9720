# SPDX-License-Identifier: Apache-2.0
"""The frames of a video that are worth a caption, read with PyAV.

PyAV is an extra, requirements-video.txt. Frames are taken out of those that the
file itself marks as key frames, which players jump to: encoders set one at a
cut and every few seconds, and no other frame has to be decoded.
"""

from collections.abc import Iterator
import errno
import importlib.util
from typing import Any
from typing import NamedTuple

import numpy as np

SUFFIXES = (
  '.mp4',
  '.m4v',
  '.mov',
  '.3gp',
  '.webm',
  '.mkv',
  '.avi',
  '.mpg',
  '.mpeg',
  '.m2ts',
  '.mts',
  '.ogv',
  '.wmv',
  '.flv',
)
# What FFmpeg may take a file for. Playlists name other files, so no such.
_CONTAINERS = 'mov,mp4,matroska,webm,avi,mpeg,mpegts,ogg,asf,flv'
# Sides of the small images by which frames are compared, and the mean
# difference, of 255, from which on they show different things.
_SIDE = 16
_DIFFERENCE = 8.0


class Frame(NamedTuple):
  """A frame of a video.

  Attributes:
    time: in seconds from the start.
    pixels: uint8 [height, width, 3], upright.
  """

  time: float
  pixels: np.ndarray


def is_video(name: str) -> bool:
  """Whether a file is a video, by its suffix."""
  return name.lower().endswith(SUFFIXES)


def is_available() -> bool:
  """Whether PyAV is installed."""
  return importlib.util.find_spec('av') is not None


def frames(path: str, seconds: float) -> Iterator[Frame]:
  """Yields the frames of a video that show something new.

  Args:
    path: of the video.
    seconds: least time from one to the next. A frame that looks like the one
      before it is left out.

  Raises:
    OSError: the file cannot be read.
    ValueError: PyAV is not installed; or the video is damaged, here or from
      here on, or of a kind that is not read.
  """
  if not is_available():
    raise ValueError(
      'a video needs PyAV: pip install -r requirements-video.txt'
    )
  import av

  before: Frame | None = None
  seen: np.ndarray | None = None
  with open(path, 'rb') as f:
    try:
      container: Any  # Its type depends on the mode.
      with av.open(f, options={'format_whitelist': _CONTAINERS}) as container:
        if not container.streams.video:
          raise ValueError('a video without pictures')
        stream = container.streams.video[0]
        stream.codec_context.skip_frame = 'NONKEY'
        start = (stream.start_time or 0) * (stream.time_base or 0)
        for frame in container.decode(stream):
          time = max(0.0, float((frame.time or 0) - start))
          if before and time < before.time + seconds:
            continue
          small = _small(frame)
          if seen is not None and np.abs(small - seen).mean() < _DIFFERENCE:
            continue
          seen = small
          before = Frame(time, _upright(frame))
          yield before
    except (av.FFmpegError, OSError) as error:
      # FFmpeg seeks to where a damaged file says, which can be before its start.
      if not isinstance(error, av.FFmpegError) and error.errno != errno.EINVAL:
        raise
      raise ValueError(
        'damaged video, or of a kind that is not read '
        f'({error.strerror or error})'
      ) from error


def _small(frame: Any) -> np.ndarray:
  """Returns what frames are compared by, float32 [side, side, 3]."""
  return frame.to_ndarray(
    width=_SIDE, height=_SIDE, format='rgb24', interpolation='AREA'
  ).astype(np.float32)


def _upright(frame: Any) -> np.ndarray:
  """Returns the pixels of a frame, turned as the file says."""
  pixels = frame.to_ndarray(format='rgb24')
  # Counterclockwise both. Phones write how they were held.
  return np.rot90(pixels, round(frame.rotation / 90) % 4)
