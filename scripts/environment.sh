# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Sourced by the other scripts: how to build and how to start ranks on this machine. Sets `cores`, the compiler cache, and
# the functions `run_ranks N COMMAND...` and `find_nvcc`.

cores=$(nproc)

# Open MPI refuses root unless told twice: in containers root is all there is.
if [ "$(id -u)" -eq 0 ]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
# One thread a rank; libraries that start one per core in each rank fight over the cores.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

# Several builds of one checkout compile most files alike.
if command -v ccache >/dev/null; then
  export CMAKE_CXX_COMPILER_LAUNCHER="${CMAKE_CXX_COMPILER_LAUNCHER:-ccache}"
  CCACHE_DIR="${CCACHE_DIR:-$(realpath "$(dirname "${BASH_SOURCE[0]}")/..")/build/ccache}"
  export CCACHE_DIR CCACHE_NOHASHDIR=1
fi

run_ranks() {
  local ranks=$1
  shift
  local placement=(--bind-to none)  # reader threads need the cores that ranks are not bound to
  if [ "$ranks" -gt "$cores" ]; then
    placement+=(--oversubscribe --mca mpi_yield_when_idle 1)
  fi
  mpirun "${placement[@]}" -n "$ranks" "$@" </dev/null
}

# Puts the CUDA compiler into PATH; fails where there is none.
find_nvcc() {
  command -v nvcc >/dev/null && return 0
  local root
  for root in "${CUDAToolkit_ROOT:-}" "${CUDA_HOME:-}" /usr/local/cuda; do
    if [ -n "$root" ] && [ -x "$root/bin/nvcc" ]; then
      export PATH=$root/bin:$PATH
      return 0
    fi
  done
  return 1
}
