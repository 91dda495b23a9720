# SPDX-License-Identifier: Apache-2.0
"""Captions a collection of images by many workers, see `beam_workers`."""

from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import functools
from typing import Any
from typing import NamedTuple

from im2txt.inference_utils import caption_lines
from im2txt.inference_utils import captioner as captioner_lib
from im2txt.inference_utils import image_files
from im2txt.inference_utils import search_config
from im2txt.runtime import storage
from im2txt.runtime import workers


@dataclasses.dataclass(frozen=True)
class Job:
  """How images are captioned: the flags of `run_inference` of these names."""

  checkpoint_path: tuple[str, ...]
  vocab_file: str
  search: search_config.SearchConfig
  precision: str
  exif_orientation: bool
  output_format: str
  min_confidence: float
  inference_batch_size: int


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
  size = job.inference_batch_size * pool.grain
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
  search = search_config.SearchConfig(**_with_tuples(job['search']))
  of_all = Job(**{**_with_tuples(job), 'search': search})
  captioner = _captioner(of_all)
  images = image_files.read_images(
    paths,
    functools.partial(
      captioner.decode, exif_orientation=of_all.exif_orientation
    ),
    ahead=2 * of_all.inference_batch_size,
  )
  result: list[tuple[str | None, str | None]] = []
  for name, (_, captions) in zip(
    names,
    captioner_lib.caption_in_batches(
      captioner, images, of_all.inference_batch_size, first
    ),
  ):
    if isinstance(captions, Exception):
      result.append((None, image_files.reason(captions)))
    else:
      lines = caption_lines.lines(
        name, captions, of_all.output_format, of_all.min_confidence
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
    job.checkpoint_path, job.vocab_file, job.search, job.precision
  )
