# SPDX-License-Identifier: Apache-2.0
"""Captions files: photos and videos."""

from collections.abc import Iterable
from collections.abc import Iterator
from typing import Any
from typing import NamedTuple

from absl import logging

from im2txt.data import image_formats
from im2txt.folders import options as options_lib
from im2txt.folders import video
from im2txt.inference_utils import batches
from im2txt.inference_utils import caption_lines
from im2txt.inference_utils import captioner as captioner_lib
from im2txt.inference_utils import image_files


class CaptionedFrame(NamedTuple):
  """A photo, or a frame of a video, with its captions.

  Attributes:
    time: in the video, in seconds; None for a photo.
    captions: list of `ScoredCaption`s, best first.
  """

  time: float | None
  captions: list[captioner_lib.ScoredCaption]


class CaptionedFile(NamedTuple):
  """A photo or a video with its captions.

  Attributes:
    name: of the file.
    frames: one of a photo; empty if there is an error.
    error: why there are none, an OSError or ValueError, or None.
  """

  name: str
  frames: list[CaptionedFrame]
  error: OSError | ValueError | None


class _Item(NamedTuple):
  """What is decoded: a photo, a frame, or a video without one.

  Attributes:
    name: of the file.
    time: see `CaptionedFrame`.
    image: a frame as the model takes it; the error of a video; None for a photo.
    is_last: whether it is the last item of the file.
  """

  name: str
  time: float | None = None
  image: Any = None
  is_last: bool = True


def caption(
  captioner: captioner_lib.Captioner,
  names: Iterable[str],
  options: options_lib.CaptionOptions,
  captioned: int = 0,
) -> Iterator[CaptionedFile]:
  """Captions files, of which three batches are in memory at most.

  Args:
    captioner: the model.
    names: of photos and videos.
    options: see `CaptionOptions`.
    captioned: images captioned before these, see `caption_in_batches`.

  Yields:
    `CaptionedFile`, in order.
  """

  def items() -> Iterator[_Item]:
    for name in names:
      if video.is_video(name):
        yield from _frames(captioner, name, options.seconds_between_frames)
      else:
        yield _Item(name)

  def decode(item: _Item) -> Any:
    if isinstance(item.image, Exception):
      raise item.image
    if item.image is not None:
      return item.image
    return captioner.decode(
      image_files.read(item.name), options.exif_orientation
    )

  frames: list[CaptionedFrame] = []
  for item, found in batches.caption_in_batches(
    captioner,
    image_files.ahead_of_caller(
      items(), decode, 2 * options.inference_batch_size
    ),
    options.inference_batch_size,
    captioned,
    options.word_probabilities,
  ):
    if isinstance(found, Exception):
      yield CaptionedFile(item.name, [], found)
      continue
    frames.append(CaptionedFrame(item.time, found))
    if item.is_last:
      yield CaptionedFile(item.name, frames, None)
      frames = []


def _frames(
  captioner: captioner_lib.Captioner, name: str, seconds: float
) -> Iterator[_Item]:
  """Yields the frames of a video, or one item with its error."""
  before: _Item | None = None
  try:
    for frame in video.frames(name, seconds):
      if before:
        yield before
      before = _Item(
        name, frame.time, captioner.process(frame.pixels), is_last=False
      )
  except (OSError, ValueError) as error:
    if not before:
      yield _Item(name, image=error)
      return
    logging.warning(
      '%s: no frames after %s: %s',
      name,
      caption_lines.clock(before.time or 0.0),
      image_files.reason(error),
    )
  if before:
    yield before._replace(is_last=True)
  else:
    yield _Item(name, image=ValueError('a video without a frame'))


def suffixes(with_videos: bool = True) -> tuple[str, ...]:
  """Returns the suffixes of what is captioned in a directory.

  Args:
    with_videos: whether videos are, where PyAV is installed.
  """
  if with_videos and video.is_available():
    return image_formats.SUFFIXES + video.SUFFIXES
  return image_formats.SUFFIXES
