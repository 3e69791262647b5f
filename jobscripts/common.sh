# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Sourced by the job scripts beside it: what they share. Needs "$@" = CONFIG.toml [--set section.key=value ...].
#
# A job is stopped with a checkpoint before its time limit, requeues itself, and resumes. What may be set before sbatch:
#   SEER                 the executable (default: seer, from PATH)
#   SEER_LAUNCH          how ranks are started; "mpirun" where srun has no PMIx
#   SEER_MAX_RESTARTS    an end to requeueing (100)
#   SEER_REQUEUE_CODES   exit codes that lead to a requeue ("75 5": checkpoint written, start again; a device, the network
#                        or a node failed, which the watchdog may notice before Slurm does). "75" stops for every fault;
#                        "75 5 137" also goes on when a rank was killed (the memory limit); "75 5 205" when mpirun lost a
#                        node. With srun, Slurm requeues a job that lost a node by itself, if it is the first to notice.
#   SEER_HEALTH_CHECK    0: nodes are not looked at before the start
#   SEER_MIN_FREE_GIB    memory that must be free on a node (4)
#   SEER_NODE_CHECK      a command of the site's (dcgmi diag -r 1, ...) run on every node; one on which it fails is bad

if [ $# -lt 1 ]; then
  echo "usage: sbatch SCRIPT CONFIG.toml [--set section.key=value ...]" >&2
  exit 2
fi

# How Slurm is told of this job. The first task of an array has the number of the whole array as its SLURM_JOB_ID: a
# requeue of that would requeue them all.
job=${SLURM_JOB_ID:-}
[ -z "${SLURM_ARRAY_TASK_ID:-}" ] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID

# Slurm 22.05 and newer: srun no longer takes this over from sbatch, and would give every rank one core.
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}

# Lustre mounted without "flock" refuses to open HDF5 files with their lock. They need none: the run folder has one.
export HDF5_USE_FILE_LOCKING=${HDF5_USE_FILE_LOCKING:-FALSE}
# Files of features are written through MPI-IO. Slow or failing? Open MPI's other one:
# export OMPI_MCA_io=romio321
# More ranks than cores (a trial on few nodes): ranks that wait give their core away instead of spinning.
# export OMPI_MCA_mpi_yield_when_idle=1

# In both launches below, --kill-on-bad-exit=1: one rank that is killed ends all. Without it Slurm (KillOnBadExit=0 by default)
# leaves ranks on other nodes waiting for it until the time limit.

# Ranks that compute on devices. With --gpus-per-node every rank sees all devices of its node and takes the one of its
# local rank. Not --gpus-per-task: where a rank sees only its own device, NCCL may lose the direct way to the others.
gpu_environment() {
  export OMP_NUM_THREADS=1  # the host's other cores decode images
  export NCCL_DEBUG=${NCCL_DEBUG:-WARN}  # silent but for faults; INFO tells which network and rings it took
  # Nodes with more than one network (storage, management): the one NCCL meets over, and the adapters it sends through.
  # export NCCL_SOCKET_IFNAME=ib0
  # export NCCL_IB_HCA=mlx5_0,mlx5_3,mlx5_4,mlx5_5
  # RoCE instead of InfiniBand: the index of the RoCE v2 address, from show_gids.
  # export NCCL_IB_GID_INDEX=3
  # A link that drops for seconds: longer before NCCL gives up (the wait is 4.096 us * 2^timeout, this often again).
  # export NCCL_IB_TIMEOUT=22 NCCL_IB_RETRY_CNT=7
  # Devices of one node that cannot reach each other's memory (a virtual machine's): through the host instead.
  # export NCCL_P2P_DISABLE=1
  # The adapter MPI sends through (UCX); it carries only small messages and checkpoints here.
  # export UCX_NET_DEVICES=mlx5_0:1
  # UCX picks all it finds; where one fails to start, name them: reliable connections, memory of a node, a rank's own.
  # export UCX_TLS=rc,sm,self
  # UCX's own handlers for SIGSEGV and the like would hide error.<rank>.txt behind a backtrace of theirs.
  export UCX_ERROR_SIGNALS=
  launch=${SEER_LAUNCH:-srun --mpi=pmix --kill-on-bad-exit=1 --cpu-bind=cores}
}

