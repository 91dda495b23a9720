# SPDX-License-Identifier: Apache-2.0
"""Alt text of photos in XMP sidecars, files that lie beside the photos.

The text is written as `dc:description`, which all programs show, and as
`Iptc4xmpCore:AltTextAccessibility`, IPTC's alt text for screen readers. Of a
sidecar that is there already not a byte changes but what is added before its
end, so that whatever other programs have written stays theirs.

digiKam, darktable and Immich read photo.jpg.xmp. The older convention of
photo.xmp, Adobe's for raw files, is followed where such a file is the photo's.
"""

import os
import re
import shutil
from typing import Any
from typing import NamedTuple
from xml.parsers import expat
from xml.sax import saxutils

from im2txt.runtime import files

SUFFIX = '.xmp'

_RDF = 'http://www.w3.org/1999/02/22-rdf-syntax-ns#'
_DC = 'http://purl.org/dc/elements/1.1/'
_IPTC = 'http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/'
_OURS = 'urn:im2txt:1'
# Names as the parser gives them.
_ROOT = f'{_RDF} RDF'
_NODE = f'{_RDF} Description'
_DESCRIPTION = f'{_DC} description'
_ALT_TEXT = f'{_IPTC} AltTextAccessibility'
_WRITTEN_BY = f'{_OURS} WrittenBy'

_NEW = b"""\
<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
"""
# Tokens that stand close to the word before them.
_AFTER_A_WORD = re.compile(r" ([.,;:!?]|'s|n't)(?= |$)")
_LANGUAGE = 'http://www.w3.org/XML/1998/namespace lang'
# Characters that XML cannot hold.
_NOT_OF_XML = re.compile(
  '[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]'
)


class Content(NamedTuple):
  """What is read of a sidecar.

  Attributes:
    description: text of `dc:description`, '' without one.
    alt_text: text of the alt text, '' without one.
    written_by: what `write` was given when it wrote the alt text, '' if it did
      not.
  """

  description: str = ''
  alt_text: str = ''
  written_by: str = ''


def path_of(photo: str) -> str:
  """Returns the path of a photo's sidecar, which need not exist.

  It is photo.jpg.xmp. If that does not exist, it is photo.xmp where that exists
  and no other file has this name but for the suffix: it could be the sidecar of
  a raw file.

  Args:
    photo: path of the photo.
  """
  stem = os.path.splitext(photo)[0]
  if not os.path.exists(photo + SUFFIX) and os.path.isfile(stem + SUFFIX):
    directory, name = os.path.split(stem)
    alike = {
      other
      for other in os.listdir(directory or '.')
      if os.path.splitext(other)[0] == name
    }
    if alike <= {os.path.basename(photo), name + SUFFIX}:
      return stem + SUFFIX
  return photo + SUFFIX


def read(path: str) -> Content:
  """Returns what a sidecar holds; nothing where there is none.

  Raises:
    OSError: it cannot be read.
    ValueError: it is damaged or no XMP. The message names it.
  """
  try:
    with open(path, 'rb') as f:
      data = f.read()
  except FileNotFoundError:
    return Content()
  return _Parsed(data, path).content


