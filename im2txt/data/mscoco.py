# SPDX-License-Identifier: Apache-2.0
"""MSCOCO's captions and images, split as in 2016, and built."""

import collections
import dataclasses

from im2txt.data import build as build_lib
from im2txt.data import build_options
from im2txt.data import caption_files
from im2txt.runtime.flag_dataclasses import field
from im2txt.runtime.progress import log


@dataclasses.dataclass(frozen=True)
class Options(build_options.BuildOptions):
  """What to build of MSCOCO; the fields are the flags of build_mscoco_data."""

  train_image_dir: str = field(
    '/tmp/train2014/',
    'Directory of the training pictures, or a .zip file of it.',
  )
  val_image_dir: str = field(
    '/tmp/val2014',
    'Directory of the validation pictures, or a .zip file of it.',
  )
  train_captions_file: str = field(
    '/tmp/captions_train2014.json', 'JSON file of the training captions.'
  )
  val_captions_file: str = field(
    '/tmp/captions_val2014.json', 'JSON file of the validation captions.'
  )


def build(options):
  """Builds the three data sets and the vocabulary.

  A build that was interrupted goes on where it stopped. Pictures that cannot
  be decoded are left out, named and counted.

  Args:
    options: Options.

  Raises:
    ValueError: the options or the input cannot be used; nothing was done.
    OSError: reading or writing failed on the way.
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
      f'such as {twice[0]}: give each image an id of its own, as images of '
      'one id are taken for the same'
    )
  stats = build_lib.stat_images(
    'train', train, options.train_image_dir
  ) + build_lib.stat_images('val', val, options.val_image_dir)
  build_lib.build_datasets(split(train, val, options), stats, options)


def load_images(split_name, captions_file, image_dir):
  """Returns the pictures that a COCO captions file describes, in its order.

  Args:
    split_name: 'train' or 'val', to name the flags in messages.
    captions_file: path of a JSON file with `images` (`id`, `file_name`) and
      `annotations` (`image_id`, `caption`).
    image_dir: directory of the pictures, or a .zip file of it.

  Returns:
    List of Image. Pictures without a caption are not in it.

  Raises:
    ValueError: the file is no such file, or describes a picture it has not.
  """
  entries = caption_files.read_coco(
    captions_file, f'--{split_name}_captions_file'
  )
  images = build_lib.captioned(entries, image_dir, captions_file)
  log(f'Loaded captions of {len(images)} images from {captions_file}')
  return images


def split(train, val, options):
  """Returns the Datasets train, val and test.

  Train is COCO's train and the first 85 % of its val pictures, val the next
  5 %, test the last 10 %.

  Args:
    train: list of Image.
    val: list of Image.
    options: Options.
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
