# SPDX-License-Identifier: Apache-2.0
r"""Makes the sharded TFRecords and the vocabulary of any captioned pictures.

Captions come in the formats that `caption_files` reads: COCO's JSON of any
year, Flickr8k's and Flickr30k's files, Karpathy's dataset_*.json, CSV and
JSONL. Which picture is to train on and which to validate on is said in one of
three ways:

  by a file for each:
    --train_captions_file=captions_train2017.json \
    --val_captions_file=captions_val2017.json
  by lists of picture names:
    --captions_file=Flickr8k.token.txt \
    --train_list=Flickr_8k.trainImages.txt \
    --val_list=Flickr_8k.devImages.txt
  by the file itself:
    --captions_file=dataset_flickr8k.json

CSV has a line per caption after a first line that names the columns; JSONL has
an object with these keys per line:

  file      name of the image in --image_dir; or image, file_name, filename
  caption   in quotes if it has a comma; in JSONL perhaps a list
  split     train, val or test; not needed with lists or a file for each
  image_id  a number, if the images have one

  file,caption,split
  1.jpg,"A red kite, high above the beach.",train

The output is that of build_mscoco_data: the shards of the parts that there are,
and the vocabulary. The number of shards suits the data (256 of a training set
of MSCOCO's size, one of a hundred photos) unless it is given. Beside them the
captions of each part, train_annotations.json and so on, in COCO's format: they
tell which file an image_id is, and `score` takes them. An interrupted run goes
on where it stopped when it is started again.

--tokenizer is for captions in other languages than English, and
--extend_vocab_file for a model that is to learn more words.
"""

import collections
import os

from absl import flags

from im2txt.data import build as build_lib
from im2txt.data import build_options
from im2txt.data import caption_files
from im2txt.runtime import files
from im2txt.runtime import flag_dataclasses
from im2txt.runtime import program
from im2txt.runtime.progress import log

FLAGS = flags.FLAGS


def define_flags():
  flags.DEFINE_string(
    'captions_file',
    '',
    'Comma-separated captions files. Images are assigned to splits by the '
    "--*_list flags or by the files' own split field.",
  )
  flags.DEFINE_string(
    'image_dir',
    '',
    'Directory of the pictures that the captions files name, or a .zip file '
    'of it.',
  )
  flag_dataclasses.define_flags(build_options.BuildOptions)
  for split in caption_files.SPLITS:
    flags.DEFINE_string(
      f'{split}_captions_file',
      '',
      f'Captions file of the {split} part alone, in the place of '
      '--captions_file.',
    )
    flags.DEFINE_string(
      f'{split}_list',
      '',
      f'File of the image names of the {split} part, one per line, for '
      '--captions_file; images in no list are left out.',
    )
    flags.DEFINE_string(
      f'{split}_image_dir',
      '',
      f'Directory of the images of the {split} part, if not --image_dir.',
    )
    FLAGS[
      f'{split}_shards'
    ].help += ' Fewer for a small one, unless this is given.'
  FLAGS.set_default('output_dir', '')
  # In output_dir unless given.
  FLAGS.set_default('word_counts_output_file', '')


def _of_splits(name):
  """Returns {split: value} of the flags --{split}_{name} that were given."""
  values = {
    split: getattr(FLAGS, f'{split}_{name}') for split in caption_files.SPLITS
  }
  return {split: value for split, value in values.items() if value}


def _input_files():
  """Returns (split or None, flag, path) of the captions files."""
  if FLAGS.captions_file:
    return [
      (None, '--captions_file', path)
      for path in files.split_names(FLAGS.captions_file)
    ]
  return [
    (split, f'--{split}_captions_file', path)
    for split, path in _of_splits('captions_file').items()
  ]


def load_parts():
  """Returns {split: list of Entry with ids} as the flags say.

  Raises:
    ValueError: the flags do not go together, or the files not with them.
  """
  lists = _of_splits('list')
  if bool(FLAGS.captions_file) == bool(_of_splits('captions_file')):
    raise ValueError(
      'give either --captions_file or --train_captions_file '
      'and --val_captions_file'
    )
  if lists and not FLAGS.captions_file:
    raise ValueError(
      f'--{min(lists)}_list is for --captions_file: a captions '
      'file of one part needs no list'
    )
  splits, entries = [], []
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
    log(f'{left} images are in none of the lists: left out.')
  return parts


def _image_dir(split):
  return getattr(FLAGS, f'{split}_image_dir') or FLAGS.image_dir


def _num_shards(split, images, options):
  """Returns the flag --{split}_shards, or what suits the images."""
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
    f'The {split} part goes into {number} shard(s), '
    f'{split}-?????-of-{number:05d}, as --{split}_shards is not given.'
  )
  return number


def load_datasets(options):
  """Returns (list of Dataset, their `stat_images`) as the flags say.

  Args:
    options: build_options.BuildOptions.

  Raises:
    ValueError: there is nothing to train on, or a picture is missing.
  """
  datasets, stats = [], []
  for split, entries in load_parts().items():
    directory = _image_dir(split)
    images = build_lib.captioned(entries, directory, f'the {split} part')
    if not images:
      if split == 'train':
        raise ValueError('no image is in the train part')
      continue
    if not directory:
      raise ValueError(
        f'give --image_dir or --{split}_image_dir, the '
        'directory of the pictures'
      )
    stats += build_lib.stat_images(split, images, directory)
    datasets.append(
      build_lib.Dataset(split, images, _num_shards(split, images, options))
    )
  counts = collections.Counter(path for _, path, _, _ in stats)
  twice = [path for path, count in counts.items() if count > 1]
  if twice:
    raise ValueError(
      f'{len(twice)} pictures are there more than once: '
      f'{caption_files.first(twice)}. Give each to one part, '
      'under one id.'
    )
  return datasets, stats


def annotations_path(dataset, options):
  return os.path.join(options.output_dir, f'{dataset.name}_annotations.json')


def write_annotations(dataset, options):
  """Writes the captions of a data set as a COCO captions file."""
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


def build():
  """Builds what the flags say."""
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
        f'{flag}={path} would be written over: give another --output_dir'
      )
  build_lib.build_datasets(datasets, stats, options)
  for dataset in datasets:
    write_annotations(dataset, options)


def main(_):
  program.run_resumable(build)


if __name__ == '__main__':
  program.run(main, define_flags)
