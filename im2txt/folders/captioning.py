# SPDX-License-Identifier: Apache-2.0
"""Captions files, photos and videos, and puts the captions where they belong."""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import errno
from typing import Any
from typing import NamedTuple

from absl import logging

from im2txt.data import image_formats
from im2txt.folders import caption_file
from im2txt.folders import sidecar
from im2txt.folders import video
from im2txt.inference_utils import caption_lines
from im2txt.inference_utils import captioner as captioner_lib
from im2txt.inference_utils import image_files
from im2txt.runtime import files as files_lib

# What stops everything, unlike a directory that cannot be written.
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)


@dataclasses.dataclass(frozen=True)
class Settings:
  """How files are captioned.

  Attributes:
    batch_size: images captioned at once.
    exif_orientation: whether images are turned as their EXIF data say.
    min_confidence: see `caption_lines.record`.
    word_probabilities: see `FeatureCaptioner.caption`.
    seconds_between_frames: see `video.frames`.
  """

  batch_size: int = 16
  exif_orientation: bool = True
  min_confidence: float = 0.0
  word_probabilities: bool = False
  seconds_between_frames: float = 5.0

  def fingerprint(self, captioner: captioner_lib.Captioner) -> str:
    """Tells captions by this model with these settings from others."""
    told = dataclasses.asdict(self)
    del told['batch_size']
    return captioner_lib.digest(captioner.fingerprint, told)


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
  settings: Settings,
  captioned: int = 0,
) -> Iterator[CaptionedFile]:
  """Captions files, of which three batches are in memory at most.

  Args:
    captioner: the model.
    names: of photos and videos.
    settings: see `Settings`.
    captioned: images captioned before these, see `caption_in_batches`.

  Yields:
    `CaptionedFile`, in order.
  """

  def items() -> Iterator[_Item]:
    for name in names:
      if video.is_video(name):
        yield from _frames(captioner, name, settings.seconds_between_frames)
      else:
        yield _Item(name)

  def decode(item: _Item) -> Any:
    if isinstance(item.image, Exception):
      raise item.image
    if item.image is not None:
      return item.image
    return captioner.decode(
      image_files.read(item.name), settings.exif_orientation
    )

  frames: list[CaptionedFrame] = []
  for item, found in captioner_lib.caption_in_batches(
    captioner,
    image_files.ahead_of_caller(items(), decode, 2 * settings.batch_size),
    settings.batch_size,
    captioned,
    settings.word_probabilities,
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


class Outputs:
  """Where captions go: a file, sidecars, both or neither.

  Args:
    captions: a `CaptionFile`, or None.
    sidecars: the `Sidecars`, or None. Videos have none.
    min_confidence: with less there are no captions, see `Settings`.

  Attributes:
    num_done: files that were done before.
    failures: names of files without captions or alt text, and why. Those that
      were done before are in it.
  """

  def __init__(
    self,
    captions: caption_file.CaptionFile | None,
    sidecars: sidecar.Sidecars | None,
    min_confidence: float = 0.0,
  ) -> None:
    self._captions = captions
    self._sidecars = sidecars
    self._min_confidence = min_confidence
    self._states: dict[str, files_lib.State | None] = {}
    self.num_done = 0
    self.failures: dict[str, str] = {}

  def pending(self, names: Sequence[str]) -> list[str]:
    """Returns the files that are to be captioned, each once if it goes on.

    A caption that is in the file and not in the sidecar is written there.
    """
    if not (self._captions or self._sidecars):
      return list(names)
    result = []
    for name in dict.fromkeys(names):
      if self._is_done(name):
        self.num_done += name not in self.failures
      else:
        result.append(name)
    return result

  def _is_done(self, name: str) -> bool:
    """Whether nothing is to be done for a file; else its state is noted."""
    if not self._captions and video.is_video(name):
      self.failures[name] = 'a video has no sidecar: give --output_file'
      return True
    state = _state(name)
    found = self._captions and self._captions.recorded(name, state)
    if found:
      if found.error:
        self.failures[name] = found.error
      elif found.caption and self._wants_sidecar(name, state):
        self._write_sidecar(name, state, found.caption)
      return True
    # Where there is no state, reading will tell why.
    if self._captions or not state or self._wants_sidecar(name, state):
      self._states[name] = state
      return False
    return True

  def add(self, file: CaptionedFile) -> None:
    """Writes the captions of a file that was pending.

    Raises:
      OSError: the disk is full or failed.
    """
    state = self._states.pop(file.name, None)
    if file.error:
      why = self.failures[file.name] = image_files.reason(file.error)
      if self._captions:
        self._captions.add(
          file.name,
          None if isinstance(file.error, OSError) else state,
          [{**caption_lines.record(file.name, []), 'error': why}],
        )
      return
    told = [
      caption_lines.record(
        file.name, frame.captions, self._min_confidence, frame.time
      )
      for frame in file.frames
    ]
    # First, as a line says that all is done.
    if told[0]['captions'] and self._wants_sidecar(file.name, state):
      self._write_sidecar(file.name, state, told[0]['captions'][0]['caption'])
    if self._captions:
      self._captions.add(file.name, state, told)

  def _wants_sidecar(self, name: str, state: files_lib.State | None) -> bool:
    if not (self._sidecars and state) or video.is_video(name):
      return False
    try:
      return self._sidecars.is_wanted(name, state)
    except (OSError, ValueError) as error:
      self._fail(name, error)
      return False

  def _write_sidecar(
    self, name: str, state: files_lib.State | None, text: str
  ) -> None:
    assert self._sidecars and state
    try:
      self._sidecars.write(name, state, text)
    except (OSError, ValueError) as error:
      self._fail(name, error)

  def _fail(self, name: str, error: OSError | ValueError) -> None:
    """Notes that there is no alt text of a photo."""
    if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
      raise error
    told = str(error)
    if isinstance(error, OSError) and error.filename:
      told = f'{error.filename}: {error.strerror}'
    self.failures[name] = f'no alt text: {told}'
    logging.warning('%s: %s', name, self.failures[name])


def _state(name: str) -> files_lib.State | None:
  try:
    return files_lib.state(name)
  except OSError:
    return None
