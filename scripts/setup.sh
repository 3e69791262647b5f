#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs every Debian package that the host build, its tests and its demonstration need. Nothing is assumed to be
# there. A second run finds all of it and changes nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

packages=(
  # compiler and build (ccache: the device build compiles again only what differs from the host build)
  g++ cmake ninja-build ccache pkg-config git ca-certificates
  # ranks and files
  libopenmpi-dev openmpi-bin libhdf5-openmpi-dev hdf5-tools
  # convolutions (oneDNN, whose CMake file asks for OpenCL) and kernels (Kokkos)
  libdnnl-dev ocl-icd-opencl-dev libtrilinos-kokkos-dev
  # images and archives
  libturbojpeg0-dev libjpeg62-turbo-dev libspng-dev libwebp-dev libarchive-dev
  # configuration, command line, JSON, log
  libtomlplusplus-dev libcli11-dev nlohmann-json3-dev libspdlog-dev libfmt-dev
  # random numbers, checksums, event files
  librandom123-dev libxxhash-dev libprotobuf-dev protobuf-compiler
  # label files in XML; logistic regression, support vector machines and eigenvalues of the evaluations
  libpugixml-dev liblbfgs-dev liblinear-dev liblapacke-dev
  # tests (Python: its standard library, for the torture test)
  libgtest-dev python3
)

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  echo "setup: this is no Debian system (no apt-get). Provide what cmake/Dependencies.cmake looks for by modules or" \
       "Spack, then run: cmake --preset host-release" >&2
  exit 3
fi

installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' 2>/dev/null | sed -n 's/^installed //p' | sort -u)
missing=()
for package in "${packages[@]}"; do
  grep -qxF -- "$package" <<<"$installed" || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
  echo "setup: all ${#packages[@]} packages are installed"
  exit 0
fi
echo "setup: installing ${#missing[@]} of ${#packages[@]} packages: ${missing[*]}"

if [ "$(id -u)" -eq 0 ]; then
  as_root=()
elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
  as_root=(sudo)  # asks for a password only where there is somebody to type it
else
  echo "setup: needs root or sudo to install packages; ask an administrator for: apt-get install ${missing[*]}" >&2
  exit 3
fi
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null
echo "setup: done"
