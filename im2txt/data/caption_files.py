# SPDX-License-Identifier: Apache-2.0
"""Reads the files that captions of data sets come in.

`read` tells by the content which of these a file is:

  COCO         JSON {"images": [{"id", "file_name"}], "annotations":
               [{"image_id", "caption"}]}, of 2014, 2017 or one's own; an image
               may have a "split"
  Karpathy     JSON {"images": [{"filename", "split", "sentences": [{"raw"}]}]}
               with a "filepath" before the name and a "cocoid" in some
               (dataset_coco.json, dataset_flickr8k.json and so on)
  Flickr8k     lines `1000.jpg#0<tab>caption` (Flickr8k.token.txt, and
               results_20130124.token of Flickr30k)
  Flickr30k    lines `1000.jpg| 0| caption` after a header (results.csv)
  CSV          columns `file` and `caption`, one caption per line, and `split`
               and `image_id` if there
  JSONL        one JSON object with these names per line
  JSON array   of such objects

In the last three `file` may also be called `image`, `file_name`, `file_path` or
`filename`; in the last two `caption` may be a list, and be called `captions`.

All text is UTF-8. Half of a surrogate pair, as JSON can have it where a text
was cut, becomes U+FFFD.
"""

import collections
import csv
import io
import json
import re
from typing import NamedTuple

SPLITS = ('train', 'val', 'test')

# What others call the splits. `restval` are the pictures of COCO's validation
# set that Karpathy's split leaves for training.
_SPLIT_NAMES = {
  'train': 'train',
  'restval': 'train',
  'val': 'val',
  'valid': 'val',
  'validation': 'val',
  'dev': 'val',
  'test': 'test',
}

# What rows call the file of an image.
_FILE_NAMES = ('file', 'image', 'file_name', 'file_path', 'filename')

_NAMED = 3  # Files that a message names before it only counts.

_RESULTS = '[{"image_id": 42, "caption": "a man"}, ...]'


class Entry(NamedTuple):
  """A picture as a captions file describes it.

  Attributes:
    image_id: int, None if the file has no ids.
    file_name: str, with the directories that the file gives it.
    captions: list of str; may be empty.
    split: str as in the file, '' if it has none.
  """

  image_id: int
  file_name: str
  captions: list
  split: str = ''


def first(names):
  """Returns the first few names, for a message."""
  names = [str(name) for name in names]
  return ', '.join(names[:_NAMED]) + (', ...' if len(names) > _NAMED else '')


def read(path, flag):
  """Reads a captions file of any kind.

  Args:
    path: path of the file.
    flag: the flag that gave it, for messages.

  Returns:
    List of Entry in the order of the file, one for each picture.

  Raises:
    ValueError: the file cannot be read, is of no known kind, or damaged.
  """
  text = _read_text(path, flag)
  start = text.lstrip()[:1]
  if start == '[':
    return _grouped(_array_rows(_json(text, path, flag)), path, flag, 'Entry')
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


def read_coco(path, flag):
  """Reads a COCO captions file; see `read`."""
  return _coco_entries(_json(_read_text(path, flag), path, flag), path, flag)


def read_references(path, flag):
  """Reads the captions of a file to score against; names do not matter.

  Args:
    path: path of a captions file with image ids, such as COCO's. Its "images"
      need no more than "id", or may be missing; also a list of annotations.
    flag: the flag that gave it, for messages.

  Returns:
    dict, image id -> list of captions, at least one, in the order of the file.

  Raises:
    ValueError: the file cannot be read, is of no such kind, or damaged.
  """
  text = _read_text(path, flag)
  content = _json_if_whole(text)
  if isinstance(content, dict) and 'annotations' in content:
    entries = _coco_entries(content, path, flag, has_names=False)
    return {
      entry.image_id: entry.captions for entry in entries if entry.captions
    }
  rows = _object_rows_of(text, content)
  if rows is None:
    references = {}
    for entry in read(path, flag):
      if entry.image_id is None:
        raise ValueError(
          f'The captions file {path} ({flag}) has no image ids: give one '
          'with the ids that the results have.'
        )
      references.setdefault(entry.image_id, []).extend(entry.captions)
    return {
      image_id: captions
      for image_id, captions in references.items()
      if captions
    }
  references = {}
  for image_id, caption in _ids_and_captions(rows, path, flag):
    references.setdefault(image_id, []).append(caption)
  if not references:
    raise ValueError(f'The captions file {path} ({flag}) has no captions.')
  return references


