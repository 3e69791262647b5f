#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# One trial of each kind of fault, always the same ones; validation/torture.sh makes hundreds.
set -euo pipefail
: "${SEER_EXECUTABLE:?set by ctest}" "${SEER_WRITE_FAULTS:?set by ctest}" "${SEER_TEST_DATA:?set by ctest}"
export SEER=$SEER_EXECUTABLE SHIM=$SEER_WRITE_FAULTS MPIEXEC=${SEER_MPIEXEC:-mpiexec}
torture=$SEER_TEST_DATA/../../validation/torture.sh
kinds=$("$torture" --list-kinds | wc -l)
scratch=$(mktemp -d "${TMPDIR:-/tmp}/seer-test.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
"$torture" --trials "$kinds" --seed 1 --jobs 3 --limit 200