# Ranks that compute on cores. Each rank is bound to cores of its own, in turn on every NUMA domain (every socket, for
# srun). Memory lies in the domain of the core that first writes it, so a rank's memory is local if its cores are in one
# domain: --cpus-per-task should divide the number of cores of a domain. `seer plan --splits` compares numbers of threads.
cpu_environment() {
  export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
  launch=${SEER_LAUNCH:-srun --mpi=pmix --kill-on-bad-exit=1 --cpu-bind=cores --distribution=block:cyclic}
  if [ "$launch" = mpirun ]; then launch+=" --map-by numa:PE=$OMP_NUM_THREADS --bind-to core"; fi
}

# run_folder CONFIG.toml [--set ...]: log.run_dir as the program will see it.
run_folder() {
  local folder word
  folder=$(sed -nE "s/^[[:space:]]*(log\.)?run_dir[[:space:]]*=[[:space:]]*[\"']([^\"']*)[\"'].*/\2/p" "$1" | tail -n 1)
  for word in "$@"; do
    case $word in *log.run_dir=*) folder=${word#*log.run_dir=} ;; esac
  done
  folder=${folder#\"} folder=${folder%\"}
  echo "${folder:-runs/seer}"  # the program's default
}

# node_health RUN_FOLDER EXECUTABLE DEVICES MIN_GIB CHECK: runs on a node; prints "HOST ok" or "HOST bad: why".
node_health() {
  local bad='' pid found free probe
  # Processes that an earlier start of this job left: they hold memory, devices and the run folder's lock.
  for pid in $(pgrep -u "$(id -u)" -x "${2:0:15}"); do
    tr '\0' '\n' 2>/dev/null <"/proc/$pid/environ" | grep -qx "SLURM_JOB_ID=$SLURM_JOB_ID" || continue
    kill -KILL "$pid" 2>/dev/null
    sleep 2
    kill -0 "$pid" 2>/dev/null && bad+=" process $pid of an earlier start cannot be killed;"
  done
  free=$(awk '/^MemAvailable:/ { print int($2 / 1048576) }' /proc/meminfo)
  [ "$free" -ge "$4" ] || bad+=" only $free GiB of memory are free, wanted $4 (SEER_MIN_FREE_GIB);"
  probe=$1/.node-check.$SLURMD_NODENAME
  if mkdir -p "$1" && date >"$probe" && [ -s "$probe" ]; then rm -f "$probe"; else bad+=" cannot write to $1;"; fi
  if [ "$3" -gt 0 ]; then
    # nvidia-smi also shows devices that fell off the bus, as errors and not as lines of this form.
    if command -v nvidia-smi >/dev/null; then
      found=$(timeout 60 nvidia-smi -L 2>/dev/null | grep -c '^GPU ')
    else
      found=$(tr ',' '\n' <<<"${CUDA_VISIBLE_DEVICES:-}" | grep -c .)
    fi
    [ "$found" -ge "$3" ] || bad+=" $found of $3 devices can be seen;"
  fi
  if [ -n "$5" ]; then
    found=$(timeout 300 bash -c "$5" 2>&1) || bad+=" $5 fails: $(tail -n 1 <<<"$found");"
  fi
  echo "${SLURMD_NODENAME:-$(hostname -s)} ${bad:+bad:}${bad:-ok}"
}

# ask_nodes COUNT SECONDS OPTION... -- ARGUMENT...: node_health on so many nodes, what they answer.
ask_nodes() {
  local count=$1 seconds=$2
  local -a options=()
  shift 2
  while [ "$1" != -- ]; do options+=("$1"); shift; done
  shift
  timeout "$seconds" srun --overlap --nodes="$count" --ntasks="$count" --ntasks-per-node=1 --cpus-per-task=1 \
    --kill-on-bad-exit=0 "${options[@]}" bash -c "$(declare -f node_health); node_health \"\$@\"" node_health "$@" \
    2>/dev/null </dev/null
}

# check_nodes RUN_FOLDER: looks at all nodes of the job. Bad ones are named, noted in RUN_FOLDER/bad_nodes, and excluded
# when the job starts again, which this does. Returns only where the run may start.
check_nodes() {
  [ "${SEER_HEALTH_CHECK:-1}" = 1 ] && [ -n "${SLURM_JOB_NODELIST:-}" ] || return 0
  local node answers answer bad=() nodes=()
  local -a what=("$1" "$(basename "${SEER:-seer}")" "${SLURM_GPUS_ON_NODE:-0}" "${SEER_MIN_FREE_GIB:-4}" "${SEER_NODE_CHECK:-}")
  mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
  [ "${#nodes[@]}" -gt 0 ] || return 0
  answers=$(ask_nodes "${#nodes[@]}" 400 -- "${what[@]}")
  for node in "${nodes[@]}"; do
    answer=$(grep "^$node " <<<"$answers")
    # One node that cannot start anything can take the step of all with it: silent ones are asked alone.
    [ -n "$answer" ] || answer=$(ask_nodes 1 60 --nodelist="$node" -- "${what[@]}")
    [ "$answer" = "$node ok" ] || bad+=("${answer:-$node bad: it does not answer}")
  done
  [ "${#bad[@]}" -gt 0 ] || return 0
  printf 'node %s\n' "${bad[@]}" >&2
  if [ "${#bad[@]}" = "${#nodes[@]}" ]; then
    echo "every node of the job is bad: that is not the nodes' fault. SEER_HEALTH_CHECK=0 starts without this check." >&2
    exit 3
  fi
  mkdir -p "$1" && printf "$(date +%FT%T) job $job node %s\n" "${bad[@]}" >>"$1/bad_nodes"
  local excluded
  excluded=$(printf '%s\n' "${bad[@]%% *}" | paste -sd,)
  echo "bad nodes: $excluded, noted in $1/bad_nodes"
  requeue_excluding "$excluded"
  exit 5
}

# requeue_excluding [NODES]: asks for another start, on other nodes than these and those excluded before. Slurm ends this
# script over it. It lets excluded nodes be changed only in a job that waits, hence requeue first; so the signal by
# which Slurm ends the script must not end it before that is done.
requeue_excluding() {
  local restarts=${SLURM_RESTART_COUNT:-0} max_restarts=${SEER_MAX_RESTARTS:-100} before
  if [ "$restarts" -ge "$max_restarts" ]; then
    echo "requeued $restarts times already: not again (SEER_MAX_RESTARTS)" >&2
    return
  fi
  echo "requeueing job $job (restart $((restarts + 1)) of at most $max_restarts)"
  if [ -z "${1:-}" ]; then
    scontrol requeue "$job"
    return
  fi
  before=$(scontrol show job "$job" | sed -nE 's/.*ExcNodeList=([^ ]*).*/\1/p')
  case $before in "(null)") before= ;; esac
  trap '' TERM
  scontrol requeue "$job"
  for _ in $(seq 20); do
    scontrol update jobid="$job" ExcNodeList="$1${before:+,$before}" && break
    sleep 0.5
  done
}

