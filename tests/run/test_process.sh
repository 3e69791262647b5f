#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The environment of the process: standard streams that are closed, full or without a reader, a terminal that goes away,
# numbers of threads, launchers that MPI does not know, and files of an earlier failure.
. "$(dirname "$0")/common.sh"
needs_kernels

seer synth -o train --classes 4 --images 64 --size 32 --seed 1 >/dev/null
lines() { if [ -e "$1/metrics.jsonl" ]; then wc -l <"$1/metrics.jsonl"; else echo 0; fi; }
going() {  # RUN_DIR: waits until some more updates are done
  local wanted=$(($(lines "$1") + 5))
  for _ in $(seq 2400); do
    [ "$(lines "$1")" -ge $wanted ] && return
    sleep 0.05
  done
  fail "$1 does not go on"
}
ends_with() {  # CODE RUN_DIR PIECE: the exit code of the process $pid, and a text in its log
  local rc=0
  wait "$pid" || rc=$?
  [ "$rc" = "$1" ] || { cat "$2/log.txt"; fail "$2: exit code $rc, wanted $1"; }
  grep -qF -- "$3" "$2/log.txt" || { cat "$2/log.txt"; fail "$2/log.txt: no \"$3\""; }
}
checkpointed() { [ -e "$(last_checkpoint "$1")/manifest.json" ] || fail "$1: no checkpoint"; }
# Runs a command whose standard output is a pipe without a reader.
unread() { python3 -c 'import os, subprocess, sys
r, w = os.pipe(); os.close(r); sys.exit(subprocess.run(sys.argv[1:], stdout=w, stdin=subprocess.DEVNULL).returncode)' "$@"; }
same_sets() { for f in "$1"/*.h5; do cmp "$f" "$2/${f##*/}" || fail "$2 is another set than $1"; done; }

# Commands that write files do so even if their output fails. Commands that print report lost output as an error, except
# when the reader has ended.
for way in unread full closed; do
  set -- synth -o "$way" --classes 4 --images 64 --size 32 --seed 1
  rc=0
  case $way in
    unread) unread "$SEER_EXECUTABLE" "$@" || rc=$? ;;
    full) seer "$@" >/dev/full || rc=$? ;;
    closed) "$SEER_EXECUTABLE" "$@" <&- >&- 2>&- || rc=$? ;;
  esac
  [ "$rc" = 0 ] || fail "synth, output $way: exit code $rc"
  same_sets train "$way"
done
unread "$SEER_EXECUTABLE" inspect train --json 2>said.txt || fail "inspect without a reader: exit code $?"
[ ! -s said.txt ] || { cat said.txt; fail "inspect without a reader says something"; }
to_full() { seer "$@" >/dev/full; }
expect 3 "cannot write standard output" to_full inspect train --json
echo "ok: standard output"

write_config plain.toml plain 12
seer pretrain plain.toml >/dev/null
write_config closed.toml closed_run 12
"$SEER_EXECUTABLE" pretrain closed.toml <&- >&- 2>&- || fail "pretrain with closed streams: exit code $?"
[ "$(losses plain)" = "$(losses closed_run)" ] || fail "closed streams change the losses"

# A run goes on when the reader of its output ends. When the terminal goes away, it stops with a checkpoint.
mkfifo pipe
write_config reader.toml reader 1000000
"$SEER_EXECUTABLE" pretrain reader.toml --set checkpoint.every_updates=1000000 </dev/null >pipe 2>&1 &
pid=$!
exec 3<pipe; read -r -u 3 _; exec 3<&-
going reader
kill -HUP "$pid"
ends_with 75 reader "stopped by SIGHUP (the terminal is gone) after"
grep -q "warning standard output cannot be written (Broken pipe)" reader/log.txt || fail "the lost reader is not told"
checkpointed reader
echo "ok: a reader that ends, SIGHUP"

