# SPDX-License-Identifier: Apache-2.0
"""Captioning for other programs, in one class: `from im2txt import Captioner`."""

from collections.abc import Iterable
from collections.abc import Iterator
import os
import sys
import typing
from typing import Any
from typing import NamedTuple

import numpy as np

from im2txt import checkpoints
from im2txt.data import image_formats
from im2txt.inference_utils import batches
from im2txt.inference_utils import captioner as captioner_lib
from im2txt.inference_utils import image_files
from im2txt.inference_utils import search_config
from im2txt.inference_utils.captioner import ScoredCaption
from im2txt.runtime import files
from im2txt.text import vocabulary as vocabulary_lib

if typing.TYPE_CHECKING:
  from PIL import Image


ImageLike: typing.TypeAlias = (
  'str | os.PathLike[str] | bytes | bytearray | memoryview | typing.BinaryIO '
  '| np.ndarray | Image.Image'
)

_KINDS = (
  'the name of an image file, its bytes, a file open for binary reading, a '
  'uint8 array [height, width, 3] or [height, width], or a PIL.Image.Image'
)


class Captioned(NamedTuple):
  """An image of `Captioner.caption_each` and its captions.

  Attributes:
    image: the image as it was given.
    captions: list of `ScoredCaption`s, best first; empty if there is an error.
    error: why it has no captions, an OSError or ValueError, or None.
  """

  image: Any
  captions: list[ScoredCaption]
  error: Exception | None


class Captioner:
  """A trained model that writes captions of images.

  Make one with `load`, and keep it: loading takes seconds. Any thread may use
  it. What is one image: the name of a file (str or path), its bytes, a file
  open for binary reading, a uint8 array [height, width, 3] (red, green, blue),
  [height, width] (grey) or [height, width, 4] (with opacity), or a
  PIL.Image.Image. Pillow decodes to slightly other pixels than TensorFlow, so
  names and bytes give the captions of `run_inference`, and PIL images nearly.

  Args:
    captioner: an `inference_utils.captioner.Captioner`.
    exif_orientation: whether images are turned as their EXIF data say.
    batch_size: images captioned at once.

  Attributes:
    model: the `inference_utils.captioner.Captioner`.
    exif_orientation: as above.
    batch_size: as above.
  """

  def __init__(
    self,
    captioner: captioner_lib.Captioner,
    exif_orientation: bool = True,
    batch_size: int = 16,
  ) -> None:
    if batch_size < 1:
      raise ValueError(f'batch_size={batch_size} must be 1 or more')
    self.model = captioner
    self.exif_orientation = exif_orientation
    self.batch_size = batch_size

  @classmethod
  def load(
    cls,
    checkpoint: str
    | os.PathLike[str]
    | Iterable[str | os.PathLike[str]]
    | None = None,
    *,
    vocab_file: str | os.PathLike[str] | None = None,
    precision: str = 'float32',
    exif_orientation: bool = True,
    batch_size: int = 16,
    **search: Any,
  ) -> 'Captioner':
    """Loads a model.

    Args:
      checkpoint: a directory with checkpoints (its latest is taken) or the
        prefix of one, such as 'train/model.ckpt-1000'; several are an ensemble.
        None: the model that comes with the project, where `get_model` joins it.
      vocab_file: the vocabulary that the model was trained with. None: the
        word_counts.txt beside the checkpoint.
      precision: 'float32', or 'bfloat16' or 'int8' to compute Inception v3 in
        that: faster where the processor has such instructions. 'int8' needs
        `calibrate_encoder` and the package openvino.
      exif_orientation: whether images are turned as their EXIF data say.
      batch_size: images captioned at once.
      **search: fields of `SearchConfig`, such as beam_size=5. The defaults
        search as `run_inference` does.

    Returns:
      A `Captioner`.

    Raises:
      ValueError: there is no such model or vocabulary, they do not fit each
        other, or a setting is out of its range.
      TypeError: there is no such setting.
    """
    if checkpoint is None:
      checkpoint = directory = files.pretrained_directory()
      if not os.path.exists(os.path.join(directory, checkpoints.STATE_FILE)):
        raise ValueError(
          f'no model in {directory}: get the one that comes with im2txt with '
          '`python -m im2txt.get_model`, or give the directory of your own'
        )
    if isinstance(checkpoint, (str, os.PathLike)):
      paths = checkpoints.split_paths(os.fspath(checkpoint))
    else:
      paths = [os.fspath(path) for path in checkpoint]
    vocabulary = vocab_file or checkpoints.vocabulary_beside(paths)
    if not vocabulary:
      for path in paths:
        checkpoints.resolve(path)  # Says so if there is no checkpoint either.
      raise ValueError(
        f'no {vocabulary_lib.FILE_NAME} lies beside {paths[0]}: give vocab_file'
      )
    captioner = captioner_lib.Captioner(
      paths, os.fspath(vocabulary), _search(search), precision
    )
    return cls(captioner, exif_orientation, batch_size)

  @property
  def global_step(self) -> int:
    """The training step of the (first) checkpoint."""
    return self.model.global_step

  @property
  def search(self) -> search_config.SearchConfig:
    """How captions are searched, completed by the model's configuration."""
    return self.model.decoder.search

  def with_search(self, **search: Any) -> 'Captioner':
    """Returns another captioner of the same model; `search` as of `load`."""
    return Captioner(
      self.model.with_search(_search(search)),
      self.exif_orientation,
      self.batch_size,
    )

  # A str is an iterable of str, too.
  @typing.overload
  def caption(  # type: ignore[overload-overlap]
    self, images: ImageLike, *, word_probabilities: bool = ...
  ) -> list[ScoredCaption]: ...

  @typing.overload
  def caption(
    self, images: Iterable[ImageLike], *, word_probabilities: bool = ...
  ) -> list[list[ScoredCaption]]: ...

  def caption(self, images: Any, *, word_probabilities: bool = False) -> Any:
    """Captions an image, or several.

    Args:
      images: an image (see the class), or an iterable of images.
      word_probabilities: whether captions have `words`, each with its log
        probability. That takes a little time.

    Returns:
      Of one image a list of `ScoredCaption`s, best first; of several a list of
      such lists.

    Raises:
      OSError: a file cannot be read.
      ValueError: an image cannot be decoded; the message names a file.
      TypeError: there is something that is no image.
    """
    if _is_one(images):
      return self.caption([images], word_probabilities=word_probabilities)[0]
    captions = []
    for captioned in self.caption_each(
      images, word_probabilities=word_probabilities
    ):
      if captioned.error:
        raise _naming(captioned.image, captioned.error) from captioned.error
      captions.append(captioned.captions)
    return captions

  def caption_each(
    self, images: Iterable[ImageLike], *, word_probabilities: bool = False
  ) -> Iterator[Captioned]:
    """Captions a collection of any size, one image after the other.

    Other threads decode ahead of the network. Three batches are in memory at
    most, whatever the number of images.

    Args:
      images: iterable of images (see the class), taken as they are needed.
      word_probabilities: see `caption`.

    Yields:
      `Captioned`, in order. One that cannot be read or decoded has an error,
      and the rest goes on.

    Raises:
      TypeError: there is something that is no image.
    """
    if _is_one(images):
      raise TypeError('caption_each takes several images; caption takes one')
    decoded = image_files.ahead_of_caller(
      images, self.decode, ahead=2 * self.batch_size
    )
    for image, found in batches.caption_in_batches(
      self.model,
      decoded,
      self.batch_size,
      word_probabilities=word_probabilities,
    ):
      if isinstance(found, Exception):
        yield Captioned(image, [], found)
      else:
        yield Captioned(image, found, None)

  def decode(self, image: ImageLike) -> Any:
    """Makes of one image (see the class) what the model takes.

    Returns:
      float32 [height, width, 3], for `self.model.caption`.

    Raises:
      OSError: a file cannot be read.
      ValueError: it is damaged, of another kind, or too large.
      TypeError: it is no image.
    """
    if isinstance(image, (str, os.PathLike)):
      return self._decode(image_files.read(os.fspath(image)))
    if isinstance(image, (bytes, bytearray, memoryview)):
      return self._decode(image)
    if isinstance(image, np.ndarray):
      return self.model.process(_pixels(image))
    if _is_pillow(image):
      pixels = image_formats.pixels_of_pillow(image, image.format or 'PIL')
      orientation = 1
      if self.exif_orientation:
        # Now, as Pillow turns a TIFF itself while it is decoded.
        orientation = image_formats.orientation_of(image.getexif())
      return self.model.process(pixels, orientation)
    if hasattr(image, 'read'):
      return self._decode(image.read(image_formats.MOST_FILE_BYTES + 1))
    raise TypeError(f'{image!r:.80} is no image: give {_KINDS}')

  def _decode(self, data: bytes | bytearray | memoryview) -> Any:
    if len(data) > image_formats.MOST_FILE_BYTES:
      raise ValueError(
        'larger than the '
        f'{image_formats.MOST_FILE_BYTES // 10**6} MB that are read'
      )
    return self.model.decode(bytes(data), self.exif_orientation)


