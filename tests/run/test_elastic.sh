#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A run changes its ranks (4, 2, 1, 3), its sharding and its recomputation at every restart, and has the losses of an
# undisturbed run. Another global batch is refused unless it is allowed; its data then continue after the images seen.
. "$(dirname "$0")/common.sh"
needs_kernels

seer synth -o train --classes 4 --images 90 --size 48 --seed 1 >/dev/null
gentle=(--set schedule.lr_start=0.02 --set schedule.lr_peak=0.1 --set checkpoint.keep_last=9 --set data.global_batch=24)
write_config quiet.toml quiet 20
ranks 1 pretrain quiet.toml "${gentle[@]}" >quiet.txt 2>&1 || { cat quiet.txt; fail "the undisturbed run"; }

# Each start counts for five updates, as if it had been stopped there.
write_config elastic.toml elastic 20
until_update() {  # UPDATE RANKS option...
  local stop=$1 n=$2; shift 2
  ranks "$n" pretrain elastic.toml "${gentle[@]}" "$@" >"elastic.$stop.txt" 2>&1 ||
    { cat "elastic.$stop.txt"; fail "up to update $stop on $n ranks"; }
  grep -q 'BatchNorm takes its statistics over groups' "elastic.$stop.txt" && fail "the groups hold the same images"
  # Remove later checkpoints: the next start continues from here.
  for folder in elastic/checkpoints/update-*; do [[ $folder < elastic/checkpoints/update-$(printf '%08d' $((stop + 1))) ]] || rm -r "$folder"; done
}
until_update 5 4 --set parallel.shard=gradients --set parallel.shard_group=2 --set parallel.recompute=cheap
until_update 10 2 --set parallel.shard=parameters --set parallel.recompute=block
until_update 15 1
until_update 20 3 --set parallel.shard=optimizer
for stop in 10 15 20; do grep -q "resumed from .* after $((stop - 5)) updates" "elastic.$stop.txt" || fail "the start up to $stop"; done
[ "$(losses elastic | wc -l)" = 20 ] || fail "$(losses elastic | wc -l) losses, wanted 20"
paste -d' ' <(losses quiet) <(losses elastic) | awk '
  { d = ($2 - $4) / $2; if (d < 0) d = -d; if (d > worst) worst = d }
  END { printf "4, 2, 1, 3 ranks against 1: worst relative difference of 20 losses %.2e\n", worst; exit worst > 1e-4 }' ||
  fail "the losses drift"

# Another size of the BatchNorm groups gives a warning.
expect 0 'BatchNorm takes its statistics over groups of 12 images from here on' \
  ranks 2 pretrain elastic.toml "${gentle[@]}" --set parallel.bn_group_size=1 --set schedule.total_updates=22

# Another global batch.
expect 2 'data.global_batch is 12, was 24' \
  ranks 2 pretrain elastic.toml "${gentle[@]}" --set data.global_batch=12 --set schedule.total_updates=24
expect 0 'The data continue after these images' ranks 2 pretrain elastic.toml "${gentle[@]}" --set data.global_batch=12 \
  --set schedule.total_updates=24 --allow-batch-change
grep -q 'after 22 updates, 528 images' out.txt || fail "$(grep 'resumed from' out.txt)"
# From then on this is the batch of the run: it needs no option, and restarts change nothing.
small=("${gentle[@]}" --set data.global_batch=12 --set schedule.total_updates=28 --set checkpoint.every_updates=2)
expect 0 "after 24 updates, $((22 * 24 + 2 * 12)) images" ranks 3 pretrain elastic.toml "${small[@]}"
losses elastic | tail -n 4 >straight.txt
rm -r elastic/checkpoints/update-00000028
expect 0 "after 26 updates, $((22 * 24 + 4 * 12)) images" ranks 3 pretrain elastic.toml "${small[@]}"
diff straight.txt <(losses elastic | tail -n 4) || fail "after the change of the batch a restart changes the losses"
