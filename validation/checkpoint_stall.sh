#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What a checkpoint costs: for how long the training stands still and at what rate it is written, synchronously and beside
# the training, next to dd of as many bytes in the same round. Prints Markdown.
#   validation/checkpoint_stall.sh [FOLDER]
# FOLDER: on the file system in question (default: a temporary one). SEER: the executable. PRESETS (8gf 32gf), RANKS
# (1 2 4), ROUNDS (3; the best counts).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
seer=${SEER:-build/host-release/seer}
work=$(mktemp -d "${1:-${TMPDIR:-/tmp}}/seer-stall.XXXXXX")
trap 'rm -rf "$work"' EXIT
export OMP_NUM_THREADS=1 OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_odls_base_num_threads=0
rounds=${ROUNDS:-3}

echo "| model | GB | ranks | dd GB/s | sync: stall s | GB/s | of dd | async: stall s | written s | GB/s | of dd | work beside |"
echo "|---|---|---|---|---|---|---|---|---|---|---|---|"
for preset in ${PRESETS:-8gf 32gf}; do
  for ranks in ${RANKS:-1 2 4}; do
    mpirun --oversubscribe --bind-to none -n "$ranks" "$seer" bench checkpoint --config "inputs/seer_$preset.toml" \
      --dir "$work" --rounds "$rounds" --json </dev/null >"$work/run.json"
    bytes=$(python3 -c "import json; print(json.load(open('$work/run.json'))['bytes'])")
    best=$(for _ in $(seq "$rounds"); do
      start=$(date +%s.%N)
      dd if=/dev/zero of="$work/dd" bs=4M count=$((bytes / 4194304)) conv=fsync status=none
      echo "$(date +%s.%N) $start"
      rm "$work/dd"
    done | awk '{ t = $1 - $2; if (NR == 1 || t < best) best = t } END { print best }')
    python3 - "$work/run.json" "$preset" "$best" <<'P'
import json, sys
r, preset, dd = json.load(open(sys.argv[1])), sys.argv[2].upper(), float(sys.argv[3])
gb = r["bytes"] / 1e9
print(f"| {preset} | {gb:.2f} | {r['ranks']} | {gb / dd:.2f} | {r['save_s']:.2f} | {gb / r['save_s']:.2f} | "
      f"{dd / r['save_s']:.2f} | {r['async_stall_s']:.3f} | {r['async_write_s']:.2f} | {gb / r['async_write_s']:.2f} | "
      f"{dd / r['async_write_s']:.2f} | {r['async_work_share']:.2f} |")
P
  done
done
