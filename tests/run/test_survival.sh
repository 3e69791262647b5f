#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Damage to a run folder from outside: a disk that becomes full, a folder that is deleted, two runs that start at the
# same time, damaged checkpoints.
. "$(dirname "$0")/common.sh"
needs_kernels

seer synth -o train --classes 4 --images 120 --size 48 --seed 1 >/dev/null
has() { grep -qF -- "$2" "$1"; }
# Every line of metrics.jsonl is a whole object.
whole_lines() { ! grep -qvE '^\{"update":[0-9]+,.*\}$' "$1/metrics.jsonl"; }

# A disk becomes full during the run. Needs the right to mount a file system.
mkdir small
if mount -t tmpfs -o size=24m none small 2>/dev/null; then
  mkdir small/run
  ln -s small/run full
  write_config full.toml small/run 100000
  SEER_PAUSE_AFTER=6 start full 2 --set checkpoint.max_failures=1000000 --set checkpoint.keep_last=1
  comes_to small/run/checkpoints/update-00000005/manifest.json full
  paused full
  cat /dev/zero >small/filler 2>/dev/null || true
  go_on full
  until_true has full.txt 'no checkpoint after' || { cat full.txt; fail "no warning of the full disk"; }
  has full.txt 'checkpoint.max_failures = 1000000' || fail "the warning does not count"
  compgen -G 'small/run/checkpoints/update-????????' >/dev/null || fail "the checkpoint before the full disk is gone"
  kept=$(last_checkpoint small/run)
  rm small/filler
  until_true eval '[ "$(last_checkpoint small/run)" != "$kept" ]' || { cat full.txt; fail "no checkpoint after the disk was cleared"; }
  kill -USR1 "$launcher"
  ends_with 75 full
  whole_lines small/run || fail "metrics.jsonl holds torn lines"
  has small/run/log.txt 'no checkpoint after' || echo "(the log lacks lines of the time when the disk was full)"
  seer inspect small/run --verify >/dev/null || fail "the last checkpoint is damaged"
  echo "ok: a full disk, cleared again"

  # It stays full: the last checkpoint cannot be written, and the run ends with an error.
  done=$((10#$(basename "$(last_checkpoint small/run)" | sed 's/update-//')))
  sed "s/^total_updates = .*/total_updates = $((done + 80))/" full.toml >stays.toml
  ln -s small/run stays
  SEER_PAUSE_AFTER=$done start stays 2
  paused stays
  cat /dev/zero >small/filler 2>/dev/null || true
  go_on stays
  ends_with 3 stays
  has stays.txt 'in a row could not be written' || { cat stays.txt; fail "no message of the full disk"; }
  rm small/filler
  echo "ok: a disk that stays full ends the run with 3"
else
  echo "not run: a full disk (needs to mount a tmpfs; the suites of checkpoint and train have its errors)"
fi

# The run folder is deleted during the run.
write_config gone.toml gone 100000
SEER_PAUSE_AFTER=6 start gone 2
comes_to gone/checkpoints/update-00000005/manifest.json gone
paused gone
rm -rf gone || rm -rf gone
until_true has gone.txt 'somebody deleted or moved' || { cat gone.txt; fail "no warning of the deleted folder"; }
until_true eval '[ "$(lines gone)" -gt 5 ]' || fail "no records in the new folder"
kill -USR1 "$launcher"
ends_with 75 gone
[ -s gone/config.toml ] && [ -s gone/log.txt ] && whole_lines gone || fail "the new folder is not whole: $(ls gone)"
seer inspect gone --verify >/dev/null || fail "the last checkpoint is damaged"
echo "ok: a deleted folder"

# Of two runs that start at the same time, one goes on and the other is refused.
write_config twice.toml twice 100000
for trial in $(seq 6); do
  output=twice.1.txt start twice 1 && first=$launcher
  output=twice.2.txt start twice 1 && second=$launcher
  until_true eval 'grep -q "another run uses twice: process" twice.1.txt twice.2.txt' ||
    { cat twice.1.txt twice.2.txt; fail "trial $trial: neither of two runs was refused"; }
  if has twice.1.txt 'another run uses'; then loser=$first winner=$second log=2; else loser=$second winner=$first log=1; fi
  rc=0; wait "$loser" || rc=$?
  [ "$rc" = 2 ] || fail "trial $trial: the refused run ended with $rc, wanted 2"
  until_true has "twice.$log.txt" 'starting at' || { cat "twice.$log.txt"; fail "trial $trial: the other does not go on"; }
  kill -USR1 "$winner"
  rc=0; wait "$winner" || rc=$?
  [ "$rc" = 75 ] || { cat "twice.$log.txt"; fail "trial $trial: the run that went on ended with $rc, wanted 75"; }
done
echo "ok: 6 times two runs at once"

# Damaged checkpoints are named, and the run continues from the newest good one.
write_config rot.toml rot 12
ranks 2 pretrain rot.toml >rot.txt 2>&1 || { cat rot.txt; fail "a run of 12 updates"; }
printf 'rot' | dd of=rot/checkpoints/update-00000012/state.h5 bs=1 seek=30000 conv=notrunc status=none
rm rot/checkpoints/update-00000010/manifest.json
expect 0 'resumed from rot/checkpoints/update-00000005 after 5 updates' ranks 2 pretrain rot.toml
for update in 12 10; do
  has out.txt "checkpoint rot/checkpoints/update-000000$update is not used" || fail "update $update is not named"
done
for folder in rot/checkpoints/update-*; do : >"$folder/manifest.json"; done
expect 3 'no checkpoint in rot/checkpoints can be used' ranks 2 pretrain rot.toml
