#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Measures this machine's figures beside the machine's own limits; about seven
# minutes on two cores. Flags go to im2txt/benchmark.
#
#   scripts/benchmark.sh                      into data/benchmark
#   scripts/benchmark.sh --output_dir=DIR --nogrowth
#   scripts/benchmark.sh --encoders_file_pattern='val-*' --checkpoint_path=DIR \
#     --vocab_file=FILE                       encoders only, see docs/benchmarks.md

set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/setup.sh
bazel build -c opt im2txt/benchmark
exec bazel-bin/im2txt/benchmark --output_dir=data/benchmark "$@"
