#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The rehearsal of many ranks, here with four: the losses are the same, and every collective has the calls and bytes that
# `seer plan` predicts.
. "$(dirname "$0")/common.sh"
needs_kernels
SEER=$SEER_EXECUTABLE OUT=$scratch MODES="none parameters_in_groups" "$SEER_TEST_DATA/../../validation/rehearsal.sh" 4
