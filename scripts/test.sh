#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs every test, or those that the arguments name, and counts them:
#
#   scripts/test.sh
#   scripts/test.sh //im2txt:text_tokenizer_test --test_output=all
#
# The tests that compare with the 2016 program need its reference vectors:
# IM2TXT_REFERENCE_DIR is their folder. Without it they are skipped.

set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/setup.sh --test

events="$(mktemp)"
trap 'rm -f "${events}"' EXIT
[[ $# -gt 0 ]] || set -- //...
status=0
bazel test --build_event_json_file="${events}" "$@" || status=$?
.venv/bin/python3 scripts/count_tests.py "${events}"
exit "${status}"
