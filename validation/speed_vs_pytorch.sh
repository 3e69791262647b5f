#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# seer against PyTorch on the same update: see speed_vs_pytorch.py --help. PYTHON chooses the interpreter (its torch and
# torchvision are what seer is compared with), SEER the executable.
#   validation/speed_vs_pytorch.sh
#   PYTHON=venv/bin/python validation/speed_vs_pytorch.sh --cases 400mf:8 --seer-ranks 1
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
: "${PYTHON:=python3}" "${SEER:=$here/../build/host-release/seer}"
if [ "$(id -u)" = 0 ]; then  # Open MPI wants to be told twice
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
exec "$PYTHON" "$here/speed_vs_pytorch.py" --seer "$SEER" "$@"
