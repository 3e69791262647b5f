#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Random faults at random instants against a run of a tiny network on 1 to 4 ranks, in all modes of sharding. After the
# faults the same command is started again, as a job script would, until the run is done. Each trial must end in one of
#   finished   nothing had to be started again, and the end is that of an undisturbed run
#   resumed    started again, and the end is that of an undisturbed run
#   refused    somewhere refused with the message and exit code that this fault must give; put right, as resumed
# where the end is: the same bits in every tensor of the last checkpoint and the same losses (on other ranks than the
# undisturbed run: losses within 1e-4 of their value), and never more updates lost than lie between two checkpoints.
# Anything else (other bits, a hang, a crash, a missing update) is a failure: its folder is kept, the line that repeats
# it is printed, and the exit code is 1. Kinds of fault: --help, and docs/operations.md.
# SEER and SHIM choose the executable and the library that lets the file system fail (target write_faults), MPIEXEC the
# launcher. Needs Python 3. 500 trials: --trials 500 --jobs 3.
#   validation/torture.sh [--trials N] [--seed S] [--seconds LIMIT] [--kinds a,b] [--trial K]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/environment.sh
source "$here/../scripts/environment.sh"
export SEER=${SEER:-$here/../build/host-release/seer}
export SHIM=${SHIM:-$here/../build/host-release/tests/libwrite_faults.so}
for file in "$SEER" "$SHIM"; do
  [ -e "$file" ] || { echo "torture: no $file: build the targets seer and write_faults, or set SEER and SHIM" >&2; exit 2; }
done
command -v python3 >/dev/null || { echo "torture: needs python3 (scripts/setup.sh installs it)" >&2; exit 2; }
export OMPI_MCA_odls_base_num_threads=0 OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1
# The preloaded library comes before the sanitizers' in a build that has them.
export ASAN_OPTIONS=detect_leaks=0:verify_asan_link_order=0
exec python3 "$here/torture/torture.py" "$@"
