#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What `seer plan` says beside what a run on this machine does: peak memory of a rank and time of an update.
#   validation/plan_vs_measured.sh [--full | --large | --runs] [MACHINE.toml]
# Without a machine file this one is calibrated first (a minute). --full: every mode of sharding with every
# recomputation at 1, 2 and 4 ranks for 8GF. --large: 256GF over two ranks (needs 23 GiB), and the 10B trunk's shape at an
# eighth of its widths. --runs: memory of whole runs, with loader and checkpoints, at the smallest budget that
# recompute = "auto" names, with photos of 0.19 and 4 megapixels. Else seven settings that differ in everything.
# Bench step reads and saves nothing, so there the plan leaves out the loader (data.source = crops) and the copy for
# checkpoints (checkpoint.async = false).
# SEER: the executable. RANKS (with --full; default 1 2 4), UPDATES (timed ones; default 5), ROUNDS (of each of the seven
# settings, calibration and run in turns; default 1): the medians of both are shown, for a machine that others use as well
# changes within minutes. ONLY: a regular expression, for those settings alone whose label it matches.
set -euo pipefail
refuse() { echo "plan_vs_measured: $*" >&2; exit 2; }
what=few machine=""
for argument; do
  case $argument in
    --full | --large | --runs) what=${argument#--} ;;
    -h | --help) sed -n '3,15s/^# \{0,1\}//p' "$0"; exit 0 ;;
    -*) refuse "unknown argument $argument; allowed: --full, --large, --runs, a machine file" ;;
    *)
      [ -z "$machine" ] || refuse "two machine files, $machine and $argument; wanted one"
      [ -f "$argument" ] && [ -r "$argument" ] || refuse "cannot read the machine file $argument"
      machine=$(realpath "$argument")
      ;;
  esac
done
for name in ROUNDS UPDATES; do
  [[ ${!name:-1} =~ ^[1-9][0-9]*$ ]] || refuse "$name = ${!name}; wanted a whole number from 1"
done
for n in ${RANKS:-}; do
  [[ $n =~ ^[1-9][0-9]*$ ]] || refuse "RANKS = $RANKS; wanted whole numbers from 1"
done
cd "$(dirname "$0")/.."
. scripts/environment.sh
seer=${SEER:-build/host-release/seer}
command -v "$seer" >/dev/null || refuse "no executable $seer; build it, or set SEER"
rows=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OMP_NUM_THREADS=1 OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_odls_base_num_threads=0
run() { mpirun --oversubscribe --bind-to none -n "$1" "${@:2}" </dev/null; }

# A core that computes alone has the memory for itself, and ranks that share a core take turns: one rank, two and four are
# three machines.
calibrate() {  # ranks
  if [ -n "$machine" ]; then
    cp "$machine" "$work/machine.$1.toml"
  else
    run "$1" "$seer" plan --calibrate "$work/machine.$1.toml" --folder "$work" >&2
  fi
}
# The seven settings: right before each run.
case $what in
  full) for ranks in ${RANKS:-1 2 4}; do calibrate "$ranks"; done ;;
  large) for ranks in 2 4; do calibrate $ranks; done ;;
  runs) for ranks in 1 2 4; do calibrate $ranks; done ;;
esac

if [ $what = runs ]; then
  printf '| setting | ranks | peak MiB | budget | off | planned before | off |\n|---|---|---|---|---|---|---|\n'
else
  printf '| setting | ranks | peak MiB | planned | off | update ms | planned | off |\n|---|---|---|---|---|---|---|---|\n'