def read_results(path, flag):
  """Reads a COCO results file: [{"image_id": 42, "caption": "a man"}, ...].

  One such object per line, without brackets and commas, is read too.

  Args:
    path: path of the file.
    flag: the flag that gave it, for messages.

  Returns:
    dict, image id -> caption, in the order of the file.

  Raises:
    ValueError: it is no such file, or has two captions of an image or none at
      all.
  """
  text = _read_text(path, flag)
  rows = _object_rows_of(text, _json_if_whole(text))
  if rows is None:
    raise ValueError(f'{flag} {path} is not {_RESULTS}, whole')
  captions = {}
  for image_id, caption in _ids_and_captions(rows, path, flag):
    if image_id in captions:
      raise ValueError(
        f'{flag} {path} has more than one caption of image '
        f'{image_id}: leave the best'
      )
    captions[image_id] = caption
  if not captions:
    raise ValueError(f'{flag} {path} has no caption')
  return captions


def _json_if_whole(text):
  """Returns the value of JSON text; None if it is none, or JSON by lines."""
  try:
    return json.loads(text)
  except (ValueError, RecursionError):
    return None


def _object_rows_of(text, content):
  """Returns the rows of objects with image ids; None if they are not such.

  Args:
    text: str, of the file.
    content: its value as JSON, None if it is none.
  """
  if isinstance(content, list):
    return _array_rows(content)
  if isinstance(content, dict):
    return _array_rows([content]) if 'image_id' in content else None
  if content is None and text.lstrip()[:1] == '{':
    rows = list(_jsonl_rows(text))
    return rows if rows[0][1] is not None else None
  return None


def _ids_and_captions(rows, path, flag):
  """Yields (image id, caption) of rows of objects; raises ValueError."""
  for number, row in rows:
    try:
      if row is None:
        raise TypeError('no JSON object')
      yield _image_id(row['image_id']), _text(row, 'caption')
    except (TypeError, KeyError) as error:
      raise ValueError(
        f'Entry {number} of {path} ({flag}) is not as in {_RESULTS} '
        f'({_reason(error)})'
      ) from error


def read_list(path, flag):
  """Returns the names in a file that has one a line, as Flickr8k's splits.

  Raises:
    ValueError: the file cannot be read or is empty.
  """
  lines = _lines(_read_text(path, flag))
  names = [line.strip() for line in lines if line.strip()]
  if not names:
    raise ValueError(
      f'{flag}={path} is empty: give a file of picture names, one a line.'
    )
  return names


def numbered(entries):
  """Returns Entries with ids: those they have, or else 1, 2, 3 and so on.

  Raises:
    ValueError: only some have one, or two have the same.
  """
  without = [entry for entry in entries if entry.image_id is None]
  if without and len(without) < len(entries):
    raise ValueError(
      f'{len(without)} pictures have no image_id, such as '
      f'{without[0].file_name}, but others have: give it to all or none'
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
      f'{len(twice)} pictures have an image_id that another has too, such as '
      f'{twice[0]}: give each its own, and each picture to one part'
    )
  return entries


def split_by_field(entries, path):
  """Returns {split: list of Entry} by what the entries say.

  Raises:
    ValueError: an entry does not say it, or not a split.
  """
  parts = {name: [] for name in SPLITS}
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
        + ': give all pictures a split, or --train_list and --val_list.'
      )
    parts[name].append(entry)
  return parts


def split_by_lists(entries, lists):
  """Returns ({split: list of Entry}, number of entries in no list).

  Args:
    entries: list of Entry.
    lists: dict, split -> (flag, names of files); names as in the entries,
      with or without their directories.

  Raises:
    ValueError: a name is in two lists, or no entry has it.
  """
  split_of = {}
  for split, (flag, names) in lists.items():
    for name in names:
      if split_of.setdefault(name, split) != split:
        raise ValueError(f'{flag}: {name} is in the list of another split too')
  parts, used, left = {name: [] for name in SPLITS}, set(), 0
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
        f'{flag} has {len(unknown)} names that the captions files have not: '
        f'{first(unknown)}. Names are those of the picture files.'
      )
  return parts, left


def _read_text(path, flag):
  """Returns the text of a file, less a byte order mark."""
  try:
    with open(path, encoding='utf-8-sig', newline='') as f:
      return f.read()
  except OSError as error:
    raise ValueError(
      f'Cannot read the captions file {path} ({error.strerror}): give '
      f'{flag} the path of one.'
    ) from error
  except UnicodeDecodeError as error:
    raise ValueError(
      f'The file {path} ({flag}) is not JSON or other UTF-8 text '
      f'({error.reason} at byte {error.start}).'
    ) from error


def _json(text, path, flag):
  """Returns the value of JSON text; raises ValueError if it is none."""
  try:
    return json.loads(text)
  except (ValueError, RecursionError) as error:
    raise _not_json(path, flag, error) from error


def _not_json(path, flag, error):
  return ValueError(
    f'The captions file {path} is not JSON ({error}): give '
    f'{flag} a captions file, whole.'
  )


