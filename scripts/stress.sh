#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Disturbs the programs by the thousand and prints a table of what was lost:
# kills, power cuts, full disks, dead workers, damaged shards and damaged files
# (docs/stress.md). It takes hours; --quick takes some minutes.
#
#   scripts/stress.sh [--quick] [--only=kills,fuzz]
#   STRESS_DIR=/tmp/stress scripts/stress.sh      elsewhere than data/stress
#
# The results of each section are kept in data/stress when it has ended. So a
# run that was interrupted goes on with --only and the sections that are left,
# and the table has all of them. As root it also cuts the power of a disk.

set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/setup.sh --test

results="${STRESS_DIR:-data/stress}"
mkdir -p "${results}"
.venv/bin/python3 -m im2txt.stress.faults --results="${results}/results.json" \
  --output="${results}/table.md" "$@"
