#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# seer plan --calibrate measures this machine, also with more ranks than cores; plans then use the file it wrote.
source "$(dirname "$0")/common.sh"
needs_kernels

expect 0 "GFLOP/s" ranks 4 plan --calibrate machine.toml --seconds 0.005
grep -qx 'ranks_per_node = 4' machine.toml || { head -20 machine.toml; fail "ranks_per_node is not 4"; }
write_config config.toml "$scratch/run" 20
expect 0 "images/s" seer plan config.toml --machine machine.toml --ranks 4 --set data.source=crops
expect 0 '"step_ms"' seer plan config.toml --machine machine.toml --ranks 8 --per-node 8 --set data.source=crops --json
expect 2 "shard_group" seer plan config.toml --machine machine.toml --ranks 4 --set data.source=crops \
  --set parallel.shard=optimizer --set parallel.shard_group=3
expect 3 "cannot write" ranks 2 plan --calibrate missing/machine.toml --seconds 0.005

# Errors come before the measurement, which at this length would outlast the limit, and leave no file. Options that would
# have no effect are errors.
soon() { local n=$1; shift; timeout 300 "$mpiexec" --oversubscribe --bind-to none -n "$n" "$SEER_EXECUTABLE" "$@" </dev/null; }
expect 3 "nowhere" soon 2 plan --calibrate bad.toml --seconds 60 --folder nowhere
expect 3 "no-shards" soon 2 plan --calibrate bad.toml --seconds 60 --shards no-shards
mkdir small
if mount -t tmpfs -o size=2m none small 2>/dev/null; then
  expect 3 "small/.seer-calibrate: No space left" soon 2 plan --calibrate bad.toml --seconds 60 --folder small
  [ -z "$(ls -A small)" ] || fail "a full file system keeps $(ls -A small)"
else
  echo "not run: no space left (needs to mount a tmpfs)"
fi
[ -z "$(ls -A | grep bad)" ] || fail "left: $(ls -A | grep bad)"
expect 2 "excludes" seer plan config.toml --calibrate bad.toml
expect 2 "excludes" seer plan --machine machine.toml --calibrate bad.toml
expect 2 "excludes" seer plan --ranks 4 --calibrate bad.toml
expect 2 "requires" seer plan config.toml --machine machine.toml --shards train

# The mean image is that of the given shards. One rank measures no network.
seer synth -o train --classes 4 --images 40 --size 64 --seed 1 >/dev/null
expect 0 "all-reduce not measured (one rank)" seer plan --calibrate one.toml --seconds 0.001 --shards train
awk '/^mean_image_pixels = / {found = $3} END {exit found < 4000 || found > 4200}' one.toml ||
  { grep mean_image one.toml; fail "mean_image_pixels of images of 64 x 64"; }
