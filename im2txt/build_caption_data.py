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

from collections.abc import Sequence
import os

from absl import flags

from im2txt.data import build_options
from im2txt.data import caption_files
from im2txt.data import caption_sources
from im2txt.runtime import flag_dataclasses
from im2txt.runtime import program
from im2txt.text import vocabulary

FLAGS = flags.FLAGS


def define_flags() -> None:
  flag_dataclasses.define_flags(caption_sources.CaptionSources)
  flag_dataclasses.define_flags(build_options.BuildOptions)
  for split in caption_files.SPLITS:
    FLAGS[
      f'{split}_shards'
    ].help += ' By default there are fewer for a small split.'
  FLAGS.set_default('output_dir', '')
  # The default is in output_dir, see `build`.
  FLAGS.set_default('word_counts_output_file', '')


def build() -> None:
  """Builds the shards and the vocabulary."""
  program.require(FLAGS, 'output_dir')
  FLAGS.set_default(
    'word_counts_output_file',
    os.path.join(FLAGS.output_dir, vocabulary.FILE_NAME),
  )
  caption_sources.build(
    flag_dataclasses.from_flags(FLAGS, caption_sources.CaptionSources),
    flag_dataclasses.from_flags(FLAGS, build_options.BuildOptions),
    [s for s in caption_files.SPLITS if FLAGS[f'{s}_shards'].present],
  )


def main(_: Sequence[str]) -> None:
  program.run_resumable(build)


if __name__ == '__main__':
  program.run(main, define_flags)
