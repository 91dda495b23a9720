# SPDX-License-Identifier: Apache-2.0
"""The page that a browser shows, one file that needs no other."""

import base64
import hashlib
import os
import re

_FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'page.html')


def read() -> tuple[str, dict[str, str]]:
  """Returns the page and the headers that belong to it.

  By these a browser runs the script of the page and no other, and loads nothing
  from elsewhere.
  """
  with open(_FILE, encoding='utf-8') as f:
    html = f.read()
  hashes = {
    tag: ' '.join(
      f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
      for text in re.findall(f'<{tag}>(.*?)</{tag}>', html, re.DOTALL)
    )
    for tag in ('script', 'style')
  }
  policy = {
    'default-src': "'none'",
    'script-src': hashes['script'],
    'style-src': hashes['style'],
    'img-src': "'self' blob: data:",
    'media-src': 'blob:',
    'connect-src': "'self'",
    'base-uri': "'none'",
    'form-action': "'none'",
    'frame-ancestors': "'none'",
  }
  return html, {
    'content-security-policy': '; '.join(
      f'{name} {value}' for name, value in policy.items()
    ),
    'cache-control': 'no-cache',
    'referrer-policy': 'no-referrer',
    'x-content-type-options': 'nosniff',
  }
