# SPDX-License-Identifier: Apache-2.0
"""Reads captions files in all common formats.

`read` recognizes the format by the content:

  COCO         JSON {"images": [{"id", "file_name"}], "annotations":
               [{"image_id", "caption"}]}, of 2014, 2017 or one's own; an image
               may have a "split"
  Karpathy     JSON {"images": [{"filename", "split", "sentences": [{"raw"}]}]}
               with a "filepath" before the name and a "cocoid" in some
               (dataset_coco.json, dataset_flickr8k.json and so on)
  Flickr8k     lines `1000.jpg#0<tab>caption` (Flickr8k.token.txt, and
               results_20130124.token of Flickr30k)
  Flickr30k    lines `1000.jpg| 0| caption` after a header (results.csv)
  CSV          columns `file` and `caption`, one caption per line; optional
               columns `split` and `image_id`
  JSONL        one JSON object with these names per line
  JSON array   of such objects

In the last three `file` may also be called `image`, `file_name`, `file_path` or
`filename`; in the last two `caption` may be a list, and be called `captions`.

All text is UTF-8. JSON can contain half of a surrogate pair, where a text was
cut; it becomes U+FFFD.
"""

import collections
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import csv
import io
import json
import re
from typing import Any
from typing import NamedTuple

from im2txt.runtime import storage

SPLITS = ('train', 'val', 'test')

# Names of the splits in the files. `restval` are the images of COCO's validation
# set that Karpathy's split uses for training.
_SPLIT_NAMES = {
  'train': 'train',
  'restval': 'train',
  'val': 'val',
  'valid': 'val',
  'validation': 'val',
  'dev': 'val',
  'test': 'test',
}

# Names of the field with the image's file.
_FILE_NAMES = ('file', 'image', 'file_name', 'file_path', 'filename')

_NAMED = 3  # A message names this many files at most.

_RESULTS = '[{"image_id": 42, "caption": "a man"}, ...]'


class Entry(NamedTuple):
  """An image as a captions file describes it.

  Attributes:
    image_id: id of the image; None if the file has no ids.
    file_name: name of the image's file, with directories if the captions file
      has them.
    captions: the captions; may be empty.
    split: the name of the split as in the file, '' if there is none.
  """

  image_id: int | None
  file_name: str
  captions: list[str]
  split: str = ''


# (Number of the line or object, its fields; None if it is malformed.)
_Row = tuple[int, dict[str, Any] | None]


def first(names: Iterable[object]) -> str:
  """Returns the first few names, for a message."""
  texts = [str(name) for name in names]
  return ', '.join(texts[:_NAMED]) + (', ...' if len(texts) > _NAMED else '')


def read(path: str, flag: str) -> list[Entry]:
  """Reads a captions file of any kind.

  Args:
    path: path of the file.
    flag: the flag that gave it, for messages.

  Returns:
    One entry per image, in the order of the file.

  Raises:
    ValueError: the file cannot be read, is damaged, or has an unknown format.
  """
  text = _read_text(path, flag)
  start = text.lstrip()[:1]
  if start == '[':
    return _grouped(_array_rows(_json(text, path, flag)), path, flag, 'entry')
  if start == '{':
    try:
      content = json.loads(text)
    except (ValueError, RecursionError) as error:
      content = {}
      if next(_jsonl_rows(text))[1] is None:
        raise _not_json(path, flag, error) from error
    if 'annotations' in content:
      return _coco_entries(content, path, flag)
    if 'images' in content:
      return _karpathy_entries(content, path, flag)
    rows = _jsonl_rows(text)
  elif re.match(r'\S[^\t\n]*#\d+\t', text):
    rows = _token_rows(text)
  elif re.match(r'[^\n]*\|', text):
    rows = _bar_rows(text)
  else:
    rows = _csv_rows(text)
  return _grouped(rows, path, flag)


def read_coco(path: str, flag: str) -> list[Entry]:
  """Reads a COCO captions file; see `read`."""
  return _coco_entries(_json(_read_text(path, flag), path, flag), path, flag)


