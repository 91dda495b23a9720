# SPDX-License-Identifier: Apache-2.0
"""Tests of scale."""

import sys

import pytest

from im2txt.benchmarks import scale

_COSTS = scale.Costs(
  check_seconds=2,
  record_seconds=1,
  caption_seconds=0.5,
  encode_seconds=4,
  train_seconds=0.1,
  index_seconds=0.25,
  image_bytes=1000,
  feature_bytes=10,
  caption_bytes=1,
  driver_bytes=3,
  index_bytes=2,
)


def test_needs_are_costs_times_numbers():
  found = scale.needs(
    3600, _COSTS, scale.Plan(captions_per_image=2, views=3, epochs=100)
  )
  assert found.hours == pytest.approx(
    {
      'preparation': 2.0,
      'features': 6.0,
      'start of training': 0.25,
      'training': 10.0,
    }
  )
  assert found.disk == {
    'images': 1_800_000,
    'shards, pairs': 3_603_600,
    'shards, compact': 1_803_600,
    'features': 54_000,
  }
  assert found.memory == {'planning the shards': 10_800, 'training': 7200}
  assert scale.bottleneck(found) == 'training'


def test_the_table_has_a_column_per_size(monkeypatch, capsys):
  monkeypatch.setattr(
    sys, 'argv', ['scale', '--pairs=3600,7200', '--encode_seconds=2']
  )
  assert scale.main() == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[0] == '| | 3,600 pairs | 7,200 pairs |'
  assert '| features, hours of a core | 2 | 4 |' in lines
  assert '| most time | features | features |' in lines


def test_a_wrong_number_is_told(monkeypatch, capsys):
  monkeypatch.setattr(sys, 'argv', ['scale', '--pairs=many'])
  with pytest.raises(SystemExit):
    scale.main()
  assert "'many'" in capsys.readouterr().err


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
