#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The whole program on many ranks of one machine: not for speed, but to see what only shows with many ranks before nodes are
# booked for it. For each R: the tiny network, 10 updates of one image a rank (64 images where R is less), BatchNorm groups
# of up to 64 ranks, in every mode of sharding; then a restart on R/2 ranks from the checkpoint of update 5. Prints Markdown
# (validation/results/rehearsal.md) and fails unless
# - losses agree, within 1e-3 of their value, with a run of one rank for every 64: the same statistics of BatchNorm over the
#   same 64 images, so the same computation but for the order of its sums. (A network of random weights and small
#   groups amplifies the rounding from update to update; BatchNorm over half the images differs by 1e-3 at once, then by 2e-2.)
# - the restart goes on to the same losses, within the same bound;
# - every collective was called as often, and carried as many bytes, as `seer plan` says, exactly;
# - the largest rank (resident memory at the end of an update, host_bytes) is at the largest R no more than 8 MiB above
#   that at the smallest R from 64 on.
# R divides 64 or is a multiple of it. SEER chooses the executable, OUT the folder, LIMIT the seconds a run may take,
# MODES those of sharding, in the order below.
#   validation/rehearsal.sh            # 64 ranks: a minute on two cores
#   validation/rehearsal.sh 64 128     # 128: four minutes more; 512: five minutes and 11 GiB a mode
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/environment.sh
source scripts/environment.sh
# Open MPI starts its ranks one by one: its threads that would do so at once lose some of hundreds.
export OMPI_MCA_odls_base_num_threads=0
refuse() { echo "rehearsal: $*" >&2; exit 2; }
case ${1:-} in -h | --help) sed -n '3,17s/^# \{0,1\}//p' validation/rehearsal.sh; exit 0 ;; esac
seer=${SEER:-build/host-release/seer}
out=${OUT:-runs/rehearsal}
limit=${LIMIT:-300}
sizes=("$@")
[ $# -gt 0 ] || sizes=(64)
for r in "${sizes[@]}"; do
  [[ $r =~ ^[1-9][0-9]{0,5}$ ]] && ((r >= 2 && (r < 64 ? 64 % r == 0 : r % 64 == 0))) ||
    refuse "$r ranks; wanted 2, 4, ... 32, or a multiple of 64"
done
[[ $limit =~ ^[1-9][0-9]*$ ]] || refuse "LIMIT = $limit; wanted whole seconds from 1"
command -v "$seer" >/dev/null || refuse "no executable $seer; build it, or set SEER"
read -ra modes <<<"${MODES:-none optimizer gradients parameters parameters_in_groups}"

# On more ranks than cores, within the time limit. Ranks that wait for others in MPI_Init take the cores from mpirun, which
# starts one after the other: of 512, 253 were there after seven minutes. So all of them begin when the last one is there.
ranks() {  # N COMMAND...
  local n=$1 all_there=$out/all-there
  shift
  rm -f "$all_there"
  # shellcheck disable=SC2016  # for the shell of each rank
  timeout --kill-after=10 "$limit" mpirun --bind-to none --oversubscribe --mca mpi_yield_when_idle 1 -n "$n" \
    bash -c '[ "$OMPI_COMM_WORLD_RANK" -lt $((OMPI_COMM_WORLD_SIZE - 1)) ] || : >"$0"
      until [ -e "$0" ]; do kill -0 "$PPID" || exit 1; sleep 0.5; done
      exec "$@"' "$all_there" "$@" </dev/null
}

if [ ! -e "$out/train/complete" ]; then
  rm -rf "$out/train"
  "$seer" synth -o "$out/train" --classes 4 --images 4096 --size 48 --seed 1 --split train </dev/null >&2
  touch "$out/train/complete"
fi

# Every run of one R sees the same batches. Buckets small enough for the tiny trunk to have several.
settings() {  # R: into the array `set`
  local batch=$(($1 < 64 ? 64 : $1))
  set=()
  local s
  for s in data.shards="$out/train" data.global_batch=$batch data.prefetch_batches=1 data.reader_threads=1 \
    schedule.total_updates=10 parallel.bucket_bytes=65536 checkpoint.every_updates=5 checkpoint.rehearse=false \
    log.every=1 log.tensorboard=false parallel.device=host; do
    set+=(--set "$s")
  done
}

sharding() {  # MODE R: into the array `shard`
  shard=(--set "parallel.shard=${1%_in_groups}")
  if [ "$1" = parameters_in_groups ]; then shard+=(--set "parallel.shard_group=$(($2 < 16 ? $2 / 2 : 8))"); fi
}

pretrain() {  # RANKS FOLDER ARGUMENTS...: a run, and the seconds it took with its start
  local n=$1 folder=$2 began
  shift 2
  began=$(date +%s.%N)
  ranks "$n" "$seer" pretrain inputs/tiny.toml --set log.run_dir="$folder" "${set[@]}" "$@" >"$folder.txt" 2>&1 ||
    { tail -n 30 "$folder.txt" >&2; echo "FAILED: $folder on $n ranks" >&2; exit 1; }
  python3 -c "import time; print(f'{time.time() - $began:.1f}')" >"$folder.seconds"
  echo "$folder: $n ranks, $(cat "$folder.seconds") s" >&2
}

for r in "${sizes[@]}"; do
  group=$((r < 64 ? r : 64))
  here=$out/$r
  rm -rf "$here"
  mkdir -p "$here"
  settings "$r"
  pretrain $((r < 64 ? 1 : r / 64)) "$here/reference" --set parallel.bn_group_size=1
  for mode in "${modes[@]}"; do
    sharding "$mode" "$r"
    pretrain "$r" "$here/$mode" --set parallel.bn_group_size=$group "${shard[@]}"
    "$seer" plan inputs/tiny.toml --machine inputs/machines/host_2core.toml --ranks "$r" --json "${set[@]}" \
      --set parallel.bn_group_size=$group "${shard[@]}" </dev/null >"$here/$mode.plan.json"
  done
  # From the last mode. Half the ranks with two images each: groups of half as many ranks are of the same images.
  mkdir -p "$here/restart/checkpoints"
  cp -r "$here/${modes[-1]}/checkpoints/update-00000005" "$here/restart/checkpoints/"
  sharding optimizer $((r / 2))
  pretrain $((r / 2)) "$here/restart" --set parallel.bn_group_size=$((group / 2)) "${shard[@]}"
done

python3 validation/rehearsal.py "$out" "${sizes[@]}"
