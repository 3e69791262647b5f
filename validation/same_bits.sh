#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Whether two builds train to the same bits: 30 updates in many settings, then the checksums of every tensor of the last
# checkpoint side by side. The second build also goes on from the first one's checkpoint after 15 updates, and must end
# with the same bits. Prints a table, with how many of the losses differ; fails where a tensor differs.
#   validation/same_bits.sh BEFORE [AFTER] [MPIEXEC]
#     BEFORE, AFTER: an executable, or a commit that is built in a folder of its own (default: HEAD)
set -euo pipefail
before=${1:?a commit or an executable} after=${2:-HEAD} mpiexec=${3:-mpiexec}
root=$(realpath "$(dirname "$0")/..")
scratch=$(mktemp -d "${TMPDIR:-/tmp}/seer-bits.XXXXXX")
trap 'rm -rf "$scratch"; git -C "$root" worktree prune' EXIT

built() {  # COMMIT or executable: the executable's path
  [ ! -x "$1" ] || { realpath "$1"; return; }
  local tree
  tree=$scratch/$(git -C "$root" rev-parse --short "$1^{commit}")
  if [ ! -d "$tree" ]; then
    git -C "$root" worktree add --quiet --detach "$tree" "$1"
    { cmake -S "$tree" --preset host-release -B "$tree/build" && cmake --build "$tree/build" --target seer --parallel "$(nproc)"; } >&2
  fi
  echo "$tree/build/seer"
}
before=$(built "$before") after=$(built "$after")
cd "$scratch"
"$before" synth -o train --classes 4 --images 256 --size 48 --seed 1 >/dev/null </dev/null
"$before" synth -o train_demo --classes 8 --images 512 --size 80 --seed 1 >/dev/null </dev/null

checksums() {  # RUN: group, name and checksums of every tensor after the last update
  python3 - "$1/checkpoints/update-00000030/manifest.json" <<'P'
import json, sys
for tensor in sorted(json.load(open(sys.argv[1]))["tensors"], key=lambda t: (t["group"], t["name"])):
    print(tensor["group"], tensor["name"], *[slab["xxh3"] for slab in tensor["slabs"]])
P
}
losses() { sed -E 's/.*"update":([0-9]+).*"loss":([-0-9.e+]+).*/\1 \2/' "$1/metrics.jsonl"; }
train() {  # EXECUTABLE RUN RANKS CONFIGURATION option...
  local seer=$1 run=$2 ranks=$3 configuration=$4; shift 4
  "$mpiexec" --oversubscribe --bind-to none -n "$ranks" "$seer" pretrain "$root/inputs/$configuration" "$@" \
    --set data.shards=train --set schedule.warmup_updates=5 --set schedule.total_updates=30 --set log.run_dir="$run" --set log.every=1 \
    --set checkpoint.every_updates=15 --set checkpoint.keep_last=9 >"$run.txt" 2>&1 </dev/null ||
    { cat "$run.txt" >&2; exit 1; }
}

different() { paste -d"\n" "$1" "$2" | awk 'NR % 2 { one = $0; next } one != $0 { n++ } END { print n + 0 }'; }
failures=0
compare() {  # SETTING RANKS CONFIGURATION option...
  local setting=$1 ranks=$2 configuration=$3; shift 3
  rm -rf a b c
  train "$before" a "$ranks" "$configuration" "$@"
  train "$after" b "$ranks" "$configuration" "$@"
  cp -r a c && rm -r c/checkpoints/update-00000030
  sed -i "s/\"a\"/\"c\"/" c/config.toml
  train "$after" c "$ranks" "$configuration" "$@"
  grep -q 'resumed from' c.txt || { cat c.txt >&2; echo "same_bits: $setting: did not go on from the checkpoint" >&2; exit 1; }
  local run tensors differ resumed losses
  for run in a b c; do checksums $run >$run.sums && losses $run >$run.losses; done
  tensors=$(wc -l <a.sums)
  [ "$tensors" -gt 100 ] && [ "$(wc -l <a.losses)" = 30 ] || { echo "same_bits: $setting: the run is not whole" >&2; exit 1; }
  differ=$(different a.sums b.sums)
  resumed=$(different a.sums c.sums)
  losses=$(different a.losses b.losses)
  [ "$differ $resumed" = "0 0" ] || failures=$((failures + 1))
  echo "| $setting | $ranks | $tensors | $differ | $resumed | $losses |"
}

echo "| setting | ranks | tensors | that differ | that differ after a resume | losses that differ |"
echo "| --- | ---: | ---: | ---: | ---: | ---: |"
compare demo 2 demo.toml --set data.shards=train_demo --set data.global_batch=32
for ranks in 1 2 4; do
  compare tiny "$ranks" tiny.toml
  compare queue "$ranks" tiny.toml --set swav.queue_length=64 --set swav.queue_start_update=3
  compare bf16 "$ranks" tiny.toml --set precision.compute=bf16
  for recompute in cheap block auto; do
    compare "recompute $recompute" "$ranks" tiny.toml --set parallel.recompute=$recompute
  done
done
for ranks in 2 4; do
  for shard in optimizer gradients parameters; do
    compare "shard $shard" "$ranks" tiny.toml --set parallel.shard=$shard
  done
  compare "shard parameters, groups of 2, bf16, block, queue" "$ranks" tiny.toml --set parallel.shard=parameters \
    --set parallel.shard_group=2 --set precision.compute=bf16 --set parallel.recompute=block --set swav.queue_length=64
  compare "BatchNorm over 2 ranks, head with BatchNorm" "$ranks" tiny.toml --set parallel.bn_group_size=2 --set head.batchnorm=true
done
export SEER_STAND_IN_DEVICE=1
for ranks in 1 2; do
  compare "stand-in device" "$ranks" tiny.toml --set parallel.device=device
  compare "stand-in device, queue, bf16, shard parameters" "$ranks" tiny.toml --set parallel.device=device \
    --set swav.queue_length=64 --set swav.queue_start_update=3 --set precision.compute=bf16 --set parallel.shard=parameters
done
echo
echo "settings that differ: $failures"
[ "$failures" = 0 ]
