# SPDX-License-Identifier: Apache-2.0
"""Data sets of a user's own captions: files in, splits with images out."""

import collections
from collections.abc import Collection
from collections.abc import Sequence
import dataclasses
import os
from typing import Any

from im2txt.data import build as build_lib
from im2txt.data import build_options
from im2txt.data import caption_files
from im2txt.runtime import files
from im2txt.runtime import storage
from im2txt.runtime.flag_dataclasses import field
from im2txt.runtime.progress import log


def _captions_file_field(split: str) -> str:
  return field(
    '', f'Captions file of the {split} split, instead of --captions_file.'
  )


def _list_field(split: str) -> str:
  return field(
    '',
    f'File of the image names of the {split} split, one per line, for '
    '--captions_file. Images that are in no list are left out.',
  )


def _image_dir_field(split: str) -> str:
  return field(
    '', f'Directory of the images of the {split} split, if not --image_dir.'
  )


@dataclasses.dataclass(frozen=True)
class CaptionSources:
  """Where captions, images and the assignment to splits come from.

  Each field is a flag of that name.
  """

  captions_file: str = field(
    '',
    'Comma-separated captions files. Images are assigned to splits by the '
    "--*_list flags or by the files' own split field.",
  )
  image_dir: str = field(
    '',
    'Directory of the images that the captions files name, or a .zip file '
    'of it.',
  )
  train_captions_file: str = _captions_file_field('train')
  train_list: str = _list_field('train')
  train_image_dir: str = _image_dir_field('train')
  val_captions_file: str = _captions_file_field('val')
  val_list: str = _list_field('val')
  val_image_dir: str = _image_dir_field('val')
  test_captions_file: str = _captions_file_field('test')
  test_list: str = _list_field('test')
  test_image_dir: str = _image_dir_field('test')

  def _of_splits(self, name: str) -> dict[str, str]:
    """Returns the fields {split}_{name} that are given, by split."""
    values = {
      split: getattr(self, f'{split}_{name}') for split in caption_files.SPLITS
    }
    return {split: value for split, value in values.items() if value}

  def image_dir_of(self, split: str) -> str:
    """Returns the directory of the images of 'train', 'val' or 'test'."""
    return getattr(self, f'{split}_image_dir') or self.image_dir

  def input_files(self) -> list[tuple[str | None, str, str]]:
    """Returns (split or None, flag, path) of each captions file."""
    if self.captions_file:
      return [
        (None, '--captions_file', path)
        for path in files.split_names(self.captions_file)
      ]
    return [
      (split, f'--{split}_captions_file', path)
      for split, path in self._of_splits('captions_file').items()
    ]

  def read(self) -> dict[str, list[caption_files.Entry]]:
    """Returns the entries of each split, with image ids.

    Raises:
      ValueError: fields or files do not fit each other.
    """
    lists = self._of_splits('list')
    if bool(self.captions_file) == bool(self._of_splits('captions_file')):
      raise ValueError(
        'give either --captions_file or --train_captions_file and '
        '--val_captions_file'
      )
    if lists and not self.captions_file:
      raise ValueError(
        f'--{min(lists)}_list needs --captions_file: leave it out for captions '
        'files of one split each'
      )
    splits: list[str | None] = []
    entries: list[caption_files.Entry] = []
    for split, flag, path in self.input_files():
      found = caption_files.read(path, flag)
      log(f'Loaded captions of {len(found)} images from {path}')
      splits += [split] * len(found)
      entries += found
    entries = caption_files.numbered(entries)
    if not self.captions_file:
      return {
        name: [entry for split, entry in zip(splits, entries) if split == name]
        for name in caption_files.SPLITS
      }
    if not lists:
      return caption_files.split_by_field(entries, self.captions_file)
    parts, left = caption_files.split_by_lists(
      entries,
      {
        split: (
          f'--{split}_list={path}',
          caption_files.read_list(path, f'--{split}_list'),
        )
        for split, path in lists.items()
      },
    )
    if left:
      log(f'{left} images are in none of the lists: left out')
    return parts


