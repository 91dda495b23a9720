#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs scripts/slurm_train.sbatch on a real Slurm of three nodes, which lives on
# this machine while the script runs: trains, stops, preempts and kills
# (docs/distributed.md). Takes some minutes. Needs root; installs Slurm (apt).
#
#   scripts/slurm_check.sh

set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
if ((EUID)); then
  echo 'slurm_check: a Slurm on this machine needs root: start it as root' >&2
  exit 1
fi
scripts/setup.sh --test

if ! type munged slurmctld slurmd srun ip unshare > /dev/null 2>&1; then
  apt-get update
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
    slurm-wlm munge iproute2 util-linux
fi
exec .venv/bin/python3 -m im2txt.stress.slurm