def _coco_entries(content, path, flag, has_names=True):
  """Returns the Entries of COCO's JSON.

  Args:
    content: the value in the file.
    path: path of the file, for messages.
    flag: the flag that gave it, likewise.
    has_names: whether images must be there and have file names.
  """
  if not isinstance(content, dict):
    content = {}
  for key in ('images', 'annotations') if has_names else ('annotations',):
    if not isinstance(content.get(key), list) or not content[key]:
      raise ValueError(
        f'The captions file {path} has no list "{key}": give {flag} a COCO '
        'captions JSON file (captions_*.json).'
      )
  entries, strangers = {}, []
  try:
    for image in content.get('images') or ():
      image_id = _image_id(image['id'])
      if image_id in entries:
        raise ValueError(
          f'The captions file {path} ({flag}) has more than one image with '
          f'the id {image_id}: remove all but one.'
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
        strangers.append(image_id)
  except (KeyError, TypeError, AttributeError) as error:
    raise ValueError(
      f'The captions file {path} ({flag}) has an entry that is not as in '
      f'COCO ({type(error).__name__}: {error}): an image has "id" and '
      '"file_name", an annotation "image_id" and "caption".'
    ) from error
  if strangers:
    raise ValueError(
      f'{len(strangers)} annotations of {path} ({flag}) are of images that '
      f'it does not list: {first(strangers)}. Give a captions file that is '
      'whole.'
    )
  return list(entries.values())


def _text(mapping, key, *default):
  """Returns the string at a key; raises KeyError or TypeError."""
  value = mapping.get(key, *default) if default else mapping[key]
  if not isinstance(value, str):
    raise TypeError(f'{key} {value!r:.80}, no text')
  return whole_characters(value)


def whole_characters(text):
  """Returns a text in which halves of surrogate pairs are U+FFFD."""
  return text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')


def _image_id(value):
  """Returns an image id, an int; raises TypeError if it is none.

  Ids are int64 in records, in which -1 stands for no id.
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


def _karpathy_entries(content, path, flag):
  """Returns the Entries of a dataset_*.json of Karpathy's splits."""
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
      f"The captions file {path} ({flag}) is neither COCO's nor one of "
      f"Karpathy's ({type(error).__name__}: {error}): an image of these has "
      '"filename", "split" and "sentences" with "raw".'
    ) from error
  return entries


# Each of the following yields (number of the line, dict of its fields); the
# dict is None where the line is not as it should be.


def _jsonl_rows(text):
  for number, line in enumerate(text.split('\n'), start=1):
    if line.strip():
      try:
        row = json.loads(line)
      except (ValueError, RecursionError):
        row = None
      yield from _object_rows(number, row)


def _array_rows(content):
  for number, row in enumerate(content, start=1):
    yield from _object_rows(number, row)


def _object_rows(number, row):
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


def _lines(text):
  """Returns the lines; U+2028 and the like are characters of a caption."""
  return [line.removesuffix('\r') for line in text.split('\n')]


def _token_rows(text):
  for number, line in enumerate(_lines(text), start=1):
    if line.strip():
      match = re.fullmatch(r'(.+)#\d+\t(.*)', line)
      yield number, match and {'file': match[1], 'caption': match[2]}


def _bar_rows(text):
  for number, line in enumerate(_lines(text)[1:], start=2):
    if line.strip():
      # The published file lacks the second bar in one line.
      match = re.fullmatch(r'([^|]+)\|\s*\d+\s*(?:\|\s*|\s)(.*)', line)
      yield number, match and {'file': match[1].strip(), 'caption': match[2]}


def _csv_rows(text):
  rows = csv.DictReader(io.StringIO(text, newline=''), strict=True)
  try:
    for row in rows:
      # Fields too many or too few: most often a comma without quotes.
      yield rows.line_num, None if None in (*row, *row.values()) else row
  except csv.Error:
    yield rows.line_num + 1, None


def _reason(error):
  if isinstance(error, KeyError):
    return f'no {error}'
  return (
    str(error)
    if re.match('image id|caption|no ', str(error))
    else ('other fields')
  )


def _grouped(rows, path, flag, noun='Line'):
  """Returns one Entry per image from rows of one caption each.

  Args:
    rows: what a `..._rows` function yields.
    path: path of the file, for messages.
    flag: the flag that gave it, likewise.
    noun: what a row is, likewise.
  """
  entries = {}
  for number, row in rows:
    try:
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
        f'{noun} {number} of {path} ({flag}) is not as in a captions '
        f"file ({_reason(error)}): known are COCO's and Karpathy's JSON, "
        'Flickr8k.token.txt, results.csv of Flickr30k, CSV with the columns '
        'file and caption (quoted where it has a comma), and JSONL or a JSON '
        'array of objects with these.'
      ) from error
    entry = entries.setdefault(name, Entry(image_id, name, [], split))
    if (entry.image_id, entry.split) != (image_id, split):
      raise ValueError(
        f'{noun} {number} of {path} ({flag}) gives {name} another split or '
        'image_id than one before.'
      )
    entry.captions.append(caption.strip())
  if not entries:
    raise ValueError(f'The captions file {path} ({flag}) has no captions.')
  return list(entries.values())
