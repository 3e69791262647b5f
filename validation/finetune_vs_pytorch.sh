#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# One epoch of fine-tuning by seer and by PyTorch: see finetune_vs_pytorch.py --help. PYTHON chooses the interpreter
# (torch, torchvision, h5py, Pillow), SEER the executable.
#   PYTHON=venv/bin/python validation/finetune_vs_pytorch.sh --shards shards/photos
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
: "${PYTHON:=python3}" "${SEER:=$here/../build/host-release/seer}"
if [ "$(id -u)" = 0 ]; then  # Open MPI wants to be told twice
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
exec "$PYTHON" "$here/finetune_vs_pytorch.py" --seer "$SEER" "$@"
