#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The CPU job script under a real Slurm: submits a tiny network on 2 nodes, does to it what happens to jobs, and shows each
# run complete with the same parameters, bit by bit, as one that nobody disturbed. Prints a Markdown table, exit code 1
# if a run did not end so.
#   validation/slurm.sh                # the Slurm that sbatch reaches: 2 nodes, which share $OUT and this machine's processes
#   validation/slurm.sh STARTER        # a Slurm for this alone: `STARTER start --nodes 3 ...` prints what to export,
#                                      # `STARTER stop --purge` ends it, `STARTER fail-node NAME` takes a node's power
# SEER chooses the executable, OUT the folder, UPDATES the length (some 40 s are wanted), RANKS those of a node, LAUNCH
# another launcher (SEER_LAUNCH), EVENTS which of them.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
seer=$(realpath "${SEER:-$root/build/host-release/seer}")
out=$(realpath -m "${OUT:-$root/runs/slurm}")
starter=${1:-}
ranks=${RANKS:-1}
launcher=${LAUNCH:-srun}
launcher=$(basename "${launcher%% *}")
updates=${UPDATES:-600}
events=${EVENTS:-undisturbed time_limit signal requeue kill_rank kill_launcher kill_step kill_script bad_node lost_node twice}
rm -rf "$out" && mkdir -p "$out" && cd "$out"

stop_slurm() { [ -z "$starter" ] || "$starter" stop --purge >/dev/null 2>&1; }
if [ -n "$starter" ]; then
  SLURM_LOCAL_DIR=$(mktemp -d /tmp/slurm.XXXXXX)
  export SLURM_LOCAL_DIR
  trap stop_slurm EXIT
  eval "$("$starter" start --nodes 4 --gpus 0)"
fi

"$seer" synth -o train --classes 4 --images 120 --size 40 --seed 1 </dev/null >/dev/null
cat >tiny.toml <<TOML
[model]
preset = "tiny"
[head]
dims = [64, 64, 32]
prototypes = 20
[swav]
epsilon = 0.03
[[crops]]
count = 2
size = 32
scale = [0.3, 1.0]
[[crops]]
count = 2
size = 16
scale = [0.1, 0.3]
[data]
shards = "$out/train"
global_batch = 16
[schedule]
warmup_updates = 10
lr_start = 0.02
lr_peak = 0.1
lr_final = 0.01
total_updates = $updates
[parallel]
bn_group_size = 4
[checkpoint]
every_updates = $((updates / 20))
[log]
every = 5
hang_seconds = 20
hang_checkpoint_seconds = 20
TOML

say() { echo "$(date +%T) $*" >&2; }
fail() { say "FAILED: $*"; failures=$((failures + 1)); outcome="FAILED: $*"; }
failures=0

# submit NAME [OPTION...]: the job's number into `job`. Settings of the job script come from the environment.
submit() {
  local name=$1
  shift
  [ -z "${LAUNCH:-}" ] || export SEER_LAUNCH=$LAUNCH
  job=$(SEER=$seer sbatch --parsable --job-name="$name" --nodes=2 --ntasks-per-node="$ranks" --cpus-per-task=1 \
    --time="${limit:-10}" --signal="B:USR1@${ahead:-300}" --output="$out/$name.out" "$@" \
    "$root/jobscripts/seer_cpu.sh" "$out/tiny.toml" --set "log.run_dir=$out/$name")
  say "$name: job $job"
}
state() { squeue -h -t all -j "$job" -o %T; }
update() { sed -nE '$s/.*"update":([0-9]+),.*/\1/p' "$out/$1/metrics.jsonl" 2>/dev/null | grep . || echo 0; }
restarts() { scontrol show job "$job" | sed -nE 's/.*Restarts=([0-9]+).*/\1/p'; }

