# SPDX-License-Identifier: Apache-2.0
r"""Makes sharded TFRecords and a vocabulary of your own captioned images.

Captions come in the formats that `caption_files` reads: COCO's JSON of any
year, Flickr8k's and Flickr30k's files, Karpathy's dataset_*.json, CSV and
JSONL. Images are assigned to the splits train, val and test in one of three
ways:

  by a captions file per split:
    --train_captions_file=captions_train2017.json \
    --val_captions_file=captions_val2017.json
  by lists of image names:
    --captions_file=Flickr8k.token.txt \
    --train_list=Flickr_8k.trainImages.txt \
    --val_list=Flickr_8k.devImages.txt
  by the captions file itself:
    --captions_file=dataset_flickr8k.json

The first line of a CSV file names the columns, and each other line is a
caption. Each line of a JSONL file is an object. The columns or keys are:

  file      name of the image in --image_dir; or image, file_name, filename
  caption   in quotes if it has a comma; in JSONL it may be a list
  split     train, val or test; not needed with lists or a file per split
  image_id  a number, if the images have one

  file,caption,split
  1.jpg,"A red kite, high above the beach.",train

The output is that of build_mscoco_data: shards of the splits, and the
vocabulary. By default the number of shards depends on the amount of data: 256
for a training set of MSCOCO's size, one for a hundred photos. Beside the shards
are the captions of each split in COCO's format: train_annotations.json and so
on. They tell the file of each image_id, and `score` reads them. If a run is
interrupted, the same command resumes it.

Use --tokenizer for captions in languages other than English, and
--extend_vocab_file for a model that will learn more words.
"""

import collections
from collections.abc import Sequence
import os
from typing import Any

from absl import flags

from im2txt.data import build as build_lib
from im2txt.data import build_options
from im2txt.data import caption_files
from im2txt.runtime import files
from im2txt.runtime import flag_dataclasses
from im2txt.runtime import program
from im2txt.runtime.progress import log

FLAGS = flags.FLAGS


def define_flags() -> None:
  flags.DEFINE_string(
    'captions_file',
    '',
    'Comma-separated captions files. Images are assigned to splits by the '
    "--*_list flags or by the files' own split field.",
  )
  flags.DEFINE_string(
    'image_dir',
    '',
    'Directory of the images that the captions files name, or a .zip file '
    'of it.',
  )
  flag_dataclasses.define_flags(build_options.BuildOptions)
  for split in caption_files.SPLITS:
    flags.DEFINE_string(
      f'{split}_captions_file',
      '',
      f'Captions file of the {split} split, instead of --captions_file.',
    )
    flags.DEFINE_string(
      f'{split}_list',
      '',
      f'File of the image names of the {split} split, one per line, for '
      '--captions_file. Images that are in no list are left out.',
    )
    flags.DEFINE_string(
      f'{split}_image_dir',
      '',
      f'Directory of the images of the {split} split, if not --image_dir.',
    )
    FLAGS[
      f'{split}_shards'
    ].help += ' By default there are fewer for a small split.'
  FLAGS.set_default('output_dir', '')
  # The default is in output_dir, see `build`.
  FLAGS.set_default('word_counts_output_file', '')


def _of_splits(name: str) -> dict[str, str]:
  """Returns the values of the flags --{split}_{name} given, by split."""
  values = {
    split: getattr(FLAGS, f'{split}_{name}') for split in caption_files.SPLITS
  }
  return {split: value for split, value in values.items() if value}


def _input_files() -> list[tuple[str | None, str, str]]:
  """Returns (split or None, flag, path) of each captions file."""
  if FLAGS.captions_file:
    return [
      (None, '--captions_file', path)
      for path in files.split_names(FLAGS.captions_file)
    ]
  return [
    (split, f'--{split}_captions_file', path)
    for split, path in _of_splits('captions_file').items()
  ]


