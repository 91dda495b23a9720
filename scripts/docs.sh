#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds the site of docs/ in site/. A link or an anchor that leads nowhere, a
# page that is in no menu, and anything that a page would load from elsewhere
# fail the build.
#
#   scripts/docs.sh            builds
#   scripts/docs.sh --serve    shows it at http://127.0.0.1:8000, and again
#                              whenever a page changes

set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
[[ "$*" == '' || "$*" == --serve ]] || {
  echo "docs: unknown argument: $* (usage: scripts/docs.sh [--serve])" >&2
  exit 1
}
scripts/setup.sh --docs

# Without what Material tells of its makers' other program.
export NO_MKDOCS_2_WARNING=1
if [[ "${1:-}" == --serve ]]; then
  exec .venv/bin/python3 -m mkdocs serve --strict --watch README.md \
    --watch data/flickr8k_coco/README.md
fi
.venv/bin/python3 -m mkdocs build --strict
echo "docs: open $(pwd)/site/index.html, or run scripts/docs.sh --serve, which" \
  "has a search too"
