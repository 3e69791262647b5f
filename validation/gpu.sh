#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# All that one device can tell within ten minutes: tests, compute-sanitizer, `seer bench conv`, `step` and `comm` on
# RegNetY-16, 32, 128 and 256GF (bf16, 2x224 + 4x96 crops), PyTorch on the same updates, a profile. Writes
# validation/results/<device>.md. What ran out of its time, failed or is not here is named there; exit code 1 if a test
# or a part failed.
#   validation/gpu.sh [--models 128gf,256gf,...] [--parts tests,conv,...] [--budget SECONDS] [--out FILE.md] [--host]
#     --host: rehearses the same without a device, on the stand-in for one that computes on the host, with small
#       settings (validation/results/gpu_rehearsal.md)
# SEER: the executable; its tests lie in tests/ beside it (default: build/cuda-h100/seer). PYTHON: one with torch and
# torchvision. WORK: folder for what the parts print (default: runs/gpu), in parts/, and of the start before in
# parts.before/. Engines that were measured are kept there in cache/: a second run has more time for the rest. Paths count
# from the repository's root. No part needs the network. Stopped by a signal, it still writes the report.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/environment.sh
source scripts/environment.sh

refuse() { echo "gpu: $1" >&2; exit 2; }
host=0 models="" out="" budget=570
all=tests,sanitizer,plan,conv,step,data,comm,torch,profile parts=$all
while [ $# -gt 0 ]; do
  case $1 in
    --host) host=1 ;;
    --models | --parts | --budget | --out)
      case ${2:-} in "" | -*) refuse "$1 wants a value: --models NAME,NAME, --parts PART,PART, --budget SECONDS, --out FILE.md" ;; esac
      printf -v "${1#--}" %s "$2"
      shift ;;
    -h | --help) sed -n '3,14s/^# \{0,1\}//p' validation/gpu.sh; exit 0 ;;
    *) refuse "unknown argument $1; allowed: --models, --parts, --budget, --out, --host" ;;
  esac
  shift
done
[[ $budget =~ ^[1-9][0-9]*$ ]] || refuse "--budget $budget; wanted whole seconds from 1"
for part in ${parts//,/ }; do [[ ,$all, == *,$part,* ]] || refuse "--parts: no part $part; there are $all"; done
[[ ,$parts, == *,plan,* ]] || parts+=,plan

if [ "$host" -eq 1 ]; then
  seer=${SEER:-build/host-release/seer} torch_device=cpu on=(env SEER_STAND_IN_DEVICE=1)
  models=${models:-400mf,8gf}
else
  seer=${SEER:-build/cuda-h100/seer} torch_device=cuda on=()
  models=${models:-128gf,256gf,16gf,32gf}  # what matters most first
fi
seer=$(realpath -m "$seer")
[ -f "$seer" ] && [ -x "$seer" ] || refuse "no executable $seer: build it (scripts/build_device.sh), or set SEER"
build=$(dirname "$seer")
python=${PYTHON:-python3}
command -v python3 >/dev/null || refuse "needs python3 for the report"
config_of() {
  local file=inputs/bench_$1.toml
  [ "$host" -eq 1 ] || [ ! -e "inputs/seer_$1.toml" ] || file=inputs/seer_$1.toml
  echo "$file"
}
IFS=, read -ra models <<<"$models"
for model in "${models[@]}"; do
  # A plan of one convolution: the program's own word on the name, without a device.
  if ! said=$("$seer" bench conv --plan --machine inputs/machines/dgx_h100.toml --preset "$model" --size 32 --batch 1 \
    --json 2>&1 </dev/null); then
    refuse "--models: $(grep -m 1 error <<<"$said" || tail -n 1 <<<"$said")"
  fi
  [ -e "$(config_of "$model")" ] ||
    refuse "--models $model: no $(config_of "$model"); there are $(echo inputs/{seer,bench}_*.toml)"
done
export OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_odls_base_num_threads=0

# Which device, which of the machine files has its peaks, what memory it has.
machine="" device_bytes=0 devices=0
if [ "$host" -eq 1 ]; then
  device_name="host: $(sed -n '/^model name/{s/^[^:]*: //p;q}' /proc/cpuinfo)"
  out=${out:-validation/results/gpu_rehearsal.md}
else
  if ! device_name=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1) || [ -z "$device_name" ]; then
    echo "gpu: nvidia-smi names no device here; --host rehearses without one" >&2
    exit 3
  fi
  devices=$(nvidia-smi -L | grep -c '^GPU')
  device_bytes=$(nvidia-smi --query-gpu=memory.total --format=csv,noheader,nounits | head -n 1)
  device_bytes=$((device_bytes * 1048576))
  case $device_name in  # peaks of other variants (PCIe) differ: those are measured
    *H200*) machine=inputs/machines/dgx_h200.toml ;;
    *H100*HBM3* | *H100*SXM*) machine=inputs/machines/dgx_h100.toml ;;
    *A100*SXM*80GB*) machine=inputs/machines/dgx_a100.toml ;;
    *A100*SXM*40GB*) machine=inputs/machines/dgx_a100_40gb.toml ;;
    *V100*SXM2*) machine=inputs/machines/dgx1_v100.toml ;;
  esac
  out=${out:-validation/results/$(tr 'A-Z -' 'a-z__' <<<"$device_name" | tr -cd 'a-z0-9_').md}
