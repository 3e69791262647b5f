#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Bad numbers in a run. All ranks skip the update and report it. After three in a row, the run loads the last good
# checkpoint and continues past them. If that happens too often, it ends with 4 and a list of the bad updates. If a rank
# computes other bits when it repeats an update, the run ends with 5 and names the rank.
. "$(dirname "$0")/common.sh"
needs_kernels

tensors() { sed -n '/"tensors"/,/^ \]/p' "$1/manifest.json" | grep -E '"(group|name|xxh3)"'; }
same_tensors() {
  [ "$(tensors "$1" | grep -c xxh3)" -gt 100 ] || fail "the manifest of $1 lists no checksums"
  diff <(tensors "$1") <(tensors "$2") >/dev/null
}
told() { grep -c "$2" "$1/skipped.jsonl" || true; }

seer synth -o train --classes 4 --images 120 --size 48 --seed 1 >/dev/null
run() { local dir=$1; shift; ranks 2 pretrain base.toml --set log.run_dir="$dir" --set checkpoint.keep_last=100 "$@"; }
write_config base.toml base 20
nans=(--set faults.nan_rank=1 --set 'faults.nan_updates=[7,8,9]')

expect 0 'first in the gradient of trunk_output.block' run one --set 'faults.nan_updates=[7]' --set faults.nan_rank=1
grep -q 'update 7 skipped: not finite .* on rank 1 (.*images of the batch there: [0-9]' out.txt || fail "who and what"
[ "$(told one '"update":7,"cause":"not_finite","in_a_row":1')" = 1 ] || fail "skipped.jsonl: $(cat one/skipped.jsonl)"
[ "$(wc -l <one/skipped.jsonl)" = 1 ] || fail "more than one line in skipped.jsonl"
grep -q '"update":20,.*"skipped":1' one/metrics.jsonl || fail "metrics.jsonl does not count the skip"
[ "$(losses one | wc -l)" = 20 ] || fail "an update is missing in metrics.jsonl"

# A start from before the bad batch gives the same bits. Another mode of sharding gives the same decisions.
cp -r one again && rm -rf again/checkpoints/update-000000{10,15,20}
expect 0 'update 7 skipped' run again --set 'faults.nan_updates=[7]' --set faults.nan_rank=1
same_tensors one/checkpoints/update-00000020 again/checkpoints/update-00000020 || fail "resumed: other bits after the skip"
expect 0 'update 7 skipped' run sharded --set 'faults.nan_updates=[7]' --set faults.nan_rank=1 --set parallel.shard=parameters
diff <(sed -E 's/"(loss|grad_norm)":[^,]*,//g' one/skipped.jsonl) \
     <(sed -E 's/"(loss|grad_norm)":[^,]*,//g' sharded/skipped.jsonl) || fail "sharded: another story"

# Three in a row: the run loads the checkpoint of update 5 and continues with update 10.
expect 0 'after update 9: loaded back/checkpoints/update-00000005, reload 1 of 3; the run goes on with update 10' run back "${nans[@]}"
[ "$(told back '"cause":"not_finite"')" = 3 ] || fail "three skips: $(cat back/skipped.jsonl)"
[ "$(told back '"update":9,"cause":"reload"')" = 1 ] || fail "one reload: $(cat back/skipped.jsonl)"
[ "$(losses back | wc -l)" = 20 ] || fail "the numbers of updates do not run on"
for from in 05 10; do  # killed before and after the bad batches
  rm -rf later && cp -r back later
  for c in later/checkpoints/update-*; do [ "${c##*-}" -le "$((10#$from))" ] || rm -r "$c"; done
  expect 0 "resumed from later/checkpoints/update-000000$from" run later "${nans[@]}"
  same_tensors back/checkpoints/update-00000020 later/checkpoints/update-00000020 || fail "resumed from $from: other bits"
done
echo "ok: the same bits, wherever the run was interrupted"

# Bad numbers too often, and before the first checkpoint.
expect 4 'after 1 of 1 reloads' run often --set 'faults.nan_updates=[7,8,9,11,12,13]' --set guard.max_reloads=1
grep -q 'update 13 skipped' often/bad_numbers.txt || fail "bad_numbers.txt: $(cat often/bad_numbers.txt)"
[ "$(grep -c 'skipped: not finite' often/bad_numbers.txt)" = 6 ] || fail "not all in bad_numbers.txt"
expect 4 'there is no checkpoint to go back to' run early --set 'faults.nan_updates=[1,2,3]'
expect 4 'after 0 of 0 reloads' run first --set 'faults.nan_updates=[6]' --set guard.max_skips_in_a_row=1 --set guard.max_reloads=0

# A rank that computes something else when it repeats an update.
lie=(--set guard.replay_every=4 --set faults.flip_update=8 --set faults.flip_rank=1)
expect 5 'gave different bits when repeated, first in the gradients of trunk_output.block' run lie "${lie[@]}"
grep -q 'error: .* on rank 1 (' out.txt || fail "the lying rank is not named"
expect 0 'resumed from lie/checkpoints/update-00000005' run lie
expect 0 'update 8 skipped' run warned "${lie[@]}" --set guard.replay_action=warn
[ "$(told warned '"update":8,"cause":"replay"')" = 1 ] || fail "replay: $(cat warned/skipped.jsonl)"
run plain >out.txt 2>&1 || { cat out.txt; fail "an undisturbed run"; }
run checked --set guard.replay_every=1 >out.txt 2>&1 || { cat out.txt; fail "a run that checks every update"; }
[ ! -e checked/skipped.jsonl ] || fail "a sound machine is told to lie: $(cat checked/skipped.jsonl)"
same_tensors plain/checkpoints/update-00000020 checked/checkpoints/update-00000020 || fail "the check changed bits"
same_tensors plain/checkpoints/update-00000020 lie/checkpoints/update-00000020 || fail "after the lie: other bits"
echo "ok: lies"