def _num_shards(
  split: str,
  images: Sequence[build_lib.Image],
  options: build_options.BuildOptions,
  is_given: bool,
) -> int:
  """Returns --{split}_shards if it was given, or a number for these images."""
  default = getattr(options, f'{split}_shards')
  if is_given:
    return default
  number = build_options.suitable_shards(
    len(images)
    if options.layout == 'compact'
    else sum(len(image.captions) for image in images),
    default,
    options,
  )
  log(
    f'The {split} split has {number} shard(s), '
    f'{split}-?????-of-{number:05d}: --{split}_shards is not given'
  )
  return number


def load_datasets(
  sources: CaptionSources,
  options: build_options.BuildOptions,
  given_shards: Collection[str],
) -> tuple[list[build_lib.Dataset], list[Any]]:
  """Reads the captions and finds the images.

  Args:
    sources: what to read.
    options: layout and number of shards.
    given_shards: splits whose number of shards is that of the options. The
      others get a number that suits their size.

  Returns:
    (the data sets; `build.stat_images` of all their images).

  Raises:
    ValueError: there is no image to train on, or an image is missing.
  """
  datasets, stats = [], []
  for split, entries in sources.read().items():
    directory = sources.image_dir_of(split)
    images = build_lib.captioned(entries, directory, f'the {split} split')
    if not images:
      if split == 'train':
        raise ValueError(
          'no image is in the train split: see the start of --help'
        )
      continue
    if not directory:
      raise ValueError(
        f'give --image_dir or --{split}_image_dir, the directory of the images'
      )
    stats += build_lib.stat_images(split, images, directory)
    number = _num_shards(split, images, options, split in given_shards)
    datasets.append(build_lib.Dataset(split, images, number))
  counts = collections.Counter(path for _, path, _, _ in stats)
  twice = [path for path, count in counts.items() if count > 1]
  if twice:
    raise ValueError(
      f'{len(twice)} images are there more than once: '
      f'{caption_files.first(twice)}: give each to one split, with one id'
    )
  return datasets, stats


def _annotations_path(
  dataset: build_lib.Dataset, options: build_options.BuildOptions
) -> str:
  return os.path.join(options.output_dir, f'{dataset.name}_annotations.json')


def _write_annotations(
  dataset: build_lib.Dataset,
  sources: CaptionSources,
  options: build_options.BuildOptions,
) -> None:
  """Writes the captions of a data set to a COCO captions file."""
  directory = sources.image_dir_of(dataset.name)
  pairs = [
    (image.image_id, caption)
    for image in dataset.images
    for caption in image.captions
  ]
  content = {
    'images': [
      {
        'id': image.image_id,
        'file_name': os.path.relpath(image.path, directory),
      }
      for image in dataset.images
    ],
    'annotations': [
      {'id': number, 'image_id': image_id, 'caption': caption}
      for number, (image_id, caption) in enumerate(pairs, start=1)
    ],
  }
  files.write_json(_annotations_path(dataset, options), content, indent=None)


def build(
  sources: CaptionSources,
  options: build_options.BuildOptions,
  given_shards: Collection[str] = (),
) -> None:
  """Builds shards, the vocabulary, and a COCO captions file per split.

  Args:
    sources: what to read.
    options: what to write.
    given_shards: see `load_datasets`.

  Raises:
    ValueError: the sources cannot be used, or would be overwritten.
    OSError: a file cannot be written.
  """
  build_options.check_options(options)
  datasets, stats = load_datasets(sources, options, given_shards)
  outputs = [storage.absolute(_annotations_path(d, options)) for d in datasets]
  for _, flag, path in sources.input_files():
    if storage.absolute(path) in outputs:
      raise ValueError(
        f'{flag}={path} would be overwritten: give another --output_dir'
      )
  build_lib.build_datasets(datasets, stats, options)
  for dataset in datasets:
    _write_annotations(dataset, sources, options)
