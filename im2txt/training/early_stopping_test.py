# SPDX-License-Identifier: Apache-2.0
"""Tests of early_stopping; train_test has one with both programs."""

import json
import sys

import pytest

from im2txt.training import early_stopping


@pytest.fixture(name='best')
def fixture_best(tmp_path):
  """Returns a function that writes what evaluate does."""
  path = tmp_path / 'best' / 'best.json'
  path.parent.mkdir()

  def write(**values):
    path.write_text(
      json.dumps(
        {'metric': 'cider', 'value': 0.51234, 'global_step': 10, **values}
      )
    )

  return write


def test_stops_when_so_many_were_not_better(best, tmp_path, caplog):
  stopping = early_stopping.EarlyStopping(2, str(tmp_path))
  with caplog.at_level('INFO', 'absl'):
    for not_better in ([], [20]):
      best(not_better=not_better)
      assert not stopping.is_due(40)
    assert not caplog.records
    best(not_better=[20, 30])
    assert stopping.is_due(40)
  (record,) = caplog.records
  assert record.getMessage().startswith(
    'early stopping at step 40: none of the 2 checkpoint(s) evaluated since '
    f'step 10 is better than its cider of 0.5123; the best checkpoint is in '
    f'{tmp_path}/best'
  )
  # Another process finds the same, and one that is more patient goes on.
  assert early_stopping.EarlyStopping(2, str(tmp_path)).is_due(40)
  assert not early_stopping.EarlyStopping(3, str(tmp_path)).is_due(40)


def test_what_an_earlier_run_left_does_not_stop_a_new_one(best, tmp_path):
  stopping = early_stopping.EarlyStopping(2, str(tmp_path))
  best(not_better=[20, 30])
  assert not stopping.is_due(5)
  assert not stopping.is_due(25)


def test_is_off_by_default(best, tmp_path):
  best(not_better=[20, 30])
  assert not early_stopping.EarlyStopping(0, str(tmp_path)).is_due(40)


def test_goes_on_if_there_is_nothing_to_read(best, tmp_path, caplog):
  stopping = early_stopping.EarlyStopping(1, str(tmp_path / 'none'))
  assert not stopping.is_due(40)
  (tmp_path / 'best' / 'best.json').write_text('{"metric": ')
  stopping = early_stopping.EarlyStopping(1, str(tmp_path))
  assert not stopping.is_due(40)
  (line,) = [r.getMessage() for r in caplog.records if r.levelname == 'WARNING']
  assert 'no early stopping for now: cannot read' in line


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
