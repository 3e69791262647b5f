#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# One rank stops: the others report which one and where, and all end with exit code 5. A short pause, or a suspension of
# the whole job, must not end the run.
. "$(dirname "$0")/common.sh"
needs_kernels

seer synth -o train --classes 4 --images 90 --size 48 --seed 1 >/dev/null
wait_for_hang=(--set log.hang_seconds=3 --set checkpoint.every_updates=1000000)
write_config stopped.toml stopped 1000000

SEER_PAUSE_AFTER=5 start stopped 4 "${wait_for_hang[@]}"
paused stopped
victim=$(rank_pid stopped 2)
kill -STOP "$victim"
go_on stopped
ends_with 5 stopped
[ "$(grep -o 'error: rank' stopped.txt | wc -l)" = 1 ] || { cat stopped.txt; fail "not one message"; }
grep -E 'error: rank 0/4 on .*hang: no progress for .*rank 2 on .* does not answer: stopped, dead.*ranks? [0-9,-]+ waits? in [a-z_]+ [0-9]+ of "[a-z]+".*update [0-9]+, ' stopped.txt ||
  { cat stopped.txt; fail "the message"; }
for r in 0 1 3; do
  grep -q 'not left' "stopped/hang/$r.txt" || { cat "stopped/hang/$r.txt"; fail "rank $r: not inside a collective"; }
done
# Ranks over their own limit also write their stack. The rank that asked is over its limit.
grep -q 'seer.*all_reduce\|seer.*Communicator' stopped/hang/[013].stack.txt || { ls stopped/hang; fail "no stack of a rank that waits"; }
grep -q 'hang: no progress' stopped/error.0.txt || fail "error.0.txt"
until_true gone "$victim" || fail "the stopped rank was left behind: $(grep State "/proc/$victim/status")"
echo "ok: a stopped rank, exit 5"

# A new start goes on, and the files about the hang are gone.
SEER_PAUSE_AFTER=5 start stopped 2 "${wait_for_hang[@]}"
paused stopped
[ -z "$(ls stopped/hang | grep -v question)" ] || fail "hang/ still holds: $(ls stopped/hang)"
one=$(rank_pid stopped 1) other=$(rank_pid stopped 0)
go_on stopped
more() { [ "$(lines stopped)" -gt "$1" ]; }
goes_on() { until_true more "$(($(lines stopped) + 20))" || { cat stopped.txt; fail "did not go on after $*"; }; }
# All ranks are suspended for longer than the limit: no rank is silent alone, so this is no hang.
kill -STOP "$one" "$other"; sleep 8; kill -CONT "$one" "$other"
goes_on "all ranks were suspended"
kill -USR1 "$launcher"
ends_with 75 stopped
# One rank pauses for less than the limit.
rm -r stopped
SEER_PAUSE_AFTER=5 start stopped 2 --set log.hang_seconds=30
paused stopped
one=$(rank_pid stopped 1)
go_on stopped
kill -STOP "$one"; sleep 1.5; kill -CONT "$one"
goes_on "a pause of one rank"
kill -USR1 "$launcher"
ends_with 75 stopped
echo "ok: pauses are no hang"
