#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Installs what is missing: Bazel and Python's venv module (apt), the packages
# of requirements.txt in .venv, and NLTK's tokenizer data. Safe to run again.
#
#   scripts/setup.sh                          to run the programs
#   scripts/setup.sh --test                   to run the tests as well
#   scripts/setup.sh --dev                    to run scripts/lint.sh as well
#   scripts/setup.sh --docs                   to run scripts/docs.sh as well
#   scripts/setup.sh --no-bazel               to do without Bazel
#   IM2TXT_TENSORFLOW=gpu scripts/setup.sh    TensorFlow with CUDA
#   PYTHON=/path/to/python3 scripts/setup.sh  .venv made with this Python

set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="${root}/.venv"
python="${venv}/bin/python3"
# Stands while packages are being installed. Found at the start, it means that
# an earlier run was killed, and that a package may be there by half.
unfinished="${venv}/.unfinished"

say() { echo "setup: $*" >&2; }
die() { say "$*"; exit 1; }

# Prints the first Python that TensorFlow has a build for, and that can make a
# virtual environment.
find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if "${candidate}" -c 'import sys, ensurepip, venv
sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
      command -v "${candidate}"
      return
    fi
  done
  return 1
}

# Bazel refuses paths with a space, whatever is in them.
has_space() { [[ "${root}" == *' '* ]]; }

# Not empty with --no-bazel, and where Bazel cannot be used.
without_bazel=''

check_path() {
  has_space || return 0
  [[ -z "${with_tests}" ]] ||
    die "Bazel, which runs the tests, takes no path with a space: move" \
      "the project elsewhere than ${root}"
  [[ -z "${without_bazel}" ]] || return 0
  without_bazel=1
  say "there is a space in ${root}, and Bazel takes no such path: left out." \
    "The functions of scripts/im2txt.sh do without it; for bazel build and" \
    "scripts/test.sh move the project"
}

install_apt_packages() {
  local packages=() sudo=()
  [[ -n "${without_bazel}" ]] || command -v bazel >/dev/null ||
    packages+=(bazel-bootstrap)
  # A .venv that works needs no other Python.
  if ! [[ -x "${python}" ]] && ! find_python >/dev/null; then
    packages+=(python3 python3-venv)
  fi
  if [[ ${#packages[@]} -eq 0 ]]; then
    return
  fi
  command -v apt-get >/dev/null ||
    die "Bazel, or Python 3.11 to 3.13 with venv, is missing: install what" \
      "Debian calls: ${packages[*]}"
  if [[ "$(id -u)" != 0 ]]; then
    sudo=(sudo -n)
    "${sudo[@]}" true 2>/dev/null ||
      die "missing packages; run: sudo apt-get install ${packages[*]}"
  fi
  say "installing with apt: ${packages[*]}"
  export DEBIAN_FRONTEND=noninteractive
  { "${sudo[@]}" apt-get -qq update &&
    "${sudo[@]}" apt-get -qq install -y --no-install-recommends \
      "${packages[@]}"; } >/dev/null ||
    die "apt-get could not install ${packages[*]}"
}

check_bazel() {
  local version
  [[ -z "${without_bazel}" ]] || return 0
  version="$(bazel --version)" || die "bazel --version failed: see above"
  # From Bazel 7 on MODULE.bazel is read, and no longer WORKSPACE alone. That of
  # Debian's bazel-bootstrap says no number.
  if [[ "${version}" =~ ^bazel\ ([0-9]+)\. ]] && ((BASH_REMATCH[1] >= 7)); then
    say "'${version}' gets rules_python from the Bazel Central Registry, which" \
      "was not tried; if it fails, install Bazelisk, which takes the version" \
      "that .bazeliskrc names, or Debian's bazel-bootstrap"
  fi
}

# make_venv KIND: a .venv that has pip, and the TensorFlow of no other kind.
make_venv() {
  if [[ -e "${unfinished}" ]]; then
    say "an earlier installation did not end: starting .venv afresh"
  elif [[ "$(cat "${venv}/.kind" 2>/dev/null || echo "$1")" != "$1" ]]; then
    say "starting .venv afresh for TensorFlow on another device"
  elif "${python}" -c 'import pip' 2>/dev/null; then
    return
  fi
  local base
  base="$(find_python)" ||
    die "no Python 3.11 to 3.13 with venv: name one with PYTHON=/path/to/python3"
  say "making .venv with ${base}"
  "${base}" -m venv --clear "${venv}" || die "cannot make ${venv}"
}

# pip_install NAME REQUIREMENTS_FILE... unless just that is there already.
pip_install() {
  local stamp="${venv}/.installed-$1" name="$1" wanted file arguments=()
  shift
  wanted="$("${python}" -V) $(cat "$@" | sha256sum)"
  if [[ "$(cat "${stamp}" 2>/dev/null)" == "${wanted}" ]]; then
    return
  fi
  for file in "$@"; do
    arguments+=(-r "${file}")
  done
  say "installing Python packages in .venv (${name})"
  touch "${unfinished}"
  # --no-deps: the files name every package, and what tf-keras asks for, the
  # full tensorflow, would overwrite tensorflow-cpu.
  "${python}" -m pip --disable-pip-version-check install --quiet --no-deps \
    "${arguments[@]}" || die "pip failed: mend what it says and run again"
  rm "${unfinished}"
  echo "${wanted}" >"${stamp}"
}

# install_python_packages KIND
install_python_packages() {
  local direct=requirements.txt
  echo "$1" >"${venv}/.kind"
  if [[ "$1" == gpu ]]; then
    # The two TensorFlows fill the same directory: one or the other.
    direct="${venv}/requirements.txt"
    grep -v '^tensorflow-cpu==' requirements.txt >"${direct}"
    pip_install gpu "${direct}" requirements.lock requirements-gpu.txt
  else
    pip_install cpu "${direct}" requirements.lock
  fi
}

main() {
  local with_tests='' with_linters='' with_docs=''
  local kind="${IM2TXT_TENSORFLOW:-cpu}"
  case "$*" in
    '') ;;
    --test) with_tests=1 ;;
    # mypy reads the tests, and so the packages that they import.
    --dev) with_tests=1 with_linters=1 ;;
    --docs) with_docs=1 ;;
    --no-bazel) without_bazel=1 ;;
    *) die "unknown argument: $* (usage: scripts/setup.sh [--test | --dev |" \
      "--docs | --no-bazel])" ;;
  esac
  [[ "${kind}" == cpu || "${kind}" == gpu ]] ||
    die "IM2TXT_TENSORFLOW=${kind}: must be cpu or gpu"
  check_path
  cd "${root}"
  # One run at a time; the lock goes with the process.
  exec 9<"${root}"
  flock 9
  install_apt_packages
  check_bazel
  make_venv "${kind}"
  install_python_packages "${kind}"
  [[ -z "${with_tests}" ]] || pip_install test requirements-test.txt \
    requirements-video.txt
  [[ -z "${with_linters}" ]] || pip_install dev requirements-dev.txt
  [[ -z "${with_docs}" ]] || pip_install docs requirements-docs.txt
  "${python}" -m im2txt.text.install_punkt ||
    die "NLTK's tokenizer data is missing: see the line above"
}

main "$@"