def _search(settings: dict[str, Any]) -> search_config.SearchConfig:
  """Returns a `SearchConfig`; lists of words may be lists."""
  values: dict[str, Any] = {
    name: tuple(value) if isinstance(value, list) else value
    for name, value in settings.items()
  }
  return search_config.SearchConfig(**values)


def _is_pillow(image: Any) -> 'typing.TypeGuard[Image.Image]':
  # Where Pillow has not been imported, there is none of its images.
  pillow: Any = sys.modules.get('PIL.Image')
  return bool(pillow) and isinstance(image, pillow.Image)


def _is_one(images: Any) -> bool:
  """Whether this is one image, if it is any."""
  return (
    isinstance(images, (str, os.PathLike, bytes, bytearray, memoryview))
    or (isinstance(images, np.ndarray) and images.ndim < 4)
    or _is_pillow(images)
    or hasattr(images, 'read')
    or not isinstance(images, Iterable)
  )


def _pixels(array: np.ndarray) -> np.ndarray:
  """Returns uint8 [height, width, 3] of an array of an image.

  Raises:
    TypeError: it is none of uint8.
    ValueError: it has another shape, or no pixel.
  """
  if array.dtype != np.uint8:
    raise TypeError(
      f'an array of {array.dtype} is no image: give uint8, 0 to 255'
    )
  if array.ndim == 2:
    array = array[:, :, np.newaxis]
  if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or not array.size:
    raise ValueError(
      f'an array of shape {list(array.shape)} is no image: give '
      '[height, width, 3] or [height, width]'
    )
  if array.shape[2] == 4:
    return image_formats.over_white(array)
  return np.broadcast_to(array, [*array.shape[:2], 3])


def _naming(image: Any, error: Exception) -> Exception:
  """Returns an error of an image that names its file, if it is of one."""
  if isinstance(image, (str, os.PathLike)) and not isinstance(error, OSError):
    return ValueError(f'{os.fspath(image)}: {error}')
  return error
