#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Features by seer and by torchvision with the same weights: see features_vs_torchvision.py --help. PYTHON chooses the
# interpreter (torch, torchvision, h5py, Pillow), SEER the executable.
#   validation/features_vs_torchvision.sh --shards shards/photos
#   PYTHON=venv/bin/python validation/features_vs_torchvision.sh --shards shards/photos --images 16 --sizes 8gf,16gf
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
: "${PYTHON:=python3}" "${SEER:=$here/../build/host-release/seer}"
if [ "$(id -u)" = 0 ]; then  # Open MPI wants to be told twice
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
exec "$PYTHON" "$here/features_vs_torchvision.py" --seer "$SEER" "$@"
