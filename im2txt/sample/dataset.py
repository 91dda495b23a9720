# SPDX-License-Identifier: Apache-2.0
"""The sample data set: rendered scenes in archives like those of MSCOCO.

  zips/train2014.zip                        train2014/COCO_train2014_*.jpg
  zips/val2014.zip                          val2014/COCO_val2014_*.jpg
  annotations/annotations_trainval2014.zip  annotations/captions_*2014.json

and a SHA256SUMS in both folders. download_and_preprocess_mscoco accepts a server
(or a file:// URL) of this directory as its --base_url.
"""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import io
import itertools
import json
import os
import random
from typing import Any
from typing import NamedTuple
import zipfile

from im2txt.runtime import files
from im2txt.runtime import locks
from im2txt.runtime import workers as workers_lib
from im2txt.runtime.progress import Progress
from im2txt.sample import scenes

SPLITS = ('train', 'val')
_ANNOTATIONS = 'annotations/annotations_trainval2014.zip'
_SUMS = 'SHA256SUMS'
_JPEG_QUALITY = 92
_IMAGES_PER_TASK = 20


class _Made(NamedTuple):
  """A scene that was made: the JPEG file, and its captions."""

  data: bytes
  captions: list[str]


def write(
  directory: str,
  num_images: Mapping[str, int],
  seed: int = 1,
  num_workers: int = 0,
  flag: str | None = None,
) -> bool:
  """Writes the three archives and their checksums, unless they are there.

  Args:
    directory: the directory; made if missing.
    num_images: the number of images for 'train' and for 'val'.
    seed: equal seeds give equal images and captions.
    num_workers: number of processes; 0 for one per core.
    flag: the flag that gave `num_workers`, for messages; None if there is none.

  Returns:
    Whether anything was written.

  Raises:
    ValueError: another program writes there.
    OSError: the directory cannot be written, or a process was killed.
  """
  os.makedirs(directory, exist_ok=True)
  with locks.hold(directory, 'build'):
    return _write(
      directory, num_images, seed, workers_lib.Workers(num_workers, flag)
    )


def _write(
  directory: str,
  num_images: Mapping[str, int],
  seed: int,
  worker_processes: workers_lib.Workers,
) -> bool:
  """Implements `write`, with the lock held."""
  made_of = {'num_images': num_images, 'seed': seed}
  stamp = os.path.join(directory, 'made_of.json')
  if _read_json(stamp) == made_of:
    return False
  for folder in ('zips', 'annotations'):
    os.makedirs(os.path.join(directory, folder), exist_ok=True)
  start_id = 1
  captions: dict[str, dict[str, Any]] = {}
  with (
    worker_processes as workers,
    Progress('Painting', sum(num_images.values()), 'images') as progress,
  ):
    for split in SPLITS:
      ids = range(start_id, start_id + num_images[split])
      start_id = ids.stop
      tasks = (
        (seed, ids[i : i + _IMAGES_PER_TASK])
        for i in range(0, len(ids), _IMAGES_PER_TASK)
      )
      captions[split] = _write_images(
        os.path.join(directory, 'zips', f'{split}2014.zip'),
        split,
        zip(ids, itertools.chain.from_iterable(workers.map(_make_all, tasks))),
        progress,
      )
  with (
    files.replacing(os.path.join(directory, _ANNOTATIONS)) as temporary,
    zipfile.ZipFile(temporary, 'w') as archive,
  ):
    for split, content in captions.items():
      archive.writestr(
        _member(f'annotations/captions_{split}2014.json'), json.dumps(content)
      )
  for folder in ('zips', 'annotations'):
    _write_sums(os.path.join(directory, folder))
  files.write_json(stamp, made_of, indent=None)
  return True


def _make_all(seed: int, image_ids: Sequence[int]) -> list[_Made]:
  """Returns `_make` of each id."""
  return [_make(seed, image_id) for image_id in image_ids]


def _make(seed: int, image_id: int) -> _Made:
  """Makes the image and the captions of an id."""
  rng = random.Random(f'{seed} {image_id}')
  scene = scenes.make_scene(rng)
  out = io.BytesIO()
  scenes.render(scene, rng).save(out, 'JPEG', quality=_JPEG_QUALITY)
  return _Made(out.getvalue(), scenes.describe(scene, rng))


def _write_images(
  path: str, split: str, made: Iterable[tuple[int, _Made]], progress: Progress
) -> dict[str, Any]:
  """Writes one archive of images; returns its captions in COCO's format."""
  images, annotations = [], []
  with (
    files.replacing(path) as temporary,
    zipfile.ZipFile(temporary, 'w') as archive,
  ):
    for image_id, (data, captions) in made:
      name = f'COCO_{split}2014_{image_id:012d}.jpg'
      archive.writestr(_member(f'{split}2014/{name}'), data)
      images.append(
        {
          'id': image_id,
          'file_name': name,
          'width': scenes.WIDTH,
          'height': scenes.HEIGHT,
        }
      )
      for number, caption in enumerate(captions):
        annotations.append(
          {
            'id': image_id * scenes.CAPTIONS_PER_SCENE + number,
            'image_id': image_id,
            'caption': caption,
          }
        )
      progress.update(1)
  return {'images': images, 'annotations': annotations}


def _member(name: str) -> zipfile.ZipInfo:
  """Returns a member of an archive without a time.

  So equal images give equal archives.
  """
  return zipfile.ZipInfo(name)


def _write_sums(folder: str) -> None:
  """Writes the checksums of a folder's archives in the format of sha256sum."""
  lines = []
  for name in sorted(os.listdir(folder)):
    if name.endswith('.zip'):
      lines.append(f'{files.sha256(os.path.join(folder, name))}  {name}\n')
  with files.replacing(os.path.join(folder, _SUMS)) as temporary:
    with open(temporary, 'w', encoding='utf-8') as f:
      f.writelines(lines)


def _read_json(path: str) -> Any:
  """Returns the value in a JSON file, None if there is none."""
  try:
    return files.read_json(path)
  except (OSError, ValueError):
    return None
