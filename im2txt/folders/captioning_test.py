# SPDX-License-Identifier: Apache-2.0
"""Tests of captioning and outputs: what is captioned, and where it goes."""

import json
import os
import sys

import numpy as np
import pytest

from im2txt.folders import captioning
from im2txt.folders import options as options_lib
from im2txt.folders import outputs
from im2txt.folders import sidecar
from im2txt.folders import video
from im2txt.inference_utils import captioner as captioner_lib


class _Captioner:
  """Its captions are the bytes of images, or the sum of the pixels of frames.

  Attributes:
    seen: what was captioned.
  """

  def __init__(self, fingerprint='m'):
    self.fingerprint = fingerprint
    self.seen = []

  def decode(self, data, exif_orientation):
    assert exif_orientation
    if data == b'bad':
      raise ValueError('damaged')
    return data.decode()

  def process(self, pixels):
    return str(pixels.sum())

  def caption(self, images, first_image, word_probabilities):
    del word_probabilities
    self.seen += [f'{first_image + i} {im}' for i, im in enumerate(images)]
    return [
      [captioner_lib.ScoredCaption(f'a {image}', -1.0, 0.5)] for image in images
    ]


@pytest.fixture(name='photos')
def fixture_photos(tmp_path):
  """Five photos, of which one is damaged, and one that does not exist."""
  for name in ('0', '1', '2', '3', '4'):
    (tmp_path / f'{name}.jpg').write_bytes(
      b'bad' if name == '1' else name.encode()
    )
  return [str(tmp_path / f'{name}.jpg') for name in '012345']


def _run(names, output=None, stop_after=None, model='m', **kwargs):
  """Captions files; returns (what was captioned, failures, files done before).

  Args:
    names: of the files.
    output: path of the file of captions.
    stop_after: number of files after which the work is broken off.
    model: fingerprint of the model.
    **kwargs: of `CaptionOptions`.
  """
  captioner = _Captioner(model)
  options = options_lib.CaptionOptions(
    output_file=str(output or ''),
    inference_batch_size=2,
    seconds_between_frames=1.0,
    **kwargs,
  )
  with outputs.Outputs(options, captioner) as out:
    work = captioning.caption(
      captioner, out.pending(names), options, out.num_captioned
    )
    for number, file in enumerate(work):
      if number == stop_after:
        work.close()
        break
      out.add(file)
  failures = {os.path.basename(name): why for name, why in out.failures.items()}
  return captioner.seen, failures, out.num_done


def _captions(output):
  """Returns {name: best caption} of a file of captions."""
  return {
    os.path.basename(line['image']): [c['caption'] for c in line['captions']]
    for line in map(json.loads, output.read_text('utf-8').splitlines())
  }


_ALL = {
  '0.jpg': ['a 0'],
  '1.jpg': [],
  '2.jpg': ['a 2'],
  '3.jpg': ['a 3'],
  '4.jpg': ['a 4'],
  '5.jpg': [],
}
_FAILURES = {'1.jpg': 'damaged', '5.jpg': 'No such file or directory'}


@pytest.mark.parametrize('stop_after', range(6))
def test_goes_on_where_it_stopped(photos, tmp_path, stop_after):
  output = tmp_path / 'captions.jsonl'
  _run(photos, output, stop_after)
  assert list(_captions(output)) == list(_ALL)[:stop_after]
  seen, failures, done = _run(photos, output)
  assert _captions(output) == _ALL and failures == _FAILURES
  assert len(output.read_text().splitlines()) == len(photos)
  # Each gets the number that it has in one run, which samples depend on.
  whole = ['0 0', '1 2', '2 3', '3 4']
  good_before = stop_after - (stop_after > 1)
  assert seen == whole[good_before:] and done == good_before
  # What is missing is tried again, and told but once.
  assert _run([*photos, photos[0]], output) == ([], _FAILURES, 4)
  assert len(output.read_text().splitlines()) == len(photos)


def test_what_is_new_or_changed_is_captioned(photos, tmp_path):
  output = tmp_path / 'captions.jsonl'
  _run(photos[:3], output)
  with open(photos[0], 'w', encoding='utf-8') as f:
    f.write('changed')
  os.utime(photos[2], ns=(1, 1))
  assert _run(photos[:4], output)[0] == ['2 changed', '3 2', '4 3']
  assert _run(photos[:4], output)[0] == []
  assert _run(photos[:4], output, model='other')[0] == [
    '0 changed',
    '1 2',
    '2 3',
  ]


def test_sidecars_are_written_and_not_twice(photos, tmp_path):
  before = {name: open(name, 'rb').read() for name in photos[:5]}
  seen, failures, _ = _run(photos, sidecars=True)
  assert len(seen) == 4 and failures == _FAILURES
  assert sorted(p.name for p in tmp_path.glob('*.xmp')) == [
    f'{i}.jpg.xmp' for i in '0234'
  ]
  assert sidecar.read(photos[2] + '.xmp').alt_text == 'A 2'
  assert _run(photos, sidecars=True) == ([], _FAILURES, 4)
  # Replaced once per model, so that this can be interrupted too.
  replaced = {'sidecars': True, 'replace_alt_text': True, 'model': 'new'}
  assert len(_run(photos, stop_after=2, **replaced)[0]) > 0
  assert len(_run(photos, **replaced)[0]) == 3
  assert _run(photos, **replaced)[2] == 4
  assert before == {name: open(name, 'rb').read() for name in photos[:5]}