fi
[ -d "$(dirname "$out")" ] && [ -w "$(dirname "$out")" ] && [ ! -d "$out" ] ||
  refuse "--out $out: wanted a file in a folder that exists and may be written to"

# What an earlier start measured is kept until this one has a report, and an unfinished start does not push it out.
kept=$(realpath -m "${WORK:-runs/gpu}")
work=$kept/parts choices_dir=$kept/cache
if [ -e "$work/reported" ] || [ ! -e "$kept/parts.before" ]; then
  rm -rf "$kept/parts.before"
  [ ! -e "$work" ] || mv "$work" "$kept/parts.before" || exit 2
fi
rm -rf "$work" && mkdir -p "$work" "$choices_dir" || exit 2

precision=bf16
case $device_name in *V100*) precision=fp16_o1 ;; esac
{
  printf 'device_name\t%s\nhost\t%s\nseer\t%s\nmachine\t%s\nbudget\t%s\ndevices\t%s\nmodels\t%s\nprecision\t%s\ncores\t%s\n' \
    "$device_name" "$host" "$seer" "$machine" "$budget" "$devices" "${models[*]}" "$precision" "$cores"
  printf 'version\t%s\n' "$("$seer" --version 2>/dev/null </dev/null | head -n 1)"
  [ "$host" -eq 1 ] ||
    printf 'driver\t%s\n' "$(nvidia-smi --query-gpu=driver_version,clocks.max.sm,power.limit --format=csv,noheader | head -n 1)"
} >"$work/facts.tsv"

