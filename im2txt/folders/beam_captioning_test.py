# SPDX-License-Identifier: Apache-2.0
"""Tests of beam_captioning."""

import contextlib
import json
import sys

import pytest

from im2txt import testing
from im2txt.folders import beam_captioning
from im2txt.folders import options as options_lib
from im2txt.inference_utils import batches
from im2txt.inference_utils import caption_lines
from im2txt.inference_utils import captioner as captioner_lib
from im2txt.inference_utils import image_files
from im2txt.inference_utils import search_config


class _Pool:
  """Does tasks that passed through JSON, as those of other machines do."""

  grain = 1

  def map(self, function, tasks):
    for task in tasks:
      task = json.loads(json.dumps(task))
      yield json.loads(json.dumps(function(*task)))


@pytest.mark.parametrize(
  'search',
  [
    search_config.SearchConfig(beam_size=2, forbidden_words=('dog',)),
    search_config.SearchConfig(beam_size=2, sample=True, sampling_seed=7),
  ],
)
def test_images_in_parts_are_captioned_as_a_whole(
  search, tmp_path, monkeypatch, capsys
):
  testing.caption_model(tmp_path)
  for i in range(5):
    (tmp_path / f'{i}.jpg').write_bytes(testing.jpeg(i))
  (tmp_path / 'bad.jpg').write_bytes(b'no image')
  monkeypatch.chdir(tmp_path)
  names = [*(f'{i}.jpg' for i in range(5)), 'bad.jpg', 'missing.jpg']
  monkeypatch.setattr(
    options_lib.CaptionOptions,
    'workers',
    lambda *_: contextlib.nullcontext(_Pool()),
  )
  options = options_lib.CaptionOptions(
    runner='DirectRunner',
    checkpoint_path='.',
    output_format='json',
    inference_batch_size=2,
  )
  skipped = beam_captioning.write_captions(
    options, 'word_counts.txt', search, names
  )
  printed = capsys.readouterr()

  captioner = captioner_lib.Captioner(
    str(tmp_path), str(tmp_path / 'word_counts.txt'), search
  )
  expected = [
    caption_lines.lines(name, captions, 'json')
    for name, captions in batches.caption_in_batches(
      captioner, image_files.read_images(names[:5], captioner.decode, 2), 2
    )
  ]
  assert printed.out.splitlines() == expected
  told = [s for s in printed.err.splitlines() if s.startswith('skipped ')]
  assert skipped == len(told) == 2
  assert told[-1] == 'skipped missing.jpg: No such file or directory'


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
