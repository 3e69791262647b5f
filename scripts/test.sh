#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Sets up and passes the tests: packages, configure, build, ctest; then, where the CUDA toolkit is, the device bodies.
#   scripts/test.sh [--asan] [--host]
#     --asan: after the host's the unit tests with address and undefined-behaviour sanitizers; --host: no device bodies
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

asan=0 host=0
for argument in "$@"; do
  case $argument in
    --asan) asan=1 ;;
    --host) host=1 ;;
    -h | --help) sed -n '3,5s/^# //p' scripts/test.sh; exit 0 ;;
    *) echo "test: unknown argument $argument; allowed: --asan, --host" >&2; exit 2 ;;
  esac
done

scripts/setup.sh
# shellcheck source=scripts/environment.sh
source scripts/environment.sh

check() {  # preset
  cmake --preset "$1"
  cmake --build --preset "$1" --parallel "$cores"
  ctest --preset "$1" --parallel $((2 * cores))  # most tests wait much: for files, other ranks, limits
}
check host-release
if [ "$asan" -eq 1 ]; then check host-asan; fi

not_compiled="test: not compiled and not run: the device bodies (src/*/cuda) and their tests"
if [ "$host" -eq 1 ]; then
  echo "$not_compiled: --host"
elif ! find_nvcc; then
  echo "$not_compiled: no nvcc here"
else
  scripts/build_device.sh --libraries
fi