fi
# A run of four updates with the smallest budget that it names itself, and what `seer plan` makes of the same budget.
whole_run() {  # ranks, label, pixels of a side, --set ...
  local ranks=$1 label=$2 side=$3 budget
  shift 3
  [[ $label =~ ${ONLY:-.} ]] || return 0
  rows=$((rows + 1))
  rm -rf "$work/run"
  [ -d "$work/photos.$side" ] || "$seer" synth -o "$work/photos.$side" --classes 2 --images 32 --size "$side" >/dev/null </dev/null
  local settings=(inputs/bench_400mf.toml --set schedule.total_updates=4 --set parallel.recompute=auto "$@")
  local here=(--set data.shards="$work/photos.$side" --set checkpoint.every_updates=2 --set log.run_dir="$work/run")
  run "$ranks" "$seer" pretrain "${settings[@]}" "${here[@]}" --set parallel.memory_budget_bytes=1 >"$work/refused.txt" 2>&1 || true
  budget=$(grep -oE 'memory_budget_bytes = [0-9]+' "$work/refused.txt" | grep -oE '[0-9]+' | head -n 1) ||
    { cat "$work/refused.txt" >&2; return 1; }
  run "$ranks" "$seer" pretrain "${settings[@]}" "${here[@]}" --set parallel.memory_budget_bytes="$budget" >"$work/run.txt" 2>&1 ||
    { tail -n 20 "$work/run.txt" >&2; return 1; }
  # Of the largest rank: the root, which lays the checkpoints out. A plan of another base may need a little more.
  "$seer" plan "${settings[@]}" --machine "$work/machine.$ranks.toml" --ranks "$ranks" --per-node "$ranks" --json \
    --set parallel.memory_budget_bytes="$budget" </dev/null >"$work/plan.json"
  awk -v label="$label" -v ranks="$ranks" -v budget="$budget" \
    -v planned="$(grep -oE '"peak_rank_bytes": [0-9]+' "$work/plan.json" | grep -oE '[0-9]+$')" '
    /^ *peak resident / {peak = $3}
    END {budget /= 2^20; planned /= 2^20
         printf "| %s | %d | %.0f | %.0f | %+.1f %% | %.0f | %+.1f %% |\n", label, ranks, peak, budget,
           100 * (budget / peak - 1), planned, 100 * (planned / peak - 1)}' "$work/run.txt"
}
compare() {  # ranks, label, config, --set ...
  local ranks=$1 label=$2 config=$3
  shift 3
  [[ $label =~ ${ONLY:-.} ]] || return 0
  rows=$((rows + 1))
  rm -f "$work"/plan.*.json "$work"/run.*.json
  for round in $(seq $([ $what = few ] && echo "${ROUNDS:-1}" || echo 1)); do
    [ $what != few ] || calibrate "$ranks"
    "$seer" plan "$config" --machine "$work/machine.$ranks.toml" --ranks "$ranks" --per-node "$ranks" \
      --set data.source=crops --set checkpoint.async=false "$@" --json >"$work/plan.$round.json"
    run "$ranks" "$seer" bench step "$config" --updates "${UPDATES:-5}" --warmup "${WARMUP:-2}" --json \
      --set checkpoint.async=false "$@" >"$work/run.$round.json" 2>"$work/run.err" ||
        { cat "$work/run.err" >&2; return 1; }
  done
  python3 - "$work" "$label" "$ranks" <<'P'
import glob, json, statistics, sys
work, label, ranks = sys.argv[1:]
def read(file):  # a run's is the last line, a plan's has many
    text = open(file).read()
    return json.loads(text if "/plan." in file else text.strip().splitlines()[-1])
def median(what, key):
    return statistics.median(read(file)[key] for file in glob.glob(f"{work}/{what}.*.json"))
row = [label, ranks]
for key, unit in (("peak_rank_bytes", 2**20), ("step_ms", 1)):
    found, told = median("run", key) / unit, median("plan", key) / unit
    row += [f"{found:.0f}", f"{told:.0f}", f"{100 * (told / found - 1):+.1f} %"]
print("| " + " | ".join(row) + " |")
P
}

