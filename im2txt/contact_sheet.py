# SPDX-License-Identifier: Apache-2.0
"""Draws pictures with their captions on one sheet, a PNG file.

  contact_sheet --annotations_file=captions_val2014.json \
      --image_dir=val2014 --results_file=results.json --output_file=sheet.png

The captions are a COCO results file, which `score --results_output` writes:
[{"image_id": 42, "caption": "a man"}, ...]. Under each picture stands its
caption, and in grey one that a human wrote. A caption that a human wrote too,
word for word, is green; how many are is printed.
"""

import os

from absl import flags

from im2txt import caption_sheet
from im2txt import program
from im2txt.data import caption_files
from im2txt.data import pictures
from im2txt.files import replacing

FLAGS = flags.FLAGS

flags.DEFINE_string(
    'annotations_file', '', 'COCO captions JSON file of the pictures.')
flags.DEFINE_string(
    'image_dir', '', 'Directory of the pictures, or a .zip file of it.')
flags.DEFINE_string(
    'results_file', '', 'COCO results JSON file, the captions to show.')
flags.DEFINE_string('output_file', '', 'PNG file to write.')
flags.DEFINE_integer(
    'num_images', 24, 'Pictures on the sheet, evenly from the whole file.')
flags.DEFINE_integer('columns', 6, 'Pictures side by side.')


def find_pictures(entries, results, image_dir):
  """Puts captions, human captions and files together.

  Args:
    entries: list of `caption_files.Entry`.
    results: dict, image id -> caption.
    image_dir: directory of the files, or a .zip file of it.

  Returns:
    List of (path, caption, list of human captions), in the order of results.

  Raises:
    ValueError: the results are of other pictures.
  """
  known = {entry.image_id: entry for entry in entries}
  strangers = [image_id for image_id in results if image_id not in known]
  if strangers:
    raise ValueError(
        f'--results_file={FLAGS.results_file} is not of the pictures of '
        f'--annotations_file={FLAGS.annotations_file}: that has no image '
        + caption_files.first(strangers))
  return [(os.path.join(image_dir, known[image_id].file_name), caption,
           known[image_id].captions) for image_id, caption in results.items()]


def main(_):
  program.require(
      FLAGS, 'annotations_file', 'image_dir', 'results_file', 'output_file')
  for name in ('num_images', 'columns'):
    if FLAGS[name].value < 1:
      raise ValueError(f'--{name}={FLAGS[name].value} should be 1 or more')
  program.require_output_directories(FLAGS, 'output_file')
  pictures.stats(FLAGS.image_dir, '--image_dir')  # Is there such a thing?
  found = find_pictures(
      caption_files.read_coco(FLAGS.annotations_file, '--annotations_file'),
      caption_files.read_results(FLAGS.results_file, '--results_file'),
      FLAGS.image_dir)
  count = min(FLAGS.num_images, len(found))
  shown = []
  for path, caption, humans in (
      found[i * len(found) // count] for i in range(count)):
    try:
      shown.append(caption_sheet.CaptionedPicture(
          path, pictures.read(path), caption, humans))
    except OSError as error:
      raise ValueError(
          f'cannot read the picture {path} ({error}): give --image_dir the '
          'directory of the pictures, or a .zip file of it') from error
  png = caption_sheet.draw(shown, min(FLAGS.columns, count), num_humans=1)
  with replacing(FLAGS.output_file) as temporary:
    with open(temporary, 'wb') as f:
      f.write(png)
  same = sum(caption_sheet.is_human(caption, humans)
             for _, caption, humans in found)
  print(f'{same} of {len(found)} captions are one of the human captions of '
        f'their picture, word for word.\n'
        f'{count} pictures with their captions: {FLAGS.output_file}')


if __name__ == '__main__':
  program.run(main)
