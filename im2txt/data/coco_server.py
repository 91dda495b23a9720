# SPDX-License-Identifier: Apache-2.0
"""Writes the file that COCO's evaluation server takes.

It is a zip of captions_val2014_NAME_results.json and
captions_test2014_NAME_results.json, each with captions of all images of its
part.
"""

from collections.abc import Mapping
import json
import re
import zipfile

from im2txt.data import caption_files
from im2txt.runtime import files

IMAGES = {'val2014': 40504, 'test2014': 40775}

# The first date that a zip can have: the same captions make the same file.
_DATE = (1980, 1, 1, 0, 0, 0)


def check_name(name: str, flag: str) -> None:
  """Raises ValueError if a name cannot be part of a file name."""
  if not re.fullmatch(r'[A-Za-z0-9][A-Za-z0-9_.-]*', name):
    raise ValueError(
      f'{flag}={name} must consist of letters, digits, "-", "_" and ".", and '
      'begin with a letter or digit'
    )


def write(
  path: files.StrPath, name: str, parts: Mapping[str, Mapping[int, str]]
) -> list[str]:
  """Writes the zip.

  Args:
    path: path of the zip.
    name: name of the results, as `check_name` accepts it.
    parts: for each key of IMAGES, the captions by image id.

  Returns:
    A line for each part that does not have as many images as the server
    requires.

  Raises:
    ValueError: an image is in both parts.
    OSError: the file cannot be written.
  """
  both = sorted(set.intersection(*map(set, parts.values())))
  if both:
    raise ValueError(
      f'{len(both)} images are in both {" and ".join(parts)}, such as '
      f'image_id {caption_files.first(both)}: give the results of each part'
    )
  with files.replacing(path) as temporary:
    with zipfile.ZipFile(temporary, 'w') as archive:
      for part, captions in parts.items():
        entry = zipfile.ZipInfo(f'captions_{part}_{name}_results.json', _DATE)
        entry.compress_type = zipfile.ZIP_DEFLATED
        entry.external_attr = 0o644 << 16
        archive.writestr(
          entry,
          json.dumps(caption_files.results(dict(sorted(captions.items())))),
        )
  return [
    f'{len(captions)} images of {part}; the server wants all {IMAGES[part]}'
    for part, captions in parts.items()
    if len(captions) != IMAGES[part]
  ]
