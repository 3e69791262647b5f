#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A rank that stands still: the others say which one and where, and all end with exit code 5. What only looks like it
# (a short pause, a job suspended as a whole) is left alone.
. "$(dirname "$0")/common.sh"
needs_kernels

seer synth -o train --classes 4 --images 90 --size 48 --seed 1 >/dev/null
lines() { if [ -e "$1/metrics.jsonl" ]; then wc -l <"$1/metrics.jsonl"; else echo 0; fi; }
start() {  # NAME RANKS option...: in the background
  local name=$1 n=$2; shift 2
  [ -e "$name.toml" ] || write_config "$name.toml" "$name" 1000000
  "$mpiexec" --oversubscribe --bind-to none -n "$n" "$SEER_EXECUTABLE" pretrain "$name.toml" --set log.hang_seconds=3 \
    --set checkpoint.every_updates=1000000 "$@" </dev/null >"$name.txt" 2>&1 &
  launcher=$!
  local before; before=$(lines "$name")
  for _ in $(seq 400); do
    [ "$(lines "$name")" -ge $((before + 5)) ] && return
    sleep 0.05
  done
  cat "$name.txt"; fail "$name did not get going"
}
rank_pid() {  # RANK: the process of that rank
  local pid
  for pid in $(pgrep -P "$launcher"); do
    tr '\0' '\n' <"/proc/$pid/environ" | grep -qx "OMPI_COMM_WORLD_RANK=$1" && echo "$pid" && return
  done
  fail "no process of rank $1"
}

start stopped 4
victim=$(rank_pid 2)
kill -STOP "$victim"
began=$SECONDS
rc=0; timeout 60 tail --pid="$launcher" -f /dev/null || fail "the ranks still run a minute after one was stopped"
wait "$launcher" || rc=$?
[ "$rc" = 5 ] || { cat stopped.txt; fail "a stopped rank: exit code $rc, wanted 5"; }
took=$((SECONDS - began))
[ "$took" -le 30 ] || fail "a stopped rank: it took $took s, wanted at most 30"
[ "$(grep -o 'error: rank' stopped.txt | wc -l)" = 1 ] || { cat stopped.txt; fail "not one message"; }
grep -E 'error: rank 0/4 on .*hang: no progress for .*rank 2 on .* does not answer: stopped, dead.*ranks? [0-9,-]+ waits? in [a-z_]+ [0-9]+ of "[a-z]+".*update [0-9]+, ' stopped.txt ||
  { cat stopped.txt; fail "the message"; }
for r in 0 1 3; do
  grep -q 'not left' "stopped/hang/$r.txt" || { cat "stopped/hang/$r.txt"; fail "rank $r: not inside a collective"; }
  grep -q 'seer.*all_reduce\|seer.*Communicator' "stopped/hang/$r.stack.txt" || { cat "stopped/hang/$r.stack.txt"; fail "rank $r: its stack"; }
done
grep -q 'hang: no progress' stopped/error.0.txt || fail "error.0.txt"
gone() { [ ! -e "/proc/$victim" ] || grep -q '^State:.*zombie' "/proc/$victim/status"; }
for _ in $(seq 100); do gone && break; sleep 0.1; done
gone || fail "the stopped rank was left behind: $(grep State "/proc/$victim/status")"
echo "ok: a stopped rank, exit 5 after $took s"

# Started again it goes on, and what was said of the hang is gone. Stopped one rank for less than the limit, and all of
# them for more.
start stopped 2
[ -z "$(ls stopped/hang | grep -v question)" ] || fail "hang/ still holds: $(ls stopped/hang)"
one=$(rank_pid 1) other=$(rank_pid 0)
kill -STOP "$one"; sleep 1.5; kill -CONT "$one"
at=$(lines stopped); sleep 2
[ "$(lines stopped)" -gt "$at" ] || { cat stopped.txt; fail "did not go on after a pause of one rank"; }
kill -STOP "$one" "$other"; sleep 8; kill -CONT "$one" "$other"
sleep 5
at=$(lines stopped); sleep 2
[ "$(lines stopped)" -gt "$at" ] || { cat stopped.txt; fail "did not go on after all ranks were suspended"; }
kill -USR1 "$launcher"
rc=0; wait "$launcher" || rc=$?
[ "$rc" = 75 ] || { cat stopped.txt; fail "after the pauses: exit code $rc, wanted 75"; }
echo "ok: pauses are no hang"