def load_parts() -> dict[str, list[caption_files.Entry]]:
  """Returns the entries of each split, with image ids.

  Raises:
    ValueError: flags or files do not fit each other.
  """
  lists = _of_splits('list')
  if bool(FLAGS.captions_file) == bool(_of_splits('captions_file')):
    raise ValueError(
      'give either --captions_file or --train_captions_file '
      'and --val_captions_file'
    )
  if lists and not FLAGS.captions_file:
    raise ValueError(
      f'--{min(lists)}_list needs --captions_file: leave it out for captions '
      'files of one split each'
    )
  splits: list[str | None] = []
  entries: list[caption_files.Entry] = []
  for split, flag, path in _input_files():
    found = caption_files.read(path, flag)
    log(f'Loaded captions of {len(found)} images from {path}')
    splits += [split] * len(found)
    entries += found
  entries = caption_files.numbered(entries)
  if not FLAGS.captions_file:
    return {
      name: [entry for split, entry in zip(splits, entries) if split == name]
      for name in caption_files.SPLITS
    }
  if not lists:
    return caption_files.split_by_field(entries, FLAGS.captions_file)
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


def _image_dir(split: str) -> str:
  return getattr(FLAGS, f'{split}_image_dir') or FLAGS.image_dir


def _num_shards(
  split: str,
  images: Sequence[build_lib.Image],
  options: build_options.BuildOptions,
) -> int:
  """Returns --{split}_shards if it was given, or a number for these images."""
  default = getattr(options, f'{split}_shards')
  if FLAGS[f'{split}_shards'].present:
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
  options: build_options.BuildOptions,
) -> tuple[list[build_lib.Dataset], list[Any]]:
  """Returns (the data sets; `stat_images` of all their images).

  Args:
    options: layout and number of shards.

  Raises:
    ValueError: there is no image to train on, or an image is missing.
  """
  datasets, stats = [], []
  for split, entries in load_parts().items():
    directory = _image_dir(split)
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
    datasets.append(
      build_lib.Dataset(split, images, _num_shards(split, images, options))
    )
  counts = collections.Counter(path for _, path, _, _ in stats)
  twice = [path for path, count in counts.items() if count > 1]
  if twice:
    raise ValueError(
      f'{len(twice)} images are there more than once: '
      f'{caption_files.first(twice)}: give each to one split, with one id'
    )
  return datasets, stats


def annotations_path(
  dataset: build_lib.Dataset, options: build_options.BuildOptions
) -> str:
  return os.path.join(options.output_dir, f'{dataset.name}_annotations.json')


def write_annotations(
  dataset: build_lib.Dataset, options: build_options.BuildOptions
) -> None:
  """Writes the captions of a data set to a COCO captions file."""
  content = {
    'images': [
      {
        'id': image.image_id,
        'file_name': os.path.relpath(image.path, _image_dir(dataset.name)),
      }
      for image in dataset.images
    ],
    'annotations': [
      {'id': number, 'image_id': image_id, 'caption': caption}
      for number, (image_id, caption) in enumerate(
        (
          (image.image_id, caption)
          for image in dataset.images
          for caption in image.captions
        ),
        start=1,
      )
    ],
  }
  files.write_json(annotations_path(dataset, options), content, indent=None)


def build() -> None:
  """Builds the shards and the vocabulary."""
  program.require(FLAGS, 'output_dir')
  FLAGS.set_default(
    'word_counts_output_file', os.path.join(FLAGS.output_dir, 'word_counts.txt')
  )
  options = flag_dataclasses.from_flags(FLAGS, build_options.BuildOptions)
  build_options.check_options(options)
  datasets, stats = load_datasets(options)
  for _, flag, path in _input_files():
    if os.path.abspath(path) in [
      os.path.abspath(annotations_path(d, options)) for d in datasets
    ]:
      raise ValueError(
        f'{flag}={path} would be overwritten: give another --output_dir'
      )
  build_lib.build_datasets(datasets, stats, options)
  for dataset in datasets:
    write_annotations(dataset, options)


def main(_: Sequence[str]) -> None:
  program.run_resumable(build)


if __name__ == '__main__':
  program.run(main, define_flags)
