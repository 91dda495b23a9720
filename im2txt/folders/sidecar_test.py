# SPDX-License-Identifier: Apache-2.0
"""Tests of sidecar: what is written, and what of others stays."""

import sys
from xml.etree import ElementTree

import pytest

from im2txt.folders import sidecar
from im2txt.runtime import files

_STATE = files.State(7, 8)
_NAMES = {
  'rdf': 'http://www.w3.org/1999/02/22-rdf-syntax-ns#',
  'dc': 'http://purl.org/dc/elements/1.1/',
  'iptc': 'http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/',
}

# As darktable writes them: everything else in attributes, and a comment.
_DARKTABLE = """\
<?xml version="1.0" encoding="UTF-8"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="XMP Core 4.4.0-Exiv2">
 <!-- edited by hand -->
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="über"
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    xmlns:darktable="http://darktable.sf.net/"
    xmp:Rating="4"
    darktable:history_end="2">
   <darktable:history>
    <rdf:Seq>
     <rdf:li darktable:num="0" darktable:params="a&gt;b"/>
    </rdf:Seq>
   </darktable:history>{}
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
"""
_PERSONS_DESCRIPTION = """
   <dc:description xmlns:dc="http://purl.org/dc/elements/1.1/">
    <rdf:Alt>
     <rdf:li xml:lang="de-DE">Unser Hund</rdf:li>
     <rdf:li xml:lang="x-default">Our dog</rdf:li>
    </rdf:Alt>
   </dc:description>"""


def _texts(path, name):
  """Returns the texts of a property, read by another parser."""
  root = ElementTree.parse(path).getroot()
  assert root.tag == '{adobe:ns:meta/}xmpmeta'
  return [
    item.text
    for item in root.findall(
      f'rdf:RDF/rdf:Description/{name}/rdf:Alt/rdf:li', _NAMES
    )
  ]


def test_a_new_sidecar_has_description_and_alt_text(tmp_path):
  photo = str(tmp_path / 'a.jpg')
  sidecars = sidecar.Sidecars('model')
  assert sidecars.is_wanted(photo, _STATE)
  sidecars.write(photo, _STATE, 'a dog & a <cat>\x00\ud800')
  path = tmp_path / 'a.jpg.xmp'
  for name in ('dc:description', 'iptc:AltTextAccessibility'):
    assert _texts(path, name) == ['A dog & a <cat>']
  assert path.read_bytes().startswith(b'<?xpacket begin="\xef\xbb\xbf"')
  assert not sidecars.is_wanted(photo, _STATE)
  assert [p.name for p in tmp_path.iterdir()] == ['a.jpg.xmp']


def test_what_others_wrote_stays_byte_for_byte(tmp_path):
  path = tmp_path / 'a.jpg.xmp'
  before = _DARKTABLE.format('').encode()
  path.write_bytes(before)
  path.chmod(0o640)
  sidecar.Sidecars('model').write(str(tmp_path / 'a.jpg'), _STATE, 'a dog')
  after = path.read_bytes()
  place = before.index(b'</rdf:RDF>')
  assert after.startswith(before[:place]) and after.endswith(before[place:])
  assert b'rdf:about="\xc3\xbcber"' in after[place : -len(before[place:])]
  assert _texts(path, 'iptc:AltTextAccessibility') == ['A dog']
  assert path.stat().st_mode & 0o777 == 0o640


def test_a_persons_description_stays_whatever_is_replaced(tmp_path):
  path = tmp_path / 'a.jpg.xmp'
  path.write_text(_DARKTABLE.format(_PERSONS_DESCRIPTION))
  photo = str(tmp_path / 'a.jpg')
  assert sidecar.read(str(path)).description == 'Our dog'
  for text in ('a dog', 'a cat'):
    sidecar.Sidecars('model', replace=True).write(photo, _STATE, text)
    assert _texts(path, 'dc:description') == ['Unser Hund', 'Our dog']
    assert _texts(path, 'iptc:AltTextAccessibility') == [text.capitalize()]


def test_alt_text_is_replaced_only_on_request_and_once(tmp_path):
  photo = str(tmp_path / 'a.jpg')
  sidecar.Sidecars('old').write(photo, _STATE, 'a dog')
  size = (tmp_path / 'a.jpg.xmp').stat().st_size
  assert not sidecar.Sidecars('new').is_wanted(photo, _STATE)
  new = sidecar.Sidecars('new', replace=True)
  assert new.is_wanted(photo, _STATE)
  new.write(photo, _STATE, 'a cat')
  # The description was ours too, and nothing gathers.
  assert sidecar.read(photo + '.xmp') == ('A cat', 'A cat', 'new 7 8')
  assert _texts(photo + '.xmp', 'dc:description') == ['A cat']
  assert (tmp_path / 'a.jpg.xmp').stat().st_size == size
  assert not new.is_wanted(photo, _STATE)
  assert new.is_wanted(photo, files.State(7, 9))


def test_alt_text_of_others_is_theirs(tmp_path):
  path = tmp_path / 'a.jpg.xmp'
  path.write_text(
    _DARKTABLE.format(
      _PERSONS_DESCRIPTION.replace(
        'dc:description', 'i:AltTextAccessibility'
      ).replace(
        'xmlns:dc="http://purl.org/dc/elements/1.1/',
        'xmlns:i="' + _NAMES['iptc'],
      )
    )
  )
  photo = str(tmp_path / 'a.jpg')
  assert not sidecar.Sidecars('model').is_wanted(photo, _STATE)
  new = sidecar.Sidecars('model', replace=True)
  new.write(photo, _STATE, 'a dog')
  assert _texts(path, 'iptc:AltTextAccessibility') == ['A dog']
  assert b'history_end="2"' in path.read_bytes()


@pytest.mark.parametrize(
  'there, expected',
  [
    ((), 'a.jpg.xmp'),
    (('a.xmp',), 'a.xmp'),
    (('a.xmp', 'a.jpg.xmp'), 'a.jpg.xmp'),
    (('a.xmp', 'a.CR2'), 'a.jpg.xmp'),  # The raw file's.
    (('a.xmp', 'ab.png'), 'a.xmp'),
  ],
)
def test_which_of_two_conventions(tmp_path, there, expected):
  for name in ('a.jpg', *there):
    (tmp_path / name).touch()
  assert sidecar.path_of(str(tmp_path / 'a.jpg')) == str(tmp_path / expected)


@pytest.mark.parametrize(
  'content, reason',
  [
    (b'', 'no element found'),
    (_DARKTABLE[:300].encode(), 'no XMP'),
    (b'<a/>', 'no rdf:RDF'),
    (b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', 'DTD'),
    (_DARKTABLE.encode('utf-16'), 'utf-8'),
    (f'<r:RDF xmlns:r="{_NAMES["rdf"]}"/>'.encode(), 'is empty'),
  ],
)
def test_what_is_no_xmp_is_named_and_stays(tmp_path, content, reason):
  path = tmp_path / 'a.jpg.xmp'
  path.write_bytes(content)
  with pytest.raises(ValueError, match=reason) as raised:
    sidecar.Sidecars('model').write(str(tmp_path / 'a.jpg'), _STATE, 'a dog')
  assert str(path) in str(raised.value)
  assert path.read_bytes() == content


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
