#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Sets up and runs the main job on the embedded default data: build, make images, pre-train on two ranks, k-NN.
# Started again it goes on where it stopped; `rm -r runs/demo` starts over.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/setup.sh
# shellcheck source=scripts/environment.sh
source scripts/environment.sh
cmake --preset host-release
cmake --build --preset host-release --target seer --parallel "$cores"
seer=build/host-release/seer
demo=runs/demo

if [ ! -e $demo/data_complete ]; then
  rm -rf $demo/train $demo/test
  $seer synth -o $demo/train --classes 8 --images 4000 --size 80 --seed 1 --split train
  $seer synth -o $demo/test --classes 8 --images 800 --size 80 --seed 2 --split test
  touch $demo/data_complete
fi

run_ranks 2 $seer pretrain inputs/demo.toml

# The trained trunk, the same trunk as it was at random, and the raw pixels, at the size of the larger crops.
run_ranks 2 $seer eval knn $demo/run --train $demo/train --test $demo/test --baselines --resize 64 --crop 64
