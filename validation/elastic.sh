#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Elastic restarts: one run that goes from 4 to 2 to 1 to 3 ranks, with other sharding and recomputation each time, beside
# one that nobody disturbed. A third, undisturbed on 4 ranks, shows what another order of summation alone does: training
# amplifies rounding. Prints the losses side by side; fails where the elastic run strays more than three times as far as
# the third (or 1e-4).
#   validation/elastic.sh SEER [UPDATES] [MPIEXEC]      UPDATES: a multiple of 4, default 80
set -euo pipefail
seer=$(realpath "${1:?path of the executable}")
updates=${2:-80} mpiexec=${3:-mpiexec}
part=$((updates / 4))
scratch=$(mktemp -d "${TMPDIR:-/tmp}/seer-elastic.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
inputs=$(realpath "$(dirname "$0")/../inputs")
cd "$scratch"

"$seer" synth -o train --classes 4 --images 256 --size 48 --seed 1 >/dev/null </dev/null
run() {  # NAME RANKS option...
  local name=$1 n=$2; shift 2
  "$mpiexec" --oversubscribe --bind-to none -n "$n" "$seer" pretrain "$inputs/tiny.toml" --set data.shards=train \
    --set data.global_batch=24 --set schedule.total_updates="$updates" --set schedule.lr_peak=0.1 --set log.every=1 \
    --set checkpoint.every_updates="$part" --set checkpoint.keep_last=9 --set log.run_dir="$name" "$@" \
    >>"$name.txt" 2>&1 </dev/null || { cat "$name.txt"; exit 1; }
}
forget_after() {  # what this start did after UPDATE: the next one goes on from there
  local folder
  for folder in elastic/checkpoints/update-*; do
    [ $((10#${folder##*-})) -le "$1" ] || rm -r "$folder"
  done
}
losses() { sed -E 's/.*"loss":([-0-9.e+]+).*/\1/' "$1/metrics.jsonl"; }

run undisturbed 1
run control 4
starts=(
  "4 gradients cheap 2"
  "2 parameters block 0"
  "1 none none 0"
  "3 optimizer none 0"
)
for i in 0 1 2 3; do
  read -r ranks shard recompute group <<<"${starts[$i]}"
  run elastic "$ranks" --set parallel.shard="$shard" --set parallel.recompute="$recompute" --set parallel.shard_group="$group"
  forget_after $(((i + 1) * part))
done
grep -c 'resumed from' elastic.txt | grep -qx 3 || { cat elastic.txt; echo "wanted three restarts" >&2; exit 1; }

echo "| update | ranks | sharding | recompute | loss | undisturbed, 1 rank | relative difference | of 4 ranks undisturbed |"
echo "| ---: | ---: | --- | --- | ---: | ---: | ---: | ---: |"
paste -d' ' <(losses elastic) <(losses undisturbed) <(losses control) |
  awk -v part="$part" -v starts="$(printf '%s;' "${starts[@]}")" '
  function apart(a, b) { return a > b ? (a - b) / b : (b - a) / b }
  BEGIN { split(starts, start, ";") }
  { d = apart($1, $2); c = apart($3, $2); n++
    if (d > worst) worst = d
    if (c > control) control = c
    split(start[int((NR - 1) / part) + 1], s, " ")
    if (NR % int(part / 4) == 0)
      printf "| %d | %d | %s | %s | %.6f | %.6f | %.1e | %.1e |\n", NR, s[1], s[2], s[3], $1, $2, d, c }
  END { limit = 3 * control > 1e-4 ? 3 * control : 1e-4
        printf "\nworst of %d updates: %.1e; of 4 ranks undisturbed: %.1e\n", n, worst, control
        exit !(n == 4 * part && worst <= limit) }'
