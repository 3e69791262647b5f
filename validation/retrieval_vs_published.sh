#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Retrieval by seer and by the published evaluation: see retrieval_vs_published.py --help. PYTHON chooses the interpreter
# (h5py, numpy), SEER the executable.
#   validation/retrieval_vs_published.sh runs/demo --photos shards/test --distractors shards/train
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
: "${PYTHON:=python3}" "${SEER:=$here/../build/host-release/seer}"
if [ "$(id -u)" = 0 ]; then  # Open MPI wants to be told twice
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
exec "$PYTHON" "$here/retrieval_vs_published.py" --seer "$SEER" "$@"
