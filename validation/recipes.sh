#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Which number of prototypes, epsilon and learning rate suit a small run? One setting at a time is changed around the recipe
# of inputs/cifar.toml, each with three seeds and the same number of images. Prints one row a setting: the share of runs
# that collapsed, the loss at the end, and k-NN top-1 (k 20), mean and standard deviation over the seeds.
#   validation/recipes.sh TRAIN TEST [FOLDER]     # shards of cifar10; results and runs go to FOLDER (default runs/recipes)
# SEER names the program (default build/host-release/seer), UPDATES the length at batch 64 (default 600).
set -euo pipefail
train=${1:?shards to train on} test=${2:?shards to test on} out=${3:-runs/recipes}
seer=${SEER:-build/host-release/seer} updates=${UPDATES:-600}
recipe=$(dirname "${BASH_SOURCE[0]}")/../inputs/cifar.toml
mkdir -p "$out"

# One run: K, epsilon, rate, batch, seed. Appends "K epsilon rate batch seed collapsed ln_K loss top1" to runs.txt.
one() {
  local name=$out/k$1-e$2-r$3-b$4-s$5 length=$((updates * 64 / $4))
  grep -qs "^$1 $2 $3 $4 $5 " "$out/runs.txt" && return
  "$seer" pretrain "$recipe" --resume never --set data.shards="$train" --set log.run_dir="$name" --set head.prototypes="$1" \
    --set swav.epsilon="$2" --set schedule.lr_peak="$3" --set data.global_batch="$4" --set data.seed="$5" \
    --set schedule.total_updates=$length --set schedule.warmup_updates=$((length / 10)) \
    --set swav.freeze_prototypes_updates=$((length / 10)) --set crops.0.size=32 --set crops.1.size=16 \
    --set checkpoint.every_updates=$length --set checkpoint.keep_last=1 --set log.tensorboard=false >"$name.txt" 2>&1
  "$seer" eval knn "$name" --train "$train" --test "$test" --resize 32 --crop 32 --k 20 --json >"$name.json" 2>/dev/null
  # Collapsed: over the last tenth of the run the codes carry no information (mean entropy within 1 % of ln K).
  tail -n $((length / 200)) "$name/metrics.jsonl" | awk -v k="$1" -v head="$1 $2 $3 $4 $5" -v top1="$(top1 "$name.json")" '
    { match($0, /"loss":[^,}]*/); loss += substr($0, RSTART + 7, RLENGTH - 7)
      match($0, /"code_entropy":[^,}]*/); entropy += substr($0, RSTART + 15, RLENGTH - 15) }
    END { print head, (entropy / NR > 0.99 * log(k)), log(k), loss / NR, top1 }' >>"$out/runs.txt"
  rm -rf "$name"
}
top1() { grep -oE '"top1": *[0-9.]+' "$1" | head -n 1 | awk -F: "{ print \$2 }"; }

for seed in 0 1 2; do
  for epsilon in 0.02 0.01 0.03 0.05; do one 50 $epsilon 3.0 64 $seed; done
  for k in 30 200; do one $k 0.02 3.0 64 $seed; done
  for rate in 0.3 1.0 10.0; do one 50 0.02 $rate 64 $seed; done
  for rate in 3.0 6.0; do one 50 0.02 $rate 128 $seed; done
done

echo "| prototypes | epsilon | lr_peak | batch | collapsed | ln K | loss | top-1, per cent |"
echo "| --- | --- | --- | --- | --- | --- | --- | --- |"
sort -k4,4n -k1,1n -k2,2n -k3,3n -k5,5n "$out/runs.txt" | awk '
  function flush() {
    if (!n) return
    deviation = n > 1 ? sqrt((squares - sum * sum / n) / (n - 1)) : 0
    printf "| %s | %s | %s | %s | %d of %d | %.2f | %.2f | %.1f +- %.1f |\n", key[1], key[2], key[3], key[4], collapsed, n, lnk, loss / n, sum / n, deviation
  }
  { now = $1 " " $2 " " $3 " " $4
    if (now != last) { flush(); n = sum = squares = collapsed = loss = 0; last = now; split(now, key, " ") }
    ++n; collapsed += $6; lnk = $7; loss += $8; sum += $9; squares += $9 * $9 }
  END { flush() }'