def read_references(path: str, flag: str) -> dict[int, list[str]]:
  """Reads references from a captions file with image ids.

  Args:
    path: path of a captions file. File names are ignored: the "images" of a
      COCO file need only "id", or may be missing. A list of annotations is read
      too.
    flag: the flag that gave it, for messages.

  Returns:
    The references of each image id, at least one, in the order of the file.

  Raises:
    ValueError: the file cannot be read, is damaged, or has another format.
  """
  text = _read_text(path, flag)
  content = _json_if_whole(text)
  if isinstance(content, dict) and 'annotations' in content:
    entries = _coco_entries(content, path, flag, has_names=False)
    return {
      entry.image_id: entry.captions
      for entry in entries
      if entry.captions and entry.image_id is not None
    }
  references: dict[int, list[str]] = {}
  rows = _object_rows_of(text, content)
  if rows is None:
    for entry in read(path, flag):
      if entry.image_id is None:
        raise ValueError(
          f'the captions file {path} ({flag}) has no image ids: give a file '
          'with the image ids of the results'
        )
      references.setdefault(entry.image_id, []).extend(entry.captions)
    return {
      image_id: captions
      for image_id, captions in references.items()
      if captions
    }
  for image_id, caption in _ids_and_captions(rows, path, flag):
    references.setdefault(image_id, []).append(caption)
  if not references:
    raise _no_captions(path, flag)
  return references


def read_results(path: str, flag: str) -> dict[int, str]:
  """Reads a COCO results file: [{"image_id": 42, "caption": "a man"}, ...].

  One such object per line, without brackets and commas, is accepted too.

  Args:
    path: path of the file.
    flag: the flag that gave it, for messages.

  Returns:
    The caption of each image id, in the order of the file.

  Raises:
    ValueError: the file has another format, two captions of one image, or no
      caption.
  """
  text = _read_text(path, flag)
  rows = _object_rows_of(text, _json_if_whole(text))
  if rows is None:
    raise ValueError(f'{flag} {path} is not {_RESULTS}, whole')
  captions: dict[int, str] = {}
  for image_id, caption in _ids_and_captions(rows, path, flag):
    if image_id in captions:
      raise ValueError(
        f'{flag} {path} has more than one caption of image '
        f'{image_id}: keep only the best'
      )
    captions[image_id] = caption
  if not captions:
    raise ValueError(f'{flag} {path} has no caption')
  return captions


def results(captions: Mapping[int, str]) -> list[dict[str, Any]]:
  """Returns what COCO's JSON of results has of captions by image id.

  >>> results({42: 'a man'})
  [{'image_id': 42, 'caption': 'a man'}]
  """
  return [
    {'image_id': image_id, 'caption': caption}
    for image_id, caption in captions.items()
  ]


def _json_if_whole(text: str) -> Any:
  """Returns the value of JSON text; None if the text is not one JSON value."""
  try:
    return json.loads(text)
  except (ValueError, RecursionError):
    return None


def _object_rows_of(text: str, content: object) -> Iterable[_Row] | None:
  """Returns the rows of a file of objects; None if the file has none.

  Args:
    text: text of the file.
    content: its value as JSON, None if the text is not one JSON value.
  """
  if isinstance(content, list):
    return _array_rows(content)
  if isinstance(content, dict):
    return _array_rows([content]) if 'image_id' in content else None
  if content is None and text.lstrip()[:1] == '{':
    rows = list(_jsonl_rows(text))
    return rows if rows[0][1] is not None else None
  return None


def _ids_and_captions(
  rows: Iterable[_Row], path: str, flag: str
) -> Iterator[tuple[int, str]]:
  """Yields (image id, caption) of rows of objects; raises ValueError."""
  for number, row in rows:
    try:
      if row is None:
        raise TypeError('not a JSON object')
      yield _image_id(row['image_id']), _text(row, 'caption')
    except (TypeError, KeyError) as error:
      raise ValueError(
        f'entry {number} of {path} ({flag}) must be as in {_RESULTS} '
        f'({_reason(error)})'
      ) from error


