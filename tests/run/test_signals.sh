#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Requests: STOP and CHECKPOINT in the run folder, signals twice and before the first update, and the wall-clock limit.
. "$(dirname "$0")/common.sh"
needs_kernels

seer synth -o train --classes 4 --images 90 --size 48 --seed 1 >/dev/null
lines() { if [ -e "$1/metrics.jsonl" ]; then wc -l <"$1/metrics.jsonl"; else echo 0; fi; }
start() {  # NAME option...: two ranks in the background
  local name=$1; shift
  [ -e "$name.toml" ] || write_config "$name.toml" "$name" 1000000
  "$mpiexec" --oversubscribe --bind-to none -n 2 "$SEER_EXECUTABLE" pretrain "$name.toml" \
    --set checkpoint.every_updates=1000000 "$@" </dev/null >"$name.txt" 2>&1 &
  launcher=$!
}
going() {  # NAME: has done some updates of this start
  local before=${2:-0}
  for _ in $(seq 400); do
    [ "$(lines "$1")" -ge $((before + 5)) ] && return
    sleep 0.05
  done
  cat "$1.txt"; fail "$1 did not get going"
}
ends_with() {  # CODE NAME
  local rc=0
  timeout 60 tail --pid="$launcher" -f /dev/null || { cat "$2.txt"; fail "$2 still runs a minute later"; }
  wait "$launcher" || rc=$?
  [ "$rc" = "$1" ] || { cat "$2.txt"; fail "$2: exit code $rc, wanted $1"; }
}

start files; going files
touch files/CHECKPOINT
for _ in $(seq 200); do ls files/checkpoints/update-* >/dev/null 2>&1 && break; sleep 0.05; done
[ -e "$(last_checkpoint files)/manifest.json" ] || { cat files.txt; fail "CHECKPOINT: no checkpoint"; }
[ ! -e files/CHECKPOINT ] || fail "CHECKPOINT is still there"
first=$(last_checkpoint files)
at=$(lines files); going files "$at"  # it goes on
touch files/STOP
ends_with 75 files
grep -q 'stopped by STOP after' files.txt || { cat files.txt; fail "STOP: the message"; }
[ ! -e files/STOP ] || fail "STOP is still there"
[ "$(last_checkpoint files)" != "$first" ] || fail "STOP: no checkpoint of its own"
echo "ok: CHECKPOINT and STOP"

# Asked for before the first update: none is done.
touch files/STOP
at=$(lines files)
start files; ends_with 75 files
[ "$(lines files)" = "$at" ] || fail "STOP before the start: updates were done all the same"
write_config early.toml early 1000000
start early
for _ in $(seq 400); do [ -e early/log.txt ] && break; sleep 0.02; done
kill -USR1 "$launcher"; ends_with 75 early
echo "ok: before the first update"

# The same signal delivered twice at once, as a launcher and Slurm do, is one request.
start twice; going twice
kill -USR1 $(pgrep -P "$launcher"); kill -USR1 "$launcher"
ends_with 75 twice
[ -e "$(last_checkpoint twice)/manifest.json" ] || { cat twice.txt; fail "twice: no checkpoint"; }
echo "ok: one request, delivered twice"

# A second one later ends the run at once; the checkpoint before stays. One rank stands meanwhile, so that the first
# request cannot be done.
start second --set checkpoint.every_updates=3; going second
pids=$(pgrep -P "$launcher")
one=$(echo "$pids" | head -n 1)
kill -STOP $pids
kill -USR1 "$one"; kill -CONT "$one"
sleep 1.3
kill -USR1 "$one"
ends_with 75 second
ls -d second/checkpoints/update-* >/dev/null || fail "second: no checkpoint at all"
before=$(basename "$(last_checkpoint second)")
start second --set checkpoint.every_updates=3; going second "$(lines second)"
grep -q "resumed from second/checkpoints/$before" second.txt || { cat second.txt; fail "second: did not resume from $before"; }
kill -USR1 "$launcher"; ends_with 75 second
echo "ok: a second signal"

start wall --set 'log.walltime="00:00:04"'
ends_with 75 wall
grep -q 'stopped by walltime after' wall.txt || { cat wall.txt; fail "walltime: the message"; }
echo "ok: walltime"
