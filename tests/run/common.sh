# SPDX-License-Identifier: Apache-2.0
# Sourced by the end-to-end tests: a scratch folder, `ranks N command...`, and checks that say what they saw.
set -euo pipefail
: "${SEER_EXECUTABLE:?set by ctest}"
mpiexec=${SEER_MPIEXEC:-mpiexec}
scratch=$(mktemp -d "${TMPDIR:-/tmp}/seer-test.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"

seer() { "$SEER_EXECUTABLE" "$@" </dev/null; }
ranks() { local n=$1; shift; "$mpiexec" --oversubscribe --bind-to none -n "$n" "$SEER_EXECUTABLE" "$@" </dev/null; }

fail() { echo "FAILED: $*" >&2; exit 1; }

# expect CODE PIECE command...: the exit code, and the piece of text in what was printed, once.
expect() {
  local code=$1 piece=$2; shift 2
  local rc=0
  "$@" >"$scratch/out.txt" 2>&1 || rc=$?
  [ "$rc" = "$code" ] || { cat "$scratch/out.txt"; fail "exit code $rc, wanted $code: $*"; }
  grep -qF -- "$piece" "$scratch/out.txt" || { cat "$scratch/out.txt"; fail "no \"$piece\" in the output of: $*"; }
  local errors
  # mpirun may put it into the midst of a line of standard output.
  errors=$({ grep -oE '^error: |error: rank' "$scratch/out.txt" || true; } | wc -l)
  [ "$code" = 0 ] || [ "$errors" = 1 ] || { cat "$scratch/out.txt"; fail "$errors error messages, wanted one: $*"; }
  echo "ok ($code): $*" | cut -c1-150
}

# A test that computes begins with this. A device build does not compute without a device, on the host either: ctest
# then calls the test skipped (exit code 77), and its line says why. With one device all of them run, for several ranks may
# share it as long as they compute on the host (write_config).
needs_kernels() {
  local rc=0
  seer pretrain no-such.toml >"$scratch/needs.txt" 2>&1 || rc=$?
  [ "$rc" != 5 ] || not_run "$(grep -m 1 'error: ' "$scratch/needs.txt")"
}
not_run() { echo "not run: $(basename "$0" .sh): $*"; exit 77; }

# A tiny run: seconds on one core. On the host wherever it is: its bits and losses are what is looked at.
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