# A part may use its own seconds and what those before it left. Each item ends as a line of items.tsv.
declare -A share=([tests]=20 [sanitizer]=8 [plan]=3 [conv]=20 [step]=20 [data]=5 [comm]=2 [torch]=16 [profile]=6)
began=$SECONDS deadline=$SECONDS part="" shares=0 of=0
for part in ${parts//,/ }; do of=$((of + share[$part])); done
begin() {  # NAME: false if the part is not wanted
  [[ ,$parts, == *,$1,* ]] || return 1
  part=$1 shares=$((shares + share[$1])) deadline=$((began + budget * shares / of))
  echo "gpu: $part ($((deadline - SECONDS)) s)" >&2
}
note() {  # ITEM OUTCOME SECONDS WHY
  local why
  # Of one line and one column, whatever a program printed: no colours, tabs or control characters.
  why=$(printf %s "$4" | sed 's/\x1b\[[0-9;]*[A-Za-z]//g' | tr '\t\r\n' '   ' | tr -d '\000-\037\177' |
    sed 's/   */ /g; s/^ //' | cut -c1-300)
  printf '%s\t%s\t%s\t%s\t%s\n' "$part" "$1" "$2" "$3" "$why" >>"$work/items.tsv"
  echo "gpu:   $1: $2${why:+: $why} ($3 s)" >&2
}
skip() { note "$1" "not run" 0 "$2"; }
# Why a command failed: the tests that did, by ctest's or GoogleTest's list; else the last line that tells of an error,
# else the last one, of stderr before stdout.
reason() {  # FILE
  local found file
  found=$(sed -n '/^The following tests FAILED:/,$s/^[[:space:]]*[0-9]* - \(.*)\).*/\1/p' "$1" | paste -sd, | sed 's/,/, /g')
  [ -n "$found" ] || found=$(sed -nE 's/^\[  FAILED  \] ([^ ,]+)(,.*[^)])?$/\1/p' "$1" | sort -u | paste -sd, | sed 's/,/, /g')
  if [ -n "$found" ]; then
    echo "failed: $found"
    return
  fi
  for file in "$1.err" "$1"; do
    found=$(grep -ai error "$file" | tail -n 1)
    [ -z "$found" ] || break
  done
  for file in "$1.err" "$1"; do
    [ -n "$found" ] || found=$(grep -av '^[[:space:]]*$' "$file" | tail -n 1)
  done
  echo "$found"
}
report() {
  python3 validation/gpu_report.py "$work" "$out" $((SECONDS - began)) || exit 1
  touch "$work/reported"
  echo "gpu: $out, $((SECONDS - began)) s" >&2
  [ "$stopped" -eq 0 ] && ! awk -F'\t' '$3 == "failed"' "$work/items.tsv" | grep -q .
  exit
}
stopped=0 child=""
trap 'stopped=1; [ -z "$child" ] || kill "$child" 2>/dev/null' TERM INT HUP
# item NAME FILE COMMAND...: stdout to FILE, stderr beside it.
item() {
  local name=$1 file=$work/$2 left=$((deadline - SECONDS)) at=$SECONDS code=0
  shift 2
  if [ "$left" -lt 3 ]; then
    skip "$name" "the part's time had run out"
    return 1
  fi
  timeout -k 5 "$left" "$@" >"$file" 2>"$file.err" </dev/null &
  child=$!
  wait $child || code=$?
  child=""
  if [ "$stopped" -eq 1 ]; then
    note "$name" "ran out" $((SECONDS - at)) "stopped by a signal"
    report
  elif [ "$code" -eq 124 ] || [ "$code" -eq 137 ]; then
    note "$name" "ran out" $((SECONDS - at)) "of its $left s"
  elif [ "$code" -ne 0 ]; then
    note "$name" failed $((SECONDS - at)) "exit code $code: $(reason "$file")"
  else
    note "$name" ok $((SECONDS - at)) ""
  fi
  return "$code"
}

# The same lines as those of ctest -V, where there is no ctest or no list of its own.
each_test() {
  local at=0 file code
  for file in "$build"/tests/test_*; do
    at=$((at + 1)) code=0
    printf '    Start %d: %s\n' $at "${file##*/}"
    timeout -k 5 300 "$file" --gtest_color=no 2>&1 </dev/null | sed -u "s/^/$at: /"
    code=${PIPESTATUS[0]}
    printf '1/1 Test #%d: %s ....   %s\n' $at "${file##*/}" "$([ "$code" -eq 0 ] && echo Passed || echo '***Failed')"
    [ "$code" -eq 0 ] || printf '%s\n' "${file##*/}" >>"$work/failed_tests.txt"
  done
  [ ! -e "$work/failed_tests.txt" ]
}

tests() {
  # Groups of several ranks want a device each: once with one rank. Host tests run as well, for they are in the list.
  only='^(unit\..*|mpi\..*\.1)$'
  export GTEST_FILTER='-*DescribedDevice*'  # which need minutes, and no device: they ran where this was built
  if command -v ctest >/dev/null && [ -e "$build/CTestTestfile.cmake" ]; then
    ctest --test-dir "$build" -N -R "$only" 2>/dev/null | sed -n 's/^ *Test *#[0-9]*: //p' >"$work/tests.txt"
    item "all tests" tests.log env GTEST_COLOR=no ctest --test-dir "$build" -R "$only" -V --parallel "$cores" --timeout 300 || true
  elif compgen -G "$build/tests/test_*" >/dev/null; then
    for file in "$build"/tests/test_*; do echo "${file##*/}"; done >"$work/tests.txt"
    export build work
    export -f each_test
    item "all tests" tests.log bash -c each_test || true
  else
    skip "all tests" "no tests in $build"
  fi
  unset GTEST_FILTER
}

sanitizer() {
  if [ "$host" -eq 1 ]; then
    skip compute-sanitizer "no device in a rehearsal on the host"
  elif ! command -v compute-sanitizer >/dev/null; then
    skip compute-sanitizer "not in PATH"
  else
    item "memcheck, memory and copies" memcheck_device.log compute-sanitizer --tool memcheck --error-exitcode 9 \
      "$build/tests/test_device" --gtest_filter='Device*' || true
    item "memcheck, kernels" memcheck_kernels.log compute-sanitizer --tool memcheck --error-exitcode 9 \
      "$build/tests/test_kernels" --gtest_filter='*Device*' || true
    # It is slow: sums within blocks, teams of rows, and a pass over a flat block.
    item "racecheck, kernels" racecheck_kernels.log compute-sanitizer --tool racecheck --error-exitcode 9 \
      "$build/tests/test_kernels" --gtest_filter=DeviceKernel.Sinkhorn:DeviceKernel.Optimizer:Shapes/DeviceKernels.BatchNormBackward/bf16_2x5x3x8 || true
  fi
}

# Images of an update: as many as fit without recomputation, from a few sizes.
settings=(--set "precision.compute=$precision" --set parallel.bn_group_size=1 --set parallel.shard=none
  --set parallel.recompute=none --set swav.freeze_prototypes_updates=0 --set checkpoint.async=false
  --set log.run_dir="$kept")  # whose folder cache/ keeps the engines that `bench conv` found
sizes=(224 96)
if [ "$host" -eq 1 ]; then
  sizes=(64 32)
  settings+=(--set 'crops=[{count=2,size=64,scale=[0.14,1.0]},{count=4,size=32,scale=[0.05,0.14]}]')
fi
declare -A images

plan() {
  for model in "${models[@]}"; do
    if [ "$host" -eq 1 ]; then
      images[$model]=2
      continue
    fi
    for ((n = 64; n > 0; n /= 2)); do
      item "images of $model: $n" "plan.$model.json" "$seer" plan "$(config_of "$model")" \
        --machine "${machine:-inputs/machines/dgx_h100.toml}" --json "${settings[@]}" --set data.source=crops \
        --set data.global_batch=$n --set parallel.memory_budget_bytes=$((device_bytes / 100 * 95)) || break
      if grep -q '"fits": true' "$work/plan.$model.json"; then
        images[$model]=$n
        break
      fi
    done
  done
  for model in "${models[@]}"; do printf '%s\t%s\n' "$model" "${images[$model]:-0}"; done >"$work/images.tsv"
}

conv() {
  for model in "${models[@]}"; do
    n=${images[$model]:-0}
    if [ "$n" -eq 0 ]; then skip "conv $model" "no batch fits"; continue; fi
    item "conv $model" "conv.$model.json" "${on[@]}" "$seer" bench conv --device --choices "$choices_dir" ${machine:+--machine "$machine"} \
      --preset "$model" --precision "$precision" --size "${sizes[0]},${sizes[1]}" --batch $((2 * n)),$((4 * n)) --repeat 3 --json \
      --limit-seconds $((deadline - SECONDS > 20 ? deadline - SECONDS - 15 : 5)) || true
  done
}

step() {
  for model in "${models[@]}"; do
    n=${images[$model]:-0}
    if [ "$n" -eq 0 ]; then skip "step $model" "no batch fits"; continue; fi
    item "step $model" "step.$model.json" "${on[@]}" "$seer" bench step "$(config_of "$model")" "${settings[@]}" \
      --set parallel.device=device ${machine:+--machine "$machine"} \
      --set data.global_batch="$n" --updates 10 --warmup 3 --json || true
  done
}

# Not by `bench step`, whose crops lie in memory: a short run of the fastest of the models, with which data have least time.
data() {
  model=${models[0]}
  for name in "${models[@]}"; do case $name in 16gf) model=$name ;; esac; done
  n=${images[$model]:-0} made=512 side=400 updates=40 makers=$((cores < 8 ? cores : 8))
  if [ "$host" -eq 1 ]; then made=64 side=96 updates=8; fi
  mkdir -p "$work/run" && ln -s "$choices_dir" "$work/run/cache"  # a run looks for engines in its own folder
  if [ "$n" -eq 0 ]; then
    skip "data, $model" "no batch fits"
  elif item "made-up photos" synth.log mpirun --oversubscribe --bind-to none -n $makers "$seer" synth -o "$work/shards" --classes 8 --images $made --size $side --seed 1; then
    item "data, $model" run.log "${on[@]}" "$seer" pretrain "$(config_of "$model")" "${settings[@]}" \
      --set parallel.device=device --set data.global_batch="$n" --set data.shards="$work/shards" --set log.every=1 \
      --set log.run_dir="$work/run" --set log.tensorboard=false --set schedule.warmup_updates=0 \
      --set schedule.total_updates=$updates --set data.reader_threads=$((cores > 2 ? cores - 2 : 1)) || true
  fi
}

