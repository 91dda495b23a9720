# SPDX-License-Identifier: Apache-2.0
"""Tests of coco_server."""

import json
import os
import sys
import zipfile

import pytest

from im2txt.data import caption_files
from im2txt.data import coco_server

_PARTS = {'val2014': {42: 'a man', 7: 'un café'}, 'test2014': {1: 'a dog'}}


def test_zip(tmp_path, monkeypatch):
  monkeypatch.setattr(coco_server, 'IMAGES', {'val2014': 2, 'test2014': 3})
  path = tmp_path / 'results.zip'
  lines = coco_server.write(str(path), 'my-net', _PARTS)
  assert lines == ['1 images of test2014; the server wants all 3']
  assert os.listdir(tmp_path) == ['results.zip']
  with zipfile.ZipFile(path) as archive:
    assert archive.namelist() == [
      'captions_val2014_my-net_results.json',
      'captions_test2014_my-net_results.json',
    ]
    assert json.loads(archive.read(archive.namelist()[0])) == [
      {'image_id': 7, 'caption': 'un café'},
      {'image_id': 42, 'caption': 'a man'},
    ]
    archive.extractall(tmp_path)
  assert caption_files.read_results(
    tmp_path / 'captions_test2014_my-net_results.json', '--x'
  ) == {1: 'a dog'}
  first = path.read_bytes()
  coco_server.write(str(path), 'my-net', _PARTS)
  assert path.read_bytes() == first


def test_an_image_of_both_parts_is_refused(tmp_path):
  with pytest.raises(ValueError, match='1 images are in both .* image_id 42'):
    coco_server.write(
      str(tmp_path / 'x.zip'),
      'a',
      {'val2014': {42: 'a', 1: 'b'}, 'test2014': {42: 'a'}},
    )
  assert not os.listdir(tmp_path)


@pytest.mark.parametrize('name', ['', 'a/b', '../x', '.a', 'a b', 'a\n'])
def test_names_that_are_no_part_of_a_file_name(name):
  with pytest.raises(ValueError, match='--server_name='):
    coco_server.check_name(name, '--server_name')
  coco_server.check_name('show-tell_2.0', '--server_name')


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
