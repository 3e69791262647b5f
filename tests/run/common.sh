# SPDX-License-Identifier: Apache-2.0
# Sourced by the end-to-end tests: a scratch folder, `ranks N command...`, and checks that print what they found.
# The tests do not depend on the speed of the machine. To disturb a run, a test starts it with SEER_PAUSE_AFTER=UPDATE;
# the run waits there until the test lets it go on. A test waits for a file, a line or the end of a process. A time is
# only a limit: after it, the test fails.
set -euo pipefail
: "${SEER_EXECUTABLE:?set by ctest}"
mpiexec=${SEER_MPIEXEC:-mpiexec}
scratch=$(mktemp -d "${TMPDIR:-/tmp}/seer-test.XXXXXX")
trap clean_up EXIT
cd "$scratch"

clean_up() {  # also ends what a failed test left running or mounted
  local pid
  for pid in $(jobs -p); do
    pkill -KILL -P "$pid" || true
    kill -KILL "$pid" || true
  done 2>/dev/null
  wait 2>/dev/null || true
  ! mountpoint -q "$scratch/small" || umount "$scratch/small"
  rm -rf "$scratch"
}

seer() { "$SEER_EXECUTABLE" "$@" </dev/null; }
ranks() { local n=$1; shift; "$mpiexec" --oversubscribe --bind-to none -n "$n" "$SEER_EXECUTABLE" "$@" </dev/null; }

fail() { echo "FAILED: $*" >&2; exit 1; }

# expect CODE PIECE command...: checks the exit code, that the output holds PIECE, and that an error is printed once.
expect() {
  local code=$1 piece=$2; shift 2
  local rc=0
  "$@" >"$scratch/out.txt" 2>&1 || rc=$?
  [ "$rc" = "$code" ] || { cat "$scratch/out.txt"; fail "exit code $rc, wanted $code: $*"; }
  grep -qF -- "$piece" "$scratch/out.txt" || { cat "$scratch/out.txt"; fail "no \"$piece\" in the output of: $*"; }
  local errors
  # mpirun may print it in the middle of a line of standard output.
  errors=$({ grep -oE '^error: |error: rank' "$scratch/out.txt" || true; } | wc -l)
  [ "$code" = 0 ] || [ "$errors" = 1 ] || { cat "$scratch/out.txt"; fail "$errors error messages, wanted one: $*"; }
  echo "ok ($code): $*" | cut -c1-150
}

# Call first in a test that computes. A device build cannot compute without a device, not even on the host. The test then
# prints the reason, and ctest counts it as skipped (exit code 77). One device is enough for all tests, because ranks that
# compute on the host may share it (write_config).
needs_kernels() {
  local rc=0
  seer pretrain no-such.toml >"$scratch/needs.txt" 2>&1 || rc=$?
  [ "$rc" != 5 ] || not_run "$(grep -m 1 'error: ' "$scratch/needs.txt")"
}
not_run() { echo "not run: $(basename "$0" .sh): $*"; exit 77; }

# A tiny run: seconds on one core. Always on the host, because tests compare its bits and losses.
write_config() {  # FILE RUN_DIR UPDATES
  cat >"$1" <<TOML
[model]
preset = "tiny"
[head]
dims = [64, 64, 32]
prototypes = 20
[swav]
epsilon = 0.03
freeze_prototypes_updates = 2
[[crops]]
count = 2
size = 32
scale = [0.3, 1.0]
[[crops]]
count = 2
size = 16
scale = [0.1, 0.3]
[data]
shards = "$scratch/train"
global_batch = 16
block_images = 8
window_blocks = 4
[schedule]
warmup_updates = 4
lr_start = 0.1
lr_peak = 0.5
lr_final = 0.01
total_updates = $3
[parallel]
bn_group_size = 4
device = "host"
[checkpoint]
every_updates = 5
[log]
run_dir = "$2"
every = 1
TOML
}

# losses RUN_DIR: "update loss" of every logged update.
losses() { sed -E 's/.*"loss":([-0-9.e+]+).*/\1/' "$1/metrics.jsonl" | awk '{print NR, $1}'; }
last_checkpoint() { ls -d "$1"/checkpoints/update-* | sort | tail -n 1; }
lines() { if [ -e "$1/metrics.jsonl" ]; then wc -l <"$1/metrics.jsonl"; else echo 0; fi; }

# Waits until a command succeeds. The limit is much longer than any command needs on a busy machine.
until_true() {
  local end=$((SECONDS + 300))
  until "$@" 2>/dev/null; do
    [ "$SECONDS" -lt "$end" ] || return 1
    sleep 0.02
  done
}
# True if a process has ended, also if it is still a zombie.
gone() { [ ! -e "/proc/$1" ] || grep -q '^State:.*zombie' "/proc/$1/status"; }

# start NAME RANKS option...: trains with NAME.toml in the background. The run folder is NAME, the output goes to
# NAME.txt (or $output), the launcher is $launcher. The words of $wrap stand before the executable.
wrap=()
start() {
  local name=$1 n=$2; shift 2
  rm -f "$name/PAUSED"
  : >"${output:-$name.txt}"  # remove the output of an earlier start
  "$mpiexec" --oversubscribe --bind-to none -n "$n" "${wrap[@]}" "$SEER_EXECUTABLE" pretrain "$name.toml" "$@" \
    </dev/null >"${output:-$name.txt}" 2>&1 &
  launcher=$!
}
there_or_over() { [ -e "$1" ] || gone "$launcher"; }
# comes_to FILE NAME: waits for a file that the run NAME makes.
comes_to() {
  until_true there_or_over "$1" && [ -e "$1" ] || { cat "$2.txt"; fail "$2: no $1"; }
}
paused() { comes_to "$1/PAUSED" "$1"; }  # all ranks of NAME wait after update SEER_PAUSE_AFTER
rank_pid() { awk -v rank="$2" '$1 == rank {print $2}' "$1/PAUSED"; }  # NAME RANK: its process, while it is paused
pids() { awk '{print $2}' "$1/PAUSED"; }
go_on() { rm "$1/PAUSED"; }
ends() {  # NAME: its exit code in $rc
  until_true gone "$launcher" || { cat "$1.txt"; fail "$1 still runs minutes later"; }
  rc=0; wait "$launcher" || rc=$?
}
ends_with() {  # CODE NAME
  ends "$2"
  [ "$rc" = "$1" ] || { cat "$2.txt"; fail "$2: exit code $rc, wanted $1"; }
}

# Name and checksums of every tensor of a run's last checkpoint (other keys of the manifest hold the run's folder).
tensors_of() { sed -n '/"tensors"/,/^ \]/p' "$1/manifest.json" | grep -E '"(group|name|xxh3)"'; }
same_tensors() {  # RUN RUN
  [ "$(tensors_of "$(last_checkpoint "$1")" | grep -c xxh3)" -gt 100 ] || fail "the manifest of $1 lists no checksums"
  diff <(tensors_of "$(last_checkpoint "$1")") <(tensors_of "$(last_checkpoint "$2")") >/dev/null
}
