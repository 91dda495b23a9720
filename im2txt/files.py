# SPDX-License-Identifier: Apache-2.0
"""Files that have their name only once they are whole."""

import contextlib
import json
import os


@contextlib.contextmanager
def replacing(path):
  """Yields another name in the same directory; what is there becomes `path`.

  If the block fails, `path` stays as it was and what was written goes.

  Args:
    path: str.
  """
  temporary = f'{path}.tmp'
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
