#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The rehearsal of many ranks, with four: same losses, and calls and bytes of every collective as `seer plan` says.
. "$(dirname "$0")/common.sh"
needs_kernels
SEER=$SEER_EXECUTABLE OUT=$scratch MODES="none parameters_in_groups" "$SEER_TEST_DATA/../../validation/rehearsal.sh" 4
