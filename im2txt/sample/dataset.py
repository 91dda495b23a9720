# SPDX-License-Identifier: Apache-2.0
"""The sample data set: rendered scenes in the archives that MSCOCO comes in.

  zips/train2014.zip                        train2014/COCO_train2014_*.jpg
  zips/val2014.zip                          val2014/COCO_val2014_*.jpg
  annotations/annotations_trainval2014.zip  annotations/captions_*2014.json

and a SHA256SUMS in both folders. A server (or a file:// URL) of this directory
is a MSCOCO server to download_and_preprocess_mscoco.
"""

import io
import itertools
import json
import os
import random
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


def write(directory, num_images, seed=1, num_workers=0):
  """Writes the three archives and their checksums, unless they are there.

  Args:
    directory: str, made if missing.
    num_images: dict from 'train' and 'val' to the number of pictures.
    seed: int; equal ones give equal pictures and captions.
    num_workers: int, processes that paint; 0 for one per core.

  Returns:
    Whether anything was written.

  Raises:
    ValueError: another program makes it.
    OSError: the directory cannot be written, or a process was killed.
  """
  os.makedirs(directory, exist_ok=True)
  with locks.hold(directory, 'build'):
    return _write(directory, num_images, seed, num_workers)


def _write(directory, num_images, seed, num_workers):
  """Does what `write` says, with the lock held."""
  made_of = {'num_images': num_images, 'seed': seed}
  stamp = os.path.join(directory, 'made_of.json')
  if _read_json(stamp) == made_of:
    return False
  for folder in ('zips', 'annotations'):
    os.makedirs(os.path.join(directory, folder), exist_ok=True)
  start_id = 1
  captions = {}
  with (
    workers_lib.Workers(num_workers) as workers,
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


def _make_all(seed, image_ids):
  """Returns what `_make` does for each id, a list."""
  return [_make(seed, image_id) for image_id in image_ids]


def _make(seed, image_id):
  """Returns the bytes of a JPEG and its captions, those of this id."""
  rng = random.Random(f'{seed} {image_id}')
  scene = scenes.make_scene(rng)
  out = io.BytesIO()
  scenes.render(scene, rng).save(out, 'JPEG', quality=_JPEG_QUALITY)
  return out.getvalue(), scenes.describe(scene, rng)


def _write_images(path, split, made, progress):
  """Writes one archive of pictures; returns its captions as COCO has them."""
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


def _member(name):
  """Returns a member of an archive without the time when it was made.

  So equal pictures give equal archives.
  """
  return zipfile.ZipInfo(name)


def _write_sums(folder):
  """Writes the checksums of a folder's archives, as sha256sum does."""
  lines = []
  for name in sorted(os.listdir(folder)):
    if name.endswith('.zip'):
      lines.append(f'{files.sha256(os.path.join(folder, name))}  {name}\n')
  with files.replacing(os.path.join(folder, _SUMS)) as temporary:
    with open(temporary, 'w', encoding='utf-8') as f:
      f.writelines(lines)


def _read_json(path):
  try:
    return files.read_json(path)
  except (OSError, ValueError):
    return None
