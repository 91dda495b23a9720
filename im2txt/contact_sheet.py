# SPDX-License-Identifier: Apache-2.0
"""Draws pictures with their captions on one sheet, a PNG file.

  contact_sheet --annotations_file=captions_val2014.json \
      --image_dir=val2014 --results_file=results.json --output_file=sheet.png

The captions are a COCO results file, which `score --results_output` writes:
[{"image_id": 42, "caption": "a man"}, ...]. Under each picture stands its
caption, and in grey one that a human wrote. A caption that a human wrote too,
word for word, is green; how many are is printed.

  contact_sheet --captions_file=captions.jsonl --output_file=sheet.png

Pictures that nobody has captioned, as `run_inference --output_format=json`
wrote them: each with the first of its captions.
"""

import json
import os

from absl import flags

from im2txt.data import caption_files
from im2txt.data import image_store
from im2txt.runtime import program
from im2txt.runtime.files import replacing
from im2txt.visualization import caption_sheet

FLAGS = flags.FLAGS


def define_flags():
  flags.DEFINE_string(
    'annotations_file', '', 'COCO captions JSON file of the pictures.'
  )
  flags.DEFINE_string(
    'image_dir', '', 'Directory of the pictures, or a .zip file of it.'
  )
  flags.DEFINE_string(
    'results_file', '', 'COCO results JSON file, the captions to show.'
  )
  flags.DEFINE_string(
    'captions_file',
    '',
    'What run_inference --output_format=json printed, in the place of '
    '--annotations_file, --image_dir and --results_file. Its names of '
    'pictures are relative to the current directory.',
  )
  flags.DEFINE_string('output_file', '', 'PNG file to write.')
  flags.DEFINE_integer(
    'num_images', 24, 'Pictures on the sheet, evenly from the whole file.'
  )
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
      + caption_files.first(strangers)
    )
  return [
    (
      os.path.join(image_dir, known[image_id].file_name),
      caption,
      known[image_id].captions,
    )
    for image_id, caption in results.items()
  ]


def read_captions(path):
  """Reads what `run_inference --output_format=json` prints.

  Args:
    path: path of the file.

  Returns:
    List of (path, caption, []) as of `find_pictures`, in the order of the file.

  Raises:
    ValueError: it is no such file, or has no picture.
  """
  try:
    # Editors on Windows put a mark at the start.
    with open(path, encoding='utf-8-sig') as f:
      found = []
      for line in filter(str.strip, f):
        picture = json.loads(line)
        found.append(
          (
            str(picture['image']),
            caption_files.whole_characters(
              str(picture['captions'][0]['caption'])
            ),
            [],
          )
        )
  except OSError as error:
    raise ValueError(
      f'cannot read --captions_file={path} ({error.strerror})'
    ) from error
  except (ValueError, TypeError, LookupError, RecursionError) as error:
    raise ValueError(
      f'--captions_file={path} is not what run_inference '
      f'--output_format=json prints ({type(error).__name__}: {error})'
    ) from error
  if not found:
    raise ValueError(f'--captions_file={path} has no caption')
  return found


def main(_):
  of_coco = ('annotations_file', 'image_dir', 'results_file')
  if FLAGS.captions_file:
    for name in of_coco:
      if FLAGS[name].value:
        raise ValueError(
          f'--captions_file={FLAGS.captions_file} and '
          f'--{name}={FLAGS[name].value} do not go together: '
          'leave one out'
        )
    program.require(FLAGS, 'output_file')
  else:
    program.require(FLAGS, *of_coco, 'output_file')
  for name in ('num_images', 'columns'):
    if FLAGS[name].value < 1:
      raise ValueError(f'--{name}={FLAGS[name].value} should be 1 or more')
  program.require_output_directories(FLAGS, 'output_file')
  if FLAGS.captions_file:
    found = read_captions(FLAGS.captions_file)
    remedy = 'start this where run_inference was started, or give it full names'
  else:
    image_store.stats(FLAGS.image_dir, '--image_dir')  # Is there such a thing?
    found = find_pictures(
      caption_files.read_coco(FLAGS.annotations_file, '--annotations_file'),
      caption_files.read_results(FLAGS.results_file, '--results_file'),
      FLAGS.image_dir,
    )
    remedy = (
      'give --image_dir the directory of the pictures, or a .zip file of it'
    )
  count = min(FLAGS.num_images, len(found))
  shown = []
  for path, caption, humans in (
    found[i * len(found) // count] for i in range(count)
  ):
    try:
      shown.append(
        caption_sheet.CaptionedImage(
          path, image_store.read(path), caption, humans
        )
      )
    except OSError as error:
      raise ValueError(
        f'cannot read the picture {path} ({error}): {remedy}'
      ) from error
  png = caption_sheet.draw(shown, min(FLAGS.columns, count), num_references=1)
  with replacing(FLAGS.output_file) as temporary:
    with open(temporary, 'wb') as f:
      f.write(png)
  if not FLAGS.captions_file:
    same = sum(
      caption_sheet.is_reference(caption, humans)
      for _, caption, humans in found
    )
    print(
      f'{same} of {len(found)} captions are one of the human captions of '
      'their picture, word for word.'
    )
  print(f'{count} pictures with their captions: {FLAGS.output_file}')


if __name__ == '__main__':
  program.run(main, define_flags)