def read_list(path: str, flag: str) -> list[str]:
  """Returns the names in a file with one name per line, like Flickr8k's splits.

  Raises:
    ValueError: the file cannot be read or is empty.
  """
  lines = _lines(_read_text(path, flag))
  names = [line.strip() for line in lines if line.strip()]
  if not names:
    raise ValueError(
      f'{flag}={path} is empty: give a file of image names, one per line'
    )
  return names


def numbered(entries: Sequence[Entry]) -> list[Entry]:
  """Returns the entries with ids: their own, or 1, 2, 3 and so on.

  Raises:
    ValueError: only some entries have an id, or two have the same.
  """
  entries = list(entries)
  without = [entry for entry in entries if entry.image_id is None]
  if without and len(without) < len(entries):
    raise ValueError(
      f'{len(without)} images have no image_id, such as '
      f'{without[0].file_name}, but others have one: give it to all or none'
    )
  if without:
    entries = [
      entry._replace(image_id=number)
      for number, entry in enumerate(entries, start=1)
    ]
  counts = collections.Counter(entry.image_id for entry in entries)
  twice = [image_id for image_id, count in counts.items() if count > 1]
  if twice:
    raise ValueError(
      f'{len(twice)} images have an image_id that another image has too, such '
      f'as {twice[0]}: give each its own, and put each image in one part'
    )
  return entries


def split_by_field(
  entries: Sequence[Entry], path: str
) -> dict[str, list[Entry]]:
  """Returns the entries of each split, by the entries' own split field.

  Args:
    entries: the entries.
    path: path of their file, for messages.

  Raises:
    ValueError: an entry has no split or an unknown split.
  """
  parts: dict[str, list[Entry]] = {name: [] for name in SPLITS}
  for entry in entries:
    name = _SPLIT_NAMES.get(entry.split.lower())
    if name is None:
      raise ValueError(
        f'{path}: {entry.file_name} is in '
        + (
          f'the split {entry.split!r:.100}, not one of '
          + ', '.join(sorted(_SPLIT_NAMES))
          if entry.split
          else 'no split'
        )
        + ': give all images a split, or give --train_list and --val_list'
      )
    parts[name].append(entry)
  return parts


def split_by_lists(
  entries: Sequence[Entry], lists: Mapping[str, tuple[str, Sequence[str]]]
) -> tuple[dict[str, list[Entry]], int]:
  """Returns (entries of each split, number of entries in no list).

  Args:
    entries: the entries.
    lists: for each split the flag that gave its list, and the names of its
      image files, with or without directories.

  Raises:
    ValueError: a name is in two lists, or no entry has it.
  """
  split_of: dict[str, str] = {}
  for split, (flag, names) in lists.items():
    for name in names:
      if split_of.setdefault(name, split) != split:
        raise ValueError(f'{flag}: {name} is in the list of another split too')
  parts: dict[str, list[Entry]] = {name: [] for name in SPLITS}
  used: set[str] = set()
  left = 0
  for entry in entries:
    for name in (entry.file_name, entry.file_name.rpartition('/')[2]):
      if name in split_of:
        parts[split_of[name]].append(entry)
        used.add(name)
        break
    else:
      left += 1
  for flag, names in lists.values():
    unknown = [name for name in names if name not in used]
    if unknown:
      raise ValueError(
        f'{flag} has {len(unknown)} names that are not in the captions files: '
        f'{first(unknown)}; give the names of image files'
      )
  return parts, left


def _read_text(path: str, flag: str) -> str:
  """Returns the text of a file without a byte order mark."""
  try:
    with storage.open_text(path, 'utf-8-sig', newline='') as f:
      return f.read()
  except OSError as error:
    raise ValueError(
      f'cannot read the captions file {path} ({error.strerror}): give '
      f'{flag} the path of a captions file'
    ) from error
  except UnicodeDecodeError as error:
    raise ValueError(
      f'the file {path} ({flag}) is not JSON or other UTF-8 text '
      f'({error.reason} at byte {error.start}): give a captions file in UTF-8'
    ) from error


def _json(text: str, path: str, flag: str) -> Any:
  """Returns the value of JSON text; raises ValueError if it is not JSON."""
  try:
    return json.loads(text)
  except (ValueError, RecursionError) as error:
    raise _not_json(path, flag, error) from error


