# SPDX-License-Identifier: Apache-2.0
"""Tests of fuzz, and by it of what reads files."""

import os
import random
import subprocess
import sys

import numpy as np
import pytest

from im2txt.stress import fuzz
from im2txt.stress import mutations


@pytest.mark.parametrize(
  'kind, count',
  [
    ('images', 60),
    ('records', 30),
    ('checkpoints', 100),
    ('vocabularies', 30),
    ('json', 60),
  ],
)
def test_damaged_files_are_read_or_refused(kind, count):
  outcomes, findings, _ = fuzz.run(kind, count, seed=1)
  assert not findings
  assert outcomes[fuzz.REFUSED] > 0
  assert sum(outcomes.values()) >= count


# A child that reads nothing, and misbehaves at the input 1 of 3.
_CHILD = """
import os, sys, time
first = int(sys.argv[2].partition("=")[2])
print("ready", flush=True)
for number in range(first, 3):
  print("begin", number, sep="\\t", flush=True)
  if number == 1:
    {}
  print("end", number, "fine", "", sep="\\t", flush=True)
print("memory", 5, sep="\\t", flush=True)
"""


@pytest.mark.parametrize(
  'code, outcome, detail',
  [
    ('os.abort()', fuzz.CRASH, 'signal SIGABRT'),
    (
      'print("last words", file=sys.stderr); os._exit(3)',
      fuzz.CRASH,
      'status 3 last words',
    ),
  ],
)
def test_a_crash_is_named_and_the_rest_is_read(code, outcome, detail):
  outcomes, findings, memory = fuzz.run(
    'images', 3, command=[sys.executable, '-c', _CHILD.format(code)]
  )
  (finding,) = findings
  assert finding.name == 'images:1'
  assert finding.outcome == outcome
  assert finding.detail.startswith(detail)
  assert outcomes == {fuzz.FINE: 2, outcome: 1}
  assert memory == 5


def test_a_silent_child_is_slow():
  _, findings, _ = fuzz.run(
    'images',
    3,
    command=[sys.executable, '-c', _CHILD.format('time.sleep(600)')],
    patience=0.5,
  )
  assert [(f.name, f.outcome) for f in findings] == [('images:1', fuzz.SLOW)]


def test_a_child_that_does_not_start_says_why():
  with pytest.raises(RuntimeError, match='does not start: no such thing'):
    fuzz.run(
      'images',
      1,
      command=[sys.executable, '-c', 'raise SystemExit("no such thing")'],
    )


def test_memory_is_not_that_of_the_process_that_started_it():
  large = np.ones(300 << 20, np.uint8)
  result = subprocess.run(
    [
      sys.executable,
      '-c',
      'from im2txt.stress import fuzz\nprint(fuzz.peak_kilobytes())',
    ],
    capture_output=True,
    text=True,
    env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
    check=True,
  )
  del large
  assert 1 < int(result.stdout) >> 10 < 200


@pytest.mark.parametrize(
  'error, outcome',
  [
    (ValueError('one line'), fuzz.REFUSED),
    (OSError('one line'), fuzz.REFUSED),
    (ValueError('two\nlines'), fuzz.OTHER),
    (ValueError(''), fuzz.OTHER),
    (TypeError('one line'), fuzz.OTHER),
    (MemoryError(), fuzz.OTHER),
  ],
)
def test_only_an_error_of_one_line_is_a_refusal(error, outcome):
  def read():
    raise error

  assert fuzz.outcome_of(read)[0] == outcome


def test_damage_depends_on_the_seed_alone():
  data = bytes(range(200))
  damaged = [
    mutations.mutate(random.Random(seed), data, [data]) for seed in (1, 1, 2)
  ]
  assert damaged[0] == damaged[1] != damaged[2]
  part = mutations.mutate_in_place(random.Random(3), data, 50, 60)
  assert part != data and len(part) == len(data)
  assert part[:50] == data[:50] and part[60:] == data[60:]


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
