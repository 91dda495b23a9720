# SPDX-License-Identifier: Apache-2.0
"""Tests of process."""

import socket
import sys

import pytest

from im2txt.serving import process


def test_binds_where_it_is_told_and_tells_where():
  with process.bind('127.0.0.1', 0) as bound:
    port = bound.getsockname()[1]
    assert process.address_of(bound) == f'http://127.0.0.1:{port}'
    bound.listen()
    with pytest.raises(ValueError, match=f'--port={port} .*already in use'):
      process.bind('127.0.0.1', port)


def test_brackets_are_around_an_address_of_version_6():
  try:
    bound = process.bind('::1', 0)
  except ValueError:
    pytest.skip('no IPv6 here')
  with bound:
    assert bound.family == socket.AF_INET6
    assert process.address_of(bound).startswith('http://[::1]:')


def test_a_name_of_no_machine_is_refused():
  with pytest.raises(ValueError, match='cannot serve at --host=none.invalid'):
    process.bind('none.invalid', 0)


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
