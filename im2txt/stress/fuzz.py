# SPDX-License-Identifier: Apache-2.0
"""Reads thousands of damaged files as the programs do.

  python -m im2txt.stress.fuzz [--images=5000] [--records=2000]
      [--checkpoints=500] [--vocabularies=500] [--json=500] [--seed=0]

Every input is a good file that was damaged at random. A function that reads it
may accept it, or refuse it with an error of one line. Anything else is a
finding: a crash, another exception, more than 10 seconds or more than 2 GB. An
input depends only on its kind, its number and the seed:

  python -m im2txt.stress.fuzz --again=images:1234 --seed=0

reads this input again in its own process, without catching errors. The status
is 1 if there is a finding.
"""

import argparse
import collections
from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import os
import random
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from im2txt.stress import inputs as inputs_lib

KINDS = ('images', 'records', 'checkpoints', 'vocabularies', 'json')
_DEFAULTS = (5000, 2000, 500, 500, 500)
_MOST_SECONDS = 10
_MOST_BYTES = 2 << 30
_MOST_CHARACTERS = 3000
# Time for a child to load TensorFlow and to make graphs.
_SECONDS_TO_START = 300

FINE, REFUSED, OTHER = 'fine', 'refused', 'other exception'
CRASH, SLOW, LARGE = 'crash', 'slow', 'large'
_FINDINGS = (OTHER, CRASH, SLOW, LARGE)


class Finding(NamedTuple):
  """A finding about an input.

  Attributes:
    name: kind:number of the input.
    outcome: one of the outcomes above.
    detail: a line of explanation.
  """

  name: str
  outcome: str
  detail: str


def damaged(
  kind: str, goods: 'Mapping[str, inputs_lib.Good]', number: int, seed: int
) -> tuple[str, dict[str, bytes]]:
  """Returns (name of the good input, its files by name, one of them damaged).

  Args:
    kind: one of KINDS.
    goods: the good inputs of this kind by name.
    number: number of the input.
    seed: seed of the damage.
  """
  rng = random.Random(f'{seed}/{kind}/{number}')
  name = rng.choice(sorted(goods))
  return name, goods[name].damage(
    rng, [data for good in goods.values() for data in good.files.values()]
  )


def outcome_of(read: Callable[[], object]) -> tuple[str, str]:
  """Returns (outcome, detail) of one call that reads an input."""
  try:
    read()
  except (OSError, ValueError) as error:
    message = str(error)
    # The user sees only this message, after "error: ".
    if (
      '\n' in message or not message.strip() or len(message) > _MOST_CHARACTERS
    ):
      return OTHER, f'{type(error).__name__} not of one line: {message!r:.300}'
    return REFUSED, message
  except Exception as error:
    message = f'{type(error).__name__}: {error!s:.300}'
    return OTHER, ' '.join(message.split())
  return FINE, ''


def peak_kilobytes() -> int:
  """Returns the peak memory of this process.

  The operating system's `ru_maxrss` is not suitable: it includes the memory of
  the parent process at the start.
  """
  with open('/proc/self/status', encoding='ascii') as f:
    [kilobytes] = re.findall(r'VmHWM:\s+(\d+) kB', f.read())
  return int(kilobytes)


def _serve(kind: str, first: int, last: int, seed: int) -> None:
  """Reads inputs and reports each on stdout, in the child process."""
  from im2txt.stress import inputs

  goods, readers = inputs.goods(kind), inputs.readers(kind)
  # The readers' own output must not mix with the reports.
  out = os.fdopen(os.dup(1), 'w', encoding='utf-8')
  os.dup2(2, 1)

  def tell(*fields: object) -> None:
    print(*fields, sep='\t', file=out, flush=True)

  with tempfile.TemporaryDirectory(prefix='im2txt_fuzz_') as directory:
    for name, good in goods.items():
      inputs.put(directory, good.files)
      for reader, read in readers[good.kind].items():
        outcome, detail = outcome_of(lambda: read(directory))
        if outcome != FINE and name not in inputs.REFUSED_BY[reader]:
          raise AssertionError(f'{reader} refuses good {name}: {detail}')
    tell('ready')
    for number in range(first, last):
      name, contents = damaged(kind, goods, number, seed)
      inputs.put(directory, contents)
      tell('begin', number)
      for reader, read in readers[goods[name].kind].items():
        start = time.monotonic()
        outcome, detail = outcome_of(lambda: read(directory))
        if time.monotonic() - start > _MOST_SECONDS:
          outcome, detail = SLOW, f'{time.monotonic() - start:.0f} s'
        tell(
          'end',
          number,
          outcome,
          f'{name}, {reader}: {" ".join(detail.split())}'.encode(
            'ascii', 'backslashreplace'
          ).decode(),
        )
      kilobytes = peak_kilobytes()
      if kilobytes << 10 > _MOST_BYTES:
        # The peak never falls, so another process must go on.
        tell('end', number, LARGE, f'{name}: {kilobytes >> 10} MB')
        return
    tell('memory', kilobytes >> 10)


