#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds for devices. Needs the CUDA toolkit (12 or 13), cuDNN 9, NCCL and a Kokkos made for the device (Kokkos_ROOT); a
# device need not be there.
#   scripts/build_device.sh [--preset cuda-h100|cuda-a100|cuda-v100] [--libraries]
#     --libraries: without such a Kokkos: all but the kernels for the device, which stay on the host; runs the tests that
#     a device build has of its own, which say by name what was not run for want of a device
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

preset=cuda-h100 libraries=0
while [ $# -gt 0 ]; do
  case $1 in
    --preset)
      case ${2:-} in "" | -*) echo "build_device: --preset wants a name" >&2; exit 2 ;; esac
      preset=$2
      shift ;;
    --libraries) libraries=1 ;;
    -h | --help) sed -n '3,8s/^# \{0,1\}//p' scripts/build_device.sh; exit 0 ;;
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
  echo "build_device: built $build/seer; where a device is: its tests by ctest --preset $preset, all that it can tell by" \
       "SEER=$build/seer validation/gpu.sh"
  exit 0
fi

# Those that have something to say about devices: tests/<module>/mpi/ makes test_<module>_mpi.
mapfile -t tests < <(grep -rlE 'SEER_NEEDS_DEVICE\(\)|not run: ' tests --include='*_test.cpp' |
  sed -E 's#^tests/([a-z]+)/mpi/.*#\1_mpi#; s#^tests/([a-z]+)/.*#\1#' | sort -u)
cmake --build "$build" --parallel "$cores" --target seer "${tests[@]/#/test_}"

# What says "not run" was skipped for want of a device; what a processor without bf16 skips is not about devices.
report() {  # NAME LOG: one line, and of each test that was not run one before it
  awk -v name="test_$1" '
    /^\[ RUN / { because = "" }
    /not run: / { because = $0; sub(/.*not run: /, "", because) }
    /^\[       OK \] .* ms\)$/ { ++passed }
    /^\[  SKIPPED \] .* ms\)$/ && because != "" {
      ++skipped
      test = $4
      sub(/\/[^\/.]*$/, "", test)  # the parameter of a test that has many
      key = test ": " because
      if (!cases[key]++) order[++keys] = key
    }
    END {
      for (i = 1; i <= keys; ++i) {
        print "not run: " name " " order[i] (cases[order[i]] > 1 ? ", " cases[order[i]] " cases" : "")
      }
      printf "build_device: %s on the host: passed %d, not run %d\n", name, passed, skipped
    }' "$2"
}
log=$build/tests.log
: >"$log"
for name in "${tests[@]}"; do
  if ! run_ranks 1 "$build/tests/test_$name" --gtest_color=no >"$build/one.log" 2>&1; then
    cat "$build/one.log"
    echo "build_device: test_$name failed" >&2
    exit 1
  fi
  report "$name" "$build/one.log" | tee -a "$log"
done
awk -v files="$(find src -path 'src/*/cuda/*.cpp' | wc -l)" '
  /^build_device: test_/ { sub(/,/, "", $7); passed += $7; skipped += $NF }
  END {
    printf "build_device: compiled and linked: seer, %d files of src/*/cuda in it; passed: %d tests; not run: %d (above); ",
      files, passed, skipped
    print "not compiled: kernels for the device"
  }' "$log"
