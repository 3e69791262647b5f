#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A run in which ranks are killed at random times, a hundred times as often as nodes of a real machine fail, and which is
# started again each time: what part of the time trained, and where the rest went.
#
# The rate: 512 GPUs are 64 nodes. One to four failures in the eight days of a run are to be expected of them, so one
# in 48 hours at the worst (the Llama 3 herd of models, 2024: 419 unexpected interruptions in 54 days of 2048 such nodes
# are one in 99 hours of 64). 100 times that is one in 29 minutes; --factor 1000, one in three, makes a sample of
# a short run. Times between failures are exponential; half of them take one rank, half all. The interval of
# checkpoints is Young's, from their measured cost.
#
# A failure costs the updates since the last checkpoint, a start (the launcher, set-up, reading the checkpoint) and the
# second that mpirun needs to end the others; with checkpoints so cheap as here, seconds in all. On a real machine a start
# takes minutes, and so do the checkpoints of a large network: what carries over is that nothing else is lost.
# SEER chooses the executable, MPIEXEC the launcher.
#   validation/effective_time.sh [--minutes M] [--factor F] [--seed S]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/environment.sh
source "$here/../scripts/environment.sh"
export SEER=${SEER:-$here/../build/host-release/seer}
export OMPI_MCA_odls_base_num_threads=0 OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1
exec python3 "$here/torture/effective_time.py" "$@"