def _lines(
  process: 'subprocess.Popen[bytes]', patience: float
) -> Generator[str | None, None, None]:
  """Yields the lines of a process, or None if it is silent for too long."""
  assert process.stdout is not None  # It is a pipe.
  buffer, limit = b'', float(_SECONDS_TO_START)
  while True:
    ready, _, _ = select.select([process.stdout], [], [], limit)
    data = os.read(process.stdout.fileno(), 1 << 16) if ready else None
    if data is None:
      yield None
      return
    if not data:
      return
    buffer += data
    *lines, buffer = buffer.split(b'\n')
    for line in lines:
      limit = patience
      yield line.decode()


def run(
  kind: str,
  count: int,
  seed: int = 0,
  command: Sequence[str] | None = None,
  patience: float = _MOST_SECONDS + 5,
) -> tuple[collections.Counter[str], list[Finding], int]:
  """Reads damaged inputs of a kind in child processes.

  Args:
    kind: one of KINDS.
    count: number of inputs.
    seed: seed of the damage.
    command: command that starts a child, for tests.
    patience: seconds that a child may be silent, slightly more than its own
      limit.

  Returns:
    (numbers of the readers' outcomes, findings, peak memory in MB).

  Raises:
    RuntimeError: a child does not start.
  """
  outcomes: collections.Counter[str] = collections.Counter()
  findings: list[Finding] = []
  number, memory = 0, 0
  while number < count:
    # Libraries' messages about the inputs are not for the user.
    with (
      tempfile.TemporaryFile() as errors,
      subprocess.Popen(
        [
          *(command or [sys.executable, '-m', 'im2txt.stress.fuzz']),
          f'--child={kind}',
          f'--first={number}',
          f'--last={count}',
          f'--seed={seed}',
        ],
        stdout=subprocess.PIPE,
        stderr=errors,
      ) as process,
    ):
      ready, silent = False, False
      with contextlib.closing(_lines(process, patience)) as lines:
        for line in lines:
          if line is None:
            silent = True
            process.kill()
            break
          event, *fields = line.split('\t')
          if event == 'ready':
            ready = True
          elif event == 'begin':
            number = int(fields[0])
          elif event == 'memory':
            memory, number = max(memory, int(fields[0])), count
          elif event == 'end':
            outcomes[fields[1]] += 1
            if fields[1] in _FINDINGS:
              findings.append(
                Finding(f'{kind}:{fields[0]}', fields[1], fields[2])
              )
      status = process.wait()
      if not ready:
        errors.seek(0)
        raise RuntimeError(
          f'the child for {kind} does not start: '
          + errors.read().decode('utf-8', 'replace')[-2000:]
        )
      if silent or status:
        errors.seek(0)
        said = errors.read().decode('utf-8', 'replace').split('\n')
        why = next((line for line in reversed(said) if line.strip()), '')
        outcome = SLOW if silent else CRASH
        ended = (
          f'over {patience:g} s'
          if silent
          else f'signal {signal.Signals(-status).name}'
          if status < 0
          else f'status {status}'
        )
        findings.append(
          Finding(f'{kind}:{number}', outcome, f'{ended} {why:.300}')
        )
        outcomes[outcome] += 1
      number = min(number + 1, count)
  return outcomes, findings, memory


def _again(name: str, seed: int) -> None:
  """Reads one input again without catching unexpected errors."""
  from im2txt.stress import inputs

  kind, _, number = name.partition(':')
  goods, readers = inputs.goods(kind), inputs.readers(kind)
  good, contents = damaged(kind, goods, int(number), seed)
  directory = tempfile.mkdtemp(prefix='im2txt_fuzz_')
  inputs.put(directory, contents)
  print(f'{good}: {", ".join(sorted(contents))} in {directory}')
  for reader, read in readers[goods[good].kind].items():
    print(f'{reader} ...', flush=True)
    try:
      read(directory)
    except (OSError, ValueError) as error:
      print(f'  {error}')


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the program and returns its exit status."""
  parser = argparse.ArgumentParser(
    description='Reads thousands of damaged files as the programs do.'
  )
  for kind, default in zip(KINDS, _DEFAULTS):
    parser.add_argument(
      f'--{kind}',
      type=int,
      default=default,
      metavar='N',
      help=f'damaged {kind} to read (default: {default})',
    )
  parser.add_argument(
    '--seed', type=int, default=0, help='seed of the damage (default: 0)'
  )
  parser.add_argument(
    '--again',
    metavar='KIND:N',
    help='read one input again, without catching errors',
  )
  for name in ('child', 'first', 'last'):
    parser.add_argument(f'--{name}', help=argparse.SUPPRESS)
  args = parser.parse_args(argv)
  if args.child:
    _serve(args.child, int(args.first), int(args.last), args.seed)
    return 0
  if args.again:
    _again(args.again, args.seed)
    return 0
  status = 0
  for kind in KINDS:
    count = getattr(args, kind)
    if not count:
      continue
    start = time.monotonic()
    outcomes, findings, memory = run(kind, count, args.seed)
    counts = ', '.join(
      f'{outcomes[outcome]} {outcome}'
      for outcome in (FINE, REFUSED, *_FINDINGS)
    )
    print(
      f'{count} {kind}, read in {sum(outcomes.values())} ways: {counts}; '
      f'{memory} MB at most; {time.monotonic() - start:.0f} s',
      flush=True,
    )
    for finding in findings:
      status = 1
      print(f'  {finding.name} {finding.outcome}: {finding.detail}', flush=True)
  return status


if __name__ == '__main__':
  sys.exit(main())