def test_what_is_in_the_file_is_not_captioned_again_for_a_sidecar(
  photos, tmp_path
):
  output = tmp_path / 'captions.jsonl'
  _run(photos, output)
  assert _run(photos, output, sidecars=True)[0] == []
  assert sidecar.read(photos[3] + '.xmp').alt_text == 'A 3'


def test_a_sidecar_that_cannot_be_written_stops_nothing(photos, tmp_path):
  output = tmp_path / 'captions.jsonl'
  (tmp_path / '0.jpg.xmp').write_text('no XMP')
  (tmp_path / '2.jpg.xmp').mkdir()
  seen, failures, _ = _run(photos[:4], output, sidecars=True)
  assert len(seen) == 3 and sorted(failures) == ['0.jpg', '1.jpg', '2.jpg']
  assert 'no alt text' in failures['0.jpg']
  assert 'Is a directory' in failures['2.jpg']
  assert _captions(output)['0.jpg'] == ['a 0']
  assert sidecar.read(photos[3] + '.xmp').alt_text == 'A 3'
  assert (tmp_path / '0.jpg.xmp').read_text() == 'no XMP'


def test_below_the_least_confidence_there_is_neither(photos, tmp_path):
  output = tmp_path / 'captions.jsonl'
  less = {'sidecars': True, 'min_confidence': 0.6}
  _run(photos[:1], output, **less)
  (line,) = map(json.loads, output.read_text().splitlines())
  assert line['captions'] == [] and line['abstained_at_confidence'] == 0.5
  assert not list(tmp_path.glob('*.xmp'))
  assert _run(photos[:1], output, **less) == ([], {}, 1)


def test_frames_of_a_video_stand_together(photos, tmp_path, monkeypatch):
  def frames(path, seconds):
    assert seconds == 1.0
    for time in (0.0, 2.5, 4.0):
      if os.path.basename(path) == 'torn.mp4' and time == 4.0:
        raise ValueError('damaged video')
      if os.path.basename(path) == 'bad.mp4':
        raise ValueError('no video')
      if os.path.basename(path) != 'empty.mp4':
        yield video.Frame(time, np.full([1, 1, 3], int(time), np.uint8))

  monkeypatch.setattr(video, 'frames', frames)
  names = [photos[0]]
  for name in ('a.mp4', 'torn.mp4', 'bad.mp4', 'empty.mp4'):
    (tmp_path / name).write_bytes(b'x')
    names.append(str(tmp_path / name))
  names.append(photos[2])
  output = tmp_path / 'captions.jsonl'
  seen, failures, _ = _run(names, output)
  assert [image.split()[1] for image in seen] == '0 0 6 12 0 6 2'.split()
  assert failures == {
    'bad.mp4': 'no video',
    'empty.mp4': 'a video without a frame',
  }
  lines = [json.loads(line) for line in output.read_text().splitlines()]
  assert [
    (os.path.basename(line['image']), line.get('time'), line.get('frames'))
    for line in lines
  ] == [
    ('0.jpg', None, None),
    *(('a.mp4', time, 3) for time in (0.0, 2.5, 4.0)),
    *(('torn.mp4', time, 2) for time in (0.0, 2.5)),
    ('bad.mp4', None, None),
    ('empty.mp4', None, None),
    ('2.jpg', None, None),
  ]
  assert _run(names, output)[0] == []
  assert 'no sidecar' in _run(names, sidecars=True)[1]['a.mp4']


def test_without_a_file_or_sidecars_all_is_captioned_as_given(photos):
  assert _run([photos[0], photos[0], photos[2]])[0] == ['0 0', '1 0', '2 2']


def test_captions_are_printed_unless_there_is_a_file(photos, tmp_path, capsys):
  _run(photos[:2], min_confidence=0.6)
  _run(photos[:1], sidecars=True, output_format='json')
  printed = capsys.readouterr()
  *text, as_json = printed.out.splitlines()
  assert text == ['Captions for image 0.jpg:', '  none (confidence 0.50)']
  assert json.loads(as_json)['captions'][0]['caption'] == 'a 0'
  assert printed.err == f'skipped {photos[1]}: damaged\n'
  _run(photos[:2], tmp_path / 'captions.jsonl')
  assert capsys.readouterr() == ('', printed.err)


def test_write_captions_counts_what_has_none(photos, tmp_path):
  options = options_lib.CaptionOptions(output_file=f'{tmp_path}/captions.csv')
  for _ in range(2):  # Those of a run before count too.
    assert outputs.write_captions(_Captioner(), photos, options) == 2


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