def _not_json(path: str, flag: str, error: Exception) -> ValueError:
  return ValueError(
    f'the captions file {path} is not JSON ({error}): give '
    f'{flag} a complete captions file'
  )


def _no_captions(path: str, flag: str) -> ValueError:
  return ValueError(
    f'the captions file {path} ({flag}) has no captions: give a file that has'
  )


def _coco_entries(
  content: Any, path: str, flag: str, has_names: bool = True
) -> list[Entry]:
  """Returns the entries of COCO's JSON.

  Args:
    content: the value in the file.
    path: path of the file, for messages.
    flag: the flag that gave it, for messages.
    has_names: whether there must be "images" with file names.
  """
  if not isinstance(content, dict):
    content = {}
  for key in ('images', 'annotations') if has_names else ('annotations',):
    if not isinstance(content.get(key), list) or not content[key]:
      raise ValueError(
        f'the captions file {path} has no list "{key}": give {flag} a COCO '
        'captions JSON file (captions_*.json)'
      )
  entries: dict[int, Entry] = {}
  unlisted: list[int] = []
  try:
    for image in content.get('images') or ():
      image_id = _image_id(image['id'])
      if image_id in entries:
        raise ValueError(
          f'the captions file {path} ({flag}) has more than one image with '
          f'the id {image_id}: remove all but one'
        )
      entries[image_id] = Entry(
        image_id,
        _text(image, 'file_name', *([] if has_names else [''])),
        [],
        _text(image, 'split', ''),
      )
    is_listed = bool(entries)
    for annotation in content['annotations']:
      caption = _text(annotation, 'caption')
      image_id = _image_id(annotation['image_id'])
      if not is_listed:
        entries.setdefault(image_id, Entry(image_id, '', []))
      if image_id in entries:
        entries[image_id].captions.append(caption)
      else:
        unlisted.append(image_id)
  except (KeyError, TypeError, AttributeError) as error:
    raise ValueError(
      f'the captions file {path} ({flag}) has an entry that is not as in '
      f'COCO ({type(error).__name__}: {error}): an image must have "id" and '
      '"file_name", an annotation "image_id" and "caption"'
    ) from error
  if unlisted:
    raise ValueError(
      f'{len(unlisted)} annotations of {path} ({flag}) are of images that '
      f'it does not list: {first(unlisted)}; give a complete captions file'
    )
  return list(entries.values())


def _text(mapping: Mapping[str, Any], key: str, *default: str) -> str:
  """Returns the string at a key; raises KeyError or TypeError."""
  value = mapping.get(key, *default) if default else mapping[key]
  if not isinstance(value, str):
    raise TypeError(f'{key} {value!r:.80}, not a text')
  return whole_characters(value)


def whole_characters(text: str) -> str:
  """Returns a text with U+FFFD in place of halves of surrogate pairs."""
  return text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')


def _image_id(value: object) -> int:
  """Returns an image id; raises TypeError if the value is not one.

  Ids are int64 in records, where -1 means no id.
  """
  if isinstance(value, str) and re.fullmatch(r'[0-9]{1,19}', value.strip()):
    value = int(value)
  if (
    not isinstance(value, int)
    or isinstance(value, bool)
    or not (0 <= value < 2**63)
  ):
    raise TypeError(f'image id {value!r:.100}, not a number from 0 to 2^63 - 1')
  return value


def _karpathy_entries(content: Any, path: str, flag: str) -> list[Entry]:
  """Returns the entries of a dataset_*.json of Karpathy's splits."""
  try:
    ids = [
      image.get('cocoid', image.get('imgid')) for image in content['images']
    ]
    entries = [
      Entry(
        None if image_id is None else _image_id(image_id),
        '/'.join(
          filter(None, [_text(image, 'filepath', ''), _text(image, 'filename')])
        ),
        [_text(sentence, 'raw') for sentence in image['sentences']],
        _text(image, 'split'),
      )
      for image_id, image in zip(ids, content['images'])
    ]
  except (KeyError, TypeError, AttributeError) as error:
    raise ValueError(
      f"the captions file {path} ({flag}) is neither COCO's nor one of "
      f"Karpathy's ({type(error).__name__}: {error}): an image of these must "
      'have "filename", "split" and "sentences" with "raw"'
    ) from error
  return entries


