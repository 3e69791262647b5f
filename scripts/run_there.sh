#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# On the machine with the device: runs one step of its examination from the archive that scripts/device_bundle.sh made.
# Needs a driver, CUDA's libraries (cuDNN and NCCL among them: of a toolkit, or of python's packages), bash, coreutils,
# sed, awk, grep, tar and python3; no network, no compiler. A step ends within nine minutes.
#   run_there.sh STEP [RESULTS]
#     smoke    what is here; seer's commands that need no device; all tests, compute-sanitizer
#     conv     bench conv of RegNetY-128GF, which finds the fastest engines
#     step     bench step of 128GF, a short run from shards, a profile
#     compare  128GF and 256GF beside PyTorch, eager and compiled
#     RESULTS: folder, default $OUT or ./results. All that there is by then lies in it however the step ends: report.md,
#       log.txt, all files of the parts in one archive, dnn_choices.json
# ARCHIVE: default build/seer_device.tar.xz (not needed within the unpacked folder). CHOICES: an earlier step's
# dnn_choices.json; default the one in RESULTS or beside the archive. UNPACKED: where to unpack, default /tmp/seer_device.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
step=${1:-} results=$(realpath -m "${2:-${OUT:-results}}")
case $step in
  smoke | conv | step | compare) ;;
  -h | --help) sed -n '3,16s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
  *) echo "run_there: unknown step \"$step\"; there are smoke, conv, step and compare" >&2; exit 2 ;;
esac
archive=$(realpath -m "${ARCHIVE:-build/seer_device.tar.xz}")
mkdir -p "$results" || exit 2
# A signal for all of the group must not end tee before this script has said its last.
exec > >(trap '' TERM INT HUP; exec tee -a "$results/log.txt") 2>&1
exec 3>&1  # for what is said while a command's output goes to a file
echo "run_there: $step, $(date -u +%FT%TZ)"

# Unpack, unless this script lies in the unpacked folder.
top=$here
if [ ! -x "$top/build/cuda-h100/seer" ]; then
  top=${UNPACKED:-/tmp/seer_device}
  rm -rf "$top" && mkdir -p "$(dirname "$top")" "$top.new" || exit 2
  tar -xJf "$archive" -C "$top.new" 2>/dev/null || python3 -m tarfile -e "$archive" "$top.new" ||
    { echo "run_there: $archive cannot be unpacked"; exit 2; }
  mv "$top.new/seer_device" "$top" && rmdir "$top.new"
fi
bin=$top/build/cuda-h100 work=$top/runs/gpu
mkdir -p "$work/cache" "$work/there"

