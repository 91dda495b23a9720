# SPDX-License-Identifier: Apache-2.0
"""The archives of MSCOCO 2014: where they are, and the space they need."""

from collections.abc import Sequence
import os
import shutil

from im2txt.data import download

PUBLIC_URL = 'http://images.cocodataset.org'

# Path, folder, bytes, MD5 and growth of the public archives.
_ARCHIVES = [
  (
    'annotations/annotations_trainval2014.zip',
    'annotations',
    252872794,
    '0a379cfc70b0e71301e0f377548639bd',
    3.5,
  ),
  (
    'zips/val2014.zip',
    'val2014',
    6645013297,
    'a3d79f5ed8d289b7a7554ce06a5782b3',
    1.1,
  ),
  (
    'zips/train2014.zip',
    'train2014',
    13510573713,
    '0da8c0bd3d6becc4dcb32757491aca88',
    1.1,
  ),
]

# In the layout `pairs` an image is in the shards once per caption.
_CAPTIONS_PER_IMAGE = 5


def find(
  base_url: str, raw_dir: str, unpack_images: bool
) -> list[download.Archive]:
  """Returns the archives, and asks the server about those to download.

  Args:
    base_url: --base_url, of the public server or another.
    raw_dir: directory of the archives.
    unpack_images: whether the images are unpacked.

  Raises:
    ValueError: it is no URL, or the server has no such archives.
  """
  base_url = base_url.rstrip('/')
  if not base_url.startswith(('http://', 'https://', 'file://')):
    raise ValueError(
      f'--base_url={base_url} must begin with http://, https:// or file://'
    )
  archives = []
  for path, folder, size, md5, growth in _ARCHIVES:
    archive = download.Archive(
      f'{base_url}/{path}',
      folder,
      growth=growth,
      unpack=folder == 'annotations' or unpack_images,
      flag='--base_url',
    )
    if base_url == PUBLIC_URL:
      archive = archive._replace(size=size, checksum=('md5', md5))
    elif not download.is_done(archive, raw_dir):
      here = os.path.join(raw_dir, archive.name)
      # An archive that has its name was checked.
      archive = (
        archive._replace(size=os.path.getsize(here))
        if os.path.exists(here)
        else download.look_up(archive)
      )
    archives.append(archive)
  return archives


def check_space(
  archives: Sequence[download.Archive],
  raw_dir: str,
  output_dir: str,
  layout: str,
) -> None:
  """Raises ValueError if there is too little space on the disk.

  Args:
    archives: to download.
    raw_dir: their directory.
    output_dir: that of the shards, which count too if they are on the same
      disk.
    layout: of the shards.
  """
  needed = sum(download.space_needed(archive, raw_dir) for archive in archives)
  os.makedirs(output_dir, exist_ok=True)
  if os.stat(output_dir).st_dev == os.stat(raw_dir).st_dev:
    copies = 1 if layout == 'compact' else _CAPTIONS_PER_IMAGE
    needed += copies * sum(
      archive.size or 0
      for archive in archives
      if archive.folder != 'annotations'
      and not download.is_done(archive, raw_dir)
    )
  free = shutil.disk_usage(raw_dir).free
  if needed > free:
    raise ValueError(
      f'{raw_dir} needs about {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB '
      'are free: make room or give another directory'
    )
