# SPDX-License-Identifier: Apache-2.0
"""Tests of sample_dataset."""

import hashlib
import io
import json
import sys
import zipfile

from PIL import Image
import pytest

from im2txt.sample import dataset
from im2txt.sample import scenes

_COUNTS = {'train': 4, 'val': 3}


@pytest.fixture(scope='module', name='made')
def fixture_made(tmp_path_factory):
  path = tmp_path_factory.mktemp('sample')
  assert dataset.write(str(path), _COUNTS, num_workers=1)
  return path


def test_archives_are_laid_out_as_those_of_mscoco(made):
  with zipfile.ZipFile(
    made / 'annotations' / 'annotations_trainval2014.zip'
  ) as archive:
    captions = {
      split: json.loads(archive.read(f'annotations/captions_{split}2014.json'))
      for split in _COUNTS
    }
  seen = set()
  for split, count in _COUNTS.items():
    images = captions[split]['images']
    ids = [image['id'] for image in images]
    assert len(ids) == count and not seen & set(ids)
    seen.update(ids)
    with zipfile.ZipFile(made / 'zips' / f'{split}2014.zip') as archive:
      assert archive.namelist() == [
        f'{split}2014/{image["file_name"]}' for image in images
      ]
      for image in images:
        data = archive.read(f'{split}2014/{image["file_name"]}')
        with Image.open(io.BytesIO(data)) as painted:
          assert painted.format == 'JPEG'
          assert painted.size == (image['width'], image['height'])
    owners = [a['image_id'] for a in captions[split]['annotations']]
    assert owners == [i for i in ids for _ in range(scenes.CAPTIONS_PER_SCENE)]
  annotation_ids = [
    a['id'] for c in captions.values() for a in c['annotations']
  ]
  assert len(set(annotation_ids)) == len(annotation_ids)


def test_checksums_are_true(made):
  names = []
  for folder in ('zips', 'annotations'):
    for line in (made / folder / 'SHA256SUMS').read_text().splitlines():
      digest, name = line.split()
      data = (made / folder / name).read_bytes()
      assert hashlib.sha256(data).hexdigest() == digest
      names.append(name)
  assert sorted(names) == [
    'annotations_trainval2014.zip',
    'train2014.zip',
    'val2014.zip',
  ]


def test_is_made_once_and_anew_when_asked_for_other_images(made, tmp_path):
  assert not dataset.write(str(made), _COUNTS)
  for seed in (1, 2):
    assert dataset.write(str(tmp_path), _COUNTS, seed, num_workers=1)
    # Bytes of images, not of archives, which hold times.
    with (
      zipfile.ZipFile(made / 'zips' / 'val2014.zip') as first,
      zipfile.ZipFile(tmp_path / 'zips' / 'val2014.zip') as second,
    ):
      (name,) = set(first.namelist()[:1]) & set(second.namelist())
      assert (first.read(name) == second.read(name)) == (seed == 1)
    for name in ('zips/train2014.zip', 'annotations/SHA256SUMS'):
      assert ((made / name).read_bytes() == (tmp_path / name).read_bytes()) == (
        seed == 1
      )


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
