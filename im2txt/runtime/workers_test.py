# SPDX-License-Identifier: Apache-2.0
"""Tests of workers."""

import contextlib
import os
import signal
import stat
import sys
import time

import pytest

from im2txt.runtime import workers as workers_lib


def _square(number):
  return os.getpid(), number * number


def _wait_for(path):
  """Lets a task end after another."""
  while not os.path.exists(path):
    time.sleep(0.01)
  return path


def _make(path):
  with open(path, 'w', encoding='utf-8'):
    return path


def _fail(number):
  if number == 3:
    raise FileNotFoundError(2, 'gone', 'x.txt')
  return number


class _Odd(Exception):
  """An error that cannot be made from its message."""

  def __init__(self, one, two):
    super().__init__(f'{one} and {two}')


class _OddValue(ValueError):
  """Likewise."""

  def __init__(self, one, two):
    super().__init__(f'{one} and {two}')


def _fail_oddly(kind):
  raise kind(1, 2)


def _die():
  os.kill(os.getpid(), signal.SIGKILL)


class _DiesWhenSent:
  """Kills the process in the midst of a result."""

  def __reduce__(self):
    _die()


def _answer_in_part():
  """Sends the beginning of a large answer, and dies; another one lives on."""
  for descriptor in range(100):
    with contextlib.suppress(OSError):
      if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        # A length of a megabyte, and less than that.
        os.write(descriptor, (1 << 20).to_bytes(4, 'big') + b'x' * 100)
  _die()


def test_results_come_in_order_and_all_processes_work(tmp_path):
  with workers_lib.Workers(2) as workers:
    results = list(workers.map(_square, ((n,) for n in range(50))))
    assert [square for _, square in results] == [n * n for n in range(50)]
    assert os.getpid() not in {pid for pid, _ in results}
    # The first task ends after the second.
    path = str(tmp_path / 'made')
    calls = [(_wait_for, path), (_make, path)]
    assert list(workers.map(_call, calls)) == [path, path]
    assert not list(workers.map(_square, []))


def _call(function, argument):
  return function(argument)


def test_few_tasks_are_in_memory():
  begun = []

  def tasks():
    for number in range(40):
      begun.append(number)
      yield (number,)

  with workers_lib.Workers(2) as workers:
    for done, _ in enumerate(workers.map(_square, tasks())):
      assert len(begun) - done <= 6


def test_an_error_is_raised_in_its_turn_and_tells_where():
  with workers_lib.Workers(1) as workers:
    results = workers.map(_fail, ((n,) for n in range(9)))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(FileNotFoundError, match="gone: 'x.txt'") as raised:
      next(results)
    assert 'in _fail' in raised.value.__notes__[0]
  for kind, told, message in (
    (_Odd, RuntimeError, '^_Odd: 1 and 2'),
    (_OddValue, ValueError, '^1 and 2'),
  ):
    with workers_lib.Workers(1) as workers:
      with pytest.raises(told, match=message):
        next(workers.map(_fail_oddly, [(kind,)]))


@pytest.mark.parametrize('function', [_die, _DiesWhenSent, _answer_in_part])
def test_the_death_of_one_is_noticed_whatever_it_does(function):
  with workers_lib.Workers(2, flag='--processes') as workers:
    with pytest.raises(ChildProcessError, match='with --processes below 2$'):
      list(workers.map(_start, [(_square, 1), (function,), (_square, 3)]))


def _start(function, *args):
  return function(*args)


def test_the_death_of_one_without_a_task_is_noticed():
  with workers_lib.Workers(1) as workers:
    ((pid, _),) = workers.map(_square, [(1,)])
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ChildProcessError, match='when more memory is free$'):
      list(workers.map(_square, [(1,)]))


def test_a_message_names_no_flag_that_nobody_gave():
  with workers_lib.Workers(2) as workers:
    with pytest.raises(ChildProcessError) as raised:
      list(workers.map(_die, [()]))
  assert str(raised.value) == (
    'a worker process was killed, perhaps for want of memory: try again with '
    'fewer than 2 worker processes'
  )


def test_they_end_when_the_caller_does_not_take_all():
  with pytest.raises(KeyError):
    with workers_lib.Workers(2) as workers:
      results = workers.map(_square, ((n,) for n in range(9)))
      pid, _ = next(results)
      raise KeyError
  with pytest.raises(ProcessLookupError):
    os.kill(pid, 0)


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
