# SPDX-License-Identifier: Apache-2.0
"""Adds up the tests of all targets of a `bazel test`.

Usage: count_tests.py BUILD_EVENT_JSON_FILE

Bazel counts targets and tells nothing of a test that was skipped. This reads
the log of each target that Bazel reports, cached ones too, and prints which
tests were skipped and why, which failed, and one line of totals at the end.
"""

import collections
import json
import re
import sys
import urllib.parse

_FOUND = re.compile(r'=+ (.*) in [0-9.]+s.* =+$')
_COUNT = re.compile(r'(\d+) (passed|failed|errors?|skipped|xfailed|xpassed)')
_SKIPPED = re.compile(r'SKIPPED \[(\d+)\] (?:.*\.py(?::\d+)?: )?(.*)')
_FAILED = re.compile(r'(?:FAILED|ERROR) (.*::.*|\S+\.py.*)')
_KINDS = {
  'error': 'failed',
  'errors': 'failed',
  'xfailed': 'passed',
  'xpassed': 'failed',
}


def read_log(text):
  """Returns what pytest says at the end of its output.

  Args:
    text: The output of one target.

  Returns:
    (counts, reasons, failed): tests by 'passed', 'failed' or 'skipped'; skipped
    tests by reason; names of failed tests, each with its message.
  """
  counts = collections.Counter()
  reasons = collections.Counter()
  failed = []
  for line in text.splitlines():
    if match := _FOUND.match(line):
      # The last line of totals is the whole run's.
      counts = collections.Counter()
      for number, kind in _COUNT.findall(match[1]):
        counts[_KINDS.get(kind, kind)] += int(number)
    elif match := _SKIPPED.match(line):
      reasons[match[2]] += int(match[1])
    elif match := _FAILED.match(line):
      failed.append(match[1])
  return counts, reasons, failed


def read_events(lines):
  """Yields (label, passed, path of the log or None) of each target tested.

  Args:
    lines: Lines of Bazel's build event protocol in JSON.
  """
  for line in lines:
    event = json.loads(line)
    if 'testResult' not in event.get('id', {}):
      continue
    result = event['testResult']
    log = next(
      (
        output['uri']
        for output in result.get('testActionOutput', [])
        if output['name'] == 'test.log'
      ),
      None,
    )
    if log is not None:
      log = urllib.parse.unquote(urllib.parse.urlparse(log).path)
    yield (
      event['id']['testResult']['label'],
      result['status'] == 'PASSED',
      log,
    )


def main(path):
  total = collections.Counter()
  all_reasons = collections.Counter()
  all_failed = []
  with open(path, encoding='utf-8') as events:
    for label, passed, log in read_events(events):
      text = ''
      if log is not None:
        with open(log, encoding='utf-8', errors='replace') as file:
          text = file.read()
      counts, reasons, failed = read_log(text)
      if not passed and not counts['failed']:
        # Killed, out of time, or broken before its first test.
        counts['failed'] = 1
        failed = [f'{label}: ended without a result, see {log}']
      total += counts
      all_reasons += reasons
      all_failed += failed
  for reason, number in sorted(all_reasons.items()):
    print(f'SKIPPED {number}: {reason}')
  for name in all_failed:
    print(f'FAILED {name}')
  print(
    f'{total["passed"]} passed, {total["failed"]} failed, '
    f'{total["skipped"]} skipped'
  )


if __name__ == '__main__':
  main(sys.argv[1])
