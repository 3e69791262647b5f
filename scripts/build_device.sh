#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds for devices. Needs the CUDA toolkit (12 or 13), cuDNN 9, NCCL and a Kokkos made for the device (Kokkos_ROOT); a
# device need not be there.
#   scripts/build_device.sh [--preset cuda-h100|cuda-a100|cuda-v100] [--libraries]
#     --libraries: without such a Kokkos: the modules device, dnn and comm; runs their tests, which say by name which
#     were not run for want of a device
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

preset=cuda-h100 libraries=0
while [ $# -gt 0 ]; do
  case $1 in
    --preset) preset=${2:?build_device: --preset wants a name}; shift ;;
    --libraries) libraries=1 ;;
    -h | --help) sed -n '3,8s/^# //p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) echo "build_device: unknown argument $1; allowed: --preset NAME, --libraries" >&2; exit 2 ;;
  esac
  shift
done
case $preset in
  cuda-h100 | cuda-a100 | cuda-v100) ;;
  *) echo "build_device: unknown preset $preset; wanted cuda-h100, cuda-a100 or cuda-v100" >&2; exit 2 ;;
esac

# shellcheck source=scripts/environment.sh
source scripts/environment.sh
if ! find_nvcc; then
  echo "build_device: no nvcc in PATH, CUDAToolkit_ROOT, CUDA_HOME or /usr/local/cuda; load a CUDA 12 or 13 module" \
       "(with cuDNN 9 and NCCL)" >&2
  exit 3
fi

build=build/$preset
if [ "$libraries" -eq 1 ]; then build+=-libraries; fi
mkdir -p "$build"
log=$build/configure.log
if ! cmake --preset "$preset" -B "$build" >"$log" 2>&1; then
  cat "$log"
  echo "build_device: configure failed; what is missing is said above. CUDAToolkit_ROOT, CUDNN_ROOT, NCCL_ROOT and" \
       "Kokkos_ROOT tell where it is" >&2
  exit 3
fi
sed -n '/-- seer /,$p' "$log"

if [ "$libraries" -eq 0 ]; then
  if ! grep -q 'kernels on the device: ON' "$log"; then
    echo "build_device: this Kokkos has no Cuda; build one with -DKokkos_ENABLE_CUDA=ON and the device's -DKokkos_ARCH_..." \
         "and set Kokkos_ROOT to where it was installed (docs/device.md). --libraries does without" >&2
    exit 3
  fi
  cmake --build "$build" --parallel "$cores"
  echo "build_device: built $build/seer; its tests, where a device is: ctest --preset $preset"
  exit 0
fi

tests=(device dnn comm_mpi)
cmake --build "$build" --parallel "$cores" --target seer_device seer_dnn seer_comm "${tests[@]/#/test_}"

log=$build/tests.log
: >"$log"
for name in "${tests[@]}"; do
  if ! run_ranks 1 "$build/tests/test_$name" --gtest_color=no >"$build/one.log" 2>&1; then
    cat "$build/one.log"
    echo "build_device: test_$name failed" >&2
    exit 1
  fi
  cat "$build/one.log" >>"$log"
done
# What says "not run" was skipped for want of a device; what a processor without bf16 skips is not about devices.
awk -v files="$(find src/device/cuda src/dnn/cuda src/comm/cuda -name '*.cpp' 2>/dev/null | wc -l)" \
  -v tests="${tests[*]/#/test_}" '
  /^\[ RUN / { because = "" }
  /not run: / { because = $0; sub(/.*not run: /, "", because); reason = ": " because }
  /^\[       OK \] .* ms\)$/ { ++passed }
  /^\[  SKIPPED \] .* ms\)$/ && because != "" {
    ++skipped
    name = $4
    sub(/\/[^\/.]*$/, "", name)  # the parameter of a test that has many
    if (!cases[name]++) order[++names] = name
  }
  END {
    for (i = 1; i <= names; ++i) {
      print "not run: " order[i] (cases[order[i]] > 1 ? ", " cases[order[i]] " cases" : "")
    }
    printf "build_device: compiled and linked: %d files of src/*/cuda and %s; passed: %d tests; not run: %d%s; ", files,
      tests, passed, skipped, reason
    print "not compiled: kernels for the device"
  }' "$log"
