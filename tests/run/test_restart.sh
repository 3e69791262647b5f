#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Killed with SIGKILL and started again, and stopped by signals and started again: the run ends with the same bits as one
# that nobody disturbed.
. "$(dirname "$0")/common.sh"
needs_kernels

# Name and checksums of every tensor of a run's last checkpoint (other keys of the manifest hold the run's folder).
tensors() { sed -n '/"tensors"/,/^ \]/p' "$(last_checkpoint "$1")/manifest.json" | grep -E '"(group|name|xxh3)"'; }
same_tensors() {
  [ "$(tensors "$1" | grep -c xxh3)" -gt 100 ] || fail "the manifest of $1 lists no checksums"
  diff <(tensors "$1") <(tensors "$2")
}
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
  rc=0; wait "$launcher" || rc=$?
  [ "$rc" != 0 ] || fail "round $round: finished before the kill"
  echo "round $round: killed, launcher said $rc"
done
ranks 2 pretrain killed.toml >killed.txt 2>&1 || { cat killed.txt; fail "the restarted run"; }
grep -E "resumed from .* after [1-9][0-9]* updates" killed.txt || fail "the killed run began anew"
same_tensors quiet killed || fail "the killed run ended with other bits"
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
grep -qE "resumed from .* after [1-9][0-9]* updates" stopped.txt || fail "the stopped run began anew"
diff <(losses quiet) <(losses stopped) || fail "other losses after the signals"
same_tensors quiet stopped || fail "the stopped run ended with other bits"
ranks 2 pretrain stopped.toml >stopped.txt 2>&1 || fail "a finished run, started again"
echo "ok: stopped twice, same losses"

# Going on from an earlier checkpoint: the newer ones are put aside, and the new ones are what the next start finds.
ranks 2 pretrain stopped.toml --resume stopped/checkpoints/update-00000030 --set checkpoint.keep_last=1 \
  --set schedule.total_updates=35 --keep-rate >again.txt 2>&1 || { cat again.txt; fail "going on from an earlier checkpoint"; }
[ "$(ls stopped/checkpoints)" = update-00000035 ] || fail "after going on from 30 to 35: $(ls stopped/checkpoints)"
[ -d stopped/checkpoints.old-1/update-00000040 ] || fail "the newer checkpoint is not put aside"
echo "ok: an earlier checkpoint"
