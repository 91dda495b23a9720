# SPDX-License-Identifier: Apache-2.0
"""Files that have their name only once they are whole, and where they lie."""

import contextlib
import hashlib
import json
import os


def in_project(*parts):
  """Returns a path below the project's root, a str.

  Under Bazel this file is a link in the runfiles; what the project ships in
  `data/` lies beside what it points to.
  """
  root = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
  return os.path.join(root, *parts)


def sha256(path):
  """Returns the SHA-256 of a file, 64 hexadecimal digits."""
  with open(path, 'rb') as f:
    return hashlib.file_digest(f, 'sha256').hexdigest()


@contextlib.contextmanager
def replacing(path):
  """Yields another name in the same directory; what is there becomes `path`.

  The name is hidden, so that no pattern of files matches it. If the block
  fails, `path` stays as it was and what was written goes.

  Args:
    path: str.
  """
  directory, name = os.path.split(path)
  temporary = os.path.join(directory, f'.{name}.tmp')
  try:
    yield temporary
    os.replace(temporary, path)
  finally:
    with contextlib.suppress(FileNotFoundError):
      os.remove(temporary)


def write_json(path, content, indent=1):
  """Writes a value as JSON, `indent` as in `json.dump`."""
  with replacing(path) as temporary:
    with open(temporary, 'w', encoding='utf-8') as f:
      json.dump(content, f, ensure_ascii=False, indent=indent)
      f.write('\n')
