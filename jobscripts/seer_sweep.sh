#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# One job array for a sweep: each line of a file is one run, with settings of its own. Each run stops before the time
# limit, requeues itself and resumes like any other; one that fails leaves the others alone.
#   cat >sweep.txt <<END
#   swav.epsilon=0.03 schedule.lr_peak=0.3
#   swav.epsilon=0.05 schedule.lr_peak=0.3
#   swav.epsilon=0.05 schedule.lr_peak=0.6
#   END
#   sbatch --array=1-3%2 jobscripts/seer_sweep.sh sweep.txt inputs/swav_400mf.toml      # two at a time
#   sbatch --array=1-3 --nodes=8 --gpus-per-node=8 --ntasks-per-node=8 --cpus-per-task=14 --mem=0 --exclusive \
#     jobscripts/seer_sweep.sh sweep.txt inputs/seer_8gf.toml                           # a GPU job for each
# Task i takes line i (empty lines and those that begin with # do not count) and writes into <log.run_dir>/<i>. The
# number of a task is part of its run, so lines may be added at the end, and --array=4-6 submitted for them.
#SBATCH --job-name=seer-sweep
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=32
#SBATCH --cpus-per-task=1
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%A_%a.out

# sbatch runs a copy of this script, so Slurm is asked where it lies (SEER_JOBSCRIPTS: for folders with spaces).
here=$(dirname "$(scontrol show job "$SLURM_JOB_ID" | sed -n 's/^ *Command=\([^ ]*\).*/\1/p' | head -n 1)")
if [ $# -lt 2 ] || [ -z "${SLURM_ARRAY_TASK_ID:-}" ]; then
  echo "usage: sbatch --array=1-N SCRIPT SWEEP.txt CONFIG.toml [--set section.key=value ...]" >&2
  exit 2
fi
sweep=$1
shift
. "${SEER_JOBSCRIPTS:-$here}/common.sh" || exit 2
line=$(grep -vE '^[[:space:]]*(#|$)' "$sweep" | sed -n "${SLURM_ARRAY_TASK_ID}p")
if [ -z "$line" ]; then
  echo "$sweep has no line $SLURM_ARRAY_TASK_ID for this task of the array" >&2
  exit 2
fi
settings=()
for setting in $line; do settings+=(--set "$setting"); done
if [ "${SLURM_GPUS_ON_NODE:-0}" -gt 0 ]; then gpu_environment; else cpu_environment; fi
pretrain "$@" "${settings[@]}" --set "log.run_dir=$(run_folder "$@" "${settings[@]}")/$SLURM_ARRAY_TASK_ID"
