#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Killed with SIGKILL and started again, and stopped by signals and started again: the run ends with the same bits as one
# that nobody disturbed.
. "$(dirname "$0")/common.sh"

lines() { if [ -e "$1/metrics.jsonl" ]; then wc -l <"$1/metrics.jsonl"; else echo 0; fi; }

seer synth -o train --classes 4 --images 120 --size 48 --seed 1 >/dev/null
write_config quiet.toml quiet 40
ranks 2 pretrain quiet.toml >quiet.txt 2>&1 || { cat quiet.txt; fail "the undisturbed run"; }

write_config killed.toml killed 40
for round in 1 2; do
  "$mpiexec" --oversubscribe --bind-to none -n 2 "$SEER_EXECUTABLE" pretrain killed.toml </dev/null >killed.txt 2>&1 &
  launcher=$!
  # Wait for some progress, then a moment that differs from run to run.
  for _ in $(seq 200); do [ "$(lines killed)" -ge $((round * 8)) ] && break; sleep 0.05; done
  sleep "0.$((RANDOM % 4))$((RANDOM % 10))"
  victim=$(pgrep -P "$launcher" -f "pretrain killed.toml" | head -n 1 || true)
  [ -z "$victim" ] || kill -KILL "$victim"
  wait "$launcher" && echo "round $round: finished before the kill" || echo "round $round: killed, launcher said $?"
done
ranks 2 pretrain killed.toml >killed.txt 2>&1 || { cat killed.txt; fail "the restarted run"; }
grep -E "resumed|verif" killed.txt || true
cmp "$(last_checkpoint quiet)/state.h5" "$(last_checkpoint killed)/state.h5" >/dev/null 2>&1 ||
  diff <(grep -o '"checksum":[^,}]*' "$(last_checkpoint quiet)/manifest.json") \
       <(grep -o '"checksum":[^,}]*' "$(last_checkpoint killed)/manifest.json") || fail "the killed run ended with other bits"
[ "$(losses killed | wc -l)" = 40 ] || fail "metrics.jsonl has $(losses killed | wc -l) lines, wanted 40"
diff <(losses quiet) <(losses killed) || fail "other losses after the kills"
echo "ok: killed twice, same bits"

write_config stopped.toml stopped 40
for signal in TERM USR1; do
  "$mpiexec" --oversubscribe --bind-to none -n 2 "$SEER_EXECUTABLE" pretrain stopped.toml </dev/null >stopped.txt 2>&1 &
  launcher=$!
  before=$(lines stopped)
  for _ in $(seq 200); do [ "$(lines stopped)" -ge $((before + 6)) ] && break; sleep 0.05; done
  victim=$(pgrep -P "$launcher" -f "pretrain stopped.toml" | tail -n 1)
  kill "-$signal" "$victim"
  rc=0; wait "$launcher" || rc=$?
  [ "$rc" = 75 ] || { cat stopped.txt; fail "SIG$signal: exit code $rc, wanted 75"; }
  echo "ok: SIG$signal to one rank, exit 75, $(basename "$(last_checkpoint stopped)")"
done
ranks 2 pretrain stopped.toml >stopped.txt 2>&1 || { cat stopped.txt; fail "the run after the signals"; }
diff <(losses quiet) <(losses stopped) || fail "other losses after the signals"
ranks 2 pretrain stopped.toml >stopped.txt 2>&1 || fail "a finished run, started again"
echo "ok: stopped twice, same losses"
