#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Sets up and passes the tests: packages, configure, build, ctest.
#   scripts/test.sh [--asan]     --asan: after them the unit tests with address and undefined-behaviour sanitizers
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

asan=0
for argument in "$@"; do
  case $argument in
    --asan) asan=1 ;;
    -h | --help) sed -n '3,4s/^# //p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) echo "test: unknown argument $argument; allowed: --asan" >&2; exit 2 ;;
  esac
done

scripts/setup.sh
# shellcheck source=scripts/environment.sh
source scripts/environment.sh

check() {  # preset
  cmake --preset "$1"
  cmake --build --preset "$1" --parallel "$cores"
  ctest --preset "$1" --parallel "$cores"
}
check host-release
if [ "$asan" -eq 1 ]; then check host-asan; fi