comm() {
  if [ "$host" -eq 1 ]; then
    item "comm, 2 ranks" comm.json mpirun --oversubscribe --bind-to none -n 2 "$seer" bench comm --max-bytes 1048576 --seconds 0.02 --json || true
  elif [ "$devices" -lt 2 ]; then
    skip comm "one device: one rank alone sends nothing"
  else
    item "comm, $devices ranks" comm.json mpirun --bind-to none -n "$devices" "$seer" bench comm --device --seconds 0.05 \
      --json || true
  fi
}

torch() {
  if ! "$python" -c 'import torch, torchvision, sys; sys.exit(sys.argv[1] == "cuda" and not torch.cuda.is_available())' \
    "$torch_device" 2>/dev/null; then
    skip PyTorch "no torch and torchvision for $torch_device in $python; PYTHON names another"
  elif [ "$precision" != bf16 ]; then
    skip PyTorch "its worker knows bf16 only"
  else
    crop_sizes=() updates=10
    if [ "$host" -eq 1 ]; then crop_sizes=(--crop-sizes "${sizes[@]}") updates=2; fi
    worker=("$python" validation/speed_vs_pytorch.py --torch-only --threads 1 --rounds 1 --warmup 3 --precision bf16
      --torch-device $torch_device --formats channels_last)
    for model in "${models[@]}"; do
      n=${images[$model]:-0}
      if [ "$n" -eq 0 ]; then skip "torch $model" "no batch fits"; continue; fi
      item "torch $model" "torch.$model.txt" "${worker[@]}" --updates $updates --cases "$model:$n" \
        --json "$work/torch.$model.json" "${crop_sizes[@]}" || true
    done
    # Compiling takes minutes a model: last. On the host of the toy, to see that it works.
    compiled=("${models[@]}")
    [ "$host" -eq 0 ] || compiled=(tiny) updates=2
    for model in "${compiled[@]}"; do
      n=${images[$model]:-2}
      [ "$n" -eq 0 ] || item "torch $model, compiled" "torch_compiled.$model.txt" "${worker[@]}" --updates $updates \
        --cases "$model:$n" --compile blocks --json "$work/torch_compiled.$model.json" || true
    done
  fi
}

