# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Sourced by the job scripts beside it: what they share. Needs "$@" = CONFIG.toml [--set section.key=value ...].
#
# A job is stopped with a checkpoint before its time limit, requeues itself, and resumes. What may be set before sbatch:
#   SEER                 the executable (default: seer, from PATH)
#   SEER_LAUNCH          how ranks are started; "mpirun" where srun has no PMIx
#   SEER_MAX_RESTARTS    an end to requeueing (100)
#   SEER_REQUEUE_CODES   exit codes that lead to a requeue (75: checkpoint written, start again). "75 5" also goes on by
#                        itself when a device or the network failed; "75 205" when mpirun lost a node. With srun, Slurm
#                        requeues a job that lost a node by itself.

if [ $# -lt 1 ]; then
  echo "usage: sbatch SCRIPT CONFIG.toml [--set section.key=value ...]" >&2
  exit 2
fi

# Slurm 22.05 and newer: srun no longer takes this over from sbatch, and would give every rank one core.
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}

# Lustre mounted without "flock" refuses to open HDF5 files with their lock. They need none: the run folder has one.
export HDF5_USE_FILE_LOCKING=${HDF5_USE_FILE_LOCKING:-FALSE}
# Checkpoints slow, or the rehearsal at the start fails? Open MPI's other MPI-IO:
# export OMPI_MCA_io=romio321

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
  # The adapter MPI sends through (UCX); it carries only small messages and checkpoints here.
  # export UCX_NET_DEVICES=mlx5_0:1
  launch=${SEER_LAUNCH:-srun --mpi=pmix --cpu-bind=cores}
}

# Ranks that compute on cores.
cpu_environment() {
  export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
  launch=${SEER_LAUNCH:-srun --mpi=pmix --cpu-bind=cores}
}

# pretrain CONFIG.toml ...: runs it, and ends this script with its exit code or with a requeue.
pretrain() {
  local code max_restarts=${SEER_MAX_RESTARTS:-100} restarts=${SLURM_RESTART_COUNT:-0}
  local -a start
  read -r -a start <<<"$launch"
  # A job that was requeued goes on from its own newest checkpoint, whatever --resume it was submitted with.
  if [ "$restarts" -gt 0 ]; then set -- "$@" --resume auto; fi
  # bash runs a trap only between commands, so the launcher is in the background and we wait for it. SIGUSR1 is passed
  # on, never SIGTERM: srun ends its step at once on SIGTERM, before a checkpoint is written.
  pid=
  trap '[ -n "$pid" ] && kill -USR1 "$pid"' USR1
  "${start[@]}" "${SEER:-seer}" pretrain "$@" &
  pid=$!
  while kill -0 "$pid" 2>/dev/null; do wait "$pid"; done  # a trap interrupts wait
  wait "$pid"
  code=$?
  case " ${SEER_REQUEUE_CODES:-75} " in
    *" $code "*)
      if [ "$restarts" -lt "$max_restarts" ]; then
        echo "exit code $code: requeueing job $SLURM_JOB_ID (restart $((restarts + 1)) of at most $max_restarts)"
        scontrol requeue "$SLURM_JOB_ID"  # ends this script
      else
        echo "exit code $code, but requeued $restarts times already: not again (SEER_MAX_RESTARTS)" >&2
      fi
      ;;
  esac
  exit "$code"
}
