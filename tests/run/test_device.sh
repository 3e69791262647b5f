#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Where a run computes. If a configuration requests a device and there is none, the run is refused in one line. On the
# stand-in device of host builds (device/stand_in.hpp), losses and weights are the same as on the host, also if a run
# starts on one and continues on the other. Device builds have other tests for this.
. "$(dirname "$0")/common.sh"

# If a sum rounds its last product once less, the last digit may differ.
rounded() { losses "$1" | awk '{printf "%d %.12g\n", $1, $2}'; }
tensors() { sed -n '/"tensors"/,/^ \]/p' "$(last_checkpoint "$1")/manifest.json" | grep -E '"(group|name|xxh3)"'; }
on_stand_in() { SEER_STAND_IN_DEVICE=1 ranks "$@"; }

needs_kernels

seer synth -o train --classes 4 --images 120 --size 48 --seed 1 >/dev/null
write_config host.toml host 10
sed -i '/^device = /d' host.toml  # the default: on a device if there is one
if ! ranks 2 pretrain host.toml --set parallel.device=host >host.txt 2>&1; then
  cat host.txt
  fail "the run on the host"
fi
if grep -q "driver CUDA" host.txt; then
  not_run "this build is for devices"
fi
rm -rf refused
expect 2 'this is a host build' ranks 2 pretrain host.toml --set log.run_dir=refused --set parallel.device=device
expect 2 'parallel.device' ranks 2 pretrain host.toml --set parallel.device=gpu
[ -z "$(ls refused/checkpoints 2>/dev/null)" ] || fail "a refused start wrote checkpoints"
expect 2 'SEER_STAND_IN_DEVICE="true"; wanted 0 or 1' env SEER_STAND_IN_DEVICE=true "$SEER_EXECUTABLE" pretrain host.toml
expect 2 'this is a host build' ranks 2 features host train -o f.h5 --resize 32 --crop 32 --device device

for shard in none parameters; do
  run=there_$shard
  on_stand_in 2 pretrain host.toml --set log.run_dir=$run --set parallel.shard=$shard >there.txt 2>&1 ||
    { cat there.txt; fail "the run on the stand-in, $shard"; }
  grep -q "a stand-in device" there.txt || { cat there.txt; fail "it does not say where it computed"; }
  grep -q ", on the device" there.txt || fail "it computed on the host"
  ranks 2 pretrain host.toml --set log.run_dir=here_$shard --set parallel.shard=$shard >here.txt 2>&1 ||
    { cat here.txt; fail "the run on the host, $shard"; }
  diff <(rounded here_$shard) <(rounded $run) || fail "other losses on the stand-in, $shard"
  diff <(tensors here_$shard) <(tensors $run) || fail "other weights on the stand-in, $shard"
  echo "ok: $shard, the same run on both"
done

ranks 2 pretrain host.toml --set log.run_dir=moved --set schedule.total_updates=10 --set checkpoint.every_updates=3 \
  >moved.txt 2>&1 || { cat moved.txt; fail "the run that moves"; }
on_stand_in 2 pretrain host.toml --set log.run_dir=moved --resume moved/checkpoints/update-00000006 >moved.txt 2>&1 ||
  { cat moved.txt; fail "going on on the stand-in"; }
diff <(tensors host) <(tensors moved) || fail "other weights after going on on the stand-in"
ranks 2 pretrain host.toml --set log.run_dir=there_none --resume there_none/checkpoints/update-00000005 >moved.txt 2>&1 ||
  { cat moved.txt; fail "going on on the host"; }
diff <(tensors host) <(tensors there_none) || fail "other weights after going on on the host"
echo "ok: begun on one, ended on the other"

ranks 2 features host train -o here.h5 --resize 32 --crop 32 >/dev/null 2>&1 || fail "features on the host"
on_stand_in 2 features host train -o there.h5 --resize 32 --crop 32 >there.txt 2>&1 ||
  { cat there.txt; fail "features on the stand-in"; }
if command -v h5diff >/dev/null; then h5diff here.h5 there.h5 /features >/dev/null || fail "other features"; fi
echo "ok: features"
