#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Checks the code without running it: ruff's rules and format, mypy's types, and
# the Dockerfile.
#
#   scripts/lint.sh          checks
#   scripts/lint.sh --fix    mends what ruff can mend, and checks the rest

set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
scripts/setup.sh --dev || exit 1

status=0
if [[ "${1:-}" == --fix ]]; then
  .venv/bin/ruff check --fix . || status=1
  .venv/bin/ruff format . || status=1
else
  .venv/bin/ruff check . || status=1
  .venv/bin/ruff format --check . || status=1
fi
.venv/bin/mypy || status=1
.venv/bin/hadolint Dockerfile || status=1
exit "${status}"
