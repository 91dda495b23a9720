# SPDX-License-Identifier: Apache-2.0
"""Installs the data of NLTK's Punkt tokenizer (English, 0.2 MB).

  python -m im2txt.text.install_punkt [--target DIR]

The data come from NLTK's own downloader or, if that cannot be reached, from a
wheel of the Python package index that contains the same files. Nothing is done
if the data are installed already.
"""

import argparse
from collections.abc import Callable
from collections.abc import Sequence
import glob
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile

from im2txt.runtime import files
from im2txt.text import tokenizer

# A package with NLTK's punkt_tab among its files, at a version that has it.
_WHEEL = 'llama-index-core==0.14.25'
_NLTK_SECONDS = 60
_PIP_SECONDS = 300

# Only the real model tells the ends of sentences from abbreviations.
_PROBE = 'a man sits at 5 p.m. daily. he reads'
_PROBE_TOKENS = [
  'a',
  'man',
  'sits',
  'at',
  '5',
  'p.m.',
  'daily',
  '.',
  'he',
  'reads',
]


def default_target() -> str:
  """Returns the first directory of NLTK_DATA, or the project's own."""
  first = os.environ.get('NLTK_DATA', '').split(os.pathsep)[0]
  return os.path.expanduser(first) or tokenizer.project_data_directory()


def is_installed(directory: str) -> bool:
  """Returns whether NLTK tokenizes with the data under `directory` alone."""
  if not os.path.isdir(os.path.join(directory, tokenizer.PUNKT_DIRECTORY)):
    return False
  # In a separate process, because NLTK keeps the first model that it loads.
  probe = subprocess.run(
    [
      sys.executable,
      '-c',
      'import sys, nltk.data; nltk.data.path[:] = [sys.argv[1]]; '
      'from nltk.tokenize import word_tokenize; '
      'print(*word_tokenize(sys.argv[2]))',
      directory,
      _PROBE,
    ],
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    text=True,
    check=False,
  )
  return probe.returncode == 0 and probe.stdout.split() == _PROBE_TOKENS


def install(target: str, sources: Sequence[Callable[[str], None]]) -> None:
  """Installs the data under `target`, from the first source that works.

  Args:
    target: directory like those of NLTK_DATA; made if missing.
    sources: functions that take a new directory and put the data under it in
      NLTK's layout. They may fail with OSError or SubprocessError.

  Raises:
    ValueError: no source gave data that NLTK can use.
  """
  os.makedirs(target, exist_ok=True)
  final = os.path.join(target, tokenizer.PUNKT_DIRECTORY)
  failures = []
  for source in sources:
    with tempfile.TemporaryDirectory(prefix='.punkt-', dir=target) as staging:
      try:
        source(staging)
      except (OSError, subprocess.SubprocessError, zipfile.BadZipFile) as error:
        failures.append(f'{source.__name__}: {error}')
        continue
      if not is_installed(staging):
        failures.append(f'{source.__name__}: NLTK cannot use the data')
        continue
      # The data there did not load, so they are remains of a failure.
      shutil.rmtree(final, ignore_errors=True)
      os.makedirs(os.path.dirname(final), exist_ok=True)
      files.sync_tree(staging)
      files.rename((os.path.join(staging, tokenizer.PUNKT_DIRECTORY), final))
      return
  raise ValueError(
    "cannot get NLTK's tokenizer data (" + '; '.join(failures) + '): copy '
    f'{tokenizer.PUNKT_DIRECTORY}/ from a machine that has it to {final}'
  )


def nltk_downloader(directory: str) -> None:
  """Lets NLTK download punkt_tab into `directory`."""
  # NLTK would wait for minutes, and it writes only below its data path.
  subprocess.run(
    [
      sys.executable,
      '-m',
      'nltk.downloader',
      '-q',
      '-e',
      '-d',
      directory,
      'punkt_tab',
    ],
    env=dict(os.environ, NLTK_DATA=directory),
    stdin=subprocess.DEVNULL,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
    check=True,
    timeout=_NLTK_SECONDS,
  )


def package_index(directory: str) -> None:
  """Extracts the English model from a wheel of the package index."""
  with tempfile.TemporaryDirectory() as wheels:
    subprocess.run(
      [
        sys.executable,
        '-m',
        'pip',
        'download',
        '--quiet',
        '--no-deps',
        '--disable-pip-version-check',
        '--dest',
        wheels,
        _WHEEL,
      ],
      stdin=subprocess.DEVNULL,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
      check=True,
      timeout=_PIP_SECONDS,
    )
    [wheel] = glob.glob(os.path.join(wheels, '*.whl'))
    extract_english(wheel, directory)


def extract_english(wheel: str, directory: str) -> None:
  """Extracts .../punkt_tab/english/ of a wheel in NLTK's layout."""
  english = os.path.join(directory, tokenizer.PUNKT_DIRECTORY)
  os.makedirs(english)
  with zipfile.ZipFile(wheel) as archive:
    for member in archive.namelist():
      folder, name = os.path.split(member)
      if folder.endswith('/' + tokenizer.PUNKT_DIRECTORY) and name:
        with (
          archive.open(member) as source,
          open(os.path.join(english, name), 'wb') as copy,
        ):
          shutil.copyfileobj(source, copy)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the program and returns its exit status."""
  parser = argparse.ArgumentParser(
    description="Installs the data of NLTK's Punkt tokenizer."
  )
  parser.add_argument(
    '--target',
    default=default_target(),
    metavar='DIR',
    help='NLTK data directory to install into (default: the first of '
    "NLTK_DATA, or the project's data/nltk_data)",
  )
  target = parser.parse_args(argv).target
  if is_installed(target):
    print(f"NLTK's tokenizer data is in {target} already.")
    return 0
  try:
    install(target, [nltk_downloader, package_index])
  except (OSError, ValueError) as error:
    print(f'install_punkt: {error}', file=sys.stderr)
    return 1
  print(f"Installed NLTK's tokenizer data in {target}.")
  return 0


if __name__ == '__main__':
  sys.exit(main())