# reach NAME UPDATE: waits until the run is there. A job that waits for its time after a requeue is hurried.
reach() {
  for _ in $(seq 1200); do
    [ "$(update "$1")" -ge "$2" ] && return 0
    hurry
    case $(state) in COMPLETED | FAILED | CANCELLED | TIMEOUT) return 1 ;; esac
    sleep 0.2
  done
  return 1
}
# Slurm lets a requeued job wait two minutes. Not "now": within the same second the node still refuses it.
hurry() {
  [ "$(state)" = PENDING ] || return 0
  case $(squeue -h -j "$job" -o %r) in
    BeginTime) scontrol update jobid="$job" StartTime=now+3 2>/dev/null || true; sleep 3 ;;
  esac
}
# finish: waits for the job's end; its state.
finish() {
  local at
  for _ in $(seq 1500); do
    at=$(state)
    case $at in COMPLETED | FAILED | CANCELLED | TIMEOUT | NODE_FAIL) echo "$at"; return ;; esac
    hurry
    sleep 0.2
  done
  echo "still $at"
}
# Processes of a job by the command they run; nodes are on this machine.
named() {  # NAME COMMAND
  local p
  for p in $(pgrep -f "pretrain $out/tiny.toml --set log.run_dir=$out/$1( |\$)"); do
    if [ "$(cat "/proc/$p/comm" 2>/dev/null)" = "${2:0:15}" ]; then echo "$p"; fi
  done
}
ranks_of() { named "$1" "$(basename "$seer")"; }
parent() { awk '/^PPid:/ { print $2 }' "/proc/$1/status"; }

tensors() {
  local last
  last=$(printf '%s/checkpoints/update-%08d/manifest.json' "$out/$1" "$updates")
  [ -f "$last" ] && sed -n '/"tensors"/,/^ \]/p' "$last" | grep -E '"(group|name|xxh3)"'
}
same() { [ -n "$(tensors undisturbed)" ] && [ "$(tensors undisturbed)" = "$(tensors "$1")" ]; }

# said NAME REGEX: the first such piece of what the job printed, nothing if there is none.
said() { grep -oE "$2" "$out/$1.out" | head -n 1 || true; }
resumed() { said "$1" 'after [0-9]+ updates, [0-9]+ images$'; }

rows=()
# row NAME WHAT: what happened, what came of it.
row() {
  local end starts
  end=$(finish)
  starts=$(grep -c "updates in all, starting at" "$out/$1.out" || true)
  if [ "$end" != COMPLETED ]; then
    fail "$1: job $job is $end"
    tail -n 5 "$out/$1.out" >&2
    scancel "$job" || true
  elif ! same "$1"; then fail "$1: other parameters than undisturbed"
  else outcome="completed, same bits"; fi
  rows+=("| $2 | $starts | ${seen:-} | $outcome |")
  say "$1: $2; $outcome"
  seen=
}
middle=$((updates / 3))

