# SPDX-License-Identifier: Apache-2.0
"""Builds MSCOCO: its captions and images, split as in 2016."""

import collections
import dataclasses

from im2txt.data import build as build_lib
from im2txt.data import build_options
from im2txt.data import caption_files
from im2txt.runtime.flag_dataclasses import field
from im2txt.runtime.progress import log


@dataclasses.dataclass(frozen=True)
class Options(build_options.BuildOptions):
  """Options of a build of MSCOCO: the flags of build_mscoco_data."""

  train_image_dir: str = field(
    '/tmp/train2014/',
    'Directory of the training images, or a .zip file of them.',
  )
  val_image_dir: str = field(
    '/tmp/val2014',
    'Directory of the validation images, or a .zip file of them.',
  )
  train_captions_file: str = field(
    '/tmp/captions_train2014.json', 'JSON file of the training captions.'
  )
  val_captions_file: str = field(
    '/tmp/captions_val2014.json', 'JSON file of the validation captions.'
  )


def build(options: Options) -> None:
  """Builds the three data sets and the vocabulary.

  An interrupted build goes on where it stopped. Images that cannot be decoded
  are left out, named and counted.

  Raises:
    ValueError: the options or the input cannot be used; nothing was written.
    OSError: reading or writing failed.
  """
  build_options.check_options(options)
  train = load_images(
    'train', options.train_captions_file, options.train_image_dir
  )
  val = load_images('val', options.val_captions_file, options.val_image_dir)
  ids = collections.Counter(image.image_id for image in train + val)
  twice = [image_id for image_id, count in ids.items() if count > 1]
  if twice:
    raise ValueError(
      f'--val_captions_file={options.val_captions_file} has {len(twice)} '
      f'image id(s) of --train_captions_file={options.train_captions_file}, '
      f'such as {twice[0]}: give each image an id of its own, because images '
      'with the same id count as one'
    )
  stats = build_lib.stat_images(
    'train', train, options.train_image_dir
  ) + build_lib.stat_images('val', val, options.val_image_dir)
  build_lib.build_datasets(split_datasets(train, val, options), stats, options)


def load_images(
  split_name: str, captions_file: str, image_dir: str
) -> list[build_lib.Image[str]]:
  """Returns the images of a COCO captions file that have captions, in order.

  Args:
    split_name: 'train' or 'val', to name the flags in messages.
    captions_file: path of a JSON file with `images` (`id`, `file_name`) and
      `annotations` (`image_id`, `caption`).
    image_dir: directory of the images, or a .zip file of them.

  Raises:
    ValueError: the file is not a COCO captions file, or has captions of an
      image that it does not list.
  """
  entries = caption_files.read_coco(
    captions_file, f'--{split_name}_captions_file'
  )
  images = build_lib.captioned(entries, image_dir, captions_file)
  log(f'Loaded captions of {len(images)} images from {captions_file}')
  return images


def split_datasets(
  train: list[build_lib.Image[str]],
  val: list[build_lib.Image[str]],
  options: Options,
) -> list[build_lib.Dataset[str]]:
  """Returns the data sets train, val and test.

  Train is COCO's training set and the first 85 % of its validation set, val is
  the next 5 %, and test the last 10 %.

  Args:
    train: images of COCO's training set.
    val: images of COCO's validation set.
    options: for the numbers of shards.
  """
  train_end = int(0.85 * len(val))
  val_end = int(0.90 * len(val))
  return [
    build_lib.Dataset(name, images, getattr(options, f'{name}_shards'))
    for name, images in (
      ('train', train + val[:train_end]),
      ('val', val[train_end:val_end]),
      ('test', val[val_end:]),
    )
  ]
