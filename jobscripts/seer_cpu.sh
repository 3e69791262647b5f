#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# CPU nodes, one rank a core. The number of ranks must divide data.global_batch.
#   sbatch [--nodes=N --ntasks-per-node=R --time=...] jobscripts/seer_cpu.sh inputs/swav_400mf.toml
#SBATCH --job-name=seer
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=32
#SBATCH --cpus-per-task=1
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out

# sbatch runs a copy of this script, so Slurm is asked where it lies (SEER_JOBSCRIPTS: for folders with spaces).
here=$(dirname "$(scontrol show job "$SLURM_JOB_ID" | sed -n 's/^ *Command=\([^ ]*\).*/\1/p')")
. "${SEER_JOBSCRIPTS:-$here}/common.sh" || exit 2
cpu_environment
pretrain "$@"
