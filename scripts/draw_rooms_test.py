# SPDX-License-Identifier: Apache-2.0
"""Tests of draw_rooms: the page in docs/ is that of the code."""

import pathlib
import runpy
import sys

import pytest

_SCRIPT = runpy.run_path(str(pathlib.Path(__file__).parent / 'draw_rooms.py'))


def test_arrows_that_follow_from_others_are_left_out():
  rooms = {'a': ['b', 'c', 'd'], 'b': ['c'], 'c': ['d'], 'd': []}
  assert _SCRIPT['arrows'](rooms) == [('a', 'b'), ('b', 'c'), ('c', 'd')]


def test_the_page_is_that_of_the_code():
  page = _SCRIPT['PAGE'].read_text('utf-8')
  assert _SCRIPT['drawn'](page, _SCRIPT['read_rooms']()) == page, (
    'run scripts/draw_rooms.py'
  )


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