def write(path: str, text: str, written_by: str) -> None:
  """Writes alt text, and a description if there is none of somebody else.

  Args:
    path: of the sidecar, which need not exist. Its other content stays.
    text: the alt text.
    written_by: is kept with it, see `Content`.

  Raises:
    OSError: it cannot be read or written.
    ValueError: it is damaged or no XMP. The message names it.
  """
  text = _NOT_OF_XML.sub('', text)
  path = os.path.realpath(path)
  try:
    with open(path, 'rb') as f:
      data = f.read()
  except FileNotFoundError:
    data = _NEW
  before = _Parsed(data, path)
  # A description that was written with the alt text is ours as well.
  is_ours = bool(before.content.written_by) and (
    before.content.description == before.content.alt_text
  )
  replaced = [_ALT_TEXT, _WRITTEN_BY] + ([_DESCRIPTION] if is_ours else [])
  properties = [
    _language_alternative('Iptc4xmpCore:AltTextAccessibility', text)
  ]
  if is_ours or not before.content.description:
    replaced.append(_DESCRIPTION)
    properties.insert(0, _language_alternative('dc:description', text))
  new = before.with_properties(
    replaced,
    f'<rdf:Description rdf:about={saxutils.quoteattr(before.about)}\n'
    f'    xmlns:rdf="{_RDF}"\n'
    f'    xmlns:dc="{_DC}"\n'
    f'    xmlns:Iptc4xmpCore="{_IPTC}"\n'
    f'    xmlns:im2txt="{_OURS}">\n'
    + ''.join(properties)
    + f'   <im2txt:WrittenBy>{saxutils.escape(written_by)}</im2txt:WrittenBy>\n'
    '  </rdf:Description>\n',
  )
  after = _Parsed(new, path)
  if after.texts(_ALT_TEXT) != [text] or after.texts(_WRITTEN_BY) != [
    written_by
  ]:
    raise ValueError(
      f'{path}: there is alt text in a form that cannot be replaced: remove it '
      'with the program that wrote it'
    )
  with files.replacing(path) as temporary:
    with open(temporary, 'wb') as f:
      f.write(new)
    if os.path.exists(path):
      shutil.copymode(path, temporary)


def as_sentence(caption: str) -> str:
  """Returns a caption as people write it, not in tokens.

  >>> as_sentence("a man 's dog , wet , does n't run .")
  "A man's dog, wet, doesn't run."
  """
  return _AFTER_A_WORD.sub(r'\1', caption[:1].upper() + caption[1:])


class Sidecars:
  """The sidecars of many photos.

  Args:
    model: fingerprint of the model and of its settings.
    replace: whether alt text that is there already is replaced, unless this
      model wrote it for the photo as it is.
  """

  def __init__(self, model: str, replace: bool = False) -> None:
    self._model = model
    self._replace = replace

  def is_wanted(self, photo: str, state: files.State) -> bool:
    """Whether alt text of a photo is to be written.

    Raises:
      OSError, ValueError: see `read`.
    """
    content = read(path_of(photo))
    if not content.alt_text:
      return True
    return self._replace and content.written_by != self._written_by(state)

  def write(self, photo: str, state: files.State, text: str) -> None:
    """Writes a caption as the alt text of a photo; see the function `write`."""
    write(path_of(photo), as_sentence(text), self._written_by(state))

  def _written_by(self, state: files.State) -> str:
    return f'{self._model} {state.size} {state.mtime_ns}'


def _language_alternative(name: str, text: str) -> str:
  return (
    f'   <{name}>\n'
    '    <rdf:Alt>\n'
    f'     <rdf:li xml:lang="x-default">{saxutils.escape(text)}</rdf:li>\n'
    '    </rdf:Alt>\n'
    f'   </{name}>\n'
  )


class _Node:
  """An rdf:Description, and where in the bytes it is.

  Attributes:
    begin: of its start tag.
    end: after its end tag.
    properties: (name, begin, end) of each.
    has_others: whether it has properties as attributes.
  """

  def __init__(self, begin: int, has_others: bool) -> None:
    self.begin = begin
    self.end = begin
    self.properties: list[tuple[str, int, int]] = []
    self.has_others = has_others