# Whatever happens: all results in one folder, in few files.
child=""
collect() {
  trap - EXIT
  local report
  report=$(ls -t "$top"/validation/results/*.md 2>/dev/null | head -n 1)
  [ -z "$report" ] || cp "$report" "$results/report.md"
  cp "$work/cache/dnn_choices.json" "$results/" 2>/dev/null
  tar -C "$top/runs" -czf "$results/$step.tar.gz" --exclude='*.h5' --exclude='*.so' --exclude=shards gpu
  echo "run_there: $step ended after $SECONDS s; results in $results: $(cd "$results" && echo *)" >&3
  sleep 0.2  # for tee
}
trap collect EXIT
trap '[ -z "$child" ] || kill "$child" 2>/dev/null; stopped=1' TERM INT HUP
stopped=0
within() {  # SECONDS COMMAND...: at most so long, and stopped with this script
  local code=0
  timeout -k 15 "$@" </dev/null &
  child=$!
  wait "$child" || code=$?
  [ "$stopped" -eq 0 ] || wait "$child"  # it writes what it has
  child=""
  [ "$stopped" -eq 0 ] || { echo "run_there: stopped by a signal" >&3; exit 1; }
  return "$code"
}
for file in "${CHOICES:-}" "$results/dnn_choices.json" "$(dirname "$archive")/dnn_choices.json"; do
  if [ -f "$file" ]; then cp "$file" "$work/cache/" && echo "run_there: engines of $file" && break; fi
done

# Libraries: ours, those that python brings, those of a toolkit; the newer of two of the compiler's.
own_path=${LD_LIBRARY_PATH:-}
packaged=$(python3 - 2>/dev/null <<'P' | paste -sd:
import glob, importlib.util
spec = importlib.util.find_spec("nvidia")
for place in spec.submodule_search_locations if spec else []:
    print("\n".join(sorted(glob.glob(place + "/*/lib"))))
P
)
path=$top/lib:${packaged:+$packaged:}/usr/local/cuda/lib64:/usr/local/cuda/lib${own_path:+:$own_path}
said=$(LD_LIBRARY_PATH=$path ldd "$bin/seer" 2>&1)
if grep -qE 'GLIBC_.* not found' <<<"$said"; then
  echo "run_there: the archive was made with a newer glibc than this machine's: $(grep -oE 'GLIBC_[0-9.]+' <<<"$said" | sort -Vu | tail -n 1)"
  exit 1
fi
export LD_LIBRARY_PATH=$path
if grep -qE 'lib(stdc\+\+|gcc_s).* not found|GLIBCXX|CXXABI' <<<"$said"; then
  LD_LIBRARY_PATH=$top/lib/cxx:$LD_LIBRARY_PATH
fi
# Python has its own: seer's would be in its way.
mkdir -p "$top/bin"
if real=$(command -v python3) && [ "$real" != "$top/bin/python3" ]; then
  printf '#!/bin/sh\nLD_LIBRARY_PATH=%q exec %q "$@"\n' "$own_path" "$real" >"$top/bin/python3"
  chmod +x "$top/bin/python3"
fi
export PATH=$top/bin:$top/ompi/bin:$PATH
export OPAL_PREFIX=$top/ompi PMIX_PREFIX=$top/ompi OMPI_MCA_ess_singleton_isolated=1 OMPI_MCA_plm_rsh_agent=/bin/true
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_btl_vader_single_copy_mechanism=none
# The tests' data, where the tests were told that they are.
checkout=$(cat "$top/checkout_path")
[ -e "$checkout/tests/data" ] || { mkdir -p "$(dirname "$checkout")" && ln -sfn "$top" "$checkout"; } ||
  echo "run_there: cannot make $checkout: tests that read files will fail"
cd "$top" || exit 2

device=$(nvidia-smi --query-gpu=name,memory.total,driver_version,clocks.max.sm,power.limit --format=csv,noheader 2>&1) || device=""
missing=$(ldd "$bin/seer" | awk '/not found/ { print $1 }' | sort -u | paste -sd' ')
{
  echo "device: ${device:-none: nvidia-smi names no device here}"
  echo "processor: $(nproc) x $(sed -n '/^model name/{s/^[^:]*: //p;q}' /proc/cpuinfo); $(awk '/^MemTotal/ { print int($2 / 1048576) " GiB" }' /proc/meminfo)"
  echo "libraries that are missing: ${missing:-none}"
  echo "CUDA's from: $(ldd "$bin/seer" | sed -nE 's/.*=> ([^ ]*lib(cudart|cublasLt|cudnn|nccl)\.so[^ ]*) .*/\1/p' | paste -sd' ')"
  echo "tools: $(for tool in ctest compute-sanitizer ncu nsys g++ python3; do command -v $tool || echo "(no $tool)"; done | paste -sd' ')"
  echo "PyTorch: $(python3 -c 'import torch, torchvision; print(torch.__version__, torchvision.__version__, torch.cuda.is_available())' 2>&1 | tail -n 1)"
} | tee "$work/there/here.txt"
if [ -n "$missing" ]; then
  echo "run_there: seer cannot start without $missing"
  exit 1
fi

gpu() {  # PARTS MODELS: validation/gpu.sh in what is left of 500 seconds; it is stopped after 520
  within $((520 - SECONDS)) validation/gpu.sh --parts "$1" --models "$2" --budget $((500 - SECONDS))
}
# Commands that need no device, and the tests there: what a device is wanted for says so itself.
smoke() {
  local failed=0 name log test
  try() {  # NAME COMMAND...
    local left=$((500 - SECONDS)) code=0
    name=$1 log=$work/there/$1.txt
    shift
    if [ "$left" -lt 3 ]; then
      echo "not run, for the time was over: $name"
      return
    fi
    within $((left < 150 ? left : 150)) "$@" >"$log" 2>&1 || code=$?
    if [ "$code" -eq 0 ]; then
      echo "ok: $name"
    else
      failed=1
      echo "FAILED, exit code $code: $name: $(tail -n 1 "$log" | cut -c1-200)"
    fi
  }
  try version "$bin/seer" --version
  try help "$bin/seer" --help
  try plan "$bin/seer" plan inputs/seer_128gf.toml --machine inputs/machines/dgx_h200.toml
  try synth "$bin/seer" synth -o "$work/there/shards" --classes 2 --images 16 --size 32
  try inspect "$bin/seer" inspect "$work/there/shards"
  try mpirun mpirun --oversubscribe --bind-to none -n 2 "$bin/seer" synth -o "$work/there/shards2" --classes 2 --images 16 --size 32
  if [ -n "$device" ]; then
    gpu tests,sanitizer 128gf || failed=1
    return $failed
  fi
  echo "there is no device here: of the tests only those that need none are run"
  for test in "$bin"/tests/test_*; do
    try "${test##*/}" "$test" --gtest_color=no
    echo "    $(grep -cE '^\[       OK \] .* ms\)$' "$log") passed, $(grep -cE '^\[  SKIPPED \] .* ms\)$' "$log") not run," \
      "$(grep -cE '^\[  FAILED  \] .* ms\)$' "$log") failed"
  done
  return $failed
}

code=0
case $step in
  smoke) smoke || code=$? ;;
  conv) gpu conv 128gf || code=$? ;;
  step) gpu step,data,profile 128gf || code=$? ;;
  compare) gpu step,torch 128gf,256gf || code=$? ;;
esac
exit $code
