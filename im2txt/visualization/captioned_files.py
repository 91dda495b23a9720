# SPDX-License-Identifier: Apache-2.0
"""Captions with the files of their images, for a sheet."""

from collections.abc import Mapping
from collections.abc import Sequence
import json
import os
from typing import NamedTuple

from im2txt.data import caption_files
from im2txt.data import image_store
from im2txt.visualization import caption_sheet


class Captioned(NamedTuple):
  """An image and its captions.

  Attributes:
    path: of the image.
    caption: to show.
    references: may be empty.
  """

  path: str
  caption: str
  references: Sequence[str]


def find_images(
  entries: Sequence[caption_files.Entry],
  results: Mapping[int, str],
  image_dir: str,
) -> list[Captioned]:
  """Joins captions, references and files.

  Args:
    entries: images and their references.
    results: captions by image id.
    image_dir: directory of the files, or a .zip file of it.

  Returns:
    The images, in the order of the results.

  Raises:
    ValueError: the results have other images.
  """
  known = {entry.image_id: entry for entry in entries}
  unknown = [image_id for image_id in results if image_id not in known]
  if unknown:
    raise ValueError(
      '--results_file must be of the images of --annotations_file, which has '
      'no image ' + caption_files.first(unknown)
    )
  return [
    Captioned(
      os.path.join(image_dir, known[image_id].file_name),
      caption,
      known[image_id].captions,
    )
    for image_id, caption in results.items()
  ]


def read_captions(path: str) -> list[Captioned]:
  """Reads the output of `run_inference --output_format=json`.

  An --output_file of it that ends with .jsonl is read as well. The last line of
  an image counts. Images without captions and frames of videos are left out.

  Args:
    path: path of the file.

  Returns:
    The images, without references, in the order of the file.

  Raises:
    ValueError: the file has another format, or no image.
  """
  try:
    # Editors on Windows write a byte order mark.
    with open(path, encoding='utf-8-sig') as f:
      found: dict[str, Captioned] = {}
      for line in filter(str.strip, f):
        image = json.loads(line)
        name = str(image['image'])
        found.pop(name, None)
        for caption in image['captions'][:1]:
          text = caption_files.whole_characters(str(caption['caption']))
          if 'time' not in image:
            found[name] = Captioned(name, text, [])
  except OSError as error:
    raise ValueError(
      f'cannot read --captions_file={path} ({error.strerror})'
    ) from error
  except (ValueError, TypeError, LookupError, RecursionError) as error:
    raise ValueError(
      f'--captions_file={path} must be the output of run_inference '
      f'--output_format=json ({type(error).__name__}: {error})'
    ) from error
  if not found:
    raise ValueError(f'--captions_file={path} has no caption')
  return list(found.values())


def open_images(
  captioned: Sequence[Captioned], count: int, remedy: str
) -> list[caption_sheet.CaptionedImage]:
  """Reads the files of some images, taken evenly from all.

  Args:
    captioned: one or more images.
    count: images to read, at most so many as there are.
    remedy: what to do if a file cannot be read, for the error.

  Raises:
    ValueError: a file cannot be read.
  """
  images = []
  for i in range(count):
    path, caption, references = captioned[i * len(captioned) // count]
    try:
      data = image_store.read(path)
    except OSError as error:
      raise ValueError(
        f'cannot read the image {path} ({error}): {remedy}'
      ) from error
    images.append(
      caption_sheet.CaptionedImage(path, data, caption, list(references))
    )
  return images