# pretrain CONFIG.toml ...: runs it, and ends this script with its exit code or with a requeue.
pretrain() {
  local code folder said try
  local -a start
  read -r -a start <<<"$launch"
  # A job that was requeued goes on from its own newest checkpoint, whatever --resume it was submitted with.
  if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ]; then set -- "$@" --resume auto; fi
  # A signal that comes before the program is there is kept for it.
  pid= asked=0
  trap 'asked=1; [ -n "$pid" ] && kill -USR1 "$pid"' USR1
  folder=$(run_folder "$@")
  check_nodes "$folder"
  # bash runs a trap only between commands, so the launcher is in the background and we wait for it. SIGUSR1 is passed
  # on, never SIGTERM: srun ends its step at once on SIGTERM, before a checkpoint is written.
  # Ranks that could not be launched at all are launched again: srun gives 0 or 1 for a step whose number is still taken
  # on a node, by one whose slurmstepd was killed, and the next step has another number.
  for try in 1 2 3; do
    code=75
    [ "$asked" = 0 ] || break
    said=$(wc -c 2>/dev/null <"$folder/log.txt")
    "${start[@]}" "${SEER:-seer}" pretrain "$@" &
    pid=$!
    while kill -0 "$pid" 2>/dev/null; do wait "$pid"; done  # a trap interrupts wait
    wait "$pid"
    code=$?
    pid=
    # The signal found ranks that were only starting, and ended them: nothing was done yet, so nothing is lost.
    if [ "$asked" = 1 ] && [ "$code" = 138 ]; then code=75; fi
    case $code in 2 | 3 | 4 | 5 | 6 | 75) break ;; esac
    [ "$(wc -c 2>/dev/null <"$folder/log.txt")" = "$said" ] || break
    echo "the launcher gave $code, and no rank wrote to $folder/log.txt: nothing was started (try $try of 3)" >&2
    [ "$code" != 0 ] || code=5
    sleep 2
  done
  case " ${SEER_REQUEUE_CODES:-75 5} " in
    *" $code "*)
      echo "exit code $code"
      requeue_excluding
      ;;
  esac
  exit "$code"
}
