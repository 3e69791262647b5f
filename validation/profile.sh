#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What bounds an update: time of every kernel, convolution and product, through Kokkos Tools' interface.
#   validation/profile.sh [RANKS] [CONFIG.toml] [bench step's arguments]      # default: 1 inputs/bench_8gf.toml
# A profiler of your own instead of this one: KOKKOS_PROFILE_LIBRARY=/path/to/it.so seer bench step CONFIG.toml.
# SEER: the executable.
set -euo pipefail
refuse() { echo "profile: $*" >&2; exit 2; }
case ${1:-} in -h | --help) sed -n '3,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;; esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/environment.sh
source scripts/environment.sh
seer=${SEER:-build/host-release/seer}
ranks=${1:-1} config=${2:-inputs/bench_8gf.toml}
shift $(($# < 2 ? $# : 2))
[[ $ranks =~ ^[1-9][0-9]*$ ]] || refuse "RANKS = $ranks; wanted a whole number from 1 (validation/profile.sh --help)"
[ -f "$config" ] && [ -r "$config" ] || refuse "cannot read the configuration $config"
command -v "$seer" >/dev/null || refuse "no executable $seer; build it, or set SEER"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
g++ -std=c++20 -O2 -shared -fPIC -o "$work/kernel_times.so" validation/kernel_times.cpp
export OMP_NUM_THREADS=1 KOKKOS_PROFILE_LIBRARY=$work/kernel_times.so
mpirun --oversubscribe --bind-to none -n "$ranks" "$seer" bench step "$config" --updates 4 --warmup 1 "$@" </dev/null