class _Parsed:
  """A sidecar, and where in its bytes things are.

  Expat tells the places. A DTD is refused: entities could make a small file
  fill the memory, or name other files.

  Args:
    data: the bytes.
    path: for messages.

  Attributes:
    about: the `rdf:about` of its nodes.

  Raises:
    ValueError: it is damaged or no XMP.
  """

  def __init__(self, data: bytes, path: str) -> None:
    self._data = data
    self._path = path
    self.about = ''
    self._stack: list[str] = []
    self._nodes: list[_Node] = []
    # Of each property the texts with their languages.
    self._texts: dict[str, list[tuple[str, str]]] = {}
    self._begin = 0
    self._is_fresh = False  # Nothing followed the last start tag.
    self._text = ''
    self._language = ''
    self._end: int | None = None  # Of what is in rdf:RDF.
    parser = self._parser = expat.ParserCreate(namespace_separator=' ')
    parser.StartElementHandler = self._start
    parser.EndElementHandler = self._finish
    parser.CharacterDataHandler = self._characters
    parser.StartDoctypeDeclHandler = self._refuse_dtd
    try:
      data.decode()
      parser.Parse(data, True)
    except (expat.ExpatError, UnicodeDecodeError) as error:
      raise self._error(str(error)) from error
    if self._end is None:
      raise self._error('it has no rdf:RDF')

  @property
  def content(self) -> Content:
    """What is read of it."""
    return Content(
      *(
        next(iter(self.texts(name)), '')
        for name in (_DESCRIPTION, _ALT_TEXT, _WRITTEN_BY)
      )
    )

  def texts(self, name: str) -> list[str]:
    """Returns the texts of a property, that of the default language first."""
    found = sorted(
      self._texts.get(name, []), key=lambda text: text[0] != 'x-default'
    )
    return [text for _, text in found]

  def with_properties(self, replaced: list[str], node: str) -> bytes:
    """Returns the bytes without some properties and with another node."""
    assert self._end is not None
    edits = [(self._end, self._end, f' {node} '.encode())]
    for old in self._nodes:
      gone = [place for place in old.properties if place[0] in replaced]
      if gone and len(gone) == len(old.properties) and not old.has_others:
        edits.append((old.begin, old.end, b''))
      else:
        edits += [(begin, end, b'') for _, begin, end in gone]
    data = self._data
    for begin, end, new in sorted(edits, reverse=True):
      # With the white space before it, lest empty lines gather.
      before = data[:begin] if new else data[:begin].rstrip()
      data = before + new + data[end:]
    return data

  def _error(self, reason: str) -> ValueError:
    return ValueError(
      f'{self._path} is no XMP that is read ({reason}): mend or remove it'
    )

  def _refuse_dtd(self, *_: object) -> None:
    raise self._error('it has a DTD')

  def _start(self, name: str, attributes: dict[str, Any]) -> None:
    place = self._parser.CurrentByteIndex
    if name == _NODE and self._stack[-1:] == [_ROOT]:
      about = attributes.pop(f'{_RDF} about', '')
      self.about = self.about or about
      self._nodes.append(_Node(place, bool(attributes)))
      for of_property, text in attributes.items():
        self._texts.setdefault(of_property, []).append(('', text))
    if self._stack[-2:] == [_ROOT, _NODE]:
      self._begin = place
    self._stack.append(name)
    self._is_fresh = True
    self._text = ''
    self._language = attributes.get(_LANGUAGE, '')

  def _characters(self, text: str) -> None:
    self._is_fresh = False
    self._text += text

  def _finish(self, name: str) -> None:
    place = self._parser.CurrentByteIndex
    is_empty = self._is_fresh and self._data[place - 2 : place] == b'/>'
    self._is_fresh = False
    # Of an empty element Expat tells the end, of others where the end tag is.
    end = place if is_empty else self._data.index(b'>', place) + 1
    self._stack.pop()
    inside = [*self._stack, name]
    text = self._text.strip()
    self._text = ''
    if _ROOT in inside:
      # The property is third, and the text in it or in an item of it.
      of_root = inside[inside.index(_ROOT) :]
      if text and len(of_root) > 2 and of_root[1] == _NODE:
        self._texts.setdefault(of_root[2], []).append((self._language, text))
      if len(of_root) == 3:
        self._nodes[-1].properties.append((name, self._begin, end))
      elif len(of_root) == 2:
        self._nodes[-1].end = end
    if name == _ROOT and self._end is None:
      if is_empty:
        raise self._error('its rdf:RDF is empty')
      self._end = place
