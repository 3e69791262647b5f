#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What `seer plan` says beside what a run on this machine does: peak memory of a rank and time of an update.
#   validation/plan_vs_measured.sh [--full] [MACHINE.toml]
# Without a machine file this one is calibrated first (half a minute). --full: every mode of sharding with every
# recomputation at 1, 2 and 4 ranks for 8GF; else six settings that differ in everything.
# SEER: the executable. RANKS (with --full; default 1 2 4), UPDATES (timed ones; default 5).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
seer=${SEER:-build/host-release/seer}
full=no machine=""
for argument; do
  if [ "$argument" = --full ]; then full=yes; else machine=$argument; fi
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OMP_NUM_THREADS=1 OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_odls_base_num_threads=0
run() { mpirun --oversubscribe --bind-to none -n "$1" "${@:2}" </dev/null; }

# A core that computes alone has the memory for itself: one rank and two are two machines.
for ranks in 1 2; do
  if [ -n "$machine" ]; then
    cp "$machine" "$work/machine.$ranks.toml"
  else
    run $ranks "$seer" plan --calibrate "$work/machine.$ranks.toml" --folder "$work" >&2
  fi
done

printf '| setting | ranks | peak MiB | planned | off | update ms | planned | off |\n|---|---|---|---|---|---|---|---|\n'
compare() {  # ranks, label, config, --set ...
  local ranks=$1 label=$2 config=$3
  shift 3
  # 4 ranks are twice as many as the machine has cores: --per-node tells the plan.
  "$seer" plan "$config" --machine "$work/machine.$((ranks > 1 ? 2 : 1)).toml" --ranks "$ranks" --per-node "$ranks" --set data.source=crops "$@" --json >"$work/plan.json"
  run "$ranks" "$seer" bench step "$config" --updates "${UPDATES:-5}" --warmup 2 --json "$@" >"$work/run.json" 2>"$work/run.err" ||
    { cat "$work/run.err" >&2; return 1; }
  python3 - "$work" "$label" "$ranks" <<'P'
import json, sys
work, label, ranks = sys.argv[1:]
run = json.loads(open(work + "/run.json").read().strip().splitlines()[-1])
plan = json.load(open(work + "/plan.json"))
row = [label, ranks]
for found, told in ((run["peak_rank_bytes"] / 2**20, plan["peak_rank_bytes"] / 2**20), (run["step_ms"], plan["step_ms"])):
    row += [f"{found:.0f}", f"{told:.0f}", f"{100 * (told / found - 1):+.1f} %"]
print("| " + " | ".join(row) + " |")
P
}

if [ $full = yes ]; then
  for ranks in ${RANKS:-1 2 4}; do
    for shard in none optimizer gradients parameters; do
      if [ $ranks = 1 ] && [ $shard != none ]; then continue; fi
      for recompute in none block auto; do
        budget=0
        # auto: a budget between those of none and block.
        if [ $recompute = auto ]; then
          budget=$(for r in none block; do
            "$seer" plan inputs/bench_8gf.toml --machine "$work/machine.$((ranks > 1 ? 2 : 1)).toml" --ranks $ranks --per-node $ranks --json --set data.source=crops \
              --set data.global_batch=4 --set parallel.shard=$shard --set parallel.recompute=$r
          done | python3 -c 'import re, sys; p = [int(x) for x in re.findall(r"\"peak_rank_bytes\": (\d+)", sys.stdin.read())]; print(p[1] + (p[0] - p[1]) // 4)')
        fi
        compare $ranks "8GF, shard $shard, recompute $recompute" inputs/bench_8gf.toml --set data.global_batch=4 \
          --set parallel.shard=$shard --set parallel.recompute=$recompute --set parallel.memory_budget_bytes="$budget"
      done
    done
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
  compare 4 "400MF, 2 images a rank, BatchNorm over 4 ranks" inputs/bench_400mf.toml --set data.global_batch=8 \
    --set parallel.bn_group_size=4
fi
