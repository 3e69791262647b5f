#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A run that watches itself: its training keeps every bit, its figures are in the records, the best checkpoint stays,
# patience ends it, a restart goes on with all of that; and settings that cannot be.
. "$(dirname "$0")/common.sh"
needs_kernels

seer synth -o train --classes 3 --images 60 --size 32 --seed 1 --split train >/dev/null
seer synth -o small --classes 3 --images 30 --size 32 --seed 2 --split small >/dev/null
seer synth -o test --classes 3 --images 15 --size 32 --seed 3 --split test >/dev/null
write_config run.toml run 10
go() { seer pretrain run.toml "$@"; }
labelled=(--set watch.train=small --set watch.test=test --set watch.k=5)
watch=(--set watch.every=3 --set watch.images=40 "${labelled[@]}")
# update, and all figures of evaluations but their times
figures() {
  python3 - "$1/metrics.jsonl" <<'PY'
import json, sys
for line in open(sys.argv[1]):
    row = json.loads(line)
    found = {k: round(v, 9) for k, v in row.items() if k.startswith("watch_") and k != "watch_s"}
    if found: print(row["update"], found)
PY
}

# The same bits with and without evaluations: one rank, two, and with sharded parameters.
plain() { local n=$1 name=$2; shift 2; ranks "$n" pretrain run.toml --set log.run_dir="$name" "$@" >out.txt 2>&1 || { cat out.txt; fail "$name"; }; }
for case in "1 none" "2 none" "2 parameters"; do
  read -r n shard <<<"$case"
  plain "$n" "off-$n-$shard" --set parallel.shard="$shard"
  plain "$n" "on-$n-$shard" --set parallel.shard="$shard" "${watch[@]}"
  same_tensors "off-$n-$shard" "on-$n-$shard" || fail "evaluations change the training: $case"
  diff <(losses "off-$n-$shard") <(losses "on-$n-$shard") >/dev/null || fail "evaluations change the losses: $case"
  echo "ok: the same bits on $n ranks, shard $shard"
done
[ -z "$(figures off-1-none)" ] || fail "figures of a run without [watch]"
[ "$(figures on-1-none | cut -d' ' -f1 | tr '\n' ' ')" = "3 6 9 10 " ] || fail "evaluated after: $(figures on-1-none)"
figures on-2-none >two.txt
for key in knn_top1 probe_top1 rankme alpha lidar uniformity alignment deviation head_rankme prototype_entropy prototypes_empty; do
  grep -q "'watch_$key'" two.txt || { cat two.txt; fail "no watch_$key"; }
done
grep -q 'evaluation' out.txt && grep -q '^  evaluation ' out.txt || { cat out.txt; fail "no row in the table of phases"; }
grep -aq 'watch/watch_rankme' on-1-none/events.out.tfevents.* || fail "nothing for TensorBoard"

# The best checkpoint stays, whatever keep_last says, and BEST names it.
kept() { sed -E 's/.*"checkpoint":"([^"]+)".*/\1/' "$1/BEST"; }
best=on-1-none/$(kept on-1-none)
[ -e "$best/manifest.json" ] || { cat on-1-none/BEST; fail "no checkpoint $best"; }
python3 - on-1-none <<'PY' || fail "BEST is not the highest figure"
import json, sys
rows = [json.loads(line) for line in open(sys.argv[1] + "/metrics.jsonl")]
rows = [r for r in rows if "watch_knn_top1" in r]
best = json.load(open(sys.argv[1] + "/BEST"))
top = max(rows, key=lambda r: r["watch_knn_top1"])  # the first of equal ones
assert best["measure"] == "watch_knn_top1" and best["update"] == top["update"] and best["value"] == top["watch_knn_top1"], (best, top)
PY
go "${watch[@]}" --set log.run_dir=last --set watch.every=1 --set checkpoint.keep_last=1 --set checkpoint.every_updates=1 \
  --set schedule.total_updates=12 >out.txt 2>&1 || { cat out.txt; fail "keep_last = 1"; }
[ -e "last/$(kept last)/manifest.json" ] || fail "the best checkpoint is gone"
[ "$(ls last/checkpoints | wc -l)" -le 2 ] || fail "more than the last and the best: $(ls last/checkpoints)"

