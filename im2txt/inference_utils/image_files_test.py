# SPDX-License-Identifier: Apache-2.0
"""Tests of image_files."""

import sys
import threading

import pytest

from im2txt.inference_utils import image_files


def decode(data):
  if data == b'bad':
    raise ValueError('damaged')
  return data.decode()


@pytest.fixture(name='files')
def fixture_files(tmp_path):
  """Six files, the second damaged; and one that does not exist."""
  paths = [tmp_path / str(i) for i in range(6)]
  for path in paths:
    path.write_bytes(b'bad' if path.name == '1' else path.name.encode())
  return [str(path) for path in paths] + [str(tmp_path / 'none')]


@pytest.mark.parametrize('ahead', [0, 2, 100])
def test_order_is_kept_and_errors_stand_in_their_place(files, ahead):
  found = list(image_files.read_images(files, decode, ahead))
  assert [name for name, _ in found] == files
  assert [image for _, image in found[:1] + found[2:-1]] == list('02345')
  assert isinstance(found[1][1], ValueError)
  assert isinstance(found[-1][1], FileNotFoundError)


def test_reads_ahead_of_the_caller_but_not_further(files):
  seen = []
  third = threading.Event()

  def decode_and_tell(data):
    seen.append(data)
    if len(seen) == 3:
      third.set()
    return data

  images = image_files.read_images(files[:-1], decode_and_tell, 2)
  next(images)
  # The caller holds the first; two more come without being asked for.
  assert third.wait(timeout=30)
  assert len(seen) == 3
  assert len(list(images)) == 5


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
