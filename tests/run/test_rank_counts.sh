#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# 1, 2 and 4 ranks with one BatchNorm group, reading real files: over 20 updates the losses agree to 1e-4. Also with
# sharded state and recomputation, and for a run that changes ranks, sharding and recomputation at every restart.
. "$(dirname "$0")/common.sh"
needs_kernels

seer synth -o train --classes 4 --images 90 --size 48 --seed 1 >/dev/null
# A low learning rate: at a high one, the network doubles every rounding difference from update to update.
gentle=(--set schedule.lr_start=0.02 --set schedule.lr_peak=0.1 --set checkpoint.keep_last=4)
run() {  # NAME RANKS option...
  local name=$1 n=$2; shift 2
  [ -e "$name.toml" ] || write_config "$name.toml" "run$name" 20
  ranks "$n" pretrain "$name.toml" "${gentle[@]}" "$@" >"$name.txt" 2>&1 || { cat "$name.txt"; fail "$name on $n ranks"; }
}
parallel() { echo "--set parallel.shard=$1 --set parallel.recompute=$2 --set parallel.shard_group=${3:-0}"; }
compare() {
  [ "$(losses "run$1" | wc -l)" = 20 ] || fail "$1 logged $(losses "run$1" | wc -l) updates"
  paste -d' ' <(losses run1) <(losses "run$1") | awk -v what="$1" '
    { d = ($2 - $4) / $2; if (d < 0) d = -d; if (d > worst) worst = d }
    END { printf "%s against 1 rank: worst relative difference of 20 losses %.2e\n", what, worst; exit worst > 1e-4 }' ||
    fail "$1 drifts from 1 rank"
}

for n in 1 2 4; do run "$n" "$n"; done
# shellcheck disable=SC2046
{
  run optimizer 2 $(parallel optimizer none)
  run gradients 4 $(parallel gradients cheap 2)
  run parameters 4 $(parallel parameters block)
  # Starts from a checkpoint of one rank; every restart has another number of ranks and other sharding.
  mkdir runrestarts && head -n 5 run1/metrics.jsonl >runrestarts/metrics.jsonl
  run restarts 4 $(parallel gradients block) --resume run1/checkpoints/update-00000005
  run restarts 2 $(parallel parameters cheap) --resume runrestarts/checkpoints/update-00000010
  run restarts 1 $(parallel optimizer none) --resume runrestarts/checkpoints/update-00000015
}
# The counted traffic: updates and checkpoints are separate, sharded parameters are gathered twice, one rank sends nothing.
sent() {  # NAME USE COMMUNICATOR KIND: payload bytes, or nothing
  tr -d '\n ' <"run$1/traffic.json" | { grep -o "\"use\":\"$2\",\"name\":\"$3\",\"kind\":\"$4\"[^}]*" || true; } |
    sed -E 's/.*"bytes":([0-9]+).*/\1/'
}
grep -q '"traffic": \[\]' run1/traffic.json || fail "one rank sent something"
[ -n "$(sent 4 update replicas all_reduce)" ] || fail "4 ranks summed no gradients"
[ -z "$(sent 4 update shard all_gather)$(sent 4 update world broadcast)" ] || fail "more was sent than updates need"
[ -n "$(sent 4 checkpoint checkpoint broadcast)" ] || fail "checkpoints sent nothing"
[ "$(sent parameters update shard all_gather)" = $((2 * $(sent optimizer update shard all_gather))) ] ||
  fail "gathered: $(sent optimizer update shard all_gather) and $(sent parameters update shard all_gather) bytes"
for name in 2 4 optimizer gradients parameters restarts; do compare "$name"; done
