#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# 512 GPUs, 64 nodes of 8, one rank a GPU: the shape of SEER's RegNetY-256GF run. Needs the device build.
#   sbatch jobscripts/seer_512gpu.sh inputs/seer_256gf.toml --set data.shards=shards/photos
#   sbatch --nodes=62 jobscripts/seer_512gpu.sh inputs/seer_10b.toml      # 496 GPUs, as SEER had
# On H100 or A100 add --set precision.compute=bf16.
#SBATCH --job-name=seer
#SBATCH --nodes=64
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
# Cores of the node / 8: 14 on a DGX H100, 16 on a DGX A100, 5 on a DGX-1. They decode images.
#SBATCH --cpus-per-task=14
#SBATCH --mem=0
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out

# sbatch runs a copy of this script, so Slurm is asked where it lies (SEER_JOBSCRIPTS: for folders with spaces).
here=$(dirname "$(scontrol show job "$SLURM_JOB_ID" | sed -n 's/^ *Command=\([^ ]*\).*/\1/p')")
. "${SEER_JOBSCRIPTS:-$here}/common.sh" || exit 2
gpu_environment
pretrain "$@"
