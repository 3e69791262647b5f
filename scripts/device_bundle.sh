#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Packs a device build into one archive that runs on a machine without network, which needs no more than glibc as new as
# here, a driver, CUDA's libraries and python: seer, the tests that involve devices and their data, all other libraries,
# Open MPI, the inputs, validation/gpu.sh, and run_there.sh, which has the rest of the story.
#   scripts/device_bundle.sh [BUILD] [ARCHIVE]
#     BUILD: the folder of a device build (scripts/build_device.sh, Kokkos made for the device); default build/cuda-h100
#     ARCHIVE: default build/seer_device.tar.xz
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
case ${1:-} in -h | --help) sed -n '3,8s/^# \{0,1\}//p' scripts/device_bundle.sh; exit 0 ;; esac
build=${1:-build/cuda-h100} archive=${2:-build/seer_device.tar.xz}
limit_bytes=40000000

[ -x "$build/seer" ] || { echo "device_bundle: no $build/seer: build it by scripts/build_device.sh (docs/device.md)" >&2; exit 3; }
for tool in ldd nm strip xz "${CC:-cc}" ompi_info orted; do
  command -v $tool >/dev/null || { echo "device_bundle: needs $tool" >&2; exit 3; }
done
cache() { sed -n "s/^$1:[A-Z]*=//p" "$build/CMakeCache.txt"; }
[ "$(cache SEER_CUDA)" = ON ] || { echo "device_bundle: $build is no device build" >&2; exit 3; }
[ "$(cache SEER_NATIVE)" = OFF ] ||
  echo "device_bundle: $build is made for this machine's processor alone: -DSEER_NATIVE=OFF makes one for others" >&2

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
top=$stage/seer_device
bin=$top/build/cuda-h100  # where gpu.sh looks
mkdir -p "$bin/tests" "$top"/{lib/cxx,ompi/bin,scripts,validation,tests/data,docs}

cp "$build/seer" "$bin/"
tests=(device kernels dnn comm comm_mpi train_mpi)
for test in "${tests[@]}"; do
  if [ -x "$build/tests/test_$test" ]; then
    cp "$build/tests/test_$test" "$bin/tests/"
  else
    echo "device_bundle: without test_$test, which is not built in $build" >&2
  fi
done
cp -r inputs "$top/"
cp tests/data/presets.json "$top/tests/data/"
for file in $(grep -rohE '"[a-z_]+\.h5"' tests/{device,kernels,dnn,comm,train/mpi} | tr -d '"' | sort -u); do
  [ ! -e "tests/data/$file" ] || cp "tests/data/$file" "$top/tests/data/"
done
cp -r validation/*.sh validation/*.py validation/*.cpp validation/reference "$top/validation/"
mkdir "$top/validation/results"
cp scripts/environment.sh scripts/run_there.sh "$top/scripts/"
cp scripts/run_there.sh "$top/"
cp docs/device.md "$top/docs/"
pwd >"$top/checkout_path"  # compiled into the tests

# Open MPI as it is installed, below another prefix; without plugins for OpenSHMEM, and for networks that one machine
# does not need.
where() { ompi_info --path "$1" --parsable | sed 's/^[^:]*:[^:]*://'; }
prefix=$(where prefix)
plugins=$(where pkglibdir) texts=$(where pkgdatadir)
for folder in "$plugins" "$texts"; do mkdir -p "$top/ompi/${folder#"$prefix"/}"; done
cp "$(readlink -f "$(command -v mpirun)")" "$top/ompi/bin/mpirun"
cp "$(readlink -f "$(command -v orted)")" "$top/ompi/bin/orted"
cp "$texts"/*.txt "$top/ompi/${texts#"$prefix"/}/"
for plugin in "$plugins"/*.so; do
  ldd "$plugin" | grep -qE 'not found|lib(fabric|uc[pstm]|ibverbs|psm|psm2|nl|oshmem)[-._]' || cp "$plugin" "$top/ompi/${plugins#"$prefix"/}/"
done

# What the loader finds here, without glibc and CUDA. The compiler's own libraries lie apart: of two versions the newer
# one must be used.
find "$bin" "$top/ompi" -type f \( -perm /111 -o -name '*.so' \) -print0 | xargs -0 ldd 2>/dev/null |
  sed -nE 's/^\t(lib[^ ]+) => (\/[^ ]+) .*/\1 \2/p' | sort -u |
  grep -vE '^lib(c|m|dl|rt|pthread|util|resolv|nsl|anl|mvec|thread_db)\.so|^lib(cuda|cudart|cublas|cublasLt|cudnn[a-z_]*|nccl|nvrtc|nvJitLink|nvjpeg|cupti|nvidia-ml)\.so' |
  while read -r name path; do
    case $name in libstdc++.so* | libgcc_s.so*) cp -L "$path" "$top/lib/cxx/$name" ;; *) cp -L "$path" "$top/lib/$name" ;; esac
  done
# A quarter of the archive would be ICU's tables: libarchive's reader of XML is linked to them, for a kind of archive that
# seer does not read. Without them it refuses such text.
for icu in "$top"/lib/libicudata.so.*; do
  [ -e "$icu" ] || continue
  table=$(nm -D --defined-only "$icu" | awk '{ print $3 }')
  ${CC:-cc} -shared -fPIC -Wl,-soname,"$(basename "$icu")" -x c - -o "$icu" <<<"const char $table[64] = {0};"
done
find "$top" -type f \( -perm /111 -o -name '*.so*' \) -exec sh -c 'file=$1; head -c 4 "$file" | grep -q ELF && strip --strip-unneeded "$file"' _ {} \;

mkdir -p "$(dirname "$archive")"
# The programs have the same kernels: a window over all of them packs these once.
tar -C "$stage" -c seer_device | xz --lzma2=preset=4,dict=192MiB >"$archive.part"
mv "$archive.part" "$archive"
bytes=$(stat -c %s "$archive")
kernels=on
[ "$(nm -C "$build/seer" | grep -c 'Kokkos::Cuda')" -gt 0 ] || kernels="not in this build (--libraries)"
echo "device_bundle: $archive, $((bytes / 1000)) kB; $(find "$top/lib" -type f | wc -l) libraries," \
     "$(find "$top/ompi" -name '*.so' | wc -l) plugins, $(find "$bin/tests" -type f | wc -l) test programs; kernels for the device: $kernels"
[ "$bytes" -lt $limit_bytes ] || { echo "device_bundle: more than $limit_bytes bytes" >&2; exit 1; }
