#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# One rank fails in the step loop: one message, error.<rank>.txt with a stack, and mpiexec returns the exit code.
. "$(dirname "$0")/common.sh"
needs_kernels

seer synth -o train --classes 4 --images 90 --size 48 --seed 1 >/dev/null
write_config crash.toml crash 1000000
for signal in SEGV FPE BUS ILL ABRT; do
  rm -rf crash
  SEER_PAUSE_AFTER=3 start crash 2
  paused crash
  kill "-$signal" "$(rank_pid crash 1)"
  ends_with 6 crash
  [ "$(grep -o 'error: rank' crash.txt | wc -l)" = 1 ] || { cat crash.txt; fail "SIG$signal: not one message"; }
  grep -qE "error: rank 1/2 on .*: SIG$signal .*in update [0-9]+, .*defect" crash.txt || { cat crash.txt; fail "SIG$signal: the message"; }
  grep -q "SIG$signal" crash/error.1.txt && grep -qE 'build id [0-9a-f]{40}' crash/error.1.txt &&
    grep -qE '#[0-9]+ .*seer \+0x[0-9a-f]+ .*seer.*pretrain' crash/error.1.txt || { cat crash/error.1.txt; fail "SIG$signal: error.1.txt"; }
done
echo "ok: signals of a defect"

# A shard is truncated while a reader thread uses it: the error names the file.
rm -rf crash
SEER_PAUSE_AFTER=3 start crash 2 --set data.bad_image_policy=fail
paused crash
for shard in train/*.h5; do : >"$shard"; done
go_on crash
ends_with 3 crash
grep -qE 'error: rank [01]/2 on .*train/.*\.h5.*ends .* bytes early.*in update [0-9]+' crash.txt || { cat crash.txt; fail "cut shards: the message"; }
grep -qE 'ends .* bytes early' crash/error.?.txt || fail "cut shards: error.<rank>.txt"
echo "ok: an error of one rank"