undisturbed() {
  submit undisturbed
  row undisturbed "nothing"
}
time_limit() {  # Slurm sends the signal up to a minute earlier than it was told: half a minute of the two is used
  limit=2 ahead=90 submit time_limit
  finish >/dev/null
  seen="$(grep -c 'stopped by SIGUSR1' "$out/time_limit.out" || true) stops with a checkpoint"
  row time_limit "the time limit comes near: USR1 to the batch script"
}
signal() {
  submit signal
  reach signal "$middle" || true
  scancel --signal=USR1 --batch "$job"
  finish >/dev/null
  seen=$(said signal 'stopped by .* updates')
  row signal "scancel --signal=USR1 --batch"
}
requeue() {
  submit requeue
  reach requeue "$middle" || true
  scontrol requeue "$job"
  finish >/dev/null
  seen="resumed $(resumed requeue)"
  row requeue "scontrol requeue (preemption): TERM, then KILL"
}
# The job script requeues itself on the code that this gives.
killed() {  # NAME WHAT PID...
  local name=$1 what=$2
  shift 2
  say "$name: kill -9 $*"
  kill -KILL "$@" || true
  finish >/dev/null
  seen="$(said "$name" '^exit code [0-9]*'), resumed $(resumed "$name")"
  row "$name" "$what"
}
kill_rank() {
  SEER_REQUEUE_CODES="75 5 137" submit kill_rank
  reach kill_rank "$middle" || true
  # shellcheck disable=SC2046
  killed kill_rank "kill -9 of one rank" $(ranks_of kill_rank | tail -n 1)
}
kill_launcher() {
  SEER_REQUEUE_CODES="75 5 137" submit kill_launcher
  reach kill_launcher "$middle" || true
  # shellcheck disable=SC2046
  killed kill_launcher "kill -9 of the launcher (child of the batch script)" $(named kill_launcher "$launcher" | head -n 1)
}
kill_step() {  # the process of Slurm that holds a node's ranks
  SEER_REQUEUE_CODES="75 5 137" submit kill_step
  reach kill_step "$middle" || true
  # shellcheck disable=SC2046
  killed kill_step "kill -9 of slurmstepd on one node" $(parent $(ranks_of kill_step | tail -n 1))
}
kill_script() {  # nobody is left who could ask for a requeue: the user submits again
  submit kill_script
  reach kill_script "$middle" || true
  local batch
  batch=$(parent "$(named kill_script "$launcher" | head -n 1)")
  say "kill_script: kill -9 $batch"
  kill -KILL "$batch" || true
  seen="job $(finish), submitted again"
  submit kill_script --open-mode=append
  row kill_script "kill -9 of the batch script (child of slurmstepd)"
}
bad_node() {  # the check before the start finds one node bad: its name decides here
  local first
  first=$(sinfo -h -N -o %N | sort -u | head -n 1)
  SEER_NODE_CHECK="[ \$SLURMD_NODENAME != $first ] || { echo broken; false; }" submit bad_node --nodelist="$first"
  # The list of wanted nodes is the user's own and cannot be met without this node; it is lifted once the job waits.
  for _ in $(seq 100); do [ "$(state)" = PENDING ] && grep -q requeueing "$out/bad_node.out" && break; sleep 0.1; done
  scontrol update jobid="$job" ReqNodeList= || true
  finish >/dev/null
  seen="$first excluded: $(scontrol show job "$job" | grep -o 'ExcNodeList=[^ ]*'), ran on $(scontrol show job "$job" | sed -nE 's/^ *NodeList=//p')"
  grep -q "ExcNodeList=$first" < <(scontrol show job "$job") || fail "bad_node: $first is not excluded"
  row bad_node "a node fails the check before the start"
}
lost_node() {  # Slurm itself requeues, once it misses the node (SlurmdTimeout)
  [ -n "$starter" ] || { say "lost_node: only with a starter"; return 0; }
  submit lost_node
  reach lost_node "$middle" || true
  local node
  node=$(scontrol show hostnames "$(squeue -h -j "$job" -o %N)" | tail -n 1)
  "$starter" fail-node "$node" >&2
  finish >/dev/null
  seen="$node died; $(restarts) restarts by Slurm"
  row lost_node "a node loses power"
  eval "$("$starter" start)"
}
twice() {  # a second job on the same folder while the first runs
  submit twice
  local first=$job code
  reach twice "$middle" || true
  submit twice --output="$out/twice-second.out"
  code=$(finish)
  seen="the second: $code, $(said twice-second 'another run uses')"
  [ "$code" = FAILED ] && grep -q 'another run uses' "$out/twice-second.out" || fail "twice: the second job was not refused"
  job=$first
  row twice "the same job twice"
}

for event in $events; do "$event"; done
echo "| event | starts | seen | outcome |"
echo "| --- | --: | --- | --- |"
printf '%s\n' "${rows[@]}"
echo
echo "$(scontrol --version); 2 nodes x $ranks ranks, $updates updates, ${LAUNCH:-srun}; $failures failures"
[ "$failures" = 0 ]
