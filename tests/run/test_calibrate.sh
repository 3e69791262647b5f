#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A machine measures itself, also by more ranks than it has cores, and jobs are planned with what it wrote.
source "$(dirname "$0")/common.sh"

expect 0 "GFLOP/s" ranks 4 plan --calibrate machine.toml --seconds 0.005
grep -qx 'ranks_per_node = 4' machine.toml || { head -20 machine.toml; fail "ranks_per_node is not 4"; }
write_config config.toml "$scratch/run" 20
expect 0 "images/s" seer plan config.toml --machine machine.toml --ranks 4 --set data.source=crops
expect 0 '"step_ms"' seer plan config.toml --machine machine.toml --ranks 8 --per-node 8 --set data.source=crops --json
expect 2 "shard_group" seer plan config.toml --machine machine.toml --ranks 4 --set data.source=crops \
  --set parallel.shard=optimizer --set parallel.shard_group=3
expect 3 "cannot write" ranks 2 plan --calibrate missing/machine.toml --seconds 0.005
