#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Logistic regression, support vector machines and average precision by seer and by scikit-learn on the same features.
# PYTHON chooses the interpreter (scikit-learn, h5py), SEER the executable, RANKS how many ranks it runs on.
#   python3 -m venv venv && venv/bin/pip install scikit-learn h5py
#   seer features runs/photos shards/train -o train.h5 && seer features runs/photos shards/test -o test.h5
#   PYTHON=venv/bin/python validation/probes_vs_sklearn.sh train.h5 test.h5
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
: "${PYTHON:=python3}" "${SEER:=$here/../build/host-release/seer}"
if [ "$(id -u)" = 0 ]; then  # Open MPI wants to be told twice
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
exec "$PYTHON" "$here/probes_vs_sklearn.py" --seer "$SEER" --ranks "${RANKS:-1}" "$@"
