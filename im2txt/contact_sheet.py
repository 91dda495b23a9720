# SPDX-License-Identifier: Apache-2.0
"""Draws images with their captions on one sheet, a PNG file.

  contact_sheet --annotations_file=captions_val2014.json \
      --image_dir=val2014 --results_file=results.json --output_file=sheet.png

The captions are a COCO results file, which `score --results_output` writes:
[{"image_id": 42, "caption": "a man"}, ...]. Under each image is its caption
and, in grey, one of its references. A caption that equals a reference is green.
The number of these is printed.

  contact_sheet --captions_file=captions.jsonl --output_file=sheet.png

This draws images without references. captions.jsonl is the output of
`run_inference --output_format=json`, and each image has its first caption.
"""

from collections.abc import Sequence

from absl import flags

from im2txt.data import caption_files
from im2txt.data import image_store
from im2txt.runtime import program
from im2txt.runtime.files import replacing
from im2txt.visualization import caption_sheet
from im2txt.visualization import captioned_files

FLAGS = flags.FLAGS


def define_flags() -> None:
  flags.DEFINE_string(
    'annotations_file', '', 'COCO captions JSON file of the images.'
  )
  flags.DEFINE_string(
    'image_dir', '', 'Directory of the images, or a .zip file of it.'
  )
  flags.DEFINE_string(
    'results_file', '', 'COCO results JSON file with the captions to show.'
  )
  flags.DEFINE_string(
    'captions_file',
    '',
    'Output of run_inference --output_format=json, instead of '
    '--annotations_file, --image_dir and --results_file. Its names of images '
    'are relative to the current directory.',
  )
  flags.DEFINE_string('output_file', '', 'PNG file to write.')
  flags.DEFINE_integer(
    'num_images',
    24,
    'Images on the sheet, taken evenly from the whole file.',
    lower_bound=1,
  )
  flags.DEFINE_integer('columns', 6, 'Images per row.', lower_bound=1)


def main(_: Sequence[str]) -> None:
  of_coco = ('annotations_file', 'image_dir', 'results_file')
  if FLAGS.captions_file:
    for name in of_coco:
      if FLAGS[name].value:
        raise ValueError(
          f'--captions_file={FLAGS.captions_file} cannot be used with '
          f'--{name}={FLAGS[name].value}: leave one out'
        )
    program.require(FLAGS, 'output_file')
  else:
    program.require(FLAGS, *of_coco, 'output_file')

  program.require_output_directories(FLAGS, 'output_file')
  if FLAGS.captions_file:
    found = captioned_files.read_captions(FLAGS.captions_file)
    remedy = (
      'run this in the directory where run_inference ran, or give '
      'run_inference full names'
    )
  else:
    # Raises if it is missing.
    image_store.stats(FLAGS.image_dir, '--image_dir')
    found = captioned_files.find_images(
      caption_files.read_coco(FLAGS.annotations_file, '--annotations_file'),
      caption_files.read_results(FLAGS.results_file, '--results_file'),
      FLAGS.image_dir,
    )
    remedy = (
      'give --image_dir the directory of the images, or a .zip file of it'
    )
  count = min(FLAGS.num_images, len(found))
  shown = captioned_files.open_images(found, count, remedy)
  png = caption_sheet.draw(shown, min(FLAGS.columns, count), num_references=1)
  with replacing(FLAGS.output_file) as temporary:
    with open(temporary, 'wb') as f:
      f.write(png)
  if not FLAGS.captions_file:
    same = sum(
      caption_sheet.is_reference(caption, references)
      for _, caption, references in found
    )
    print(f'{same} of {len(found)} captions equal a reference of their image.')
  print(f'{count} images with their captions: {FLAGS.output_file}')


if __name__ == '__main__':
  program.run(main, define_flags)