profile() {
  model=${models[0]}
  step=("${on[@]}" "$seer" bench step "$(config_of "$model")" "${settings[@]}" --set parallel.device=device --set data.global_batch="${images[$model]:-1}" --updates 4
    --warmup 2)
  if [ "$host" -eq 0 ] && command -v nsys >/dev/null; then
    if item "nsys $model" nsys.log nsys profile --trace=cuda,nvtx --sample=none --cpuctxsw=none --force-overwrite true \
      -o "$work/profile" "${step[@]}"; then
      item "kernels of $model" kernels.csv nsys stats --report cuda_gpu_kern_sum --format csv --force-export=true -q \
        "$work/profile.nsys-rep" || true
    fi
  else
    [ "$host" -eq 1 ] || skip "nsys" "not in PATH"
    if ! command -v g++ >/dev/null; then
      skip "Kokkos Tools" "no g++ for validation/kernel_times.cpp"
    elif item "kernel_times.so" kernel_times.log g++ -std=c++20 -O2 -shared -fPIC -o "$work/kernel_times.so" \
      validation/kernel_times.cpp; then
      item "Kokkos Tools $model" kernels.txt env KOKKOS_PROFILE_LIBRARY="$work/kernel_times.so" "${step[@]}" || true
    fi
  fi
  if [ "$host" -eq 0 ] && command -v ncu >/dev/null; then
    # Some kernels in the middle of an update: what of the memory's rate each reaches.
    item "ncu $model" ncu.csv ncu --csv --target-processes all --kernel-name-base demangled --launch-skip 1500 \
      --launch-count 12 -k 'regex:seer' --section SpeedOfLight --section Occupancy --section LaunchStats "${step[@]}" || true
  elif [ "$host" -eq 0 ]; then
    skip ncu "not in PATH"
  fi
}

for part in ${all//,/ }; do
  if begin "$part"; then "$part"; fi
done
report
