# SPDX-License-Identifier: Apache-2.0
"""Captions images on many machines, see `beam_workers`."""

from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import functools
import tempfile
from typing import Any
from typing import NamedTuple

from im2txt import checkpoints
from im2txt.folders import options as options_lib
from im2txt.inference_utils import batches
from im2txt.inference_utils import caption_lines
from im2txt.inference_utils import captioner as captioner_lib
from im2txt.inference_utils import image_files
from im2txt.inference_utils import search_config
from im2txt.runtime import progress
from im2txt.runtime import storage
from im2txt.runtime import workers


@dataclasses.dataclass(frozen=True)
class Job:
  """How images are captioned.

  Attributes:
    checkpoints: paths of one or, for an ensemble, several.
    vocabulary: path of the vocabulary.
    search: settings of the search.
    options: see `CaptionOptions`.
  """

  checkpoints: tuple[str, ...]
  vocabulary: str
  search: search_config.SearchConfig
  options: options_lib.CaptionOptions


def write_captions(
  options: options_lib.CaptionOptions,
  vocabulary: str,
  search: search_config.SearchConfig,
  names: Sequence[str],
) -> int:
  """Captions images by Apache Beam and prints the captions.

  Args:
    options: see `CaptionOptions`.
    vocabulary: path of the vocabulary.
    search: settings of the search.
    names: paths of the images.

  Returns:
    The number of images without captions.
  """
  job = Job(
    tuple(
      map(storage.absolute, checkpoints.split_paths(options.checkpoint_path))
    ),
    storage.absolute(vocabulary),
    search,
    options,
  )
  skipped = 0
  with (
    tempfile.TemporaryDirectory() as place,
    options.workers(place) as pool,
    progress.Progress('Captioning', len(names), 'images') as bar,
  ):
    for image in caption(job, names, pool):
      if image.error:
        image_files.tell_skipped(image.name, image.error)
        skipped += 1
      else:
        print(image.lines, flush=True)
      bar.update(1)
  return skipped


class Captioned(NamedTuple):
  """What became of an image.

  Attributes:
    name: path of the file.
    lines: what is printed for it; None if it cannot be captioned.
    error: why it cannot be captioned; None if it can.
  """

  name: str
  lines: str | None
  error: str | None


def caption(
  job: Job, names: Sequence[str], pool: workers.Pool
) -> Iterator[Captioned]:
  """Yields what becomes of each image, in order.

  The batches are those of one process, so the captions are the same. Sampled
  captions are so only if no image before is skipped.

  Args:
    job: how the images are captioned.
    names: paths of the images.
    pool: does the work.
  """
  size = job.options.inference_batch_size * pool.grain
  tasks = (
    (
      dataclasses.asdict(job),
      names[start : start + size],
      [storage.absolute(name) for name in names[start : start + size]],
      start,
    )
    for start in range(0, len(names), size)
  )
  given = iter(names)
  for part in pool.map(caption_part, tasks):
    for lines, error in part:
      yield Captioned(next(given), lines, error)


def caption_part(
  job: dict[str, Any], names: Sequence[str], paths: Sequence[str], first: int
) -> list[tuple[str | None, str | None]]:
  """Captions some images, in a worker.

  Args:
    job: fields of a `Job`.
    names: names of the images, as the user gave them.
    paths: where they are.
    first: number of images before these.

  Returns:
    The lines and the error of each image, see `Captioned`.
  """
  options = options_lib.CaptionOptions(**job['options'])
  captioner = _captioner(
    Job(
      tuple(job['checkpoints']),
      job['vocabulary'],
      search_config.SearchConfig(**_with_tuples(job['search'])),
      options,
    )
  )
  images = image_files.read_images(
    paths,
    functools.partial(
      captioner.decode, exif_orientation=options.exif_orientation
    ),
    ahead=2 * options.inference_batch_size,
  )
  result: list[tuple[str | None, str | None]] = []
  for name, (_, captions) in zip(
    names,
    batches.caption_in_batches(
      captioner, images, options.inference_batch_size, first
    ),
  ):
    if isinstance(captions, Exception):
      result.append((None, image_files.reason(captions)))
    else:
      lines = caption_lines.lines(
        name, captions, options.output_format, options.min_confidence
      )
      result.append((lines, None))
  return result


def _with_tuples(values: dict[str, Any]) -> dict[str, Any]:
  """Returns values of JSON with tuples in the place of lists."""
  return {
    name: tuple(value) if isinstance(value, list) else value
    for name, value in values.items()
  }


# A worker has one model.
@functools.lru_cache(maxsize=1)
def _captioner(job: Job) -> captioner_lib.Captioner:
  return captioner_lib.Captioner(
    job.checkpoints, job.vocabulary, job.search, job.options.precision
  )
