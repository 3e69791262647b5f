#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# One trial of each kind of fault, always with the same seed. validation/torture.sh runs hundreds of trials.
. "$(dirname "$0")/common.sh"
needs_kernels
export SEER=$SEER_EXECUTABLE SHIM=$SEER_WRITE_FAULTS MPIEXEC=$mpiexec
torture=$SEER_TEST_DATA/../../validation/torture.sh
kinds=$("$torture" --list-kinds | wc -l)
"$torture" --trials "$kinds" --seed 1 --jobs 3 --limit 200
