# SPDX-License-Identifier: Apache-2.0
"""Draws pictures with their captions on one sheet, a PNG file.

  contact_sheet --annotations_file=captions_val2014.json \
      --image_dir=val2014 --results_file=results.json --output_file=sheet.png

The captions are a COCO results file, which `score --results_output` writes:
[{"image_id": 42, "caption": "a man"}, ...]. Under each picture stands its
caption, and in grey one that a human wrote. A caption that a human wrote too,
word for word, is green; how many are is printed.
"""

import json
import os
import re
import textwrap

from absl import flags

from im2txt import program

FLAGS = flags.FLAGS

flags.DEFINE_string(
    'annotations_file', '', 'COCO captions JSON file of the pictures.')
flags.DEFINE_string('image_dir', '', 'Directory of the pictures.')
flags.DEFINE_string(
    'results_file', '', 'COCO results JSON file, the captions to show.')
flags.DEFINE_string('output_file', '', 'PNG file to write.')
flags.DEFINE_integer(
    'num_images', 24, 'Pictures on the sheet, evenly from the whole file.')
flags.DEFINE_integer('columns', 6, 'Pictures side by side.')

_LINE_LENGTH = 38


def read_json(flag, path):
  """Returns the content of a JSON file.

  Raises:
    ValueError: no such file, or not JSON.
  """
  try:
    with open(path, encoding='utf-8') as f:
      return json.load(f)
  except (OSError, ValueError) as error:
    raise ValueError(f'cannot read --{flag}={path}: {error}') from error


def plain(caption):
  """Returns the words of a caption, lower-cased, without punctuation."""
  return re.findall(r"[\w']+", caption.lower())


def pictures(annotations, results, image_dir):
  """Puts captions, human captions and files together.

  Args:
    annotations: a COCO captions file's content.
    results: a COCO results file's content.
    image_dir: directory of the files.

  Returns:
    List of (path, caption, list of human captions), in the order of results.

  Raises:
    ValueError: the contents are of another format or other pictures.
  """
  try:
    names = {image['id']: image['file_name'] for image in annotations['images']}
    humans = {image_id: [] for image_id in names}
    for annotation in annotations['annotations']:
      humans[annotation['image_id']].append(annotation['caption'])
    return [(os.path.join(image_dir, names[result['image_id']]),
             result['caption'], humans[result['image_id']])
            for result in results]
  except (KeyError, TypeError) as error:
    raise ValueError(
        f'--results_file={FLAGS.results_file} is not of the pictures of '
        f'--annotations_file={FLAGS.annotations_file}, or one of them is not '
        f'as in COCO ({type(error).__name__}: {error})') from error


def is_human(caption, humans):
  """Returns whether a human wrote the caption too, word for word."""
  return plain(caption) in [plain(human) for human in humans]


def draw(shown, columns, path):
  """Draws a contact sheet.

  Args:
    shown: list of (path, caption, list of human captions).
    columns: pictures side by side.
    path: PNG file to write.

  Raises:
    ValueError: a picture cannot be opened.
  """
  import matplotlib  # pylint: disable=g-import-not-at-top
  matplotlib.use('Agg')
  from matplotlib import pyplot  # pylint: disable=g-import-not-at-top
  from PIL import Image  # pylint: disable=g-import-not-at-top
  rows = -(-len(shown) // columns)
  figure, axes = pyplot.subplots(
      rows, columns, figsize=(2.6 * columns, 2.9 * rows), squeeze=False)
  for axis in axes.flat:
    axis.set_axis_off()
  for axis, (name, caption, humans) in zip(axes.flat, shown):
    try:
      with Image.open(name) as image:
        axis.imshow(image.convert('RGB'))
    except OSError as error:
      raise ValueError(
          f'cannot open the picture {name} ({error}): give --image_dir the '
          'directory of the pictures') from error
    lines = textwrap.wrap(caption, _LINE_LENGTH)
    axis.text(0, -0.04, '\n'.join(lines), transform=axis.transAxes, va='top',
              fontsize=8, parse_math=False,
              color='green' if is_human(caption, humans) else 'black')
    if humans:
      axis.text(0, -0.06 - 0.1 * len(lines),
                '\n'.join(textwrap.wrap(humans[0], _LINE_LENGTH)),
                transform=axis.transAxes, va='top', fontsize=8, color='grey',
                parse_math=False)
  figure.subplots_adjust(0.01, 0.07, 0.99, 0.99, hspace=0.5, wspace=0.05)
  figure.savefig(path + '.tmp', format='png', dpi=80, bbox_inches='tight')
  os.replace(path + '.tmp', path)


def main(_):
  program.require(
      FLAGS, 'annotations_file', 'image_dir', 'results_file', 'output_file')
  for name in ('num_images', 'columns'):
    if FLAGS[name].value < 1:
      raise ValueError(f'--{name}={FLAGS[name].value} should be 1 or more')
  found = pictures(read_json('annotations_file', FLAGS.annotations_file),
                   read_json('results_file', FLAGS.results_file),
                   FLAGS.image_dir)
  if not found:
    raise ValueError(f'--results_file={FLAGS.results_file} has no caption')
  count = min(FLAGS.num_images, len(found))
  draw([found[i * len(found) // count] for i in range(count)],
       min(FLAGS.columns, count), FLAGS.output_file)
  same = sum(is_human(caption, humans) for _, caption, humans in found)
  print(f'{same} of {len(found)} captions are one of the human captions of '
        f'their picture, word for word.\n'
        f'{count} pictures with their captions: {FLAGS.output_file}')


if __name__ == '__main__':
  program.run(main)