if [ $what = full ]; then
  for ranks in ${RANKS:-1 2 4}; do
    for shard in none optimizer gradients parameters; do
      if [ $ranks = 1 ] && [ $shard != none ]; then continue; fi
      for recompute in none block auto; do
        budget=0
        # auto: a budget between those of none and block.
        if [ $recompute = auto ]; then
          budget=$(for r in none block; do
            "$seer" plan inputs/bench_8gf.toml --machine "$work/machine.$ranks.toml" --ranks $ranks --per-node $ranks --json --set data.source=crops --set checkpoint.async=false \
              --set data.global_batch=4 --set parallel.shard=$shard --set parallel.recompute=$r
          done | python3 -c 'import re, sys; p = [int(x) for x in re.findall(r"\"peak_rank_bytes\": (\d+)", sys.stdin.read())]; print(p[1] + (p[0] - p[1]) // 4)')
        fi
        compare $ranks "8GF, shard $shard, recompute $recompute" inputs/bench_8gf.toml --set data.global_batch=4 \
          --set parallel.shard=$shard --set parallel.recompute=$recompute --set parallel.memory_budget_bytes="$budget"
      done
    done
  done
elif [ $what = large ]; then
  # One update each, the first one: a second would take minutes.
  export UPDATES=1 WARMUP=0
  small='crops=[{count=2,size=64,scale=[0.14,1.0]},{count=2,size=32,scale=[0.05,0.14]}]'
  whole=(inputs/seer_256gf.toml --set parallel.bn_group_size=2 --set precision.compute=fp32
    --set swav.freeze_prototypes_updates=0 --set parallel.shard=parameters --set parallel.recompute=block)
  compare 2 "256GF, crops of 64 and 32, 1 image a rank" "${whole[@]}" --set data.global_batch=2 --set "$small"
  compare 2 "256GF, 1 image a rank" "${whole[@]}" --set data.global_batch=2
  # Depth, slope and head of 10B; widths, group width and head an eighth.
  wide=(inputs/seer_10b.toml --set model.preset= --set model.depth=27 --set model.w0=216 --set model.wa=77.6
    --set model.wm=2.52 --set model.group_width=128 --set data.global_batch=4
    --set 'head.dims=[3456,1024,1024,256]' --set parallel.bn_group_size=4 --set precision.compute=fp32
    --set swav.freeze_prototypes_updates=0 --set parallel.recompute=block)
  for shard in none optimizer gradients parameters; do
    compare 4 "10B at an eighth of its widths, shard $shard" "${wide[@]}" --set parallel.shard=$shard
  done
elif [ $what = runs ]; then
  for side in 433 2000; do
    whole_run 1 "400MF, 8 images of ${side}x$side" $side
    whole_run 2 "400MF, 4 images a rank of ${side}x$side, parameters sharded" $side --set parallel.shard=parameters
    whole_run 4 "400MF, 2 images a rank of ${side}x$side, gradients sharded" $side --set parallel.shard=gradients
  done
else
  compare 1 "400MF, 8 images" inputs/bench_400mf.toml --set data.global_batch=8
  compare 2 "400MF, 8 images a rank, bf16, gradients sharded" inputs/bench_400mf.toml --set data.global_batch=16 \
    --set precision.compute=bf16 --set parallel.shard=gradients
  compare 1 "8GF, 2 images" inputs/bench_8gf.toml --set data.global_batch=2
  compare 2 "8GF, 2 images a rank, optimizer sharded, blocks recomputed" inputs/bench_8gf.toml --set data.global_batch=4 \
    --set parallel.shard=optimizer --set parallel.recompute=block
  compare 2 "8GF, 2 images a rank, parameters sharded, bf16, cheap" inputs/bench_8gf.toml --set data.global_batch=4 \
    --set parallel.shard=parameters --set parallel.recompute=cheap --set precision.compute=bf16
  compare 4 "8GF, 1 image a rank, parameters sharded, cheap, crops of 160 and 64" inputs/bench_8gf.toml \
    --set data.global_batch=4 --set parallel.shard=parameters --set parallel.recompute=cheap \
    --set 'crops=[{count=2,size=160,scale=[0.14,1.0]},{count=4,size=64,scale=[0.05,0.14]}]'
  compare 4 "400MF, 2 images a rank, BatchNorm over 4 ranks" inputs/bench_400mf.toml --set data.global_batch=8 \
    --set parallel.bn_group_size=4
fi
[ "$rows" -gt 0 ] || { echo "plan_vs_measured: no label matches ONLY = $ONLY" >&2; exit 2; }
