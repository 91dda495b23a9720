# SPDX-License-Identifier: Apache-2.0
"""Every flag that the README and the scripts name is one of a program."""

import glob
import os
import re
import sys

import pytest

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# Flags of other programs, and of these scripts.
_OTHERS = {
  # absl
  'debug',
  'help',
  'helpfull',
  # curl
  'data-binary',
  # apt-get, pip and Python
  'clear',
  'disable-pip-version-check',
  'no-deps',
  'no-install-recommends',
  'quiet',
  # Bazel
  'build_event_json_file',
  'noshow_progress',
  'test_output',
  'ui_event_filters',
  'version',
  # TensorBoard
  'logdir',
  # TensorFlow Serving
  'batching_parameters_file',
  'enable_batching',
  # python -m im2txt.stress.fuzz
  'checkpoints',
  'json',
  'records',
  'vocabularies',
  # scripts/lint.sh, ruff
  'check',
  'fix',
  # scripts/setup.sh, and the usage of `caption`
  'dev',
  'test',
  'flag',
}


def read(path):
  with open(path, encoding='utf-8') as f:
    return f.read()


def defined():
  """Returns the names of all flags of the programs."""
  names = set()
  for path in glob.glob(
    os.path.join(_ROOT, 'im2txt', '**', '*.py'), recursive=True
  ):
    source = read(path)
    names.update(re.findall(r"DEFINE_\w+\(\s*'(\w+)'", source))
    names.update(re.findall(r"\.add_argument\(\s*'--(\w+)'", source))
    names.update(
      f'{split}{rest}'
      for split in ('train', 'val', 'test')
      for rest in re.findall(r"f'\{split\}(_\w+)'", source)
    )
    # Fields of the dataclasses that are flags.
    names.update(
      re.findall(
        r'^  (\w+): (?:str|int|float|bool|tuple\[.*\])(?: \| None)? = ',
        source,
        re.MULTILINE,
      )
    )
  return names


@pytest.mark.parametrize(
  'path',
  [
    'README.md',
    *(
      f'{folder}/{name}'
      for folder in ('docs', 'scripts')
      for name in sorted(os.listdir(os.path.join(_ROOT, folder)))
      if name.endswith(('.md', '.sh'))
    ),
  ],
)
def test_flags_exist(path):
  known = defined()
  assert 'input_file_pattern' in known and 'batch_size' in known
  named = set(
    re.findall(r'(?<![\w-])--([a-z][\w-]*)', read(os.path.join(_ROOT, path)))
  )
  unknown = {
    name
    for name in named - _OTHERS - known
    if name.removeprefix('no') not in known
  }
  assert not unknown


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