# Under nohup, SIGHUP is ignored. Under mpirun, ranks notice when mpirun's output has no reader, which would end the job.
write_config nohup.toml nohup 1000000
(trap '' HUP; exec "$SEER_EXECUTABLE" pretrain nohup.toml </dev/null >nohup.txt 2>&1) &
pid=$!
going nohup; kill -HUP "$pid"; going nohup
kill -USR2 "$pid"
ends_with 75 nohup "stopped by SIGUSR2 after"
write_config launched.toml launched 1000000
"$mpiexec" --oversubscribe --bind-to none -n 2 "$SEER_EXECUTABLE" pretrain launched.toml </dev/null >pipe 2>/dev/null &
pid=$!
exec 3<pipe; read -r -u 3 _; exec 3<&-
going launched
kill -USR1 "$pid"
ends_with 75 launched "mpirun may now report"
grep -q "stopped by SIGUSR1 after .*, checkpoint written: nothing is lost; start the same command again" launched/log.txt ||
  { cat launched/log.txt; fail "the last words"; }
grep -q "warning standard output cannot be written" launched/log.txt || fail "mpirun's lost reader is not noticed"
checkpointed launched
echo "ok: nohup, mpirun without a reader"

# A good start removes the files of an earlier failure; a refused start keeps them.
touch plain/error.0.txt plain/error.12.txt plain/error.txt plain/error.x.txt
expect 2 "data.global_batch" seer pretrain plain.toml --set data.global_batch=-1
[ -e plain/error.12.txt ] || fail "a refused start removes error.12.txt"
seer pretrain plain.toml >/dev/null
[ "$(cd plain && echo error*)" = "error.txt error.x.txt" ] || fail "after a good start: $(ls plain)"

for count in 0 -1 abc 99999; do
  expect 2 "OMP_NUM_THREADS is \"$count\"; allowed: 1 to" env OMP_NUM_THREADS=$count "$SEER_EXECUTABLE" pretrain plain.toml
done
expect 2 "OMP_THREAD_LIMIT allows only 1" env OMP_THREAD_LIMIT=1 OMP_NUM_THREADS=2 "$SEER_EXECUTABLE" pretrain plain.toml
expect 2 "OMP_MAX_ACTIVE_LEVELS allows only 1" env OMP_MAX_ACTIVE_LEVELS=0 OMP_NUM_THREADS=2 "$SEER_EXECUTABLE" pretrain plain.toml
expect 0 "done" env OMP_DYNAMIC=true OMP_NUM_THREADS=4 "$SEER_EXECUTABLE" pretrain plain.toml --set log.run_dir=dynamic --set log.hang_seconds=60
expect 2 'KOKKOS_NUM_THREADS is "99999"' env KOKKOS_NUM_THREADS=99999 "$mpiexec" --oversubscribe -n 2 "$SEER_EXECUTABLE" bench conv
expect 0 "classes" env OMP_NUM_THREADS=99999 "$SEER_EXECUTABLE" inspect train
[ "$(getconf _NPROCESSORS_ONLN)" -ge 250 ] ||
  expect 2 "data.reader_threads: found 1024, allowed 0 to" ranks 2 pretrain plain.toml --set data.reader_threads=1024

# Several processes that MPI does not know are refused, and one of them says why. The script of a Slurm job is one process.
for launcher in "PMI_SIZE=2 PMI_RANK" "SLURM_STEP_NUM_TASKS=2 SLURM_PROCID"; do
  # shellcheck disable=SC2086
  expect 2 "but MPI (" env $launcher=0 "$SEER_EXECUTABLE" synth -o no --classes 4 --images 4 --size 32
  rc=0; env $launcher=1 "$SEER_EXECUTABLE" synth -o no --classes 4 --images 4 --size 32 >said.txt 2>&1 || rc=$?
  [ "$rc" = 2 ] && [ ! -s said.txt ] || { cat said.txt; fail "the second process: exit code $rc, or it speaks"; }
done
[ ! -e no ] || fail "a refused process wrote"
expect 0 "classes" env SLURM_JOB_ID=7 SLURM_NTASKS=8 SLURM_PROCID=0 "$SEER_EXECUTABLE" inspect train
