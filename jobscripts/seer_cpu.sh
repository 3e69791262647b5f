#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Pre-training on CPU nodes under Slurm: stops before the time limit with a checkpoint, requeues itself, resumes.
#   sbatch [--nodes=N --ntasks-per-node=R --time=...] jobscripts/seer_cpu.sh CONFIG.toml [--set section.key=value ...]
# One rank a core by default. The number of ranks must divide data.global_batch.
#SBATCH --job-name=seer
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=32
#SBATCH --cpus-per-task=1
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out

# SEER: the executable. SEER_LAUNCH: "mpirun" where srun has no PMIx. SEER_MAX_RESTARTS: an end to requeueing.
seer=${SEER:-seer}
read -r -a launch <<<"${SEER_LAUNCH:-srun --mpi=pmix --cpu-bind=cores}"
max_restarts=${SEER_MAX_RESTARTS:-100}

if [ $# -lt 1 ]; then
  echo "usage: sbatch $0 CONFIG.toml [--set section.key=value ...]" >&2
  exit 2
fi
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}

# Slurm's controller, restarted at a bad moment, can start a job twice; two runs must not share a run folder.
exec 9>"${SLURM_SUBMIT_DIR:-.}/.$(basename "$1").lock"
if ! flock --nonblock 9; then
  echo "another job runs $1 in this folder (lock .$(basename "$1").lock): not started" >&2
  exit 2
fi

# bash runs a trap only between commands, so the launcher goes to the background and we wait for it. SIGUSR1 is passed on,
# never SIGTERM: srun ends its step at once on SIGTERM, before a checkpoint is written.
trap 'kill -USR1 "$pid"' USR1
# A job that was requeued goes on from its own newest checkpoint, whatever --resume it was submitted with.
if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ]; then set -- "$@" --resume auto; fi
"${launch[@]}" "$seer" pretrain "$@" &
pid=$!
while kill -0 "$pid" 2>/dev/null; do wait "$pid"; done  # a trap interrupts wait
wait "$pid"
code=$?

if [ "$code" -eq 75 ]; then  # checkpoint written, please start again
  if [ "${SLURM_RESTART_COUNT:-0}" -lt "$max_restarts" ]; then
    echo "checkpoint written; requeueing job $SLURM_JOB_ID"
    scontrol requeue "$SLURM_JOB_ID"  # ends this script
  else
    echo "requeued $max_restarts times already: not again (SEER_MAX_RESTARTS)" >&2
  fi
fi
exit "$code"