def _jsonl_rows(text: str) -> Iterator[_Row]:
  for number, line in enumerate(text.split('\n'), start=1):
    if line.strip():
      try:
        row = json.loads(line)
      except (ValueError, RecursionError):
        row = None
      yield from _object_rows(number, row)


def _array_rows(content: Sequence[object]) -> Iterator[_Row]:
  for number, row in enumerate(content, start=1):
    yield from _object_rows(number, row)


def _object_rows(number: int, row: object) -> Iterator[_Row]:
  """Yields a row for each caption of a JSON object."""
  if not isinstance(row, dict):
    yield number, None
    return
  captions = row.get('caption', row.get('captions'))
  if captions is None:
    yield number, {key: row[key] for key in row if key != 'caption'}
    return
  if not isinstance(captions, list):
    captions = [captions]
  for caption in captions:
    yield number, {**row, 'caption': caption}


def _lines(text: str) -> list[str]:
  """Returns the lines; U+2028 and the like do not end a line."""
  return [line.removesuffix('\r') for line in text.split('\n')]


def _token_rows(text: str) -> Iterator[_Row]:
  for number, line in enumerate(_lines(text), start=1):
    if line.strip():
      match = re.fullmatch(r'(.+)#\d+\t(.*)', line)
      yield (
        number,
        {'file': match[1], 'caption': match[2]} if match else None,
      )


def _bar_rows(text: str) -> Iterator[_Row]:
  for number, line in enumerate(_lines(text)[1:], start=2):
    if line.strip():
      # One line of the published file lacks the second bar.
      match = re.fullmatch(r'([^|]+)\|\s*\d+\s*(?:\|\s*|\s)(.*)', line)
      yield (
        number,
        {'file': match[1].strip(), 'caption': match[2]} if match else None,
      )


def _csv_rows(text: str) -> Iterator[_Row]:
  rows = csv.DictReader(io.StringIO(text, newline=''), strict=True)
  try:
    for row in rows:
      # Too many or too few fields, most often because of a comma without quotes.
      yield rows.line_num, None if None in (*row, *row.values()) else row
  except csv.Error:
    yield rows.line_num + 1, None


def _reason(error: Exception) -> str:
  if isinstance(error, KeyError):
    return f'no {error}'
  return (
    str(error)
    if re.match('image id|caption|not ', str(error))
    else 'other fields'
  )


def _grouped(
  rows: Iterable[_Row], path: str, flag: str, noun: str = 'line'
) -> list[Entry]:
  """Returns one entry per image from rows of one caption each.

  Args:
    rows: the rows.
    path: path of the file, for messages.
    flag: the flag that gave it, for messages.
    noun: name of a row, for messages.
  """
  entries: dict[str, Entry] = {}
  for number, row in rows:
    try:
      if row is None:
        raise TypeError
      name = _text(
        row, next((key for key in _FILE_NAMES if key in row), _FILE_NAMES[0])
      )
      caption = _text(row, 'caption')
      split = _text(row, 'split', '')
      image_id = row.get('image_id')
      if image_id is not None:
        image_id = _image_id(image_id)
    except (KeyError, TypeError, ValueError) as error:
      raise ValueError(
        f'{noun} {number} of {path} ({flag}) does not belong in a captions '
        f"file ({_reason(error)}): give COCO's or Karpathy's JSON, "
        'Flickr8k.token.txt, results.csv of Flickr30k, CSV with the columns '
        'file and caption (quoted if it has a comma), or JSONL or a JSON '
        'array of objects with these'
      ) from error
    entry = entries.setdefault(name, Entry(image_id, name, [], split))
    if (entry.image_id, entry.split) != (image_id, split):
      raise ValueError(
        f'{noun} {number} of {path} ({flag}) gives {name} another split or '
        f'image_id than an earlier {noun}: give an image one of each'
      )
    entry.captions.append(caption.strip())
  if not entries:
    raise _no_captions(path, flag)
  return list(entries.values())
