#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# One update of the real RegNetY-256GF with SEER's head and 16,000 prototypes (1.43 billion parameters) on tiny crops, one
# image, single precision, nothing sharded: peak memory and time. Needs about 20 GiB and one core for some minutes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
seer=${SEER:-build/host-release/seer}
"$seer" bench step inputs/seer_256gf.toml --updates "${1:-1}" --warmup 0 --set data.global_batch=1 \
  --set 'crops=[{count=2,size=64,scale=[0.14,1.0]},{count=2,size=32,scale=[0.05,0.14]}]' --set parallel.bn_group_size=1 \
  --set precision.compute=fp32 --set parallel.shard=none --set parallel.recompute=none
