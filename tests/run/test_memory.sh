#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Whole runs, with loader and checkpoints, keep parallel.memory_budget_bytes: with the smallest budget that the program
# itself names, for small and large photos, on one and two ranks.
source "$(dirname "$0")/common.sh"

needs_kernels
if grep -qE 'lib(asan|tsan|ubsan)' < <(ldd "$SEER_EXECUTABLE"); then
  not_run "sanitizers hold memory of their own"
fi
inputs=$SEER_TEST_DATA/../../inputs
seer synth -o small --classes 2 --images 16 --size 48 --seed 1 >/dev/null
seer synth -o large --classes 2 --images 8 --size 1600 --seed 1 >/dev/null

# kept RANKS SHARDS SETTING...: asks for the smallest budget, then runs with it.
kept() {
  local n=$1 shards=$2
  shift 2
  local set=(--set "data.shards=$shards" --set data.global_batch=4 --set schedule.total_updates=4
    --set checkpoint.every_updates=2 --set parallel.recompute=auto --set parallel.device=host --set log.run_dir=run
    --set 'crops=[{count=2,size=96,scale=[0.14,1.0]},{count=2,size=64,scale=[0.05,0.14]}]')
  for s; do set+=(--set "$s"); done
  rm -rf run
  expect 2 'memory_budget_bytes =' ranks "$n" pretrain "$inputs/bench_400mf.toml" "${set[@]}" --set parallel.memory_budget_bytes=1000000
  local budget
  budget=$(grep -oE 'memory_budget_bytes = [0-9]+' out.txt | grep -oE '[0-9]+')
  expect 0 'recomputed: nothing in' ranks "$n" pretrain "$inputs/bench_400mf.toml" "${set[@]}" --set parallel.memory_budget_bytes="$budget"
  local line='^ *peak resident +' peak
  peak=$(grep -E "$line" out.txt | grep -oE '[0-9.]+$')
  [ -n "$peak" ] || { cat out.txt; fail "no peak in the table of memory"; }
  awk -v peak="$peak" -v budget="$budget" -v what="$n ranks, $shards, $*" 'BEGIN {
    budget /= 1048576
    printf "%s: %.1f of %.1f MiB\n", what, peak, budget
    exit peak > budget || peak < 0.85 * budget }' || { cat out.txt; fail "the budget of $n ranks, $shards"; }
}
kept 1 small
kept 2 small parallel.shard=parameters
kept 2 large parallel.shard=gradients data.reader_threads=2
