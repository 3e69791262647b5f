#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Does bf16 drift away from fp32? 500 updates of the demonstration (inputs/demo.toml) from one seed: in fp32 on one rank, in
# bf16 beside it, and in fp32 on two ranks (the same sums in another order: how far apart two runs of equal precision end).
# Prints a table of the loss, mean of 25 updates, and the k-NN of each at the end, as Markdown
# (validation/results/precision.md). About ten minutes on two cores. SEER chooses the executable, OUT the folder.
#   validation/precision_curves.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/environment.sh
source scripts/environment.sh
seer=${SEER:-build/host-release/seer}
out=${OUT:-runs/precision}
mkdir -p "$out"

if [ ! -e "$out/data_complete" ]; then
  rm -rf "$out/train" "$out/test"
  "$seer" synth -o "$out/train" --classes 8 --images 2000 --size 80 --seed 1 --split train >&2
  "$seer" synth -o "$out/test" --classes 8 --images 400 --size 80 --seed 2 --split test >&2
  touch "$out/data_complete"
fi

train() {  # NAME RANKS PRECISION
  run_ranks "$2" "$seer" pretrain inputs/demo.toml --set log.run_dir="$out/$1" --set precision.compute="$3" \
    --set data.shards="$out/train" --set log.every=1 --set schedule.total_updates=500 \
    --set parallel.bn_group_size="$2" --set log.tensorboard=false >&2
  run_ranks 1 "$seer" eval knn "$out/$1" --train "$out/train" --test "$out/test" --resize 64 --crop 64 --k 10 --json \
    > "$out/$1.json"
}
train fp32 1 fp32 &
fp32=$!
train bf16 1 bf16 &
wait $!
wait $fp32
train fp32_two_ranks 2 fp32

python3 - "$out" <<'PYTHON'
import json, sys
out, names = sys.argv[1], ["fp32", "fp32_two_ranks", "bf16"]
rows = {n: [json.loads(line) for line in open(f"{out}/{n}/metrics.jsonl")] for n in names}
print("| updates | fp32 | fp32, two ranks | difference | bf16 | difference |\n| --- | --- | --- | --- | --- | --- |")
worst = [0.0, 0.0]
for first in range(0, len(rows["fp32"]), 25):
    mean = {n: sum(r["loss"] for r in rows[n][first:first + 25]) / 25 for n in names}
    difference = [mean[n] - mean["fp32"] for n in names[1:]]
    worst = [max(w, abs(d)) for w, d in zip(worst, difference)]
    print(f"| {first + 1} to {first + 25} | {mean['fp32']:.4f} | {mean['fp32_two_ranks']:.4f} | {difference[0]:+.4f} "
          f"| {mean['bf16']:.4f} | {difference[1]:+.4f} |")
print(f"\nLargest difference of a row: two ranks {worst[0]:.4f}, bf16 {worst[1]:.4f}.\n")
print("| | k-NN top-1, k = 10 | step, median | images/s |\n| --- | --- | --- | --- |")
for n in names:
    top1 = json.loads(open(f"{out}/{n}.json").read().splitlines()[-1])["rows"][0]["top1"]
    step = sorted(r["step_ms"] for r in rows[n])[len(rows[n]) // 2]
    print(f"| {n.replace('_two', ', two').replace('_', ' ')} | {top1:.1f} % | {step:.0f} ms | {128000 / step:.0f} |")
PYTHON
