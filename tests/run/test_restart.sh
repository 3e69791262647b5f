#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A run that was killed with SIGKILL or stopped by signals, and started again, ends with the same bits as an undisturbed
# run.
. "$(dirname "$0")/common.sh"
needs_kernels

seer synth -o train --classes 4 --images 120 --size 48 --seed 1 >/dev/null
write_config quiet.toml quiet 40
ranks 2 pretrain quiet.toml >quiet.txt 2>&1 || { cat quiet.txt; fail "the undisturbed run"; }

write_config killed.toml killed 40
for update in 8 23; do
  SEER_PAUSE_AFTER=$update start killed 2
  paused killed
  kill -KILL "$(rank_pid killed $((update % 2)))"
  ends killed
  [ "$rc" != 0 ] || fail "killed after update $update: exit code 0"
  echo "killed after update $update, launcher said $rc"
done
ranks 2 pretrain killed.toml >killed.txt 2>&1 || { cat killed.txt; fail "the restarted run"; }
grep -E "resumed from .* after [1-9][0-9]* updates" killed.txt || fail "the killed run began anew"
same_tensors quiet killed || fail "the killed run ended with other bits"
[ "$(losses killed | wc -l)" = 40 ] || fail "metrics.jsonl has $(losses killed | wc -l) lines, wanted 40"
diff <(losses quiet) <(losses killed) || fail "other losses after the kills"
echo "ok: killed twice, same bits"

write_config stopped.toml stopped 40
for stop in "TERM 6" "USR1 19"; do
  read -r signal update <<<"$stop"
  SEER_PAUSE_AFTER=$update start stopped 2
  paused stopped
  kill "-$signal" "$(rank_pid stopped 1)"
  go_on stopped
  ends_with 75 stopped
  echo "ok: SIG$signal to one rank, exit 75, $(basename "$(last_checkpoint stopped)")"
done
ranks 2 pretrain stopped.toml >stopped.txt 2>&1 || { cat stopped.txt; fail "the run after the signals"; }
grep -qE "resumed from .* after [1-9][0-9]* updates" stopped.txt || fail "the stopped run began anew"
diff <(losses quiet) <(losses stopped) || fail "other losses after the signals"
same_tensors quiet stopped || fail "the stopped run ended with other bits"
ranks 2 pretrain stopped.toml >stopped.txt 2>&1 || fail "a finished run, started again"
echo "ok: stopped twice, same losses"

# A start from an earlier checkpoint moves newer ones aside, and the next start finds the new ones.
ranks 2 pretrain stopped.toml --resume stopped/checkpoints/update-00000030 --set checkpoint.keep_last=1 \
  --set schedule.total_updates=35 >again.txt 2>&1 || { cat again.txt; fail "going on from an earlier checkpoint"; }
[ "$(ls stopped/checkpoints)" = update-00000035 ] || fail "after going on from 30 to 35: $(ls stopped/checkpoints)"
[ -d stopped/checkpoints.old-1/update-00000040 ] || fail "the newer checkpoint is not put aside"
echo "ok: an earlier checkpoint"
