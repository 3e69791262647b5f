#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Requests: STOP and CHECKPOINT in the run folder, signals twice and before the first update, and the wall-clock limit.
. "$(dirname "$0")/common.sh"
needs_kernels

seer synth -o train --classes 4 --images 90 --size 48 --seed 1 >/dev/null
begin() {  # NAME option...: two ranks in the background
  local name=$1; shift
  [ -e "$name.toml" ] || write_config "$name.toml" "$name" 1000000
  start "$name" 2 --set checkpoint.every_updates=1000000 "$@"
}
at_update() { local update=$1; shift; SEER_PAUSE_AFTER=$update begin "$@"; paused "$1"; }

at_update 5 files
touch files/CHECKPOINT
go_on files
saved() { ls files/checkpoints/update-*/manifest.json; }
until_true eval 'saved >/dev/null' || { cat files.txt; fail "CHECKPOINT: no checkpoint"; }
[ ! -e files/CHECKPOINT ] || fail "CHECKPOINT is still there"
first=$(last_checkpoint files) at=$(lines files)
until_true eval '[ "$(lines files)" -gt "$at" ]' || { cat files.txt; fail "CHECKPOINT: the run does not go on"; }
touch files/STOP
ends_with 75 files
grep -q 'stopped by STOP after' files.txt || { cat files.txt; fail "STOP: the message"; }
[ ! -e files/STOP ] || fail "STOP is still there"
[ "$(last_checkpoint files)" != "$first" ] || fail "STOP: no checkpoint of its own"
echo "ok: CHECKPOINT and STOP"

# A stop requested before the first update: no update is done.
touch files/STOP
at=$(lines files)
begin files; ends_with 75 files
[ "$(lines files)" = "$at" ] || fail "STOP before the start: updates were done all the same"
at_update 0 early
kill -USR1 "$(rank_pid early 1)"
received() { ! grep -qE '^S(hd|ig)Pnd:.*[1-9a-f]' "/proc/$1/status"; }
until_true received "$(rank_pid early 1)" || fail "early: the signal is not received"
go_on early; ends_with 75 early
[ "$(lines early)" = 0 ] || fail "a signal before the first update: updates were done all the same"
echo "ok: before the first update"

# Two signals at once, as a launcher and Slurm send them, are one request. Suspended ranks get both when they continue.
at_update 5 twice
kill -STOP $(pids twice); kill -USR1 $(pids twice); kill -TERM $(pids twice); kill -CONT $(pids twice)
go_on twice
ends_with 75 twice
[ -e "$(last_checkpoint twice)/manifest.json" ] || { cat twice.txt; fail "twice: no checkpoint"; }
echo "ok: one request, delivered twice"

# A second signal, later, ends the run at once; the earlier checkpoint stays. The run is paused, so that it cannot handle
# the first signal before.
at_update 5 second --set checkpoint.every_updates=3
until_true test -d second/checkpoints/update-00000003 || { cat second.txt; fail "second: no checkpoint"; }
one=$(rank_pid second 1)
again() { kill -USR1 "$one"; gone "$launcher"; }  # within a second, it counts as the first one again
until_true again || { cat second.txt; fail "second: the run still waits"; }
ends_with 75 second
begin second; until_true grep -q 'starting at' second.txt
grep -q "resumed from second/checkpoints/update-00000003" second.txt || { cat second.txt; fail "second: did not resume from update 3"; }
kill -USR1 "$launcher"; ends_with 75 second
echo "ok: a second signal"

begin wall --set 'log.walltime="00:00:04"'
ends_with 75 wall
grep -q 'stopped by walltime after' wall.txt || { cat wall.txt; fail "walltime: the message"; }
echo "ok: walltime"

expect 2 'SEER_PAUSE_AFTER="soon"; wanted the number of an update' env SEER_PAUSE_AFTER=soon "$SEER_EXECUTABLE" pretrain wall.toml
