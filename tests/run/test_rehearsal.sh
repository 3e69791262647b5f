#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The rehearsal of many ranks, with four: same losses, and calls and bytes of every collective as `seer plan` says.
set -euo pipefail
: "${SEER_EXECUTABLE:?set by ctest}" "${SEER_TEST_DATA:?set by ctest}"
scratch=$(mktemp -d "${TMPDIR:-/tmp}/seer-test.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
SEER=$SEER_EXECUTABLE OUT=$scratch MODES="none parameters_in_groups" "$SEER_TEST_DATA/../../validation/rehearsal.sh" 4
