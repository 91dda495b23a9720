# SPDX-License-Identifier: Apache-2.0
"""Puts captions of files where they belong, and tells what is done already."""

from collections.abc import Sequence
import contextlib
import errno
import sys
from typing import Any
from typing import Self

from absl import logging

from im2txt.folders import caption_file
from im2txt.folders import captioning
from im2txt.folders import options as options_lib
from im2txt.folders import sidecar
from im2txt.folders import video
from im2txt.inference_utils import caption_lines
from im2txt.inference_utils import captioner as captioner_lib
from im2txt.inference_utils import image_files
from im2txt.runtime import files as files_lib
from im2txt.runtime import progress

# What stops everything, unlike a directory that cannot be written.
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)


class Outputs:
  """Where captions go: a file, or standard output; and sidecars of photos.

  A context manager. What cannot be captioned is told on standard error.

  Args:
    options: see `CaptionOptions`.
    captioner: the model, whose captions are told from those of others.

  Attributes:
    num_done: files that were done before.
    failures: names of files without captions or alt text, and why. Those that
      were done before are in it.
  """

  def __init__(
    self,
    options: options_lib.CaptionOptions,
    captioner: captioner_lib.Captioner,
  ) -> None:
    self._options = options
    self._stack = contextlib.ExitStack()
    self._captions: caption_file.CaptionFile | None = None
    self._sidecars: sidecar.Sidecars | None = None
    if options.goes_on:
      model = options.fingerprint(captioner)
      if options.output_file:
        self._captions = caption_file.CaptionFile(options.output_file, model)
      if options.sidecars:
        self._sidecars = sidecar.Sidecars(model, options.replace_alt_text)
    self._states: dict[str, files_lib.State | None] = {}
    self.num_done = 0
    self.failures: dict[str, str] = {}

  def __enter__(self) -> Self:
    if self._captions:
      self._stack.enter_context(self._captions)
    return self

  def __exit__(self, *exception: Any) -> None:
    self._stack.__exit__(*exception)

  @property
  def num_captioned(self) -> int:
    """Images and frames with captions by this model in the file."""
    return self._captions.num_captioned if self._captions else 0

  def pending(self, names: Sequence[str]) -> list[str]:
    """Returns the files that are to be captioned, each once if it goes on.

    A caption that is in the file and not in the sidecar is written there.
    """
    if not self._options.goes_on:
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

  def add(self, file: captioning.CaptionedFile) -> None:
    """Writes the captions of a file that was pending, or why it has none.

    Raises:
      OSError: the disk is full or failed.
    """
    min_confidence = self._options.min_confidence
    state = self._states.pop(file.name, None)
    if file.error:
      why = self.failures[file.name] = image_files.reason(file.error)
      image_files.tell_skipped(file.name, why)
      if self._captions:
        self._captions.add(
          file.name,
          None if isinstance(file.error, OSError) else state,
          [{**caption_lines.record(file.name, []), 'error': why}],
        )
      return
    told = [
      caption_lines.record(
        file.name, frame.captions, min_confidence, frame.time
      )
      for frame in file.frames
    ]
    if not self._captions:
      for frame in file.frames:
        print(
          caption_lines.lines(
            file.name,
            frame.captions,
            self._options.output_format,
            min_confidence,
            frame.time,
          ),
          flush=True,
        )
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


def write_captions(
  captioner: captioner_lib.Captioner,
  names: Sequence[str],
  options: options_lib.CaptionOptions,
) -> int:
  """Captions files and writes the captions where the options say.

  Args:
    captioner: the model.
    names: of photos and videos.
    options: see `CaptionOptions`.

  Returns:
    The number of files without captions or alt text.
  """
  with contextlib.ExitStack() as stack:
    outputs = stack.enter_context(Outputs(options, captioner))
    pending = outputs.pending(names)
    if outputs.num_done or outputs.failures:
      logging.info(
        '%d file(s) were done before, and %d could not be',
        outputs.num_done,
        len(outputs.failures),
      )
    bar = None
    # On a terminal the captions themselves show the progress.
    if len(pending) > options.inference_batch_size and (
      options.output_file or not sys.stdout.isatty()
    ):
      done = len(names) - len(pending)
      bar = stack.enter_context(
        progress.Progress('Captioning', len(names), 'files', done)
      )
    for file in captioning.caption(
      captioner, pending, options, outputs.num_captioned
    ):
      outputs.add(file)
      if bar:
        bar.update(1)
    return len(outputs.failures)


def _state(name: str) -> files_lib.State | None:
  try:
    return files_lib.state(name)
  except OSError:
    return None