# A restart from the middle repeats the evaluations and knows the best one before it.
cp -r on-1-none again
sed -i 's/"value":[^}]*/"value":0/' again/BEST
for folder in again/checkpoints/*; do [ "${folder##*-}" -le 5 ] || rm -r "$folder"; done
expect 0 'resumed from' go "${watch[@]}" --set log.run_dir=again
diff <(figures on-1-none) <(figures again) || fail "a restart changes the evaluations"
diff on-1-none/BEST again/BEST || fail "a restart changes what is best"

# Patience ends a run like its last update would; the next start has nothing to do.
patient=("${watch[@]}" --set log.run_dir=patient --set watch.every=1 --set watch.patience=2 --set schedule.total_updates=60
  --set schedule.lr_peak=1e-9 --set schedule.lr_start=0 --set schedule.lr_final=0)
expect 0 'watch.patience ends the run early: no better watch_knn_top1 in 2 evaluations since update' go "${patient[@]}"
done_updates=$(lines patient)
[ "$done_updates" -lt 60 ] || fail "patience did not end the run"
expect 0 'watch.patience ends the run early' go "${patient[@]}"
[ "$(lines patient)" = "$done_updates" ] || fail "the next start went on"

# Patience counts evaluations of one measure: another one lets the run go on, and begins anew.
anew=("${patient[@]}" --set schedule.total_updates="$((done_updates + 1))" --allow-change schedule.total_updates)
cp -r patient other-k && cp -r patient other-measure
expect 0 "done: $((done_updates + 1)) updates" go "${anew[@]}" --set log.run_dir=other-k --set watch.k=3
grep -q 'the best so far' out.txt || { cat out.txt; fail "another k is compared with the one before"; }
expect 0 "done: $((done_updates + 1)) updates" go "${anew[@]}" --set log.run_dir=other-measure --set watch.train= --set watch.test=
grep -q '"watch_rankme"' other-measure/BEST || fail "another measure does not begin anew"

# By cost: the last update is always evaluated, even where that takes more than 3 % of the time. The bits stay.
expect 0 'done: 30 updates' go "${labelled[@]}" --set log.run_dir=auto --set 'watch.every="auto"' --set schedule.total_updates=30
grep -q '^every = "auto"' auto/config.toml || fail "config.toml does not say auto"
grep -q 'the first evaluation of this start comes when' out.txt && grep -q '"auto": the first evaluation comes after' out.txt ||
  { cat out.txt; fail "when the first evaluation comes"; }
[ "$(figures auto | tail -n 1 | cut -d' ' -f1)" = 30 ] || fail "no evaluation at the end: $(figures auto)"
expect 0 'the first evaluation of this start comes after 10 updates' go --set log.run_dir=short --set 'watch.every="auto"'
[ "$(figures short | cut -d' ' -f1)" = 10 ] || fail "no evaluation at the end of a short run: $(figures short)"
same_tensors off-1-none short || fail "the last evaluation changes the training"

# What cannot be.
expect 2 'watch.train and watch.test belong together' go --set log.run_dir=x --set watch.every=3 --set watch.train=small
expect 2 '3 images for 4 ranks' ranks 4 pretrain run.toml --set log.run_dir=x --set watch.every=3 --set watch.images=3
expect 2 'watch.patience: found 2 beside watch.every = "auto"' go --set log.run_dir=x --set 'watch.every="auto"' --set watch.patience=2
expect 2 'watch.every' go --set log.run_dir=x --set watch.every=-1
expect 3 'no-such' go --set log.run_dir=x --set watch.every=3 --set watch.train=no-such --set watch.test=test
seer synth -o one --classes 1 --images 9 --size 32 --seed 4 --split train >/dev/null
expect 2 'are of one class' go --set log.run_dir=x --set watch.every=3 --set watch.train=one --set watch.test=one
mkdir -p photos/another && cp "$SEER_TEST_DATA/images/rgb.png" photos/another/
seer pack photos -o other >log.txt 2>&1 || { cat log.txt; fail "pack"; }
expect 2 'has none of the classes of small' go --set log.run_dir=x --set watch.every=3 --set watch.train=small --set watch.test=other
