#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Checkpoints written beside the training hold the bits of the update in their name. A kill during a write leaves the
# checkpoint before it. A start continues from the copies on the nodes' own disks if they are newer, also if one disk is
# lost.
. "$(dirname "$0")/common.sh"
needs_kernels

# As tensors_of, with the begin of every slab.
tensors() { sed -n '/"tensors"/,/^ \]/p' "$1/manifest.json" | grep -E '"(group|name|xxh3|begin)"'; }

seer synth -o train --classes 4 --images 120 --size 48 --seed 1 >/dev/null

# Compares every checkpoint of a run that waits for its writes with those of a run that does not.
for mode in none optimizer parameters; do
  for async in false true; do
    write_config "$mode-$async.toml" "$mode-$async" 12
    ranks 2 pretrain "$mode-$async.toml" --set checkpoint.async=$async --set checkpoint.every_updates=1 \
      --set checkpoint.keep_last=12 --set parallel.shard=$mode --set parallel.overlap=true \
      --set parallel.bucket_bytes=20000 --set log.tensorboard=false >out.txt 2>&1 || { cat out.txt; fail "$mode, async $async"; }
  done
  for update in $(seq -f '%08g' 1 12); do
    [ "$(tensors "$mode-true/checkpoints/update-$update" | grep -c xxh3)" -gt 100 ] || fail "$mode: no checksums"
    diff <(tensors "$mode-false/checkpoints/update-$update") <(tensors "$mode-true/checkpoints/update-$update") \
      >/dev/null || fail "$mode: update $update was saved with other bits beside the training"
  done
  echo "ok: 12 checkpoints, shard $mode: same bits, asynchronous or not"
done

# Killed while a checkpoint is being written: once in the middle of its bytes, once before its folder is renamed. Each
# kill leaves a temporary folder.
write_config killed.toml killed 40
cp "$SEER_WRITE_FAULTS" write_faults.so
again=(--set checkpoint.every_updates=2 --set log.tensorboard=false)
for point in "write .tmp-update-00000008" "rename checkpoints/update-00000014"; do
  read -r call path <<<"$point"
  wrap=(env LD_PRELOAD=./write_faults.so WRITE_FAULT_CALL="$call" WRITE_FAULT_PATH="$path" WRITE_FAULT_RANK=0
    WRITE_FAULT_ERROR=HOLD WRITE_FAULT_SIGN="$scratch/held")
  start killed 2 "${again[@]}"
  comes_to held killed
  kill -KILL $(pgrep -P "$launcher")
  ends killed
  [ "$rc" != 0 ] && [ -d "killed/checkpoints/.tmp-update-${path##*-}" ] || fail "not killed while $path was made: $(ls -A killed/checkpoints)"
  rm held
done
wrap=()
ranks 2 pretrain killed.toml "${again[@]}" >killed.txt 2>&1 || { cat killed.txt; fail "the start after the kills"; }
grep -qE "resumed from .* after [1-9][0-9]* updates" killed.txt || { cat killed.txt; fail "the killed run began anew"; }
write_config quiet.toml quiet 40
ranks 2 pretrain quiet.toml >quiet.txt 2>&1 || { cat quiet.txt; fail "the undisturbed run"; }
same_tensors quiet killed || fail "the killed run ended with other bits"
echo "ok: killed twice while a checkpoint was being written, same bits"

# Copies on the disks of two nodes, more often than checkpoints in the run folder. One disk is lost.
export SEER_RANKS_PER_NODE=1
local_copies=(--set checkpoint.local_dir="$scratch/disk%n" --set checkpoint.local_every_updates=3 --set checkpoint.every_updates=20)
for lost in 0 1; do
  write_config "lost$lost.toml" "lost$lost" 40
  SEER_PAUSE_AFTER=29 start "lost$lost" 2 "${local_copies[@]}"
  paused "lost$lost"
  kill -KILL $(pids "lost$lost")
  ends "lost$lost"
  [ "$rc" != 0 ] || fail "lost$lost: exit code 0 after a kill"
  rm -rf "$scratch/disk$lost"
  ranks 2 pretrain "lost$lost.toml" "${local_copies[@]}" >lost.txt 2>&1 || { cat lost.txt; fail "the start without disk $lost"; }
  grep -qE "resumed from the nodes' own copies in .* after (24|27) updates" lost.txt ||
    { cat lost.txt; fail "the nodes' copies are not used"; }
  same_tensors quiet "lost$lost" || fail "without disk $lost: other bits"
  echo "ok: disk $lost lost, $(grep -o 'resumed from.*' lost.txt)"
done

# If no local copy is newer, the checkpoint in the run folder is used.
ranks 2 pretrain lost1.toml "${local_copies[@]}" --set schedule.total_updates=43 >lost.txt 2>&1 || { cat lost.txt; fail "going on"; }
grep -q "resumed from lost1/checkpoints/update-00000040" lost.txt || { cat lost.txt; fail "not from the run folder"; }
echo "ok: the newest of both"

# every_updates = auto: the first checkpoint after 20 updates, the others by measured cost and by failures.
unset SEER_RANKS_PER_NODE
write_config auto.toml auto 60
ranks 2 pretrain auto.toml --set checkpoint.every_updates=auto --set checkpoint.keep_last=60 \
  --set checkpoint.mean_time_between_failures_hours=0.00001 >auto.txt 2>&1 || { cat auto.txt; fail "every_updates = auto"; }
[ -d auto/checkpoints/update-00000020 ] || fail "auto: the first after 20 updates"
[ "$(ls auto/checkpoints | wc -l)" -gt 3 ] || { ls auto/checkpoints; fail "auto: failures every 36 ms, few checkpoints"; }
ranks 2 pretrain auto.toml --set checkpoint.every_updates=auto --set log.run_dir=rare --set checkpoint.keep_last=60 \
  --set checkpoint.mean_time_between_failures_hours=1e9 \
  >auto.txt 2>&1 || { cat auto.txt; fail "every_updates = auto"; }
[ "$(ls rare/checkpoints | tr '\n' ' ')" = "update-00000020 update-00000060 " ] || { ls rare/checkpoints; fail "auto: rare failures"; }
echo "ok: every_updates = auto"
